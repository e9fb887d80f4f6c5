//! A run in simulated time: the same seed gives the same records, byte for byte.
//!
//! ```
//! use smallhands_core::{Clock, TaskSpec};
//! use smallhands_graph::{Engine, MemoryStore, NewRun, RunStatus, TaskGraph};
//! use smallhands_testkit::{SimClock, SimExecutor};
//! use std::sync::Arc;
//!
//! let clock = SimClock::default();
//! let runtime = clock.runtime()?;
//! let status = runtime.block_on(async {
//!     let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
//!     let executor = Arc::new(SimExecutor::new(clock.clone(), 7));
//!     let engine = Engine::new(store, executor, Arc::new(clock.clone()));
//!     let graph = TaskGraph::new().task(TaskSpec::new("a", "any")).build()?;
//!     engine.start(NewRun::new("r", graph)).await?.wait().await
//! });
//! assert!(status.is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod executor;
mod rng;

pub use clock::SimClock;
pub use executor::{SimAct, SimEnd, SimExecutor};
pub use rng::SimRng;
