mod bed;
mod exec;
mod files;
mod shared;
mod state;

use crate::Check;
use bed::Bed;
use smallhands_sandbox::{Change, Content, Generation, RepoSource, SandboxBackend};
use std::{path::PathBuf, sync::Arc};

/// A sandbox backend to be tested, and what it works with.
#[derive(Clone, Debug)]
pub struct SandboxBed {
    /// The backend.
    pub backend: Arc<dyn SandboxBackend>,
    /// A commit that it has, which holds exactly the [`sandbox_files`].
    pub source: RepoSource,
    /// Where that commit is kept on the host, as a repository or as files: never to change.
    pub source_dir: PathBuf,
    /// Where the backend keeps what belongs to open sandboxes: as before once they are closed.
    pub state_dir: PathBuf,
    /// What was published and holds `shared/known` with the line `known`; none where the backend
    /// shows neither caches nor environments, which must then be refused.
    pub generation: Option<Generation>,
}

/// The files that the kit's commit holds; an executable one and a symbolic link are among them.
pub fn sandbox_files() -> Vec<Change<Vec<u8>>> {
    let file = |path: &str, exec, bytes: &[u8]| Change {
        path: path.into(),
        now: Content::File {
            exec,
            bytes: bytes.into(),
        },
    };
    vec![
        file("README.md", false, b"hello\n"),
        file("data/c.bin", false, &[0, 255, 1, 254]),
        Change {
            path: b"link".into(),
            now: Content::Symlink {
                target: b"src/a.txt".into(),
            },
        },
        file("run.sh", true, b"#!/bin/sh\necho run\n"),
        file("src/a.txt", false, b"one\ntwo\nthree\n"),
        file("src/deep/b.txt", false, b"b\n"),
    ]
}

/// What every sandbox promises; `make` gives a new backend, with directories of its own.
///
/// Inside there must be a POSIX shell with its usual programs, and `bash`.
pub fn sandbox(make: impl Fn() -> SandboxBed + Send + Sync + 'static) -> Vec<Check> {
    let make = Arc::new(make);
    let mut checks = Vec::new();
    macro_rules! check {
        ($name:literal, $f:path) => {{
            let make = make.clone();
            checks.push(Check::new($name, move || $f(Bed::new(make()))));
        }};
    }
    check!(
        "it starts with exactly the files of its commit",
        state::clean
    );
    check!("without a source it is empty", state::empty);
    check!("what is not there cannot be opened", state::missing);
    check!("a cancelled call opens nothing", state::cancelled_open);
    check!(
        "a probe says that it is usable and leaves nothing",
        state::probe
    );
    check!(
        "neither the source nor another sandbox sees a change",
        state::apart
    );
    check!(
        "granted paths are shown and cannot be changed",
        state::read_only
    );
    check!("a command ends as it ends", exec::ends);
    check!("arguments arrive as they are", exec::arguments);
    check!("a command gets its input and its directory", exec::input);
    check!("streams are kept apart and shown live", exec::streams);
    check!(
        "output over the cap is cut in the middle and counted",
        exec::cap
    );
    check!("the environment is made, not inherited", exec::environment);
    check!("nothing outlives the deadline", exec::deadline);
    check!("the deadline of the call counts too", exec::call_deadline);
    check!("nothing outlives its command", exec::orphans);
    check!(
        "cancelling the call kills the command, and the sandbox goes on",
        exec::cancel
    );
    check!("commands wait for each other", exec::turns);
    check!(
        "a process is spoken to and ends when it is dropped, if that is offered",
        exec::process
    );
    check!("there is no network", exec::network);
    check!("a list of hosts is kept to, or refused", exec::egress);
    check!("files are read, written and removed", files::read_and_write);
    check!("a list is whole, sorted and without .git", files::list);
    check!("a path that leaves the workspace is refused", files::paths);
    check!("a link out of the workspace is not followed", files::links);
    check!(
        "a snapshot opens elsewhere with everything",
        state::snapshot
    );
    check!("a snapshot costs what changed", state::cost);
    check!(
        "a restore brings back a snapshot or the base",
        state::restore
    );
    check!("a snapshot of another base is refused", state::other_base);
    check!(
        "a fork has the changes and is independent both ways",
        state::fork
    );
    check!("a diff names exactly what changed", state::diff);
    check!(
        "what is written to a cache is seen in its sandbox only, or caches are refused",
        shared::apart
    );
    check!("plain files come out, and nothing else", shared::export);
    check!(
        "an environment is part of the base, or refused",
        shared::environment
    );
    check!("after close nothing is left", state::close);
    checks
}
