//! Between `fork` and `execve`: the layers that each command puts on itself.

use super::{
    at, landlock, limits, mounts,
    proto::{Command, Fault, Policy},
    seccomp::Filters,
    sys, sys_priv,
};
use crate::Wall;
use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// What each command puts on itself, made once. System calls are filtered for PID 1 already.
pub(super) struct Walls {
    landlock: Option<landlock::Rules>,
}

impl Walls {
    /// Confines this process, PID 1, as far as that leaves it what it has to do.
    pub(super) fn new(p: &Policy, view: &mounts::View, filters: &Filters) -> Result<Self, Fault> {
        let devices = mounts::DEVICES.map(|d| format!("/dev/{d}"));
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        let rules = || landlock::Rules::new(&view.writable, &view.readable, &devices);
        let landlock = p.has(Wall::Landlock).then(rules).transpose()?;
        if p.has(Wall::Seccomp) {
            filters.install()?;
        }
        Ok(Self { landlock })
    }
}

/// All that a command needs, made before the fork.
pub(super) struct Launch<'a> {
    pub(super) what: &'a Command,
    pub(super) policy: &'a Policy,
    pub(super) walls: &'a Walls,
    pub(super) work: BorrowedFd<'a>,
}

/// Becomes the command, or says in `report` why not.
pub(super) fn run(l: &Launch<'_>, streams: [BorrowedFd<'_>; 3], report: OwnedFd) -> ! {
    let fault = match prepare(l, streams) {
        Ok(()) => execute(l.what),
        Err(fault) => fault,
    };
    let text = serde_json::to_vec(&fault).unwrap_or_default();
    drop(File::from(report).write_all(&text));
    sys::exit_now(127)
}

fn prepare(l: &Launch<'_>, streams: [BorrowedFd<'_>; 3]) -> Result<(), Fault> {
    let at = |stage: &'static str| move |e: io::Error| Fault::setup(stage, e);
    sys::new_session().map_err(at("session"))?;
    sys::default_signals().map_err(at("signals"))?;
    sys::wire_streams(streams).map_err(at("streams"))?;
    enter(l.work, &l.what.cwd)?;
    // And at commands before PID 1. As a copy of that, its own files in /proc are not its own.
    sys::set_dumpable(true).map_err(at("dumpable"))?;
    drop(fs::write("/proc/self/oom_score_adj", "800"));
    if let Some(rules) = &l.walls.landlock {
        rules.restrict()?;
    }
    limits::apply(&l.policy.limits).map_err(at("limits"))?;
    if !l.policy.has(Wall::Capabilities) {
        sys_priv::keep_capabilities().map_err(at("capabilities"))?;
    }
    Ok(())
}

fn enter(work: BorrowedFd<'_>, cwd: &str) -> Result<(), Fault> {
    let path = super::files::checked(cwd.as_bytes())?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    at::open_beneath(work, &path, flags, 0)
        .and_then(|dir| sys::fchdir(dir.as_fd()))
        .map_err(|e| Fault::NotStarted(format!("the working directory `{}`: {e}", short(cwd))))
}

/// The report must fit into a pipe that nobody reads before the end.
fn short(name: &str) -> String {
    name.chars().take(200).collect()
}

/// Only comes back with an error.
fn execute(what: &Command) -> Fault {
    let text = |s: &str| {
        sys::cstr(s).map_err(|_| Fault::NotStarted("an argument has a NUL byte in it".into()))
    };
    let build = || -> Result<(Vec<CString>, Vec<CString>), Fault> {
        let argv: Result<_, _> = what.argv.iter().map(|a| text(a)).collect();
        let env: Result<_, _> = what
            .env
            .iter()
            .map(|(k, v)| text(&format!("{k}={v}")))
            .collect();
        Ok((argv?, env?))
    };
    let (argv, env) = match build() {
        Ok(both) => both,
        Err(fault) => return fault,
    };
    let Some(program) = what.argv.first() else {
        return Fault::NotStarted("no program was named".into());
    };
    let shown = short(program);
    let mut found: Option<io::Error> = None;
    for path in candidates(program, &what.env) {
        let Ok(path) = sys::cstr(path) else {
            continue;
        };
        let e = sys::execve(&path, &argv, &env);
        match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => found = Some(e),
            _ => return Fault::NotStarted(format!("{shown}: {e}")),
        }
    }
    Fault::NotStarted(match found {
        Some(e) => format!("{shown}: {e}"),
        None => format!("{shown}: no such program, or its interpreter is missing"),
    })
}

fn candidates(program: &str, env: &[(String, String)]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find(|(k, _)| k == "PATH");
    let dirs = path.map_or("", |(_, v)| v.as_str()).split(':');
    dirs.filter(|d| !d.is_empty())
        .map(|d| format!("{d}/{program}"))
        .collect()
}
