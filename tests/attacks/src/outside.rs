//! Attacks that are seen from outside: what lives on, what floods, what the host is made to read.

use crate::{
    Result,
    pass::{Boxed, Pass},
    report::{Control, Got, Row},
};
use smallhands_attacks::host;
use smallhands_sandbox::{Ended, Invocation, SandboxError};
use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

type Tried = fn(&Pass) -> Result<(Control, Got)>;

const CAP: u64 = 64 << 10;

pub(crate) fn probes(p: &Pass) -> Result<Vec<Row>> {
    let list: &[(&str, &str, Tried)] = &[
        ("daemons", "daemon_outlives_command", daemon),
        ("daemons", "deaf_to_the_deadline", deaf),
        ("daemons", "daemon_outlives_sandbox", close),
        ("daemons", "stopped_outlives_deadline", stopped),
        ("limits", "output_flood", flood),
        ("processes", "kill_supervisor", supervisor),
        ("host", "host_reads_symlink", read_link),
        ("host", "host_reads_parent", read_parent),
        ("host", "host_writes_symlink", write_link),
        ("host", "host_writes_linked_directory", write_directory),
        ("host", "host_reads_pipe", read_pipe),
        ("host", "host_writes_pipe", write_pipe),
        ("host", "snapshot_of_pipe", snapshot_pipe),
        ("host", "host_lists_linked_directory", list),
        ("host", "snapshot_follows_link", snapshot),
        ("host", "diff_follows_link", diff),
    ];
    let mut rows = Vec::new();
    for (class, name, run) in list {
        let (control, got) = run(p).map_err(|e| format!("{name}: {e}"))?;
        rows.push(Row {
            user: p.user.clone(),
            class: (*class).into(),
            name: (*name).into(),
            control,
            inside: Some(got),
            without: Vec::new(),
        });
    }
    Ok(rows)
}

pub(crate) fn good(yes: bool, otherwise: &str) -> Control {
    match yes {
        true => Control::Good,
        false => Control::Bad(otherwise.into()),
    }
}

pub(crate) fn refused(no: bool, how: &str) -> Got {
    match no {
        true => Got::Refused(how.into()),
        false => Got::Succeeded,
    }
}

/// Processes of attacks by name, but those of the baits.
fn alive(name: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let here = std::env::current_dir()
        .unwrap_or_default()
        .display()
        .to_string();
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(&format!("attack\0{name}\0")) && line.contains(&here)
    })
    .collect()
}

fn gone(name: &str) -> bool {
    let begun = Instant::now();
    while !alive(name).is_empty() && begun.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(20));
    }
    alive(name).is_empty()
}

/// Outside, the attack's processes live on after its end.
fn lives_on(p: &Pass, name: &str) -> Result<Control> {
    let mut child = p.outside(name)?.stdout(Stdio::null()).spawn()?;
    let begun = Instant::now();
    while alive(name).len() < 2 && begun.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(20));
    }
    if name == "daemon" {
        child.wait()?;
    }
    let before = alive(name).len();
    for pid in alive(name) {
        host::end(pid);
    }
    for pid in host::children()
        .into_iter()
        .filter(|_| !alive(name).is_empty())
    {
        host::end(pid);
    }
    drop(child.wait());
    Ok(good(before > 0, "nothing lived on"))
}

fn daemon(p: &Pass) -> Result<(Control, Got)> {
    let control = lives_on(p, "daemon")?;
    let s = p.open(&p.spec())?;
    p.exec(&s, &p.attack("daemon"))?;
    let got = refused(gone("daemon"), "killed with its command");
    p.wait(s.close())?;
    Ok((control, got))
}

fn deaf(p: &Pass) -> Result<(Control, Got)> {
    let control = lives_on(p, "deaf")?;
    let s = p.open(&p.spec())?;
    let what = p.attack("deaf").deadline(Duration::from_millis(300));
    let ended = p.exec(&s, &what)?.ended;
    let got = refused(
        ended == Ended::TimedOut && gone("deaf"),
        "killed at the deadline",
    );
    p.wait(s.close())?;
    Ok((control, got))
}

fn stopped(p: &Pass) -> Result<(Control, Got)> {
    let s = p.open(&p.spec())?;
    let script = "kill -STOP $$; echo on";
    let what = Invocation::new(["sh", "-c", script]).deadline(Duration::from_millis(300));
    let ended = p.exec(&s, &what)?.ended;
    p.wait(s.close())?;
    // Outside, it stands still until somebody kills it.
    let mut child = std::process::Command::new("sh")
        .args(["-c", script])
        .spawn()?;
    thread::sleep(Duration::from_millis(300));
    let stands = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    Ok((
        good(stands, "it ended"),
        refused(ended == Ended::TimedOut, "killed at the deadline"),
    ))
}

fn close(p: &Pass) -> Result<(Control, Got)> {
    let control = lives_on(p, "deaf")?;
    let s = p.open(&p.spec())?;
    let what = p.attack("deaf");
    let ended = p.wait(async {
        let mut sink = |_: &str, _: &[u8]| {};
        let run = s.exec(&what, &mut sink, &p.cx);
        tokio::time::timeout(Duration::from_millis(500), run)
            .await
            .is_err()
    });
    drop(s);
    Ok((
        control,
        refused(ended && gone("deaf"), "killed with its sandbox"),
    ))
}

