//! Starts attempts without a wake-up for each.
//!
//! A task of its own for each attempt would wake a thread for each, which costs more than a short
//! attempt does. Here a few tasks, one for each thread of the runtime, take attempts from a queue
//! and poll each once; one that does not end at once gets a task of its own. So a body that blocks
//! holds up one thread, as it would anyway, and never the queue.

use smallhands_core::BoxFuture;
use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::{runtime::Handle, task::AbortHandle};

/// So many attempts are started before others have their turn.
const TURN: usize = 128;

#[derive(Default)]
pub(crate) struct Pump(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(BoxFuture<'static, ()>, Arc<Abort>)>,
    tasks: usize,
}

/// Ends an attempt wherever it is.
#[derive(Default)]
pub(crate) struct Abort(Mutex<Stage>);

#[derive(Default)]
enum Stage {
    /// Not begun, or in its first poll.
    #[default]
    Early,
    Spawned(AbortHandle),
    Aborted,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Abort {
    pub(crate) fn abort(&self) {
        if let Stage::Spawned(h) = mem::replace(&mut *lock(&self.0), Stage::Aborted) {
            h.abort();
        }
    }
    fn is_aborted(&self) -> bool {
        matches!(*lock(&self.0), Stage::Aborted)
    }
}

impl Pump {
    /// Has the attempt begin soon.
    pub(crate) fn start(self: &Arc<Self>, attempt: BoxFuture<'static, ()>) -> Arc<Abort> {
        let abort = Arc::new(Abort::default());
        let mut q = lock(&self.0);
        q.waiting.push_back((attempt, abort.clone()));
        let threads = Handle::current().metrics().num_workers();
        // Another for each so many that wait, until every thread has one.
        if q.tasks < threads && q.waiting.len() > q.tasks * 16 {
            q.tasks += 1;
            drop(q);
            drop(tokio::spawn(run(Turn {
                pump: self.clone(),
                counted: true,
            })));
        }
        abort
    }
}

/// One of the tasks that work the queue off.
struct Turn {
    pump: Arc<Pump>,
    counted: bool,
}

impl Turn {
    /// The next attempt; with none left the task no longer counts, and whoever comes next starts
    /// another.
    fn next(&mut self) -> Option<(BoxFuture<'static, ()>, Arc<Abort>)> {
        let mut q = lock(&self.pump.0);
        let next = q.waiting.pop_front();
        if next.is_none() {
            q.tasks -= 1;
            self.counted = false;
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        // Its runtime is gone, and nobody would begin what waits: dropped, it reports that it is
        // lost.
        let mut q = lock(&self.pump.0);
        q.tasks -= 1;
        let lost = match q.tasks {
            0 => mem::take(&mut q.waiting),
            _ => VecDeque::new(),
        };
        drop(q);
        drop(lost);
    }
}

async fn run(mut turn: Turn) {
    loop {
        for _ in 0..TURN {
            let Some((attempt, abort)) = turn.next() else {
                return;
            };
            begin(attempt, &abort).await;
        }
        tokio::task::yield_now().await;
    }
}

async fn begin(mut attempt: BoxFuture<'static, ()>, abort: &Arc<Abort>) {
    if abort.is_aborted() {
        return;
    }
    let first = poll_fn(|cx: &mut Context<'_>| {
        // A panic has been reported by what it unwound through.
        let polled = catch_unwind(AssertUnwindSafe(|| attempt.as_mut().poll(cx)));
        Poll::Ready(polled.unwrap_or(Poll::Ready(())))
    });
    if first.await.is_ready() {
        return;
    }
    let mut stage = lock(&abort.0);
    if matches!(*stage, Stage::Early) {
        *stage = Stage::Spawned(tokio::spawn(attempt).abort_handle());
    }
}
