//! Sets the baits, opens sandboxes, sends the attacks in, and counts.

mod caches;
mod egress;
mod faults;
mod git;
mod outside;
mod pass;
mod report;

use report::{Report, Row};
use std::{
    env,
    error::Error,
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Who agents are where we are root, and who the second pass is.
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    smallhands_sandbox::linux::init();
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let done = match args.first().map(String::as_str) {
        Some("--pass") => pass::pass(Path::new(&args[1]), &args[2]).map(|()| true),
        Some("--victim") => faults::victim(Path::new(&args[1])).map(|()| true),
        Some("--full-disk") => faults::on_full_disk(Path::new(&args[1])).map(|()| true),
        _ => all(has("--json"), has("--brief")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("attacks: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Both users, beside each other; `brief` leaves out the walls taken away.
fn all(json: bool, brief: bool) -> Result<bool> {
    let dir = Temp::new()?;
    let tools = dir.0.join("tools");
    fs::create_dir(&tools)?;
    install(&tools)?;
    let mut users = vec!["unprivileged"];
    if pass::is_root() {
        users.insert(0, "root");
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut leaked = 0;
    let top = &dir.0;
    let passes: Vec<_> = thread::scope(|t| {
        let begun = users
            .iter()
            .map(|user| t.spawn(move || run(&top.join(user), user, brief)));
        let begun: Vec<_> = begun.collect();
        begun
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    for done in passes {
        let (more, left) = done.map_err(|_| "a pass panicked")??;
        rows.extend(more);
        leaked += left;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let name = dir.0.display().to_string();
    leaked += mounts.lines().filter(|l| l.contains(&name)).count();
    let report = Report::new(rows, leaked);
    report.print(json);
    Ok(report.good())
}

/// One user's pass, in a process of its own that the terminal belongs to.
fn run(place: &Path, user: &str, brief: bool) -> Result<(Vec<Row>, usize)> {
    fs::create_dir(place)?;
    if pass::is_root() && user != "root" {
        std::os::unix::fs::chown(place, Some(NOBODY), Some(NOBODY))?;
    }
    let program: PathBuf = place.with_file_name("tools").join("attacks");
    let mut c = Command::new(program);
    c.arg("--pass").arg(place).arg(user);
    c.args(brief.then_some("--brief"));
    c.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    c.current_dir(place).stdout(Stdio::piped());
    if pass::is_root() && user != "root" {
        c.uid(NOBODY).gid(NOBODY);
    }
    let mut child = c.stdin(Stdio::piped()).spawn()?;
    let groups = Delegated::to(user, child.id())?;
    // It waits for this.
    drop(child.stdin.take());
    let out = child.stdout.take().ok_or("no output")?;
    let (mut rows, mut left, mut faults) = (Vec::new(), None, 0);
    for line in BufReader::new(out.take(64 << 20)).lines() {
        match serde_json::from_str(&line?)? {
            pass::Said::Row(row) => rows.push(row),
            pass::Said::Fault(name, n) => {
                faults += n;
                if n > 0 {
                    eprintln!("LEFT BEHIND by {user}, {name}: {n}");
                }
            }
            pass::Said::Left(n) => left = Some(n),
        }
    }
    let status = child.wait()?;
    let left = left.map(|n| n + faults + groups.left());
    let left = left.ok_or_else(|| format!("the pass as {user} ended early: {status}"))?;
    Ok((rows, left))
}

/// Copies of both programs where everybody can run them, and one that runs as its owner.
fn install(tools: &Path) -> Result {
    let me = env::current_exe()?;
    for name in ["attacks", "attack"] {
        fs::copy(me.with_file_name(name), tools.join(name))?;
        fs::set_permissions(tools.join(name), Permissions::from_mode(0o755))?;
    }
    fs::create_dir(tools.join("granted"))?;
    fs::copy(me.with_file_name("attack"), tools.join("granted/attack"))?;
    fs::copy(me.with_file_name("attack"), tools.join("granted/setuid"))?;
    fs::set_permissions(tools.join("granted/setuid"), Permissions::from_mode(0o4755))?;
    fs::write(tools.join("granted/file"), "granted")?;
    fs::set_permissions(tools.join("granted/file"), Permissions::from_mode(0o666))?;
    fs::create_dir(tools.join("owned"))?;
    fs::write(tools.join("owned/file"), "owned")?;
    fs::set_permissions(tools.join("granted"), Permissions::from_mode(0o777))?;
    if pass::is_root() {
        for path in ["owned", "owned/file"] {
            std::os::unix::fs::chown(tools.join(path), Some(NOBODY), Some(NOBODY))?;
        }
    }
    Ok(())
}

/// A directory that is gone at the end.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Result<Self> {
        // Not below /tmp, which may be written inside as far as Landlock goes; and where others get to.
        let open = |p: &&Path| fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 1 == 1);
        let (me, tmp) = (env::current_exe()?, env::temp_dir());
        let beside = me.parent().filter(|p| p.ancestors().all(|a| open(&a)));
        let name = format!("attacks-{}.d", std::process::id());
        let dir = beside.unwrap_or(&tmp).join(name);
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        Ok(Self(dir))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Control groups that an administrator gave to the unprivileged user: version 1, as root.
#[derive(Default)]
struct Delegated(Vec<PathBuf>);

impl Delegated {
    fn to(user: &str, pid: u32) -> Result<Self> {
        let mut groups = Self::default();
        if user == "root" || !pass::is_root() {
            return Ok(groups);
        }
        for line in fs::read_to_string("/proc/self/cgroup")?.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(name @ ("memory" | "pids")), Some(path)) = (parts.next(), parts.next())
            else {
                continue;
            };
            let dir = PathBuf::from(format!("/sys/fs/cgroup/{name}{path}/attacks-{pid}"));
            // No such hierarchy, or not ours to give.
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            for path in [dir.clone(), dir.join("cgroup.procs")] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
            }
            fs::write(dir.join("cgroup.procs"), pid.to_string())?;
            groups.0.push(dir);
        }
        Ok(groups)
    }

    /// Groups that sandboxes left in them.
    fn left(&self) -> usize {
        let is_dir = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
        let dirs = self.0.iter().filter_map(|d| fs::read_dir(d).ok());
        dirs.flatten().flatten().filter(is_dir).count()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        // Errors: something is left in it, and was counted.
        self.0.iter().for_each(|d| drop(fs::remove_dir(d)));
    }
}
