//! Two processes that want one run at the same moment.

use crate::{Result, live, text};
use serde_json::{Value, json};
use smallhands_core::{Executor, RunId, TaskSpec, async_trait};
use smallhands_core::{ExecutorCapabilities, Failure, TaskEnvelope, TaskHandle, TaskHost};
use smallhands_graph::{
    Engine, GraphError, NewRun, ResumeFailed, StateStore, StoreError, SystemClock, TaskGraph,
};
use std::{
    fmt, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

const RUN: &str = "wanted";

/// How often which of the two got it.
#[derive(Clone, Debug, Default)]
pub struct Races {
    /// Tries.
    pub tries: usize,
    /// Tries that the process that was started first won.
    pub first: usize,
    /// Tries in which not exactly one got the run and the other a typed refusal.
    pub not_one: usize,
    /// Tries after which the run could not be taken at once, though its owner was dead.
    pub not_free: usize,
    /// Tries whose epoch was not above all before it.
    pub old_epoch: usize,
    /// Each fault in words.
    pub notes: Vec<String>,
    seconds: f64,
}

impl Races {
    /// All that must be zero.
    pub fn faults(&self) -> usize {
        self.not_one + self.not_free + self.old_epoch
    }
    /// One object.
    pub fn to_json(&self) -> Value {
        json!({
            "name": "torture/lease/faults", "value": self.faults(), "unit": "faults", "better": "lower",
            "tries": self.tries, "not_one": self.not_one, "not_free": self.not_free,
            "old_epoch": self.old_epoch, "won_by_first": self.first, "seconds": self.seconds,
        })
    }
}

impl fmt::Display for Races {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tries={} not_one={} not_free={} old_epoch={} ({} won by the first of the two, {:.0} s)",
            self.tries, self.not_one, self.not_free, self.old_epoch, self.first, self.seconds
        )
    }
}

/// Tasks that nobody ever does: a run of one is held until its process dies.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Executor for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }
    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities::default()
    }
    async fn submit(
        &self,
        _: Arc<TaskEnvelope>,
        _: Arc<dyn TaskHost>,
    ) -> std::result::Result<Arc<dyn TaskHandle>, Failure> {
        std::future::pending().await
    }
}

fn engine(dir: &Path, owner: &str) -> Result<Engine> {
    let store = Arc::new(live::open(dir)?);
    Ok(Engine::new(store, Arc::new(Nowhere), Arc::new(SystemClock)).owner(owner))
}

/// One of the two: opens the journal, says so, waits for the word, takes the run, says how that
/// went, and holds what it got until it is killed or told to end.
///
/// # Errors
/// Anything but the run or a typed refusal.
pub async fn claim(dir: &Path, owner: &str) -> Result {
    let engine = engine(dir, owner)?;
    let mut word = String::new();
    println!("ready");
    std::io::stdin().read_line(&mut word).map_err(text)?;
    let handle = match engine.resume(&RUN.into(), ResumeFailed::No).await {
        Ok(handle) => {
            println!("won");
            Some(handle)
        }
        Err(GraphError::Store(StoreError::Held { epoch, .. })) => {
            println!("held {epoch}");
            None
        }
        Err(e) => return Err(e.to_string()),
    };
    std::io::stdin().read_line(&mut word).map_err(text)?;
    drop(handle);
    Ok(())
}

struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(program: &Path, dir: &Path, owner: &str) -> Result<Self> {
        let mut c = Command::new(program);
        c.args(["claim", "--owner", owner, "--dir"]).arg(dir);
        let mut child = c
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let to = child.stdin.take().ok_or("no pipe")?;
        let from = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, to, from })
    }
    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line).map_err(text)?;
        Ok(line.trim().to_owned())
    }
    fn say(&mut self) -> Result {
        self.to.write_all(b"\n").map_err(text)
    }
    /// SIGKILL, and until it is gone.
    fn kill(mut self) -> Result {
        self.child.kill().map_err(text)?;
        self.child.wait().map(drop).map_err(text)
    }
}

/// Many tries on one run in one journal.
///
/// # Errors
/// The machine does not play along; never what the engine did.
pub fn race(program: &Path, tries: usize) -> Result<Races> {
    let begin = Instant::now();
    let dir = scratch();
    fs::create_dir_all(&dir).map_err(text)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(text)?;
    runtime.block_on(prepare(&dir))?;
    let (mut r, mut last) = (Races::default(), 0);
    for n in 0..tries {
        r.tries += 1;
        one(program, &dir, n, &mut r)?;
        // The dead owner's lease is free at once, and every lease has an epoch of its own.
        match runtime.block_on(take(&dir)) {
            Ok(epoch) if epoch > last + 1 => last = epoch,
            Ok(epoch) => {
                r.old_epoch += 1;
                r.notes.push(format!("try {n}: epoch {epoch} after {last}"));
            }
            Err(e) => {
                r.not_free += 1;
                r.notes.push(format!("try {n}: {e}"));
            }
        }
    }
    r.seconds = begin.elapsed().as_secs_f64();
    if r.faults() == 0 {
        drop(fs::remove_dir_all(&dir));
    }
    Ok(r)
}

fn scratch() -> PathBuf {
    let name = format!("smallhands-lease-{}", std::process::id());
    std::env::temp_dir().join(name)
}

/// A run with a task that nobody does, left by its driver.
async fn prepare(dir: &Path) -> Result {
    let graph = TaskGraph::from_tasks([TaskSpec::new("never", "work")]).map_err(text)?;
    let engine = engine(dir, "the first")?;
    let handle = engine.start(NewRun::new(RUN, graph)).await.map_err(text)?;
    handle.stop();
    handle.wait().await.map(drop).map_err(text)
}

async fn take(dir: &Path) -> Result<u64> {
    let store = live::open(dir)?;
    let run = RunId::from(RUN);
    let lease = store.lease(&run, "the judge", Duration::ZERO).await;
    let lease = lease.map_err(text)?;
    store.release(&lease).await.map_err(text)?;
    Ok(lease.epoch)
}

fn one(program: &Path, dir: &Path, n: usize, r: &mut Races) -> Result {
    let mut both = [
        Process::start(program, dir, "a")?,
        Process::start(program, dir, "b")?,
    ];
    for p in &mut both {
        let said = p.hear()?;
        if said != "ready" {
            return Err(format!("a process said `{said}`, not that it is ready"));
        }
    }
    // Whoever is told first has a head start of microseconds: each is, in turn.
    if n % 2 == 1 {
        both.reverse();
    }
    for p in &mut both {
        p.say()?;
    }
    let said = [both[0].hear()?, both[1].hear()?];
    let [won, held] = ["won", "held"].map(|w| said.iter().filter(|s| s.starts_with(w)).count());
    if (won, held) != (1, 1) {
        r.not_one += 1;
        r.notes.push(format!("try {n}: {said:?}"));
    }
    r.first += usize::from(said[0] == "won");
    // The winner last: the other one's death must not matter.
    let [x, y] = both;
    let (winner, other) = match said[0] == "won" {
        true => (x, y),
        false => (y, x),
    };
    other.kill()?;
    winner.kill()
}
