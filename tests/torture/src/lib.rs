//! The graph engine under torture: a real program whose effects go to a ledger outside of it, a
//! harness that kills that program, and a judge that trusts neither.
//!
//! - [`plan`]: a graph from a seed: layers, chains, fans, growth, retries, questions, conditions.
//! - [`live`]: one life of the program: starts the run or resumes it, and drives it to its end.
//! - [`store`]: the SQLite store with crash points around each append, or broken on purpose.
//! - [`ledger`]: what really happened, one synced line each.
//! - [`verdict`]: ledger against journal.
//! - [`harness`]: many runs, many kills, one sum.

pub mod harness;
pub mod ledger;
pub mod live;
pub mod plan;
pub mod store;
pub mod verdict;
pub mod work;

/// What can go wrong besides the engine: in words, for people.
pub type Result<T = ()> = std::result::Result<T, String>;

pub(crate) fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}
