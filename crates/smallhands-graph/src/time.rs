use smallhands_core::{BoxFuture, Clock, Timestamp};
use std::{
    collections::BinaryHeap,
    sync::{Condvar, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// The computer's clock. Sleeps on one thread of its own, so that it works in any async runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }
    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        let (tx, rx) = oneshot::channel();
        // A duration beyond the clock's range never ends, and needs no entry.
        if let Some(at) = Instant::now().checked_add(d) {
            Timer::get().add(at, tx);
            Box::pin(async move { rx.await.unwrap_or(()) })
        } else {
            Box::pin(std::future::pending())
        }
    }
}

struct Entry(Instant, oneshot::Sender<()>);
impl PartialEq for Entry {
    fn eq(&self, o: &Self) -> bool {
        self.0 == o.0
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Entry {
    /// Reversed: the earliest is the greatest, so that the heap gives it first.
    fn cmp(&self, o: &Self) -> std::cmp::Ordering {
        o.0.cmp(&self.0)
    }
}

#[derive(Default)]
struct Timer {
    heap: Mutex<BinaryHeap<Entry>>,
    changed: Condvar,
}

impl Timer {
    fn get() -> &'static Self {
        static TIMER: OnceLock<&'static Timer> = OnceLock::new();
        TIMER.get_or_init(|| {
            let timer: &'static Self = Box::leak(Box::default());
            // If the thread cannot start, sleeps never end early: senders stay in the heap.
            drop(
                thread::Builder::new()
                    .name("smallhands-timer".into())
                    .spawn(move || timer.run()),
            );
            timer
        })
    }
    fn add(&self, at: Instant, tx: oneshot::Sender<()>) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        // Sleepers that were dropped (a timeout that did not happen) must not pile up.
        if heap.len() > 1024 && heap.len().is_power_of_two() {
            heap.retain(|e| !e.1.is_closed());
        }
        heap.push(Entry(at, tx));
        drop(heap);
        self.changed.notify_one();
    }
    fn run(&self) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            while heap.peek().is_some_and(|e| e.0 <= now) {
                if let Some(Entry(_, tx)) = heap.pop() {
                    // The sleeper may be gone.
                    let _ = tx.send(());
                }
            }
            heap = match heap.peek().map(|e| e.0.saturating_duration_since(now)) {
                Some(wait) => {
                    let woken = self.changed.wait_timeout(heap, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.changed.wait(heap);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}
