//! The graph engine under torture: a real program whose effects go to a ledger outside of it, a
//! harness that kills that program, and a judge that trusts neither.
//!
//! - [`plan`]: a graph from a seed: layers of tasks of every kind, or each feature once.
//! - [`live`]: one life of the program: starts the run or resumes it, and drives it to its end,
//!   while somebody outside answers, patches and pauses it.
//! - [`fault`]: where a life dies by itself; [`store`]: the SQLite store with such points, or broken
//!   on purpose.
//! - [`ledger`]: what really happened and what was asked from outside, one synced line each.
//! - [`verdict`]: ledger against journal.
//! - [`harness`]: one run, its kills and its forks; [`many`]: many of them, one sum.
//! - [`lease`]: two processes that want one run.

pub mod fault;
pub mod harness;
pub mod lease;
pub mod ledger;
pub mod live;
mod maker;
pub mod many;
mod outside;
pub mod plan;
pub mod store;
pub mod stuck;
pub mod verdict;
pub mod work;

/// What can go wrong besides the engine: in words, for people.
pub type Result<T = ()> = std::result::Result<T, String>;

pub(crate) fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}
