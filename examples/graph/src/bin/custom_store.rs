//! A store of one's own: every change is a line of JSON in one file that people can read. It keeps
//! all that the engine asks of a [`StateStore`], which the conformance kit proves:
//! `cargo test -p graph-examples --bin custom_store`.
//!
//! `cargo run -p graph-examples --bin custom_store`

use graph_examples::engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use smallhands_core::{
    AskId, BlobStore, Question, RunId, TaskContext, TaskSpec, Worker, async_trait, worker,
};
use smallhands_graph::{
    DirBlobs, Durability, Lease, MemoryStore, NewRun, Record, ResumeFailed, RunHead, RunInfo,
    RunStatus, StateStore, StoreError, Stored, SystemClock, TaskGraph,
};
use std::{
    error::Error,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::sync::RwLock;

/// Runs in memory, and every change of them in a file. For one process at a time, and for runs that
/// fit into memory: what is read comes from there.
#[derive(Debug)]
struct JsonLines {
    memory: MemoryStore,
    blobs: Arc<dyn BlobStore>,
    /// Held to read while memory is read, to write from a change until it is durable: nobody sees
    /// what is not yet durable.
    log: RwLock<Log>,
}

#[derive(Debug)]
struct Log {
    file: File,
    /// A line may have been written by half; memory and file then differ, and nothing counts.
    broken: bool,
}

/// One change, as a line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Only so that epochs never go back.
    Lease {
        run: RunId,
    },
    Append {
        run: RunId,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
    },
    Fork {
        from: RunId,
        at: u64,
        to: RunId,
        head: RunHead,
    },
    Delete {
        run: RunId,
    },
}

fn failed(e: &io::Error) -> StoreError {
    match e.kind() {
        io::ErrorKind::StorageFull => StoreError::DiskFull(e.to_string()),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StoreError::ReadOnly(e.to_string())
        }
        _ => StoreError::Io(e.to_string()),
    }
}

impl Log {
    fn usable(&self) -> Result<(), StoreError> {
        match self.broken {
            false => Ok(()),
            true => Err(StoreError::Io(
                "an earlier write failed; open it again".into(),
            )),
        }
    }

    /// Adds a line; durable when it returns. Blocks for as long as the disk does, which in a store
    /// for many runs would be a thread's work.
    fn write(&mut self, line: &Line, level: Durability) -> Result<(), StoreError> {
        let text = serde_json::to_string(line).map_err(|e| StoreError::Io(e.to_string()))?;
        // Between the tokens of a record there may be newlines; within a token there is none.
        let text = text.replace('\n', " ") + "\n";
        self.broken = true;
        self.file
            .write_all(text.as_bytes())
            .map_err(|e| failed(&e))?;
        // What a process has written survives its death; a loss of power asks for more.
        if level == Durability::PowerLoss {
            self.file.sync_data().map_err(|e| failed(&e))?;
        }
        self.broken = false;
        Ok(())
    }
}

impl JsonLines {
    /// Opens or creates `journal.jsonl` in a directory and reads all of it.
    async fn open(dir: &Path) -> Result<Self, StoreError> {
        let blobs = DirBlobs::open(dir.join("blobs")).map_err(|e| StoreError::Io(e.to_string()))?;
        let path = dir.join("journal.jsonl");
        let mut options = File::options();
        let file = options.create(true).read(true).append(true).open(path);
        let mut file = file.map_err(|e| failed(&e))?;
        // Freed by the system when this process dies, however it dies.
        file.try_lock()
            .map_err(|e| StoreError::Io(format!("another process has it open: {e}")))?;
        let (mut text, memory) = (Vec::new(), MemoryStore::new(Arc::new(SystemClock)));
        file.read_to_end(&mut text).map_err(|e| failed(&e))?;
        // A last line without its end was never acknowledged.
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        file.set_len(whole as u64).map_err(|e| failed(&e))?;
        file.seek(io::SeekFrom::End(0)).map_err(|e| failed(&e))?;
        let lines = text[..whole].split(|b| *b == b'\n');
        for (line, n) in lines.filter(|l| !l.is_empty()).zip(1..) {
            let damaged = |why: String| StoreError::Damaged(format!("line {n}: {why}"));
            let line = serde_json::from_slice(line).map_err(|e| damaged(e.to_string()))?;
            replay(&memory, line)
                .await
                .map_err(|e| damaged(e.to_string()))?;
        }
        Ok(Self {
            memory,
            blobs: Arc::new(blobs),
            log: RwLock::new(Log {
                file,
                broken: false,
            }),
        })
    }
}

