//! Pictures of runs and graphs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod any;
mod kit;
mod large;
mod small;
