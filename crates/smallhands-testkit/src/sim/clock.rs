use smallhands_core::{BoxFuture, Clock, Timestamp};
use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

/// Time that stands still until it is advanced. Clones share it.
///
/// On the runtime that [`runtime`](Self::runtime) makes, it is advanced to the next sleeper
/// whenever nothing else can run there. Work on other threads, such as that of `SqliteStore`, is
/// not waited for: simulated runs use `MemoryStore`.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Mutex<Time>>);

#[derive(Debug)]
struct Time {
    since_start: Duration,
    wall_ms: u64,
    last: u64,
    /// By when they end, then by when they began.
    sleepers: BTreeMap<(Duration, u64), Option<Waker>>,
}

impl Default for SimClock {
    /// One that starts a million seconds after the epoch.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Time {
            since_start: Duration::ZERO,
            wall_ms: 1_000_000_000,
            last: 0,
            sleepers: BTreeMap::new(),
        })))
    }
}

impl SimClock {
    fn lock(&self) -> MutexGuard<'_, Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A single-threaded runtime on which time passes by itself, as fast as it can.
    ///
    /// # Errors
    /// The system cannot make one.
    pub fn runtime(&self) -> io::Result<tokio::runtime::Runtime> {
        let clock = self.clone();
        tokio::runtime::Builder::new_current_thread()
            .on_thread_park(move || {
                clock.advance_to_next();
            })
            .build()
    }
    /// Lets time pass, sleepers waking in order.
    pub fn advance(&self, d: Duration) {
        let until = self.lock().since_start.saturating_add(d);
        while self.wake_first(until) {}
        self.lock().go_to(until);
    }
    /// Lets time pass until the next sleeper wakes; `false` if nobody sleeps.
    pub fn advance_to_next(&self) -> bool {
        self.wake_first(Duration::MAX)
    }
    /// Sets the wall clock, as a person or a time server does; sleepers do not notice.
    pub fn set_wall(&self, at: Timestamp) {
        self.lock().wall_ms = at.0;
    }
    /// How many sleep.
    pub fn sleepers(&self) -> usize {
        self.lock().sleepers.len()
    }

    fn wake_first(&self, until: Duration) -> bool {
        let mut t = self.lock();
        let first = t.sleepers.first_key_value().map(|(k, _)| *k);
        let Some(key) = first.filter(|(at, _)| *at <= until) else {
            return false;
        };
        let waker = t.sleepers.remove(&key).flatten();
        t.go_to(key.0);
        drop(t);
        if let Some(w) = waker {
            w.wake();
        }
        true
    }
}

impl Time {
    fn go_to(&mut self, at: Duration) {
        let passed = at.saturating_sub(self.since_start);
        // Whole milliseconds are all that the wall clock shows.
        let before = self.since_start.as_millis();
        self.since_start += passed;
        let ms = self.since_start.as_millis() - before;
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        self.wall_ms = self.wall_ms.saturating_add(ms);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.lock().wall_ms)
    }
    fn monotonic(&self) -> Duration {
        self.lock().since_start
    }
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        let mut t = self.lock();
        let Some(at) = t.since_start.checked_add(d) else {
            return Box::pin(std::future::pending());
        };
        t.last += 1;
        let key = (at, t.last);
        t.sleepers.insert(key, None);
        Box::pin(Sleep {
            clock: self.clone(),
            key,
        })
    }
}

struct Sleep {
    clock: SimClock,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.clock.lock().sleepers.get_mut(&self.key) {
            Some(w) => {
                *w = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    /// A sleep that nobody waits for any more must not move the time.
    fn drop(&mut self) {
        self.clock.lock().sleepers.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_only_when_nothing_else_can_run() {
        let clock = SimClock::default();
        let (start, c) = (clock.now(), clock.clone());
        let order = clock.runtime().unwrap().block_on(async move {
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut all = Vec::new();
            for ms in [30_u64, 10, 20, 10] {
                let (c, order) = (c.clone(), order.clone());
                all.push(tokio::spawn(async move {
                    c.sleep(Duration::from_millis(ms)).await;
                    tokio::task::yield_now().await;
                    order.lock().unwrap().push((ms, c.now().0 - start.0));
                }));
            }
            drop(c.sleep(Duration::from_millis(5)));
            for t in all {
                t.await.unwrap();
            }
            Arc::try_unwrap(order).unwrap().into_inner().unwrap()
        });
        assert_eq!(order, [(10, 10), (10, 10), (20, 20), (30, 30)]);
    }

    #[test]
    fn it_is_advanced_by_hand_and_the_wall_may_jump() {
        let clock = SimClock::default();
        let sleep = clock.sleep(Duration::from_millis(50));
        clock.set_wall(Timestamp(7));
        clock.advance(Duration::from_millis(49));
        assert_eq!((clock.now().0, clock.sleepers()), (56, 1));
        clock.advance(Duration::from_millis(1));
        assert_eq!((clock.now().0, clock.sleepers()), (57, 0));
        assert!(!clock.advance_to_next());
        drop(sleep);
    }
}
