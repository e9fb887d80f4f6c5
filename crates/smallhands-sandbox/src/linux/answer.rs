//! What comes back for one request, gathered frame by frame.

use super::{
    output::Ring,
    proto::{CHUNK, How, Say},
};
use crate::{Change, Content, DirEntry, SandboxError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Most that one answer may hold; the agent keeps to less.
const MAX_ANSWER: u64 = (1 << 30) + (64 << 20);

/// Whether it is standard error, and some bytes.
pub(super) type Live = (bool, Vec<u8>);

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) answer: Answer,
    pub(super) live: Option<mpsc::Sender<Live>>,
    pub(super) done: oneshot::Sender<Result<Answer, SandboxError>>,
}

/// What a request brought.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) data: Vec<u8>,
    pub(super) changes: Vec<Change<Vec<u8>>>,
    pub(super) entries: Vec<DirEntry>,
    pub(super) ended: Option<(How, Duration)>,
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
                // Live output is for eyes: what they cannot follow is left out there.
                if let Some(live) = &self.live {
                    drop(live.try_send((stderr, bytes)));
                }
                return None;
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
                a.size += path.len() as u64;
                let now = match now {
                    Content::Gone => Content::Gone,
                    Content::Dir => Content::Dir,
                    Content::Symlink { target } => Content::Symlink { target },
                    Content::File { exec, bytes } => Content::File {
                        exec,
                        bytes: Vec::with_capacity(CHUNK.min(bytes as usize)),
                    },
                };
                a.changes.push(Change { path, now });
            }
            Say::Entries(more) => {
                a.size += more.iter().map(|e| e.path.len() as u64).sum::<u64>();
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
