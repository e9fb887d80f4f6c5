//! Runs for machines and as files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod file;
#[path = "../it/kit.rs"]
mod kit;
mod report;
