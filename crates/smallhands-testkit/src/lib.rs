//! Conformance kits for the ports of SmallHands.
//!
//! A kit is a list of [`Check`]s, each named after the promise that it tests (the `# Behavior`
//! bullets of the port). Run them with any test harness; with `libtest-mimic` each is a test of its
//! own. [`executor`] needs [`kit_workers`] to be what the executor runs.
#![forbid(unsafe_code)]

mod executor;
mod host;
mod journal;
mod sandbox;
mod sim;
mod workers;

pub use executor::executor;
pub use host::RecordingHost;
pub use journal::{journal, journal_expiry};
pub use sandbox::{SandboxBed, sandbox, sandbox_files};
pub use sim::{SimAct, SimClock, SimEnd, SimExecutor, SimRng};
pub use workers::{KitSource, kit_workers};

use smallhands_core::{Ambient, BlobStore, BoxFuture, NoGuard, NoSecrets};
use smallhands_graph::SystemClock;
use std::{fmt, sync::Arc, time::Duration};

/// One promise, tested.
pub struct Check {
    /// Which.
    pub name: &'static str,
    run: Box<dyn FnOnce() -> BoxFuture<'static, Result<(), String>> + Send>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.name)
    }
}

impl Check {
    fn new<F, Fut>(name: &'static str, f: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self {
            name,
            run: Box::new(move || Box::pin(f())),
        }
    }

    /// Runs it, on a runtime of its own; a promise that is not kept within a minute is broken.
    ///
    /// # Errors
    /// What was promised and what was seen.
    pub fn run(self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let done = runtime.block_on(async {
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, (self.run)()).await
        });
        runtime.shutdown_background();
        done.unwrap_or_else(|_| Err("it took longer than a minute".into()))
    }
}

/// An ambient with the computer's clock and nothing else.
pub fn ambient(blobs: Arc<dyn BlobStore>) -> Ambient {
    Ambient {
        clock: Arc::new(SystemClock),
        blobs,
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    }
}

/// An error that says what was seen in place of what.
fn expect<T: PartialEq + fmt::Debug>(what: &str, seen: &T, promised: &T) -> Result<(), String> {
    match seen == promised {
        true => Ok(()),
        false => Err(format!("{what}: promised {promised:?}, seen {seen:?}")),
    }
}
