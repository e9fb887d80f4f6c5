//! Random graphs in simulated time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod fold;
mod golden;
mod graphs;
mod model;
mod repeat;
mod runs;
mod snapshots;
