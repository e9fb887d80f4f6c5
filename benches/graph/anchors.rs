use crate::{
    bed::{Bed, Result, Work, sqlite},
    floor,
};
use serde_json::{Value, json};
use smallhands_benchmarks::{Record, median};
use smallhands_core::{TaskSpec, worker};
use smallhands_graph::Durability;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Throughput beside LangGraph's, both safe from power loss; the aim is ten times that.
pub(crate) fn layered(bed: &Bed) -> Result<Record> {
    const LAYERS: usize = 40;
    const WIDTH: usize = 50;
    let mut langgraph = LangGraph::start(bed)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bed.rounds {
        let store = sqlite(&bed.fresh("store")?)?;
        let mut work = Work::layered(LAYERS, WIDTH);
        work.durability = Durability::PowerLoss;
        let tasks = work.tasks.len() as f64;
        ours.push(tasks / bed.drive(&store, work)?.as_secs_f64());
        let dir = bed.fresh("langgraph")?;
        theirs.push(langgraph.run(&dir, LAYERS, WIDTH, false)?.rate);
    }
    let anchor = format!("{}; the aim is 10 times that", langgraph.name());
    let name = "graph/layered_2000_langgraph";
    let rate = median(&theirs).unwrap_or(0.0);
    Ok(Record::new(name, "nodes/s", &ours, &anchor, rate).higher())
}

/// The file that a chain leaves behind whose tasks hand on a number.
pub(crate) fn chain(bed: &Bed) -> Result<Record> {
    let length = 1000 / bed.shrink;
    let dir = bed.fresh("chain")?;
    let store = sqlite(&dir)?;
    bed.drive(&store, counting(length))?;
    let size = floor::journal_mb(&dir)?;
    let mut langgraph = LangGraph::start(bed)?;
    let theirs = langgraph.run(&bed.fresh("langgraph")?, length, 1, true)?;
    let name = "graph/chain_1000_db_mb_langgraph";
    let anchor = langgraph.name();
    Ok(Record::new(name, "MB", &[size], &anchor, theirs.db_mb))
}

fn counting(length: usize) -> Work {
    let task = |i: usize| match i {
        0 => TaskSpec::new("t/0", "count").input(json!({ "n": 0 })),
        _ => TaskSpec::new(format!("t/{i}"), "count").bind("n", format!("t/{}", i - 1), ""),
    };
    let mut work = Work::new((0..length).map(task).collect(), 1);
    work.worker = worker("count", |input: BTreeMap<String, u64>, _| async move {
        Ok(input["n"] + 1)
    });
    work
}

/// LangGraph in a process of its own, which ends with this.
struct LangGraph {
    child: Child,
    /// Nothing once it is to end.
    asks: Option<ChildStdin>,
    tells: BufReader<ChildStdout>,
    version: String,
}

struct Told {
    rate: f64,
    db_mb: f64,
}

impl LangGraph {
    /// Warm: what only a first run costs is not LangGraph's speed.
    fn start(bed: &Bed) -> Result<Self> {
        let python = bed.langgraph.as_ref().ok_or("no Python with LangGraph")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("langgraph_anchor.py");
        // -I: nothing of the user's environment.
        let mut child = Command::new(python)
            .arg("-I")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", python.display()))?;
        let asks = child.stdin.take();
        let tells = child.stdout.take().ok_or("LangGraph has no output")?;
        let mut started = Self {
            child,
            asks,
            tells: BufReader::new(tells),
            version: String::new(),
        };
        started.run(&bed.fresh("langgraph")?, 3, 3, false)?;
        Ok(started)
    }

    fn run(&mut self, dir: &Path, layers: usize, width: usize, count: bool) -> Result<Told> {
        let asked = json!({ "dir": dir, "layers": layers, "width": width, "count": count });
        let mut asks = self.asks.as_ref().ok_or("LangGraph has no input")?;
        let mut line = String::new();
        // It says why itself, on our standard error.
        let ended = |e| format!("LangGraph's process ended: {e}");
        writeln!(asks, "{asked}").map_err(ended)?;
        self.tells.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).map_err(|e| ended(e.into()))?;
        self.version = told["version"].as_str().unwrap_or_default().into();
        let number = |key: &str| told[key].as_f64().ok_or("LangGraph told no figure");
        Ok(Told {
            rate: number("nodes_per_s")?,
            db_mb: number("db_mb")?,
        })
    }

    fn name(&self) -> String {
        let version = &self.version;
        format!("LangGraph {version}, SQLite saver, sync, WAL and FULL")
    }
}

impl Drop for LangGraph {
    fn drop(&mut self) {
        self.asks = None;
        self.child.wait().ok();
    }
}
