//! Group commit, apart from any database: whatever waits is written as one batch, and only then
//! acknowledged, in the order in which it was asked for.

use std::sync::Arc;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Room for what waits, in bytes: whoever asks takes it along and gives it back with the job.
pub(crate) struct Room {
    free: Arc<Semaphore>,
    all: u32,
}

/// Counted in units of so many bytes, of which there may be more than a `u32` holds.
const UNIT: usize = 1024;

impl Room {
    pub(crate) fn of(bytes: usize) -> Self {
        let all = units(bytes);
        Self {
            free: Arc::new(Semaphore::new(all as usize)),
            all,
        }
    }
    /// Waits, in the order of asking. What is larger than all the room has it alone.
    pub(crate) async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AcquireError> {
        let some = units(bytes).min(self.all);
        self.free.clone().acquire_many_owned(some).await
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// Where jobs wait.
pub(crate) trait Queue {
    /// What is asked for.
    type Job;
    /// Waits for one; none once nobody can ask any more.
    fn first(&mut self) -> Option<Self::Job>;
    /// Another one, if it waits already.
    fn more(&mut self) -> Option<Self::Job>;
}

impl<J> Queue for tokio::sync::mpsc::Receiver<J> {
    type Job = J;
    fn first(&mut self) -> Option<J> {
        self.blocking_recv()
    }
    fn more(&mut self) -> Option<J> {
        self.try_recv().ok()
    }
}

/// What batches are written to.
pub(crate) trait Sink {
    /// What is asked for.
    type Job;
    /// What is told to who asked.
    type Reply;
    /// One reply a job, in order, once all of them count; or one for all if none counts.
    fn write(&mut self, batch: &[Self::Job]) -> Result<Vec<Self::Reply>, Self::Reply>;
    /// The same failure, for another job of its batch.
    fn again(&self, failure: &Self::Reply) -> Self::Reply;
    /// Tells who asked, who may be gone.
    fn tell(&mut self, job: Self::Job, reply: Self::Reply);
}

/// Until nobody can ask any more; what was asked before is done.
pub(crate) fn run<Q: Queue>(mut queue: Q, most: usize, sink: &mut impl Sink<Job = Q::Job>) {
    while let Some(first) = queue.first() {
        let mut batch = vec![first];
        while batch.len() < most
            && let Some(job) = queue.more()
        {
            batch.push(job);
        }
        match sink.write(&batch) {
            Ok(replies) => {
                for (job, reply) in batch.into_iter().zip(replies) {
                    sink.tell(job, reply);
                }
            }
            Err(failure) => {
                for job in batch {
                    let reply = sink.again(&failure);
                    sink.tell(job, reply);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
