use crate::{
    Capabilities, DirEntry, Execution, Invocation, OutputStream, Refused, SandboxError,
    SandboxSpec, SandboxUsage,
};
use smallhands_core::{BlobRef, BlobStore, CallCx, async_trait};
use std::{fmt::Debug, path::Path};

/// Live output: the stream's name (`stdout`, `stderr`) and some bytes.
pub type OutputSink<'a> = &'a mut (dyn FnMut(&str, &[u8]) + Send);

/// Opens sandboxes.
#[async_trait]
pub trait SandboxBackend: Debug + Send + Sync + 'static {
    /// Stable; journaled with the run.
    fn name(&self) -> &str;
    /// What it can enforce here, by trying it.
    ///
    /// # Behavior
    /// - Leaves nothing behind.
    async fn probe(&self) -> Capabilities;
    /// Opens one, on a clean copy or on a snapshot that any process may have taken.
    ///
    /// # Behavior
    /// - What the spec asks for and cannot be enforced is an error; there is no weaker sandbox.
    /// - A layer that is required and that it does not know is an error too.
    /// - It holds exactly the files of the source, and what the snapshot changed.
    /// - What happens inside changes neither the source nor any other sandbox.
    /// - A cache is shown as it was published; what is written there is seen by this sandbox and its
    ///   forks only.
    /// - An environment is part of the base: its files are in the workspace, and in no diff or
    ///   snapshot as long as nobody changes them.
    /// - A source, snapshot or granted path that is not there is an error; so is a snapshot of
    ///   another base.
    /// - Cancelling the call ends it and leaves nothing.
    async fn open(&self, spec: &SandboxSpec, cx: &CallCx)
    -> Result<Box<dyn Sandbox>, SandboxError>;
}

