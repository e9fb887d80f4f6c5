//! What makes a graph, and what does not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod edges;
mod faults;
mod run;
mod sound;
mod text;
mod typed;
