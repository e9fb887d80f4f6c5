//! Agents that turn a goal into a tested change.
//!
//! [`Planner`] is a worker whose output grows the graph. The *repair* recipe is a graph of small
//! workers: reproduce the failure, locate the code, let a model propose candidates, validate each
//! in its own fork of the sandbox, keep what the tests prefer, go on from there, and finish with a
//! commit. A result counts only if the tests say so.
#![forbid(unsafe_code)]

mod candidate;
mod code;
mod failures;
mod finish;
mod locate;
mod parts;
mod place;
mod planner;
mod prompt;
mod propose;
mod recipe;
mod reproduce;
mod spec;
mod turn;
mod validate;

pub use candidate::{Candidate, Edit, apply};
pub use finish::{Delivered, Delivery, Finished};
pub use locate::{IndexFiles, Located, Memory};
pub use parts::RepairParts;
pub use place::Place;
pub use planner::{PlanMode, Planner};
pub use propose::Proposed;
pub use recipe::{Round, start};
pub use reproduce::Reproduced;
pub use spec::{RepairSpec, Workers};
pub use turn::{Draw, Turn};
pub use validate::Validated;