/// Does a change again, in memory alone.
async fn replay(memory: &MemoryStore, line: Line) -> Result<(), StoreError> {
    let lease = async |run| memory.lease(run, "replay", Duration::ZERO).await;
    match line {
        Line::Lease { run } => memory.release(&lease(&run).await?).await,
        Line::Append {
            run,
            after,
            records,
            head,
        } => {
            let (lease, level) = (lease(&run).await?, Durability::ProcessCrash);
            memory.append(&lease, after, records, head, level).await?;
            memory.release(&lease).await
        }
        Line::Fork { from, at, to, head } => memory.fork(&from, at, &to, head).await,
        Line::Delete { run } => memory.delete(&lease(&run).await?).await,
    }
}

#[async_trait]
impl StateStore for JsonLines {
    fn name(&self) -> &'static str {
        "json-lines"
    }
    async fn lease(&self, run: &RunId, owner: &str, ttl: Duration) -> Result<Lease, StoreError> {
        let mut log = self.log.write().await;
        log.usable()?;
        let lease = self.memory.lease(run, owner, ttl).await?;
        log.write(&Line::Lease { run: run.clone() }, Durability::ProcessCrash)?;
        Ok(lease)
    }
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        self.memory.renew(lease, ttl).await
    }
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.memory.release(lease).await
    }
    async fn append(
        &self,
        lease: &Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        level: Durability,
    ) -> Result<u64, StoreError> {
        let mut log = self.log.write().await;
        log.usable()?;
        let line = Line::Append {
            run: lease.run.clone(),
            after,
            records: records.clone(),
            head: head.clone(),
        };
        // Memory says whether it may be; refused, it leaves no line.
        let last = self
            .memory
            .append(lease, after, records, head, level)
            .await?;
        log.write(&line, level)?;
        Ok(last)
    }
    async fn read(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let log = self.log.read().await;
        log.usable()?;
        self.memory.read(run, after, limit).await
    }
    async fn runs(&self, from: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>, StoreError> {
        let log = self.log.read().await;
        log.usable()?;
        self.memory.runs(from, limit).await
    }
    async fn changed(&self, run: &RunId, after: u64, patience: Duration) -> Result<(), StoreError> {
        // May return before the change is durable; whoever then reads waits for that.
        self.memory.changed(run, after, patience).await
    }
    async fn fork(
        &self,
        from: &RunId,
        at: u64,
        to: &RunId,
        head: RunHead,
    ) -> Result<(), StoreError> {
        let mut log = self.log.write().await;
        log.usable()?;
        self.memory.fork(from, at, to, head.clone()).await?;
        let (from, to) = (from.clone(), to.clone());
        log.write(&Line::Fork { from, at, to, head }, Durability::PowerLoss)
    }
    async fn delete(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut log = self.log.write().await;
        log.usable()?;
        self.memory.delete(lease).await?;
        let run = lease.run.clone();
        log.write(&Line::Delete { run }, Durability::PowerLoss)
    }
    fn blobs(&self) -> Arc<dyn BlobStore> {
        self.blobs.clone()
    }
}

