//! The host's side: many at once, sudden death, and what is left.

use crate::support::{World, block_on, close, host, is_root};
use smallhands_sandbox::{SandboxBackend, SandboxError};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const CHILD: &str = "--host-to-be-killed";
const TRY: &str = "--try-open";

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes whose command line holds the text.
fn processes(text: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|p| p.unwrap().file_name().to_str()?.parse().ok());
    let line = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&line(pid)).contains(text))
        .collect()
}

/// Of what a process stands below, the child of ours.
fn ours_above(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"))?;
    match parent.trim().parse().ok()? {
        0 => None,
        above if above == std::process::id() => Some(pid),
        above => ours_above(above),
    }
}

pub(crate) fn twenty_at_once() {
    let w = World::new();
    let spec = w.spec();
    std::thread::scope(|t| {
        let runs: Vec<_> = (0..20)
            .map(|i| {
                let (w, spec) = (&w, &spec);
                t.spawn(move || {
                    let s = w.try_open(spec).unwrap();
                    w.out(&s, &format!("echo {i} > mine; sleep 0.1"));
                    assert_eq!(w.out(&s, "cat mine"), format!("{i}\n"));
                    close(s);
                })
            })
            .collect();
        runs.into_iter().for_each(|r| r.join().unwrap());
    });
    assert_eq!(w.sandboxes_left(), 0);
}

pub(crate) fn probe_tries_every_layer() {
    let w = World::new();
    let found = block_on(w.backend.probe());
    assert!(found.usable(), "{found:#?}");
    for name in ["user namespace", "landlock", "seccomp", "proc", "rlimits"] {
        let layer = found.layers.iter().find(|l| l.name == name).unwrap();
        assert!(layer.works && layer.required, "{layer:?}");
    }
    for name in ["memory cgroup", "pids cgroup", "cpu cgroup"] {
        let layer = found.layers.iter().find(|l| l.name == name).unwrap();
        assert!(!layer.required && !layer.detail.is_empty(), "{layer:?}");
    }
    assert_eq!(w.sandboxes_left(), 0);
}

pub(crate) fn a_helper_that_is_none_is_an_error() {
    for (program, text) in [
        ("/bin/true", "without a word"),
        ("/no/such/helper", "No such file"),
    ] {
        let w = World::with(|o| o.helper = Some(program.into()));
        let Err(SandboxError::Setup { reason, .. }) = w.try_open(&w.spec()) else {
            panic!("{program} opened");
        };
        assert!(reason.contains(text), "{reason}");
        assert!(!block_on(w.backend.probe()).usable());
    }
}

pub(crate) fn a_lost_agent_is_said_to_be_lost() {
    let w = World::new();
    let s = w.open();
    let long = format!("77.{}", std::process::id());
    let sleeping = format!("sleep\0{long}\0");
    let result = std::thread::scope(|t| {
        t.spawn(|| {
            until("a command runs", || !processes(&sleeping).is_empty());
            // Its own helper: others are at work in other tests.
            let helper = processes(&sleeping).into_iter().find_map(ours_above);
            host(
                "kill",
                &["-9", &helper.unwrap().to_string()],
                Path::new("/"),
            );
        });
        w.try_exec(&s, &smallhands_sandbox::Invocation::new(["sleep", &long]))
    });
    assert!(matches!(result, Err(SandboxError::Lost(_))), "{result:?}");
    assert!(matches!(
        block_on(s.read("README.md")),
        Err(SandboxError::Lost(_))
    ));
    until("it ends", || processes(&sleeping).is_empty());
    close(s);
    // What was killed was what sandboxes are forked from: there is another one.
    let again = w.open();
    assert_eq!(w.out(&again, "cat README.md"), "hello\n");
    close(again);
}

/// The other process of the next test.
#[allow(clippy::print_stdout)]
pub(crate) fn be_killed() -> ! {
    let w = World::new();
    let s = w.open();
    println!("{}", w.dir.0.display());
    std::io::stdout().flush().unwrap();
    w.sh(&s, "setsid sleep 4242 & sleep 4242");
    std::process::exit(1)
}

#[allow(clippy::disallowed_methods)] // The host of a sandbox, to be killed.
pub(crate) fn nothing_survives_the_host() {
    let mut host_process = Command::new("/proc/self/exe")
        .arg(CHILD)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = host_process.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let dir = Path::new(line.trim());
    until("the commands run", || {
        processes("sleep\x004242\0").len() >= 2
    });
    host_process.kill().unwrap();
    host_process.wait().unwrap();
    until("the commands end", || {
        processes("sleep\x004242\0").is_empty()
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(line.trim()), "a mount is left");
    // The next backend on the same directory clears what is left there.
    let left = || fs::read_dir(dir.join("state/sandboxes")).unwrap().count();
    assert_eq!(left(), 1);
    let store =
        smallhands_sandbox::RepoStore::open(dir.join("store"), crate::support::git_program());
    let options = smallhands_sandbox::linux::NativeOptions::new(
        std::sync::Arc::new(store.unwrap()),
        dir.join("state"),
    );
    // PID 1 may still be dying, with the overlay in use.
    until("the directory is cleared", || {
        drop(smallhands_sandbox::linux::NativeBackend::new(options.clone()).unwrap());
        left() == 0
    });
    fs::remove_dir_all(dir).unwrap();
}

/// What this program does for a test instead of testing.
pub(crate) fn other_role() -> bool {
    match std::env::args().nth(1).as_deref() {
        Some(CHILD) => be_killed(),
        Some(TRY) => try_open(),
        Some(crate::environments::CHILD) => crate::environments::other_process(),
        Some("--latency") => latency(50),
        _ => return false,
    }
    true
}

/// This program again, started by another one, with these arguments for itself.
#[allow(clippy::disallowed_methods)] // The same program as another user.
fn again(starter: &[&str], args: &[&str]) -> String {
    let me = std::env::current_exe().unwrap();
    let out = Command::new(starter[0])
        .args(&starter[1..])
        .arg(me)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}\n{said}");
    text
}

