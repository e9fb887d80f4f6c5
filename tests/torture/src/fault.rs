//! Where a life dies by itself, and how its store is broken.

use smallhands_core::{
    BlobRef, BlobStore, DispatchKey, Executor, ExecutorCapabilities, Failure, Reattached,
    TaskEnvelope, TaskHandle, TaskHost, async_trait,
};
use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// Where the process dies by itself, counted in this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before the n-th append reaches the store.
    Before(u64),
    /// While the store's own thread may or may not have committed it.
    During(u64),
    /// While the store's own thread is in the transaction of it, some records written.
    Within(u64),
    /// Once it is durable, before the driver is told.
    After(u64),
    /// Once the n-th blob is durable, before anything names it.
    Blob(u64),
    /// Once the n-th placement is durable and its driver was told, before it is placed.
    Placing(u64),
    /// Once so many tasks have finished durably.
    Finished(u64),
}

impl Point {
    /// Each kind that strikes around an append.
    pub const AT_COMMITS: [fn(u64) -> Self; 4] =
        [Self::After, Self::Before, Self::Within, Self::During];

    /// The append around which it strikes.
    pub fn commit(self) -> Option<u64> {
        match self {
            Self::Before(n) | Self::During(n) | Self::Within(n) | Self::After(n) => Some(n),
            Self::Blob(_) | Self::Placing(_) | Self::Finished(_) => None,
        }
    }

    fn parts(self) -> (&'static str, u64) {
        match self {
            Self::Before(n) => ("before", n),
            Self::During(n) => ("during", n),
            Self::Within(n) => ("within", n),
            Self::After(n) => ("after", n),
            Self::Blob(n) => ("blob", n),
            Self::Placing(n) => ("placing", n),
            Self::Finished(n) => ("finished", n),
        }
    }
    /// The kind alone.
    pub fn kind(self) -> &'static str {
        self.parts().0
    }
}

/// How the store is broken on purpose, so that the judge can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Says yes at once and writes three appends later: what async checkpoints do.
    AcksEarly,
    /// Says yes to the n-th append of each life and drops it.
    Forgets(u64),
}

fn word_and_number(s: &str) -> (&str, Option<u64>) {
    let (word, n) = s.split_once(':').unwrap_or((s, ""));
    (word, n.parse().ok())
}

impl FromStr for Point {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let all: [fn(u64) -> Self; 7] = [
            Self::Before,
            Self::During,
            Self::Within,
            Self::After,
            Self::Blob,
            Self::Placing,
            Self::Finished,
        ];
        let (word, n) = word_and_number(s);
        let found = all.iter().map(|p| p(n.unwrap_or(0)));
        let found = found.into_iter().find(|p| p.kind() == word && n.is_some());
        found.ok_or_else(|| format!("`{s}` is not a point where a life can end, with :N"))
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, n) = self.parts();
        write!(f, "{word}:{n}")
    }
}

impl FromStr for Broken {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match word_and_number(s) {
            ("acks-early", _) => Ok(Self::AcksEarly),
            ("forgets", Some(n)) => Ok(Self::Forgets(n)),
            _ => Err(format!("`{s}` is not acks-early or forgets:N")),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcksEarly => f.write_str("acks-early"),
            Self::Forgets(n) => write!(f, "forgets:{n}"),
        }
    }
}

/// As `kill -9` from within: no destructor runs, nothing is flushed.
pub(crate) fn die() -> ! {
    std::process::abort()
}

fn is_nth(count: &AtomicU64, wanted: Option<u64>) -> bool {
    let n = count.fetch_add(1, SeqCst) + 1;
    wanted == Some(n)
}

/// Blobs, of which one is the last.
#[derive(Debug)]
pub(crate) struct Blobs {
    inner: Arc<dyn BlobStore>,
    last: Option<u64>,
    puts: AtomicU64,
}

impl Blobs {
    /// How many were put in this life.
    pub(crate) fn count(&self) -> u64 {
        self.puts.load(SeqCst)
    }
    pub(crate) fn new(inner: Arc<dyn BlobStore>, point: Option<Point>) -> Self {
        let last = match point {
            Some(Point::Blob(n)) => Some(n),
            _ => None,
        };
        Self {
            inner,
            last,
            puts: 0.into(),
        }
    }
}

#[async_trait]
impl BlobStore for Blobs {
    async fn put(&self, bytes: Vec<u8>) -> Result<BlobRef, Failure> {
        let put = self.inner.put(bytes).await;
        if is_nth(&self.puts, self.last) {
            die();
        }
        put
    }
    async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure> {
        self.inner.get(blob).await
    }
}

/// An executor that is given one task too many.
#[derive(Debug)]
pub(crate) struct Places {
    inner: Arc<dyn Executor>,
    last: Option<u64>,
    placed: AtomicU64,
}

impl Places {
    /// How many in this life.
    pub(crate) fn count(&self) -> u64 {
        self.placed.load(SeqCst)
    }
    pub(crate) fn new(inner: Arc<dyn Executor>, point: Option<Point>) -> Self {
        let last = match point {
            Some(Point::Placing(n)) => Some(n),
            _ => None,
        };
        Self {
            inner,
            last,
            placed: 0.into(),
        }
    }
}

#[async_trait]
impl Executor for Places {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn capabilities(&self) -> ExecutorCapabilities {
        self.inner.capabilities()
    }
    async fn submit(
        &self,
        task: Arc<TaskEnvelope>,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure> {
        if is_nth(&self.placed, self.last) {
            die();
        }
        self.inner.submit(task, host).await
    }
    async fn reattach(
        &self,
        key: &DispatchKey,
        host: Arc<dyn TaskHost>,
    ) -> Result<Reattached, Failure> {
        self.inner.reattach(key, host).await
    }
}
