//! Durable task graphs.
//!
//! A [`TaskGraph`] is data: tasks with needs, conditions, retries and budgets. An [`Engine`] runs
//! it on any [`Executor`](smallhands_core::Executor) and journals every decision and every step
//! through a [`StateStore`] before it counts, so that a run killed at any instant resumes with the
//! next step, and no finished task runs twice. State is a pure fold over the journal
//! ([`RunState`]), usable without I/O.
//!
//! ```
//! use smallhands_core::TaskSpec;
//! use smallhands_graph::TaskGraph;
//!
//! let graph = TaskGraph::new()
//!     .task(TaskSpec::new("fetch", "http"))
//!     .task(TaskSpec::new("parse", "json").bind("text", "fetch", "/body"))
//!     .build()?;
//! assert_eq!(graph.len(), 2);
//!
//! let cycle = TaskGraph::new()
//!     .task(TaskSpec::new("a", "w").needs("b"))
//!     .task(TaskSpec::new("b", "w").needs("a"))
//!     .build();
//! assert_eq!(cycle.unwrap_err().to_string(), "the tasks form a cycle: a -> b -> a");
//! # Ok::<(), smallhands_graph::GraphError>(())
//! ```
#![forbid(unsafe_code)]

mod check;
mod condition;
mod control;
mod draw;
mod driver;
mod edges;
mod engine;
mod error;
mod event;
mod expand;
mod fold;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod graph;
#[cfg(any(feature = "sqlite", test))]
mod group;
mod host;
mod load;
mod memory;
mod placement;
mod record;
pub mod report;
mod schema;
#[cfg(feature = "schema")]
mod shape;
mod state;
mod store;
mod time;
#[cfg(feature = "schema")]
mod typed;
mod upcast;
mod waiting;

#[cfg(feature = "blobs")]
mod blobs;
#[cfg(feature = "blobs")]
mod portable;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod weight;

#[cfg(feature = "blobs")]
pub use blobs::{DirBlobs, Swept};
pub use condition::Conditions;
pub use control::{Events, Prune};
pub use draw::{Picture, Style, dot, mermaid, terminal};
pub use engine::{Engine, NewRun, ResumeFailed, RunHandle, RunResult, Update, Updates};
pub use error::{EdgeFault, GraphError, PatchFault, TaskFault};
pub use event::Event;
pub use graph::{GraphPatch, Rewire, TaskGraph, TaskGraphBuilder};
pub use memory::{MemoryBlobs, MemoryStore};
#[cfg(feature = "blobs")]
pub use portable::Exported;
pub use record::Record;
pub use report::Report;
#[cfg(feature = "sqlite")]
pub use sqlite::{CheckReport, Finding, FindingKind, SalvageReport, Salvaged, SqliteStore};
pub use state::{Node, NodeState, Nodes, RunState, RunStatus};
pub use store::{Durability, Lease, RunHead, RunInfo, Snapshot, StateStore, StoreError, Stored};
pub use time::SystemClock;
#[cfg(feature = "schema")]
pub use typed::{TypedGraph, TypedNode};

/// For [`store_around`].
#[doc(hidden)]
pub use smallhands_core as __core;
