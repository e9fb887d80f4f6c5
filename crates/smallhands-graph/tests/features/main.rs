//! What the engine can do, through its public face, on both stores.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ask;
mod failing;
mod flow;
mod forks;
mod kit;
mod life;
mod limits;
mod patch;
mod snapshots;
