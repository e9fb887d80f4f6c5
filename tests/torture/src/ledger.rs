//! The outside world: an append-only file that no rollback reaches.

use crate::{Result, text};
use serde::{Deserialize, Serialize};
use smallhands_core::{DispatchKey, Effect};
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
    /// Its placement.
    pub fence: u64,
    /// Which step, from 0; none: the worker began.
    pub step: Option<usize>,
    /// The step's class.
    pub effect: Effect,
}

impl Line {
    /// Of this placement.
    pub fn new(key: &DispatchKey, step: Option<usize>, effect: Effect) -> Self {
        Self {
            run: key.run.to_string(),
            task: key.task.to_string(),
            attempt: key.attempt,
            fence: key.fence,
            step,
            effect,
        }
    }
}

/// Appends in one write, and syncs: a line is there as a whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn append(dir: &Path, line: &Line) -> Result {
    let mut bytes = serde_json::to_vec(line).map_err(text)?;
    bytes.push(b'\n');
    let path = dir.join("ledger");
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
    let path = dir.join("ledger");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let all = fs::read_to_string(path).map_err(text)?;
    all.lines()
        .map(|l| serde_json::from_str(l).map_err(|e| format!("the ledger has `{l}`: {e}")))
        .collect()
}
