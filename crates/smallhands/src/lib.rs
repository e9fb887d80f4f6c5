//! A multi-agent runtime as a library: durable task graphs on any executor, workers in sandboxes
//! on clean copies, models behind one trait, code memory, typed tools.
//!
//! Each layer is a crate of its own and a feature of this one: [`core`], [`graph`], [`exec`],
//! [`sandbox`], [`llm`], [`memory`], [`obs`], [`tools`], [`agents`]. This crate only puts them
//! together: [`SmallHands`] takes each as a trait object, [`standard`] makes them from a
//! configuration, the same in every process.
//!
//! A program whose tasks or sandboxes run in processes of their own begins its `main` with
//! [`init`].
#![forbid(unsafe_code)]

pub use smallhands_core as core;

#[cfg(feature = "agents")]
pub use smallhands_agents as agents;
#[cfg(feature = "exec")]
pub use smallhands_exec as exec;
#[cfg(feature = "graph")]
pub use smallhands_graph as graph;
#[cfg(feature = "llm")]
pub use smallhands_llm as llm;
#[cfg(feature = "memory")]
pub use smallhands_memory as memory;
#[cfg(feature = "obs")]
pub use smallhands_obs as obs;
#[cfg(feature = "sandbox")]
pub use smallhands_sandbox as sandbox;
#[cfg(feature = "tools")]
pub use smallhands_tools as tools;

#[cfg(feature = "agents")]
mod builder;
#[cfg(feature = "agents")]
pub use builder::{Builder, Sink, SmallHands};

#[cfg(all(feature = "agents", feature = "native-sandbox", target_os = "linux"))]
pub mod standard;

/// The hook that comes first in `main`, before threads and argument parsing.
///
/// In a worker process or a sandbox's helper it does that work and never returns. Elsewhere it
/// returns at once, and allows this program to be started again as either. Without it, a process
/// pool and the native sandbox refuse with a typed error; `main` is never run a second time.
///
/// `worker` makes what a worker process is made of, from the blob store of its engine.
///
/// # In tests
///
/// The `main` of a test binary is the harness's. A constructor comes before it, by the crate
/// [ctor](https://docs.rs/ctor), once in each test binary whose tests need the hook (with glibc or
/// on macOS: elsewhere a constructor does not see the program's arguments):
///
/// ```ignore
/// #[ctor::ctor(unsafe)]
/// fn before_main() {
///     smallhands::init(worker_parts);
/// }
///
/// #[tokio::test]
/// async fn a_pool_works() { /* .. */ }
/// ```
#[cfg(feature = "exec")]
pub fn init(
    worker: impl FnOnce(std::sync::Arc<dyn core::BlobStore>) -> Result<exec::WorkerParts, core::Failure>,
) {
    #[cfg(all(feature = "native-sandbox", target_os = "linux"))]
    sandbox::linux::init();
    exec::init(worker);
}
