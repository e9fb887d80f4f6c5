//! What sandboxes are measured against.

use crate::bed::{Bed, Result};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Bubblewrap with what it has of our layers: it has no Landlock and no limits, and takes a seccomp
/// filter only from somebody else.
const BWRAP: &[&str] = &[
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--clearenv",
    "--cap-drop",
    "ALL",
    "--hostname",
    "sandbox",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/sbin",
    "/sbin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--ro-bind-try",
    "/etc/alternatives",
    "/etc/alternatives",
    "--ro-bind-try",
    "/etc/ld.so.cache",
    "/etc/ld.so.cache",
    "--ro-bind-try",
    "/etc/localtime",
    "/etc/localtime",
    "--ro-bind-try",
    "/etc/ssl/certs",
    "/etc/ssl/certs",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
    "--tmpfs",
    "/workspace",
    "--chdir",
    "/workspace",
    "/bin/true",
];

impl Bed<'_> {
    /// `true` in the sandbox that is compared with: its name and how it is started.
    pub(crate) fn anchor(&self) -> (&'static str, Command) {
        match &self.bwrap {
            Some(bwrap) => ("bubblewrap", command(bwrap, BWRAP)),
            None => (
                "unshare",
                command("unshare".as_ref(), &["-Urnmpf", "/bin/true"]),
            ),
        }
    }
}

fn command(program: &Path, args: &[&str]) -> Command {
    let mut c = Command::new(program);
    c.args(args);
    c
}

/// `true` with nothing around it.
pub(crate) fn plain() -> Command {
    Command::new("/bin/true")
}

/// Runs to a good end.
pub(crate) fn finish(c: &mut Command) -> Result {
    c.stdin(Stdio::null()).stdout(Stdio::null());
    let status = c.status().map_err(|e| format!("{c:?}: {e}"))?;
    (status.success().then_some(())).ok_or_else(|| format!("{c:?}: {status}").into())
}
