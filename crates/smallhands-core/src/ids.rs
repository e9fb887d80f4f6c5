use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    sync::Arc,
};

macro_rules! names { ($($(#[$m:meta])* $n:ident)*) => { $(
    $(#[$m])*
    #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct $n(Arc<str>);
    impl $n {
        /// The name as text.
        pub fn as_str(&self) -> &str { &self.0 }
    }
    impl<T: AsRef<str>> From<T> for $n { fn from(s: T) -> Self { Self(s.as_ref().into()) } }
    impl From<$n> for String { fn from(n: $n) -> Self { n.0.as_ref().into() } }
    impl fmt::Display for $n {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
    }
    impl Serialize for $n {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(&self.0) }
    }
    impl<'de> Deserialize<'de> for $n {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> { d.deserialize_str(Name(PhantomData)) }
    }
)* } }

/// Reads a name without a `String` on the way: a journal has several in each record.
struct Name<N>(PhantomData<N>);

impl<N: for<'a> From<&'a str>> de::Visitor<'_> for Name<N> {
    type Value = N;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: de::Error>(self, s: &str) -> Result<N, E> {
        Ok(s.into())
    }
}

names! {
    /// One run of a graph.
    RunId
    /// A task of a run; chosen by the author of the graph, unique in the run.
    TaskId
    /// A step of an attempt; chosen by the worker, unique in the attempt. Never a counter over
    /// calls, because a resumed attempt must find its steps by name.
    StepKey
    /// A question that a task asks; unique in the task.
    AskId
    /// The name under which a worker is found in every process.
    WorkerName
    /// The name of a secret; its value never travels.
    SecretName
}

/// Which placement of which attempt speaks.
///
/// The *attempt* is what the retry policy counts and what owns recorded steps. The *fence* is one
/// placement of it on one process: the sequence number of its `Dispatched` record in the journal.
/// Resuming after a crash keeps the attempt and raises the fence, so a late result is recognised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DispatchKey {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// Counted from 1.
    pub attempt: u32,
    /// Monotone over the placements of a run.
    pub fence: u64,
}

impl Hash for DispatchKey {
    /// Of the fence alone, which tells the placements of a run apart.
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.fence.hash(h);
    }
}

impl fmt::Display for DispatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} attempt {} fence {}",
            self.run, self.task, self.attempt, self.fence
        )
    }
}

/// Milliseconds since the Unix epoch. For people and journaled deadlines, never for leases.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);
