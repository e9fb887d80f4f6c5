//! A sandbox that is opened before it is asked for.

use super::{
    conn::{Conn, Opening, opened},
    proto::Policy,
};
use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What the host shows of itself may change; an older one is not used.
const FRESH: Duration = Duration::from_secs(60);

/// At most one, like the last that was opened. Nobody has used it, and nobody but who takes it will.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Option<Waiting>>);

#[derive(Debug)]
struct Waiting {
    key: Key,
    since: Instant,
    opening: Opening,
}

/// What two sandboxes that may stand for each other have in common.
#[derive(Debug, PartialEq)]
struct Key {
    policy: Policy,
    /// Device and inode of what is granted, and of the base: a path may come to name something else.
    shown: Vec<Option<(u64, u64)>>,
}

impl Key {
    fn of(policy: &Policy) -> Self {
        let paths = policy.read_only.iter().chain(&policy.lower);
        let file = |path: &Vec<u8>| {
            let meta = fs::metadata(Path::new(std::ffi::OsStr::from_bytes(path))).ok()?;
            Some((meta.dev(), meta.ino()))
        };
        Self {
            shown: paths.map(file).collect(),
            policy: policy.clone(),
        }
    }
}

impl Ahead {
    fn swap(&self, next: Option<Waiting>) -> Option<Waiting> {
        // A panic elsewhere leaves it whole.
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *slot, next)
    }

    /// The one that waits, if it is just what is wanted; another one ends.
    pub(super) async fn take(&self, policy: &Policy) -> Option<Conn> {
        let waiting = self.swap(None)?;
        let fits = waiting.since.elapsed() < FRESH && waiting.key == Key::of(policy);
        // What went wrong with it is told by the next attempt, if it goes wrong again.
        let conn = match fits {
            true => opened(waiting.opening).await.ok()?,
            false => return None,
        };
        conn.is_alive().then_some(conn)
    }

    /// Opens another like it. If that cannot be done, who asks for one will hear why.
    pub(super) fn put(&self, policy: &Policy, open: impl FnOnce() -> Option<Opening>) {
        let key = Key::of(policy);
        let next = open().map(|opening| Waiting {
            key,
            since: Instant::now(),
            opening,
        });
        // What another call put there meanwhile ends.
        drop(self.swap(next));
    }
}
