use crate::{Egress, EgressRecord};
use serde::{Deserialize, Serialize};
use smallhands_core::BlobRef;
use std::{path::PathBuf, time::Duration};

/// What a sandbox is to hold and to allow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// The clean copy to start from; none is an empty directory.
    pub source: Option<RepoSource>,
    /// A snapshot on top of it, taken by any process.
    pub from: Option<BlobRef>,
    /// Files and directories of the host to show, read-only, at the same path: toolchains.
    /// The system's own (`/usr`, `/bin`, `/lib*`, a little of `/etc`) are always there.
    pub read_only: Vec<PathBuf>,
    /// The environment of every command, on top of a minimal one. Nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Limits for every command.
    pub limits: Limits,
    /// What may be reached over the network; none is nothing.
    pub egress: Option<Egress>,
    /// Files that others left to be shared: each is there to be read, and to be written for this
    /// sandbox alone. Not part of snapshots and diffs; a restore starts with what was published.
    pub caches: Vec<CacheView>,
    /// What a set-up made, such as `.venv` or `node_modules`: part of the base, below the files of
    /// the workspace. What commands change of it is in snapshots as any other file.
    pub environment: Option<Generation>,
    /// Layers and limits that must be in force, by the names that [`Capabilities`] and results
    /// give them; each is an error where it cannot be had.
    pub require: Vec<String>,
    /// Walls to do without, by name; results then list what is left. Weaker, and never chosen
    /// for you: for kernels that lack one, and for tests of the others.
    pub without: Vec<Wall>,
}

/// A layer that can be left out; the others are what a sandbox is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Wall {
    /// The network is the host's.
    NetworkNamespace,
    /// Shared memory, semaphores and message queues are the host's.
    IpcNamespace,
    /// What is shown of the host can be written where its owner and mode allow that, and `/proc`
    /// is whole.
    MountFlags,
    /// Started as root, agents stay the host's root, without capabilities.
    UserChange,
    /// Commands have every capability in their user namespace.
    Capabilities,
    /// Files are guarded by mounts and modes alone, signals and sockets by namespaces.
    Landlock,
    /// Every system call is answered.
    Seccomp,
}

/// Which files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RepoSource {
    /// A commit id in the [`RepoStore`](crate::RepoStore) of the backend.
    pub commit: String,
}

/// Files that never change: what a [`Cache`](crate::Cache) or [`Environments`](crate::Environments)
/// published at one time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation {
    /// The directory of the host that holds them.
    pub path: PathBuf,
}

/// A generation of a cache, and where a sandbox shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheView {
    /// What it begins with.
    pub generation: Generation,
    /// An absolute path that nothing else is shown at; not below the workspace, `/tmp` or a
    /// directory of the system. `/cache/pip` is one.
    pub at: PathBuf,
}

/// Something that was not taken out of a sandbox, or not into a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Relative to the directory that was looked at.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// Limits of each command, where not said otherwise; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Address space of each process, in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU seconds of each process.
    pub cpu_seconds: Option<u64>,
    /// Largest file that can be written, in bytes.
    pub file_bytes: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Memory of the whole sandbox, files that are only in memory too. Where control groups may be
    /// made; to insist, name `memory cgroup` in [`SandboxSpec::require`].
    pub total_memory_bytes: Option<u64>,
    /// Thousandths of a processor for the whole sandbox, as above with `cpu cgroup`.
    pub cpu_thousandths: Option<u64>,
    /// Size of `/tmp`, in bytes.
    pub tmp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: Some(4 << 30),
            cpu_seconds: None,
            file_bytes: Some(1 << 30),
            open_files: Some(1024),
            processes: Some(512),
            total_memory_bytes: Some(4 << 30),
            cpu_thousandths: None,
            tmp_bytes: 512 << 20,
        }
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invocation {
    /// Program and arguments; the program is looked up on the sandbox's `PATH`. Never a shell
    /// string.
    pub argv: Vec<String>,
    /// On top of the sandbox's environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Relative to the workspace; empty is its root.
    #[serde(default)]
    pub cwd: String,
    /// What it reads.
    #[serde(default)]
    pub stdin: Vec<u8>,
    /// Wall time after which everything that it started is killed.
    pub deadline: Duration,
    /// How much of each stream is kept: the first and the last half of this many bytes.
    pub max_output: u64,
}

impl Invocation {
    /// A command with two minutes and 256 KiB of each stream.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: String::new(),
            stdin: Vec::new(),
            deadline: Duration::from_secs(120),
            max_output: 256 << 10,
        }
    }
    /// Sets the deadline.
    #[must_use]
    pub fn deadline(mut self, d: Duration) -> Self {
        self.deadline = d;
        self
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// At its deadline.
    TimedOut,
    /// Killed because the sandbox as a whole needed more memory than it has, or than the machine
    /// can spare.
    OutOfMemory,
    /// It could not be started: no such program, not executable.
    NotStarted(String),
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote, up to the cap.
    pub stdout: Vec<u8>,
    /// What it wrote, up to the cap.
    pub stderr: Vec<u8>,
    /// Bytes of both streams that were cut out of the middle.
    pub cut_bytes: u64,
    /// Wall time.
    pub wall: Duration,
    /// Limits and layers that were really in force.
    pub enforced: Vec<String>,
    /// Connections that it asked for, with what became of each; the first thousand.
    #[serde(default)]
    pub egress: Vec<EgressRecord>,
    /// How many more there were.
    #[serde(default)]
    pub egress_cut: u64,
}

impl Execution {
    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.ended == Ended::Exited(0)
    }
    /// Both streams, lossily decoded, standard output first.
    pub fn text(&self) -> String {
        let mut s = String::from_utf8_lossy(&self.stdout).into_owned();
        s.push_str(&String::from_utf8_lossy(&self.stderr));
        s
    }
}

/// What a sandbox has used, all its commands together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SandboxUsage {
    /// Processor time.
    pub cpu: Duration,
    /// The most memory that one process had resident, in bytes.
    pub peak_process_bytes: u64,
    /// The most memory of the whole, where that is counted.
    pub peak_total_bytes: Option<u64>,
    /// Bytes that hosts outside were sent, where [`SandboxSpec::egress`] allows any.
    pub sent_bytes: u64,
    /// Bytes that came from them.
    pub received_bytes: u64,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One layer of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// `user namespace`, `seccomp`, ..
    pub name: String,
    /// Whether it works here.
    pub works: bool,
    /// Whether a sandbox is refused without it.
    pub required: bool,
    /// What was seen; if it does not work, why, and what would allow it.
    pub detail: String,
}

/// What a backend can enforce here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Each layer, the essential ones first.
    pub layers: Vec<Layer>,
}

impl Capabilities {
    /// Whether every required layer works.
    pub fn usable(&self) -> bool {
        !self.layers.is_empty() && self.layers.iter().all(|l| l.works || !l.required)
    }
}

/// What kind of thing a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// One thing in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Relative to the workspace, lossily decoded.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes, for a file.
    pub len: u64,
}
