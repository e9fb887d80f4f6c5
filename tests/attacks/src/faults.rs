//! Hosts and helpers that die, disks that are full, many at once: nothing may be left.

use crate::{Result, pass::Pass};
use smallhands_attacks::host;
use smallhands_sandbox::{
    Egress, Invocation, SandboxBackend, SandboxError, SandboxSpec,
    linux::{NativeBackend, NativeOptions},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::symlink, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a helper, PID 1 or a command is about to do when it is killed.
const STAGES: &[(&str, libc::c_long)] = &[
    ("a namespace", libc::SYS_unshare),
    ("the fork of PID 1", libc::SYS_clone),
    ("loopback", libc::SYS_ioctl),
    ("the host name", libc::SYS_sethostname),
    ("a mount", libc::SYS_mount),
    ("a bind", libc::SYS_open_tree),
    ("its flags", libc::SYS_mount_setattr),
    ("its place", libc::SYS_move_mount),
    ("the new root", libc::SYS_pivot_root),
    ("the end of the old root", libc::SYS_umount2),
    ("the change of user", libc::SYS_setresuid),
    ("the end of capabilities", libc::SYS_capset),
    ("the agent's loop", libc::SYS_signalfd4),
    ("pipes of a command", libc::SYS_pipe2),
    ("the session of a command", libc::SYS_setsid),
    ("landlock", libc::SYS_landlock_create_ruleset),
    ("its enforcement", libc::SYS_landlock_restrict_self),
    ("seccomp", libc::SYS_seccomp),
    ("the end of a command", libc::SYS_wait4),
];

/// Each fault, and how much it left.
pub(crate) fn faults(p: &Pass) -> Result<Vec<(String, usize)>> {
    let mut all = Vec::new();
    // Nobody else has another user to become.
    let reached = |number| p.user == "root" || number != libc::SYS_setresuid;
    for (stage, number) in STAGES.iter().filter(|s| reached(s.1)) {
        all.push((format!("killed at {stage}"), killed(p, *number)?));
    }
    all.push(("no confined way out".into(), unconfined(p)?));
    for round in 0..5 {
        let name = format!("host killed, round {round}");
        all.push((name, host_killed(p, Duration::from_millis(round * 40))?));
    }
    let many = if p.user == "root" { 500 } else { 100 };
    all.push((format!("{many} at once"), at_once(p, many)?));
    if p.user == "root" {
        all.push(("full disk".into(), full_disk(p)?));
    }
    Ok(all)
}

/// Sandboxes of a state directory, children of ours, and mounts, once they had time to end; but the
/// directories and zygotes of so many backends that live.
fn left(p: &Pass, state: &Path, dens: usize, zygotes: usize) -> Result<usize> {
    let begun = Instant::now();
    loop {
        host::reap();
        let mut left = 0;
        let found = fs::read_dir(state.join("sandboxes"))?.flatten();
        let found: Vec<PathBuf> = found.map(|d| d.path()).collect();
        for den in &found {
            // All but the lock and three mount points.
            left += fs::read_dir(den)
                .map_or(0, Iterator::count)
                .saturating_sub(4);
        }
        left += found.len().saturating_sub(dens);
        let mut children = host::children();
        children.retain(|c| !p.own_child(*c));
        // A sandbox is the child of one; and one waits for the next.
        let below = children.iter().map(|c| host::children_of(*c).len());
        left += below.map(|n| n.saturating_sub(1)).sum::<usize>();
        let waiting = children.iter().filter(|c| host::is_zygote(**c)).count();
        left += children.len() - waiting.min(zygotes);
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let place = p.place.display().to_string();
        let ours = |l: &&str| l.contains(&place) && !l.contains("/tiny ");
        left += mounts.lines().filter(ours).count();
        if left == 0 || begun.elapsed() > Duration::from_secs(10) {
            return Ok(left);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A backend of its own, whose helper is stopped at a system call in this way.
fn stopped(p: &Pass, how: &str, number: libc::c_long, state: &Path) -> Result<NativeBackend> {
    let helper = p.place.join(format!("{how}-at-{number}"));
    if !helper.exists() {
        symlink(p.host.tools.join("attack"), &helper)?;
    }
    let mut options = NativeOptions::new(p.store.clone(), state);
    options.helper = Some(helper);
    Ok(NativeBackend::new(options)?)
}

/// What carries connections out cannot be walled in: then nothing opens that would have a way out,
/// and what needs none does.
fn unconfined(p: &Pass) -> Result<usize> {
    let state = p.place.join("unconfined");
    let backend = stopped(p, "refuse", libc::SYS_landlock_restrict_self, &state)?;
    let open = |egress| {
        let spec = SandboxSpec {
            egress,
            ..SandboxSpec::default()
        };
        p.wait(async { backend.open(&spec, &p.cx).await?.close().await })
    };
    let (with, without) = (open(Some(Egress::default())), open(None));
    let left = left(p, &state, 1, 2)?;
    drop(backend);
    match (with, without) {
        (Err(SandboxError::Setup { stage, .. }), Ok(())) if stage == "landlock" => Ok(left),
        other => Err(format!("without Landlock for the way out: {other:?}").into()),
    }
}

/// One whose helper dies at a system call.
fn killed(p: &Pass, number: libc::c_long) -> Result<usize> {
    let state = p.place.join("faults");
    let backend = stopped(p, "kill", number, &state)?;
    let begun = Instant::now();
    let done = p.wait(async {
        let s = backend.open(&SandboxSpec::default(), &p.cx).await?;
        let done = s
            .exec(&Invocation::new(["true"]), &mut |_, _| {}, &p.cx)
            .await;
        s.close().await?;
        done
    });
    // A command that was killed is a result, of a signal; anything else is an error.
    let honest = done.as_ref().map_or(true, |d| !d.ok());
    let left = left(p, &state, 1, 2)?;
    drop(backend);
    match honest && begun.elapsed() < Duration::from_secs(60) {
        true => Ok(left),
        false => Err(format!("killed at {number}, and it says {done:?}").into()),
    }
}

/// Another host in our place, which opens and runs until it is killed.
pub(crate) fn victim(place: &Path) -> Result {
    let git = ["/usr/local/bin/git", "/usr/bin/git"].map(PathBuf::from);
    let git = git
        .into_iter()
        .find(|g| g.exists())
        .ok_or("git is needed")?;
    let store = smallhands_sandbox::RepoStore::open(place.join("store"), git)?;
    let options = NativeOptions::new(store.into(), place.join("killed"));
    let backend = NativeBackend::new(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ambient =
        smallhands_testkit::ambient(std::sync::Arc::<smallhands_graph::MemoryBlobs>::default());
    let cx = smallhands_core::CallCx::detached(ambient, smallhands_core::CancelToken::new());
    println!("begun");
    std::io::stdout().flush()?;
    runtime.block_on(async {
        let mut open = Vec::new();
        loop {
            let s = backend.open(&SandboxSpec::default(), &cx).await?;
            let script = "setsid sleep 100 & dd if=/dev/zero of=x bs=1k count=100 2>/dev/null";
            let what = Invocation::new(["sh", "-c", script]);
            s.exec(&what, &mut |_, _| {}, &cx).await?;
            open.push(s);
        }
    })
}

fn host_killed(p: &Pass, after: Duration) -> Result<usize> {
    let mut c = Command::new(p.host.tools.join("attacks"));
    c.arg("--victim").arg(&p.place).stdout(Stdio::piped());
    let mut child = c.spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    BufReader::new(out).read_line(&mut String::new())?;
    thread::sleep(after);
    child.kill()?;
    if child.wait()?.signal() != Some(libc::SIGKILL) {
        return Err("the host ended by itself".into());
    }
    // The next one on the same directory cleans up; PID 1 may still be dying.
    let state = p.place.join("killed");
    let mut rest = 0;
    for _ in 0..100 {
        drop(NativeBackend::new(NativeOptions::new(
            p.store.clone(),
            &state,
        ))?);
        rest = fs::read_dir(state.join("sandboxes"))?.count();
        if rest == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(rest + left(p, &state, 0, 1)?)
}

fn at_once(p: &Pass, many: usize) -> Result<usize> {
    let open = p.wait(async {
        let mut open = Vec::new();
        // Ten on their way at a time, all of them there at the end.
        while open.len() < many {
            let begun: Vec<_> = (0..10)
                .map(|_| {
                    let (backend, cx) = (p.backend.clone(), p.cx.clone());
                    tokio::spawn(async move { backend.open(&SandboxSpec::default(), &cx).await })
                })
                .collect();
            for one in begun {
                open.push(one.await.map_err(|e| SandboxError::Lost(e.to_string()))??);
            }
        }
        Ok::<_, SandboxError>(open)
    })?;
    p.wait(async {
        for (n, s) in open.iter().enumerate() {
            let what = Invocation::new(["echo", &n.to_string()]);
            let done = s.exec(&what, &mut |_, _| {}, &p.cx).await?;
            if done.stdout != format!("{n}\n").into_bytes() {
                return Err(SandboxError::Lost(format!("{n} said {}", done.text())));
            }
        }
        for s in open {
            s.close().await?;
        }
        Ok(())
    })?;
    left(p, &p.place.join("state"), 1, 1)
}

/// A state directory with room for a few files only, in a mount namespace of its own.
pub(crate) fn on_full_disk(place: &Path) -> Result {
    host::tiny_disk(&place.join("tiny"))?;
    let p = Pass::plain(place, "root", "tiny/state")?;
    let mut spec = p.spec();
    spec.read_only.clear();
    let (mut open, mut full) = (Vec::new(), false);
    for _ in 0..100 {
        match p.wait(p.backend.open(&spec, &p.cx)) {
            Ok(s) => open.push(s),
            Err(SandboxError::DiskFull(_)) => {
                full = true;
                break;
            }
            Err(e) => return Err(format!("a full disk is called: {e}").into()),
        }
    }
    let Some(s) = open.pop() else {
        return Err("not one could be opened".into());
    };
    let wrote = p.wait(s.write("big", &vec![1; 8 << 20]));
    if !full || !matches!(wrote, Err(SandboxError::DiskFull(_))) {
        return Err(format!("full: {full}, and a write says {wrote:?}").into());
    }
    let ran = p.exec(&s, &Invocation::new(["sh", "-c", "cat /dev/zero > more"]));
    if ran.as_ref().is_ok_and(smallhands_sandbox::Execution::ok) {
        return Err("a command filled a full disk".into());
    }
    p.wait(async {
        for s in open.into_iter().chain([s]) {
            s.close().await?;
        }
        Ok::<_, SandboxError>(())
    })?;
    let rest = left(&p, &place.join("tiny/state"), 1, 1)?;
    println!("{}", rest);
    Ok(())
}

fn full_disk(p: &Pass) -> Result<usize> {
    let mut c = Command::new(p.host.tools.join("attacks"));
    let out = c
        .arg("--full-disk")
        .arg(&p.place)
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    said.parse()
        .map_err(|_| format!("on a full disk: {} {said}", out.status).into())
}