/// One place to run commands in, with its own view of the files. Paths are relative to the
/// workspace, with `/`.
///
/// # Behavior
/// - A path that leaves the workspace is [`SandboxError::Path`].
/// - A symbolic link is followed inside the workspace only.
/// - A dropped sandbox ends too, without anybody waiting for it.
#[async_trait]
pub trait Sandbox: Debug + Send + Sync {
    /// Runs a command to its end.
    ///
    /// # Behavior
    /// - The result of the command, whatever it is, is an [`Execution`]; an error means that the
    ///   sandbox itself failed.
    /// - Arguments reach the program as they are; no shell reads them.
    /// - Its environment is a minimal one, the sandbox's and the call's: the host's is not inherited.
    /// - There is no network but its own, and what [`SandboxSpec::egress`] allows; what it asked
    ///   for there is in the result, and its connections end with it.
    /// - At the deadline, its own or the call's, and at the end of the command, everything that it
    ///   started is dead.
    /// - Commands of one sandbox run one after the other.
    /// - Output over the cap is read and counted, its head and tail kept.
    /// - Cancelling the call kills the command; the sandbox goes on.
    async fn exec(
        &self,
        what: &Invocation,
        live: OutputSink<'_>,
        cx: &CallCx,
    ) -> Result<Execution, SandboxError>;
    /// Starts a command and leaves its streams to the caller: a server over standard input and
    /// output.
    ///
    /// # Behavior
    /// - It is what [`exec`](Self::exec) would run, with the same environment, limits and deadline;
    ///   `stdin` of the invocation is written first.
    /// - It holds the turn of the sandbox: commands, snapshots and diffs wait until it is over;
    ///   files can be read and written. A server that is to live beside commands gets a sandbox of
    ///   its own.
    /// - Dropped, it is killed with everything that it started.
    async fn spawn(
        &self,
        _what: &Invocation,
        _cx: &CallCx,
    ) -> Result<Box<dyn SandboxProcess>, SandboxError> {
        Err(not_offered("spawn"))
    }
    /// What it has used since it was opened.
    async fn usage(&self) -> Result<SandboxUsage, SandboxError> {
        Err(not_offered("usage"))
    }
    /// The bytes of a file.
    ///
    /// # Behavior
    /// - A missing file is [`SandboxError::NotFound`].
    async fn read(&self, path: &str) -> Result<Vec<u8>, SandboxError>;
    /// Creates or replaces a file, with its parent directories; its mode is kept, or `0644`.
    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), SandboxError>;
    /// Removes a file, a symbolic link or an empty directory.
    ///
    /// # Behavior
    /// - What is missing is [`SandboxError::NotFound`].
    /// - Of a link the link is removed, not what it names.
    async fn remove(&self, path: &str) -> Result<(), SandboxError>;
    /// What is below a directory, at every depth, sorted by path, `.git` left out.
    async fn list(&self, dir: &str) -> Result<Vec<DirEntry>, SandboxError>;
    /// What differs from the base, as a durable blob that any process can open or restore.
    ///
    /// # Behavior
    /// - Costs what changed, not what exists.
    /// - Modes, symbolic links, deletions, empty directories and names that are not UTF-8 survive.
    async fn snapshot(&self, into: &dyn BlobStore) -> Result<BlobRef, SandboxError>;
    /// Puts the files back to a snapshot of the same base; `None` is the clean base.
    ///
    /// # Behavior
    /// - A snapshot of another base is an error that changes nothing.
    async fn restore(&self, to: Option<&BlobRef>, from: &dyn BlobStore)
    -> Result<(), SandboxError>;
    /// Another sandbox with the same files.
    ///
    /// # Behavior
    /// - From here on neither sees what happens in the other, nor ends with it.
    async fn fork(&self) -> Result<Box<dyn Sandbox>, SandboxError>;
    /// What differs from the base, as a patch that `git apply` takes; empty if nothing does.
    ///
    /// # Behavior
    /// - Names each path whose bytes, mode or target differ, and no other.
    async fn diff(&self) -> Result<String, SandboxError>;
    /// Copies what commands wrote into an empty directory of the host: `from` is the place of a
    /// cache, or a directory of the workspace, relative to it. For
    /// [`Cache::promote`](crate::Cache::promote) and the like.
    ///
    /// # Behavior
    /// - Of a cache only what was written may come; what was there before may come with it.
    /// - Files, directories and symbolic links come, and times of files; a file is executable or
    ///   not, and nothing more of its mode comes.
    /// - Anything else is left out and named: devices, set-user-id files, removed files, what cannot
    ///   be read, what is over `max_bytes` in all.
    /// - No link is followed, and nothing that happens inside changes the copy.
    async fn export(
        &self,
        _from: &str,
        _into: &Path,
        _max_bytes: u64,
    ) -> Result<Vec<Refused>, SandboxError> {
        Err(not_offered("export"))
    }
    /// Ends it, and waits until nothing of it is left.
    async fn close(self: Box<Self>) -> Result<(), SandboxError>;
}

/// A command that runs, and the other end of its streams.
#[async_trait]
pub trait SandboxProcess: Debug + Send {
    /// Writes to its standard input.
    ///
    /// # Behavior
    /// - Returns when it was taken, so that a process that does not read holds up its writer.
    /// - To a process that is over it is [`SandboxError::Ended`].
    async fn write(&mut self, bytes: &[u8]) -> Result<(), SandboxError>;
    /// Ends its standard input.
    async fn close_stdin(&mut self) -> Result<(), SandboxError>;
    /// The next bytes that it wrote; `None` when it is over.
    ///
    /// # Behavior
    /// - Nothing is left out and each stream is in order; over 64 MiB that nobody read is an error
    ///   of [`wait`](Self::wait).
    async fn read(&mut self) -> Result<Option<(OutputStream, Vec<u8>)>, SandboxError>;
    /// Ends its standard input and waits for its end, until its deadline. Output is kept as by
    /// [`Sandbox::exec`].
    async fn wait(self: Box<Self>) -> Result<Execution, SandboxError>;
}

fn not_offered(what: &str) -> SandboxError {
    SandboxError::Unavailable {
        layer: what.into(),
        reason: "this backend does not offer it".into(),
        fix: "use another backend".into(),
    }
}