fn workers() -> [Arc<dyn Worker>; 2] {
    let double = worker("double", |n: u64, _| async move { Ok(2 * n) });
    let ask = worker("ask", |n: u64, cx: TaskContext| async move {
        let question = Question::new(format!("What is to be added to {n}?"));
        let more = cx.ask("more", question).await?;
        Ok(n + more.as_u64().unwrap_or(0))
    });
    [double, ask]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (path, run) = (dir.path().join("journal.jsonl"), RunId::from("sum"));
    let graph = TaskGraph::new()
        .task(TaskSpec::new("double", "double").input(20))
        .task(TaskSpec::new("add", "ask").bind("", "double", ""))
        .build()?;
    {
        let store = Arc::new(JsonLines::open(dir.path()).await?);
        let engine = engine(store, workers());
        let rests = engine
            .start(NewRun::new("sum", graph))
            .await?
            .wait()
            .await?;
        println!("first life   {}", rests.status);
        assert_eq!(rests.status, RunStatus::Waiting);
    }
    let lines = |text: &str| text.lines().count();
    let text = fs::read_to_string(&path)?;
    println!("the file     {} lines, {} bytes", lines(&text), text.len());
    // A process that dies while it writes leaves half a line.
    let torn = r#"{"append":{"run":"sum","aft"#;
    File::options()
        .append(true)
        .open(&path)?
        .write_all(torn.as_bytes())?;

    let store = Arc::new(JsonLines::open(dir.path()).await?);
    assert_eq!(fs::read_to_string(&path)?, text, "half a line is cut off");
    println!("opened       half a line at its end is cut off");
    let engine = engine(store, workers());
    let (task, ask) = ("add".into(), AskId::from("more"));
    engine.answer(&run, &task, &ask, json!(2)).await?;
    let done = engine.resume(&run, ResumeFailed::No).await?.wait().await?;
    let sum = done.state.value("add");
    println!(
        "second life  {}, the sum is {}",
        done.status,
        sum.unwrap_or(&Value::Null)
    );
    println!("the file     {} lines", lines(&fs::read_to_string(&path)?));
    assert_eq!(sum, Some(&json!(42)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    fn block_on<T>(f: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(f)
    }

    /// Each check is a promise of the port, and names it.
    #[test]
    fn keeps_what_every_store_promises() {
        let (dir, n) = (tempfile::tempdir().unwrap(), AtomicUsize::new(0));
        let root = dir.path().to_owned();
        let make = move || -> Arc<dyn StateStore> {
            let dir = root.join(n.fetch_add(1, Ordering::Relaxed).to_string());
            fs::create_dir(&dir).unwrap();
            // The kit asks for stores from within its own runtimes.
            let open = std::thread::spawn(move || block_on(JsonLines::open(&dir)));
            Arc::new(open.join().unwrap().unwrap())
        };
        let broken = Mutex::new(Vec::new());
        for check in smallhands_testkit::journal(make) {
            let name = check.name;
            if let Err(e) = check.run() {
                broken.lock().unwrap().push(format!("{name}: {e}"));
            }
        }
        assert_eq!(broken.into_inner().unwrap(), Vec::<String>::new());
    }

    /// What the kit cannot know of: this store's own file.
    #[test]
    fn opened_again_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let (run, fork) = (RunId::from("r"), RunId::from("f"));
            let store = JsonLines::open(dir.path()).await.unwrap();
            assert!(
                JsonLines::open(dir.path()).await.is_err(),
                "one process at a time"
            );
            let lease = store
                .lease(&run, "ann", Duration::from_secs(9))
                .await
                .unwrap();
            let at = smallhands_core::Timestamp(7);
            let records = ["{\n\"n\": 1}", r#""a\nb""#].map(|body| Record::new("kit", 1, at, body));
            let level = Durability::PowerLoss;
            let head = Some(RunHead::default());
            store
                .append(&lease, 0, records.into(), head, level)
                .await
                .unwrap();
            store
                .fork(&run, 1, &fork, RunHead::default())
                .await
                .unwrap();
            let runs = store.runs(None, 9).await.unwrap();
            drop(store);

            let store = JsonLines::open(dir.path()).await.unwrap();
            assert_eq!(store.runs(None, 9).await.unwrap(), runs);
            let read = store.read(&run, 0, 9).await.unwrap();
            let bodies: Vec<_> = read.iter().map(|s| s.record.body()).collect();
            assert_eq!(bodies, ["{ \"n\": 1}", r#""a\nb""#]);
            let next = store
                .lease(&run, "bob", Duration::from_secs(9))
                .await
                .unwrap();
            assert!(next.epoch > lease.epoch, "epochs go on");
        });
    }
}