fn flood(p: &Pass) -> Result<(Control, Got)> {
    let outside = p
        .outside("flood")?
        .stderr(Stdio::null())
        .output()?
        .stdout
        .len() as u64;
    let s = p.open(&p.spec())?;
    let mut what = p.attack("flood");
    what.max_output = CAP;
    let done = p.exec(&s, &what)?;
    p.wait(s.close())?;
    let kept = done.stdout.len().max(done.stderr.len()) as u64;
    Ok((
        good(outside > CAP, "no flood"),
        refused(kept <= CAP && done.cut_bytes > CAP, "capped and counted"),
    ))
}

fn supervisor(p: &Pass) -> Result<(Control, Got)> {
    // Outside, the parent is a shell, which dies of it.
    let attack = p.host.tools.join("attack");
    let script = format!("{} kill_supervisor; echo alive", attack.display());
    let mut shell = std::process::Command::new("sh");
    let outside = shell.args(["-c", &script]).output()?;
    let s = p.open(&p.spec())?;
    let tried = p.exec(&s, &p.attack("kill_supervisor"));
    let lives = tried.is_ok() && p.exec(&s, &Invocation::new(["true"])).is_ok_and(|d| d.ok());
    p.wait(s.close())?;
    let died = !String::from_utf8_lossy(&outside.stdout).contains("alive");
    Ok((
        good(died, "the shell lived on"),
        refused(lives, "it lives on"),
    ))
}

/// A sandbox in which a script was run that lays a trap.
fn trapped(p: &Pass, script: &str) -> Result<Boxed> {
    let s = p.open(&p.spec())?;
    let done = p.exec(&s, &Invocation::new(["sh", "-c", script]))?;
    match done.ok() {
        true => Ok(s),
        false => Err(format!("the trap: {}", done.text()).into()),
    }
}

fn link(p: &Pass, bait: &str) -> Result<String> {
    Ok(format!("ln -s {} trap", p.host.baits.get(bait)?))
}

/// The same trap on the host, where a naive reader is caught.
fn naive(p: &Pass, bait: &str) -> Result<Control> {
    let here = p.place.join("outside/trap");
    drop(fs::remove_file(&here));
    std::os::unix::fs::symlink(p.host.baits.path(bait)?, &here)?;
    let caught = fs::metadata(&here)?.len() > 0;
    Ok(good(caught, "the link leads nowhere"))
}

fn said<T>(r: std::result::Result<T, SandboxError>) -> Got {
    match r {
        Ok(_) => Got::Succeeded,
        Err(e) => Got::Refused(e.to_string()),
    }
}

fn read_link(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, &link(p, "secret")?)?;
    Ok((naive(p, "secret")?, said(p.wait(s.read("trap")))))
}

fn read_parent(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, "true")?;
    let secret = p.host.baits.get("secret")?;
    let path = format!("{}{secret}", "../".repeat(20));
    let outside = p.place.join("outside").join(&path);
    Ok((
        good(outside.exists(), "no way up"),
        said(p.wait(s.read(&path))),
    ))
}

fn write_link(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, &link(p, "writable")?)?;
    Ok((naive(p, "writable")?, said(p.wait(s.write("trap", b"x")))))
}

fn write_directory(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, &link(p, "dir")?)?;
    Ok((naive(p, "dir")?, said(p.wait(s.write("trap/new", b"x")))))
}

fn list(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, &link(p, "dir")?)?;
    let listed = p.wait(s.list(""))?;
    let no = !listed.iter().any(|e| e.path.contains("secret"));
    Ok((naive(p, "dir")?, refused(no, "links are not followed")))
}

fn read_pipe(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, "mkfifo trap")?;
    pipe(p, s.read("trap"))
}

fn write_pipe(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, "mkfifo trap")?;
    pipe(p, s.write("trap", b"x"))
}

fn snapshot_pipe(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, "mkfifo trap; mkdir d; mkfifo d/trap")?;
    pipe(p, async {
        // Whether it is an error is not the question.
        drop(s.diff().await);
        drop(s.snapshot(&*p.cx.ambient().blobs).await);
        s.list("").await
    })
}

/// Nobody is at the other end of a pipe: outside that takes for ever.
fn pipe<T>(p: &Pass, call: impl Future<Output = T>) -> Result<(Control, Got)> {
    let limit = Duration::from_secs(10);
    let held = p.wait(async { tokio::time::timeout(limit, call).await.is_err() });
    let mut cat = std::process::Command::new("sh")
        .args(["-c", "rm -f pipe; mkfifo pipe; cat pipe"])
        .current_dir(p.place.join("outside"))
        .spawn()?;
    thread::sleep(Duration::from_millis(200));
    let hangs = cat.try_wait()?.is_none();
    cat.kill()?;
    cat.wait()?;
    // The shell's child has it open still.
    drop(
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(p.place.join("outside/pipe")),
    );
    Ok((good(hangs, "it ended"), refused(!held, "answered at once")))
}

fn snapshot(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, &link(p, "dir")?)?;
    let blobs = &p.cx.ambient().blobs;
    let blob = p.wait(s.snapshot(&**blobs))?;
    let bytes = p.wait(blobs.get(&blob))?;
    let no =
        p.host.baits.found(&bytes).is_err() && !String::from_utf8_lossy(&bytes).contains("trap/");
    Ok((naive(p, "dir")?, refused(no, "links are kept as links")))
}

fn diff(p: &Pass) -> Result<(Control, Got)> {
    let s = trapped(p, &link(p, "secret")?)?;
    let text = p.wait(s.diff())?;
    let token = p.host.baits.get("token")?;
    let no = !text.contains(&format!("+{token}"));
    Ok((naive(p, "secret")?, refused(no, "links are kept as links")))
}
