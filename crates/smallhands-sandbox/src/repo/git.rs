//! How the host runs git: with our configuration only, and never in a tree that an agent can write.

use crate::SandboxError;
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write},
    os::unix::{ffi::OsStringExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Takes the place of the user's and the system's configuration, also for the processes that git
/// itself starts.
const CONFIG: &str = "\
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tattributesFile = /dev/null
\texcludesFile = /dev/null
[gc]
\tauto = 0
[maintenance]
\tauto = false
[protocol]
\tallow = never
[protocol \"file\"]
\tallow = always
[protocol]
\tversion = 2
[transfer]
\tfsckObjects = false
[init]
\tdefaultBranch = none
[advice]
\tdetachedHead = false
";
/// Files are checked out as they are stored, whatever a repository's attributes say: the base of
/// every comparison is the stored form, and no filter program is ever run.
const ATTRIBUTES: &str = "* -text !eol -ident -filter !working-tree-encoding\n";

/// Our bare repository, and a git that works on it.
#[derive(Debug)]
pub(super) struct Git {
    program: PathBuf,
    /// The directory of the whole store.
    pub(super) dir: PathBuf,
    next: AtomicU64,
}

/// A file or directory of ours, removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort, and what is not there needs no removal.
        drop(fs::remove_dir_all(&self.0).or_else(|_| fs::remove_file(&self.0)));
    }
}

pub(super) fn io_error(what: &str) -> impl Fn(io::Error) -> SandboxError {
    move |e| match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SandboxError::DiskFull(what.into())
        }
        _ => SandboxError::Repo(format!("{what}: {e}")),
    }
}

impl Git {
    pub(super) fn open(dir: PathBuf, program: PathBuf) -> Result<Self, SandboxError> {
        let dir = std::path::absolute(&dir).map_err(io_error("the repository store"))?;
        let git = Self {
            program,
            dir,
            next: AtomicU64::new(0),
        };
        git.prepare()?;
        Ok(git)
    }

    fn prepare(&self) -> Result<(), SandboxError> {
        let what = format!("the repository store {} cannot be made", self.dir.display());
        let failed = io_error(&what);
        let make = |dir: &Path, mode: u32| {
            let mut make = fs::DirBuilder::new();
            make.recursive(true).mode(mode).create(dir).map_err(&failed)
        };
        make(&self.dir, crate::outer_mode())?;
        make(&self.checkouts(), crate::outer_mode())?;
        make(&self.tmp(), 0o700)?;
        let _lock = self.lock()?;
        let config = self.dir.join("gitconfig");
        fs::write(config, CONFIG).map_err(&failed)?;
        let any = format!("{CONFIG}[safe]\n\tdirectory = *\n");
        fs::write(self.trusting(), any).map_err(&failed)?;
        if !self.repo().join("HEAD").exists() {
            let made = self.scratch("init");
            let mut init = self.plain();
            init.args(["init", "-q", "--bare", "--template="])
                .arg(&made.0);
            self.run(init, &[], &what)?;
            fs::create_dir_all(made.0.join("info")).map_err(&failed)?;
            fs::write(made.0.join("info/attributes"), ATTRIBUTES).map_err(&failed)?;
            fs::rename(&made.0, self.repo()).map_err(&failed)?;
        }
        Ok(())
    }

    pub(super) fn repo(&self) -> PathBuf {
        self.dir.join("objects.git")
    }

    pub(super) fn checkouts(&self) -> PathBuf {
        self.dir.join("checkouts")
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// A new name in our own temporary directory.
    pub(super) fn scratch(&self, what: &str) -> Scratch {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        // Two stores of one process may share a directory.
        let unique = std::ptr::from_ref(self).addr();
        let name = format!("{what}-{}-{unique:x}-{n}", std::process::id());
        Scratch(self.tmp().join(name))
    }

    /// Held while something is changed that git itself does not allow two to change at once.
    pub(super) fn lock(&self) -> Result<File, SandboxError> {
        let failed = io_error("the lock of the repository store");
        let file = File::create(self.dir.join("lock")).map_err(&failed)?;
        file.lock().map_err(&failed)?;
        Ok(file)
    }

    /// A git that knows nothing but our configuration.
    pub(super) fn plain(&self) -> Command {
        #[allow(clippy::disallowed_methods)] // Host git, in repositories and never agents' trees.
        let mut c = Command::new(&self.program);
        let own = self.program.parent().unwrap_or(Path::new("/usr/bin"));
        c.env_clear()
            .env(
                "PATH",
                format!("{}:/usr/local/bin:/usr/bin:/bin", own.display()),
            )
            .env("GIT_CONFIG_GLOBAL", self.dir.join("gitconfig"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Over what a repository's own configuration says: nothing is got from elsewhere.
            .env("GIT_ALLOW_PROTOCOL", "file")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("LC_ALL", "C")
            .current_dir(&self.dir)
            // Over what a repository's own configuration says.
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.fsmonitor=false",
            ]);
        c
    }

    /// A git on our own repository.
    pub(super) fn ours(&self) -> Command {
        let mut c = self.plain();
        c.arg("--git-dir").arg(self.repo());
        c
    }

    /// A git in a repository of the user.
    pub(super) fn theirs(&self, repo: &Path) -> Command {
        let mut c = self.plain();
        // Asked for by name, so its owner does not matter: root of a container often is another.
        c.env("GIT_CONFIG_GLOBAL", self.trusting())
            .arg("-C")
            .arg(repo);
        c
    }

    /// A configuration that reads repositories whoever owns them.
    pub(super) fn trusting(&self) -> PathBuf {
        self.dir.join("gitconfig-any-owner")
    }

    /// Runs it to its end and wants success.
    pub(super) fn run(
        &self,
        command: Command,
        stdin: &[u8],
        what: &str,
    ) -> Result<Vec<u8>, SandboxError> {
        let out = self.output(command, stdin)?;
        if out.status.success() {
            return Ok(out.stdout);
        }
        let said = String::from_utf8_lossy(&out.stderr);
        Err(SandboxError::Repo(format!("{what}: {}", said.trim())))
    }

    /// Runs it to its end, whatever that is.
    pub(super) fn output(&self, mut c: Command, stdin: &[u8]) -> Result<Output, SandboxError> {
        c.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let missing = |e: io::Error| {
            let git = self.program.display();
            SandboxError::Repo(format!("git cannot be started as {git}: {e}"))
        };
        let mut child = c.spawn().map_err(missing)?;
        let pipe = child.stdin.take();
        thread::scope(|s| {
            s.spawn(move || {
                // A git that does not read to the end says why by its exit code.
                pipe.map(|mut p| drop(p.write_all(stdin)))
            });
            child.wait_with_output()
        })
        .map_err(io_error("git"))
    }

    /// A path that it prints.
    pub(super) fn path(&self, c: Command, what: &str) -> Result<PathBuf, SandboxError> {
        let mut out = self.run(c, &[], what)?;
        out.pop_if(|b| *b == b'\n');
        Ok(OsString::from_vec(out).into())
    }

    /// One line of output, trimmed.
    pub(super) fn line(
        &self,
        c: Command,
        stdin: &[u8],
        what: &str,
    ) -> Result<String, SandboxError> {
        let out = self.run(c, stdin, what)?;
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    }
}

/// Adds a temporary index to a command.
pub(super) fn with_index(mut c: Command, index: &Path) -> Command {
    c.env("GIT_INDEX_FILE", index);
    c
}

/// Adds arguments to a command.
pub(super) fn with<S: AsRef<OsStr>>(mut c: Command, args: impl IntoIterator<Item = S>) -> Command {
    c.args(args);
    c
}
