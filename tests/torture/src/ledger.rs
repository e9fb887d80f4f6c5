//! The outside world: an append-only file that no rollback reaches.

use crate::{Result, text};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use smallhands_core::{DispatchKey, Effect};
use smallhands_graph::GraphPatch;
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

/// Something that really happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The run.
    pub run: String,
    /// The task.
    pub task: String,
    /// Its attempt.
    pub attempt: u32,
    /// Which iteration, from 1.
    #[serde(default)]
    pub iteration: u64,
    /// Its placement.
    pub fence: u64,
    /// Which step, from 0; none: the worker began.
    pub step: Option<usize>,
    /// The step's class.
    pub effect: Effect,
}

impl Line {
    /// Of this placement.
    pub fn new(key: &DispatchKey, iteration: u64, step: Option<usize>, effect: Effect) -> Self {
        Self {
            run: key.run.to_string(),
            task: key.task.to_string(),
            attempt: key.attempt,
            iteration,
            fence: key.fence,
            step,
            effect,
        }
    }
    /// Whether it is the same step, whatever attempt made it.
    pub fn same_effect(&self, o: &Self) -> bool {
        (&self.run, &self.task, self.iteration, self.step) == (&o.run, &o.task, o.iteration, o.step)
    }
}

/// What somebody outside asked of a run, and whether it was told that it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// The run.
    pub run: String,
    /// Names it.
    pub id: String,
    /// What was asked.
    pub what: What,
    /// How far it came.
    pub came: Came,
}

/// What is asked of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Another graph.
    Patch(Box<GraphPatch>),
    /// An answer to a task's question.
    Answer(String),
    /// To start nothing more.
    Pause,
}

/// How far an act came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// It is about to be asked.
    Asked,
    /// It counts, the engine says.
    Yes,
    /// It does not, the engine says.
    No,
}

/// Appends in one write, and syncs. A kill can tear a line where a page of the file ends; one that
/// is torn did not happen.
///
/// # Errors
/// The file cannot be written.
pub fn append(dir: &Path, line: &Line) -> Result {
    write(&dir.join("ledger"), line)
}

/// As [`append`], for what was asked from outside.
///
/// # Errors
/// The file cannot be written.
pub fn note(dir: &Path, act: &Act) -> Result {
    write(&dir.join("acts"), act)
}

fn write(path: &Path, line: &impl Serialize) -> Result {
    // What was torn before this line must not swallow it.
    let mut bytes = vec![b'\n'];
    serde_json::to_writer(&mut bytes, line).map_err(text)?;
    bytes.push(b'\n');
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(text)?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_data())
        .map_err(text)
}

/// All lines, in the order in which they happened; of a run that did nothing: none.
///
/// # Errors
/// A line that is not one.
pub fn read(dir: &Path) -> Result<Vec<Line>> {
    lines(&dir.join("ledger"))
}

/// All that was asked from outside.
///
/// # Errors
/// A line that is not one.
pub fn acts(dir: &Path) -> Result<Vec<Act>> {
    lines(&dir.join("acts"))
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let all = fs::read_to_string(path).map_err(text)?;
    let whole = |l: &str| match serde_json::from_str(l) {
        Ok(line) => Some(Ok(line)),
        Err(e) if e.is_eof() => None,
        Err(e) => Some(Err(format!("the ledger has `{l}`: {e}"))),
    };
    all.lines().filter_map(whole).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_did_not_happen_and_swallows_none() {
        let dir = std::env::temp_dir().join(format!("torn-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let act = |id: &str| Act {
            run: "r".into(),
            id: id.into(),
            what: What::Pause,
            came: Came::Asked,
        };
        note(&dir, &act("a")).unwrap();
        let mut bytes = fs::read(dir.join("acts")).unwrap();
        bytes.truncate(bytes.len() - 9);
        fs::write(dir.join("acts"), bytes).unwrap();
        note(&dir, &act("b")).unwrap();
        assert_eq!(acts(&dir).unwrap(), [act("b")]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
