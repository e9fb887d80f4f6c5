//! What comes back for one request, gathered frame by frame.

use super::{
    output::Ring,
    proto::{How, Say},
};
use crate::{Change, Content, DirEntry, SandboxError, SandboxUsage};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Most that one answer may hold; the agent keeps to less.
const MAX_ANSWER: u64 = (1 << 30) + (64 << 20);

/// Whether it is standard error, and some bytes.
pub(super) type Live = (bool, Vec<u8>);

/// Most output that waits for somebody to read it.
const MAX_UNREAD: usize = 64 << 20;

/// What keeping anything costs beside its bytes, about: an agent may send nothing, very often.
const ITEM: usize = 128;

/// Where output goes as it comes.
#[derive(Debug)]
pub(super) enum Sink {
    None,
    /// For eyes: what they cannot follow is left out.
    Eyes(mpsc::Sender<Live>),
    /// For a program: all of it; `None` says that input was taken.
    Pipe(mpsc::UnboundedSender<Option<Live>>, Arc<AtomicUsize>),
}

/// The other end of a [`Sink::Pipe`].
#[derive(Debug)]
pub(super) struct Stream(mpsc::UnboundedReceiver<Option<Live>>, Arc<AtomicUsize>);

impl Stream {
    pub(super) fn new() -> (Sink, Self) {
        let (tell, told) = mpsc::unbounded_channel();
        let unread = Arc::<AtomicUsize>::default();
        (Sink::Pipe(tell, unread.clone()), Self(told, unread))
    }
    /// `None`: it is over.
    pub(super) async fn next(&mut self) -> Option<Option<Live>> {
        let next = self.0.recv().await;
        if let Some(None) = next {
            self.was_read(0);
        }
        next
    }
    /// Some output, of so many bytes.
    pub(super) fn was_read(&self, bytes: usize) {
        self.1.fetch_sub(ITEM + bytes, Ordering::Relaxed);
    }
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_counted(&self) -> bool {
        self.1.load(Ordering::Relaxed) >= ITEM * self.0.len()
    }
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) answer: Answer,
    pub(super) live: Sink,
    pub(super) done: oneshot::Sender<Result<Answer, SandboxError>>,
}

/// What a request brought.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) data: Vec<u8>,
    pub(super) changes: Vec<Change<Vec<u8>>>,
    pub(super) entries: Vec<DirEntry>,
    pub(super) ended: Option<(How, Duration)>,
    pub(super) usage: SandboxUsage,
    /// Standard output and error.
    pub(super) kept: [Ring; 2],
    pub(super) size: u64,
}

/// An answer that is on its way.
pub(super) type Coming = oneshot::Receiver<Result<Answer, SandboxError>>;

impl Pending {
    /// Notes one reply. `Some`: it was the last.
    pub(super) fn take(&mut self, say: Say, bytes: Vec<u8>) -> Option<Result<(), SandboxError>> {
        let a = &mut self.answer;
        match say {
            Say::Output { stderr } => {
                a.kept[usize::from(stderr)].push(&bytes);
                return self.show((stderr, bytes));
            }
            Say::Taken => return self.pipe(None),
            Say::Usage {
                cpu_us,
                peak_process_bytes,
            } => {
                a.usage.cpu = Duration::from_micros(cpu_us);
                a.usage.peak_process_bytes = peak_process_bytes;
                return Some(Ok(()));
            }
            Say::Ended { how, wall_us } => {
                a.ended = Some((how, Duration::from_micros(wall_us)));
                return Some(Ok(()));
            }
            Say::Done => return Some(Ok(())),
            Say::Fault(fault) => return Some(Err(fault.into())),
            Say::Hello { .. } => {
                return Some(Err(SandboxError::Lost("it said hello twice".into())));
            }
            Say::Data => {
                a.size += bytes.len() as u64;
                match a.changes.last_mut().map(|c| &mut c.now) {
                    Some(Content::File { bytes: file, .. }) => file.extend(bytes),
                    _ => a.data.extend(bytes),
                }
            }
            Say::Item(Change { path, now }) => {
                a.size += (ITEM + path.len()) as u64;
                if let Content::Symlink { target } = &now {
                    a.size += target.len() as u64;
                }
                let now = announced(now);
                a.changes.push(Change { path, now });
            }
            Say::Entries(more) => {
                let size = |e: &DirEntry| (ITEM + e.path.len()) as u64;
                a.size += more.iter().map(size).sum::<u64>();
                a.entries.extend(more);
            }
        }
        (a.size > MAX_ANSWER).then(|| {
            Err(SandboxError::File {
                path: String::new(),
                reason: "the answer is too large".into(),
            })
        })
    }
}

impl Pending {
    fn show(&self, some: Live) -> Option<Result<(), SandboxError>> {
        if let Sink::Eyes(to) = &self.live {
            drop(to.try_send(some));
            return None;
        }
        self.pipe(Some(some))
    }

    /// Passes something on to a program; an error when too much of it is read by nobody.
    fn pipe(&self, some: Option<Live>) -> Option<Result<(), SandboxError>> {
        let Sink::Pipe(to, unread) = &self.live else {
            return None;
        };
        let len = ITEM + some.as_ref().map_or(0, |(_, bytes)| bytes.len());
        if unread.fetch_add(len, Ordering::Relaxed) + len > MAX_UNREAD {
            let reason = "more than 64 MiB of output that nobody read".into();
            let stage = "process".into();
            return Some(Err(SandboxError::Setup { stage, reason }));
        }
        // Nobody waits for it any more.
        drop(to.send(some));
        None
    }
}

/// A content whose bytes are on their way.
fn announced(now: Content<u64>) -> Content<Vec<u8>> {
    match now {
        Content::Gone => Content::Gone,
        Content::Dir => Content::Dir,
        Content::Symlink { target } => Content::Symlink { target },
        Content::File { exec, .. } => Content::File {
            exec,
            // Grows as they come: how many there will be is only the agent's word.
            bytes: Vec::new(),
        },
    }
}

/// A content with the length of its bytes, and the bytes.
pub(super) fn announce(now: Content<Vec<u8>>) -> (Content<u64>, Vec<u8>) {
    match now {
        Content::Gone => (Content::Gone, Vec::new()),
        Content::Dir => (Content::Dir, Vec::new()),
        Content::Symlink { target } => (Content::Symlink { target }, Vec::new()),
        Content::File { exec, bytes } => {
            let len = bytes.len() as u64;
            (Content::File { exec, bytes: len }, bytes)
        }
    }
}
