//! Futures that end in any order, without a task for each. Only those that were woken are polled.

use smallhands_core::BoxFuture;
use std::{
    collections::VecDeque,
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
    /// A place is used again, with its waker: who wakes it for a future that has ended has the next
    /// one polled for nothing, and that is all.
    all: Vec<(Option<BoxFuture<'static, T>>, Arc<One>)>,
    free: Vec<usize>,
    /// Taken from `woken` at once, so that the lock is seldom asked for.
    turn: VecDeque<usize>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(Mutex<(Vec<usize>, Option<Waker>)>);

/// The waker of the future at one place.
struct One {
    place: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, (Vec<usize>, Option<Waker>)> {
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
        w.0.push(self.place);
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
            all: Vec::new(),
            free: Vec::new(),
            turn: VecDeque::new(),
            woken: Arc::default(),
        }
    }
}

impl<T> Unordered<T> {
    pub(super) fn push(&mut self, f: BoxFuture<'static, T>) {
        let place = self.free.pop().unwrap_or_else(|| {
            let one = Arc::new(One {
                place: self.all.len(),
                queued: AtomicBool::new(true),
                woken: self.woken.clone(),
            });
            self.all.push((None, one));
            self.all.len() - 1
        });
        let (future, one) = &mut self.all[place];
        *future = Some(f);
        one.queued.store(true, Ordering::Release);
        self.turn.push_back(place);
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
            while let Some(place) = self.turn.pop_front() {
                polls += 1;
                if polls > TURN {
                    // Some may wake themselves for ever.
                    self.turn.push_front(place);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let (future, one) = &mut self.all[place];
                let Some(f) = future else {
                    continue;
                };
                // Before the poll: what wakes it from now on is news.
                one.queued.store(false, Ordering::Release);
                let waker = Waker::from(one.clone());
                if let Poll::Ready(t) = f.as_mut().poll(&mut Context::from_waker(&waker)) {
                    *future = None;
                    self.free.push(place);
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
