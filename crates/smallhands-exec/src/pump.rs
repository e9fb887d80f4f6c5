//! Starts attempts without a wake-up for each.
//!
//! A task of its own for each attempt would wake a thread for each, which costs more than a short
//! attempt does. Here a few tasks take attempts from a queue and poll each once; one that does not
//! end at once gets a task of its own. While attempts wait there is always a task that is not inside
//! one: so a body that blocks holds up one thread, as it would anyway, and never the queue.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
};
use tokio::{runtime::Handle, task::AbortHandle};

/// So many attempts are started before others have their turn.
const TURN: usize = 128;

/// What an attempt is before it begins. Its future is made by whoever polls it: memory that one thread
/// asks for and another gives back is what the allocator's locks are fought over.
pub(crate) trait Job: Send + 'static {
    /// All that is left to do, panics reported.
    fn begin(self) -> impl Future<Output = ()> + Send + 'static;
}

pub(crate) struct Pump<J> {
    queue: Mutex<Queue<J>>,
    /// Of the runtime that it works on.
    threads: OnceLock<usize>,
}

struct Queue<J> {
    waiting: VecDeque<Next<J>>,
    tasks: usize,
    /// Those of the tasks that have an attempt in hand.
    busy: usize,
}

impl<J> Default for Pump<J> {
    fn default() -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            tasks: 0,
            busy: 0,
        };
        Self {
            queue: Mutex::new(queue),
            threads: OnceLock::new(),
        }
    }
}

impl<J> Queue<J> {
    /// Whether another task is needed, which then counts already.
    fn grows(&mut self, threads: usize) -> bool {
        let many = self.tasks < threads && self.waiting.len() > self.tasks * 16;
        let grows = !self.waiting.is_empty() && (self.busy == self.tasks || many);
        self.tasks += usize::from(grows);
        grows
    }
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

impl<J: Job> Pump<J> {
    /// Has the attempt begin soon.
    pub(crate) fn start(self: &Arc<Self>, attempt: J) -> Arc<Abort> {
        let abort = Arc::new(Abort::default());
        let count = || Handle::current().metrics().num_workers();
        let threads = *self.threads.get_or_init(count);
        let mut q = lock(&self.queue);
        q.waiting.push_back((attempt, abort.clone()));
        let grows = q.grows(threads);
        drop(q);
        if grows {
            self.grow();
        }
        abort
    }

    fn grow(self: &Arc<Self>) {
        drop(tokio::spawn(run(Turn {
            pump: self.clone(),
            counted: true,
            busy: false,
        })));
    }
}

/// One of the tasks that work the queue off.
struct Turn<J> {
    pump: Arc<Pump<J>>,
    counted: bool,
    busy: bool,
}

type Next<J> = (J, Arc<Abort>);

impl<J> Turn<J> {
    /// The next attempt, and whether another task is needed beside it; with none left the task no
    /// longer counts, and whoever comes next starts another.
    fn next(&mut self) -> Option<(Next<J>, bool)> {
        let mut q = lock(&self.pump.queue);
        q.busy -= usize::from(self.busy);
        let next = q.waiting.pop_front();
        self.busy = next.is_some();
        self.counted = self.busy;
        match next {
            Some(next) => {
                q.busy += 1;
                Some((next, q.grows(0)))
            }
            None => {
                q.tasks -= 1;
                None
            }
        }
    }
}

impl<J> Drop for Turn<J> {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        // Its runtime is gone, and nobody would begin what waits: dropped, it reports that it is
        // lost.
        let mut q = lock(&self.pump.queue);
        q.tasks -= 1;
        q.busy -= usize::from(self.busy);
        let lost = match q.tasks {
            0 => mem::take(&mut q.waiting),
            _ => VecDeque::new(),
        };
        drop(q);
        drop(lost);
    }
}

async fn run<J: Job>(mut turn: Turn<J>) {
    loop {
        for _ in 0..TURN {
            let Some(((attempt, abort), grows)) = turn.next() else {
                return;
            };
            if grows {
                turn.pump.grow();
                // A thread keeps what it was given last to itself: nothing, so that another thread
                // can take the task.
                drop(tokio::spawn(async {}));
            }
            begin(attempt, &abort).await;
        }
        tokio::task::yield_now().await;
    }
}

async fn begin(attempt: impl Job, abort: &Abort) {
    if abort.is_aborted() {
        return;
    }
    let mut attempt = Box::pin(attempt.begin());
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
