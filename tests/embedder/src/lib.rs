//! Layers of one's own, each small and real, in place of every layer of SmallHands.
#![forbid(unsafe_code)]

mod executor;
mod files;
pub mod hook;
mod layers;
mod sandbox;
mod workers;

pub use executor::Threads;
pub use layers::{
    Answers, CountingClock, CountingStore, Grep, Inbox, NoPush, OneSecret, Tests, Watcher,
};
pub use sandbox::Directories;
pub use workers::{audit, planner};

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How often each layer was used.
#[derive(Clone, Debug, Default)]
pub struct Uses(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Uses {
    /// One more.
    pub fn add(&self, what: &'static str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(what).or_default() += 1;
    }
    /// All of them.
    pub fn all(&self) -> BTreeMap<&'static str, usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
