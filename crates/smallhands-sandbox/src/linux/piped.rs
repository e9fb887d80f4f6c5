//! A command whose streams are the caller's, such as a server over standard input and output.

use super::{
    answer::{Coming, Live, Stream},
    conn::Conn,
    proto::{Ask, CHUNK},
    sandbox,
};
use crate::{Execution, OutputStream, SandboxError, SandboxProcess};
use smallhands_core::async_trait;
use std::{collections::VecDeque, fmt};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard};

/// Holds the sandbox's turn.
pub(super) struct Piped {
    pub(super) conn: OwnedRwLockReadGuard<Conn>,
    pub(super) turn: OwnedMutexGuard<()>,
    pub(super) id: u64,
    pub(super) events: Stream,
    pub(super) coming: Option<Coming>,
    /// Output that came while something was written.
    pub(super) early: VecDeque<Live>,
    pub(super) killed_before: u64,
}

impl fmt::Debug for Piped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piped({})", self.id)
    }
}

#[async_trait]
impl SandboxProcess for Piped {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), SandboxError> {
        for chunk in bytes.chunks(CHUNK) {
            self.conn.send(self.id, Ask::Stdin, chunk).await?;
            // One part at a time is on its way: the rest waits here, not in the sandbox.
            loop {
                match self.events.next().await {
                    Some(Some(output)) => self.early.push_back(output),
                    Some(None) => break,
                    None => return Err(SandboxError::Ended),
                }
            }
        }
        Ok(())
    }

    async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        self.conn.send(self.id, Ask::CloseStdin, &[]).await
    }

    async fn read(&mut self) -> Result<Option<(OutputStream, Vec<u8>)>, SandboxError> {
        loop {
            let next = match self.early.pop_front() {
                Some(output) => Some(Some(output)),
                None => self.events.next().await,
            };
            match next {
                Some(Some((stderr, bytes))) => {
                    self.events.was_read(bytes.len());
                    let stream = match stderr {
                        true => OutputStream::Stderr,
                        false => OutputStream::Stdout,
                    };
                    return Ok(Some((stream, bytes)));
                }
                Some(None) => {}
                None => return Ok(None),
            }
        }
    }

    async fn wait(mut self: Box<Self>) -> Result<Execution, SandboxError> {
        self.close_stdin().await?;
        while self.read().await?.is_some() {}
        let Some(coming) = self.coming.take() else {
            return Err(SandboxError::Ended);
        };
        let answer = self.conn.wait(coming).await;
        sandbox::execution(&self.conn, answer, self.killed_before).await
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // The agent does not mind if it is over already.
        if self.coming.is_some() {
            self.conn.cancel(self.id);
        }
        let _: &OwnedMutexGuard<()> = &self.turn;
    }
}
