//! The engine on both stores, with real workers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod again;
mod graphs;
mod journal;
mod kit;
mod runs;
