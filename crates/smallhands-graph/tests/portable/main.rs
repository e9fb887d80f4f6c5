//! Runs for machines and as files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod file;
#[allow(dead_code, reason = "shared with the tests of the engine")]
#[path = "../it/kit.rs"]
mod kit;
mod report;