/// One test in a process of its own: what another one has just forked holds our locks, too, until it
/// is another program.
pub(crate) fn alone(name: &str, test: fn()) {
    match std::env::args().any(|a| a == "--exact") {
        true => test(),
        false => drop(again(&["env"], &[name, "--exact"])),
    }
}

pub(crate) fn is_capable_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:\t"))
        .unwrap();
    is_root() && u64::from_str_radix(effective, 16).unwrap() & (1 << 21) != 0
}

fn is_root_of_a_container() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    is_root() && map.split_whitespace().nth(2) == Some("1")
}

/// Every test once more, as somebody without any privilege.
pub(crate) fn all_again_without_privilege() {
    let user = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let text = again(&user, &[]);
    assert!(text.contains("attacks::privileges_are_gone"), "{text}");
}

/// The attacks once more, as a root that lacks what the direct way needs.
pub(crate) fn attacks_again_as_a_weak_root() {
    let weak = [
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
    ];
    let text = again(&weak, &["attacks::"]);
    assert!(text.contains("attacks::privileges_are_gone"), "{text}");
}

/// The attacks once more, as the only user of a user namespace, who is called root there.
pub(crate) fn attacks_again_as_root_of_a_container() {
    let text = again(&["unshare", "-Ur"], &["attacks::"]);
    assert!(text.contains("attacks::privileges_are_gone"), "{text}");
}

/// Which of the above make sense from here; each run ends in one where none do.
pub(crate) fn again_trials() -> Vec<libtest_mimic::Trial> {
    let trial = |name: &str, f: fn()| {
        libtest_mimic::Trial::test(name, move || {
            f();
            Ok(())
        })
    };
    let mut trials = vec![trial("hosts::what_cannot_be_enforced_is_refused", refusals)];
    if is_root_of_a_container() {
        trials.clear();
    } else if is_capable_root() {
        trials.push(trial(
            "hosts::all_again_without_privilege",
            all_again_without_privilege,
        ));
        trials.push(trial(
            "hosts::attacks_again_as_a_weak_root",
            attacks_again_as_a_weak_root,
        ));
    } else if !is_root() {
        let name = "hosts::attacks_again_as_root_of_a_container";
        trials.push(trial(name, attacks_again_as_root_of_a_container));
    }
    trials
}

/// Opens a sandbox in a place where that must not work, and says why it does not.
#[allow(clippy::print_stdout)]
pub(crate) fn try_open() {
    let w = World::new();
    match w.try_open(&w.spec()) {
        Ok(_) => println!("opened"),
        Err(e) => println!("{}: {e}", e.code()),
    }
    println!("{:?}", block_on(w.backend.probe()).layers.first());
}

fn refusals() {
    let none = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    let said = again(&["unshare", "-Ur", "sh", "-c", none, "sh"], &[TRY]);
    assert!(
        said.starts_with("sandbox.unavailable: the sandbox layer `user namespace`"),
        "{said}"
    );
    assert!(said.contains("sysctl user.max_user_namespaces") && said.contains("works: false"));
    let none = "echo 0 > /proc/sys/user/max_net_namespaces; exec \"$@\"";
    let said = again(&["unshare", "-Ur", "sh", "-c", none, "sh"], &[TRY]);
    assert!(
        said.contains("`network namespace` is not available")
            && said.contains("sysctl user.max_net_namespaces"),
        "{said}"
    );
    if is_root() {
        // Its processes would not be counted.
        let said = again(&["unshare", "-Ur"], &[TRY]);
        assert!(said.contains("`process limit` is not available"), "{said}");
    }
    // Without a /proc to mount.
    let masked = "mount -t tmpfs none /proc/sys; exec \"$@\"";
    let said = again(&["unshare", "-Urm", "sh", "-c", masked, "sh"], &[TRY]);
    assert!(
        said.contains("`proc` is not available") && said.contains("unmask /proc"),
        "{said}"
    );
}

/// How long a sandbox takes from opening to the end of `true` to its end, on a repository of the
/// caller's; not a test.
#[allow(clippy::print_stdout)]
pub(crate) fn latency(n: usize) {
    let mut w = World::new();
    if let Some(repo) = std::env::args().nth(2) {
        w.repo = repo.into();
    }
    let begun = Instant::now();
    let spec = w.spec();
    let imported = begun.elapsed();
    w.store
        .checkout(&spec.source.as_ref().unwrap().commit)
        .unwrap();
    println!(
        "import: {imported:?}, checkout: {:?}",
        begun.elapsed() - imported
    );
    let mut all: Vec<[Duration; 4]> = (0..n)
        .map(|_| {
            let begun = Instant::now();
            let s = w.try_open(&spec).unwrap();
            let opened = begun.elapsed();
            assert!(
                w.exec(&s, &smallhands_sandbox::Invocation::new(["true"]))
                    .ok()
            );
            let ran = begun.elapsed();
            close(s);
            let closed = begun.elapsed();
            [closed, opened, ran - opened, closed - ran]
        })
        .collect();
    for (i, what) in ["all", "open", "exec", "close"].iter().enumerate() {
        all.sort_by_key(|t| t[i]);
        println!("{what}: median {:?}, min {:?}", all[n / 2][i], all[0][i]);
    }
}
