//! Futures that end in any order, without a task for each. Only those that were woken are polled.

use smallhands_core::BoxFuture;
use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// So many are polled before others have their turn.
const TURN: usize = 1024;

pub(super) struct Unordered<T> {
    all: HashMap<u64, (BoxFuture<'static, T>, Arc<One>)>,
    next: u64,
    /// Taken from `woken` at once, so that the lock is seldom asked for.
    turn: VecDeque<u64>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(Mutex<(Vec<u64>, Option<Waker>)>);

/// The waker of one future.
struct One {
    id: u64,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, (Vec<u64>, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut w = self.woken.lock();
        w.0.push(self.id);
        let waker = w.1.take();
        drop(w);
        if let Some(w) = waker {
            w.wake();
        }
    }
}

impl<T> Default for Unordered<T> {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
            next: 0,
            turn: VecDeque::new(),
            woken: Arc::default(),
        }
    }
}

impl<T> Unordered<T> {
    pub(super) fn push(&mut self, f: BoxFuture<'static, T>) {
        let id = self.next;
        self.next += 1;
        let one = Arc::new(One {
            id,
            queued: AtomicBool::new(true),
            woken: self.woken.clone(),
        });
        self.all.insert(id, (f, one));
        self.turn.push_back(id);
    }

    /// The next that ends; never, while there is none.
    pub(super) async fn next(&mut self) -> T {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// One that has ended, if there is one now. Whoever waits for the others asks again.
    pub(super) fn ended(&mut self) -> Option<T> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(t) => Some(t),
            Poll::Pending => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut polls = 0;
        loop {
            while let Some(id) = self.turn.pop_front() {
                polls += 1;
                if polls > TURN {
                    // Some may wake themselves for ever.
                    self.turn.push_front(id);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let Some((f, one)) = self.all.get_mut(&id) else {
                    continue;
                };
                // Before the poll: what wakes it from now on is news.
                one.queued.store(false, Ordering::Release);
                let waker = Waker::from(one.clone());
                if let Poll::Ready(t) = f.as_mut().poll(&mut Context::from_waker(&waker)) {
                    self.all.remove(&id);
                    return Poll::Ready(t);
                }
            }
            let mut w = self.woken.lock();
            if w.0.is_empty() {
                w.1 = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.turn.extend(w.0.drain(..));
        }
    }
}
