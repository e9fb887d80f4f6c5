//! Environments: set up once, shared by all who need the same, changed by nobody.

use crate::hosts::{alone, until};
use crate::support::{World, block_on, close, commit_all, is_root};
use smallhands_sandbox::{
    Cache, CacheKind, Environment, Environments, Invocation, Prepared, SandboxBackend,
    SandboxError, SandboxSpec,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// Sets up beside others; its argument is a directory.
pub(crate) const CHILD: &str = "--set-up-as-another-process";
const SLOW: &str =
    "mkdir -p made/deep; echo half > made/deep/file; sleep 1; echo whole > made/deep/file";

fn sh(script: &str) -> Invocation {
    Invocation::new(["sh", "-c", script])
}

fn what(w: &World, script: &str) -> Environment {
    Environment {
        inputs: vec!["README.md".into(), "src/".into()],
        setup: vec![sh(script)],
        makes: vec!["made".into()],
        spec: w.spec(),
        ..Environment::default()
    }
}

fn get(w: &World, dir: &Path, e: &Environment) -> Result<Prepared, SandboxError> {
    block_on(Environments::open(dir).unwrap().get(&w.backend, e, &w.cx))
}

fn published(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    entries
        .filter(|n| !n.to_string_lossy().contains('.'))
        .count()
}

fn spec_of(e: &Environment, ready: &Prepared) -> SandboxSpec {
    SandboxSpec {
        environment: Some(ready.generation.clone()),
        ..e.spec.clone()
    }
}

fn beneath(w: &World) {
    let dir = w.dir.0.join("environments");
    let e = what(
        w,
        "mkdir -p made/sub; echo 1 > made/a; echo 1 > made/sub/b; echo 1 > made/c; \
                     ln -s a made/link; printf '#!/bin/sh\\necho ran\\n' > made/run; chmod 700 made/run; \
                     touch -d @86400 made/a",
    );
    let ready = get(w, &dir, &e).unwrap();
    assert_eq!(ready.setup.len(), 1);
    let spec = spec_of(&e, &ready);
    let (a, b) = (w.try_open(&spec).unwrap(), w.try_open(&spec).unwrap());
    let look = "cat made/a made/link made/sub/b src/a.txt | head -4 | tr '\\n' ' '; ./made/run; \
                stat -c %Y made/a";
    assert_eq!(w.out(&a, look), "1 1 1 one ran\n86400\n");
    // It is part of the base: nothing has changed.
    let clean = block_on(a.snapshot(&*w.blobs)).unwrap();
    assert_eq!(block_on(a.diff()).unwrap(), "");
    w.out(
        &a,
        "echo 2 > made/a; rm made/c; echo 2 > made/new; rm -r made/sub; mkdir made/sub; \
               echo 2 > made/sub/d; echo 2 > src/a.txt; rm README.md",
    );
    assert_eq!(w.out(&b, look), "1 1 1 one ran\n86400\n");
    let changed = block_on(a.snapshot(&*w.blobs)).unwrap();
    let files = "find . -type f | sort | xargs cksum";
    let seen = w.out(&a, files);
    let fork = block_on(a.fork()).unwrap();
    let again = SandboxSpec {
        from: Some(changed.clone()),
        ..spec.clone()
    };
    let opened = w.try_open(&again).unwrap();
    for s in [&fork, &opened] {
        assert_eq!(w.out(s, files), seen);
        assert_eq!(
            w.out(s, "ls made made/sub"),
            "made:\na\nlink\nnew\nrun\nsub\n\nmade/sub:\nd\n"
        );
    }
    block_on(a.restore(Some(&clean), &*w.blobs)).unwrap();
    assert_eq!(w.out(&a, look), "1 1 1 one ran\n86400\n");
    // A snapshot on top of it is of no use without it.
    let bare = SandboxSpec {
        from: Some(changed),
        ..e.spec.clone()
    };
    assert!(matches!(w.try_open(&bare), Err(SandboxError::Setup { .. })));
    let patch = block_on(opened.diff()).unwrap();
    assert!(
        patch.contains("b/src/a.txt") && patch.contains("a/README.md"),
        "{patch}"
    );
    assert_eq!(
        fs::read(ready.generation.path.join("made/a")).unwrap(),
        b"1\n"
    );
    [a, b, fork, opened].into_iter().for_each(close);
}

pub(crate) fn it_lies_beneath_the_workspace() {
    beneath(&World::new());
}

pub(crate) fn it_lies_beneath_the_workspace_without_an_overlay() {
    beneath(&World::with(|o| o.always_copy = true));
}

pub(crate) fn set_up_sees_what_the_key_covers() {
    let w = World::new();
    let dir = w.dir.0.join("environments");
    let e = what(
        &w,
        "mkdir made; find . -type f > /tmp/all; sort /tmp/all > made/all",
    );
    let first = get(&w, &dir, &e).unwrap();
    let seen = fs::read_to_string(first.generation.path.join("made/all")).unwrap();
    assert_eq!(seen, "./README.md\n./src/a.txt\n./src/deep/b.txt\n");
    // Another commit with the same inputs needs no other set-up.
    fs::write(w.repo.join("run.sh"), "other\n").unwrap();
    commit_all(&w.repo);
    let e = Environment {
        spec: w.spec(),
        ..e
    };
    let again = get(&w, &dir, &e).unwrap();
    assert!(again.key == first.key && again.setup.is_empty());
    let other = |change: &dyn Fn(&mut Environment)| {
        let mut e = e.clone();
        change(&mut e);
        let ready = get(&w, &dir, &e).unwrap();
        assert!(ready.key != first.key && ready.setup.len() == e.setup.len());
        ready.key
    };
    let mut keys = vec![
        other(&|e| e.setup.push(sh("true"))),
        other(&|e| e.setup[0].env.push(("A".into(), "b".into()))),
        other(&|e| e.also.push("rustc 1.95".into())),
        other(&|e| e.spec.env.push(("A".into(), "b".into()))),
        other(&|e| e.inputs.truncate(1)),
    ];
    fs::write(w.repo.join("src/deep/b.txt"), "changed\n").unwrap();
    commit_all(&w.repo);
    let source = w.spec().source;
    keys.push(other(&|e| e.spec.source = source.clone()));
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 6);
    let missing = Environment {
        inputs: vec!["no.lock".into()],
        ..e
    };
    let missing = get(&w, &dir, &missing);
    assert!(
        matches!(missing, Err(SandboxError::NotFound(_))),
        "{missing:?}"
    );
}

pub(crate) fn a_failure_says_why_and_is_not_kept() {
    let w = World::new();
    let dir = w.dir.0.join("environments");
    for (script, expected) in [
        ("mkdir made; echo no such version >&2; exit 3", "Exited(3)"),
        ("true", "no `made` was made"),
        ("echo x > made", "made"),
        (
            "mkdir made; mkfifo made/pipe",
            "`made/pipe`: neither a file",
        ),
        (
            "mkdir made; echo x > made/s; chmod 4755 made/s",
            "`made/s`: set-user-id",
        ),
        ("ln -s /etc made", "made"),
    ] {
        for _ in 0..2 {
            let e = get(&w, &dir, &what(&w, script)).unwrap_err();
            let shown = e.to_string();
            assert!(shown.contains(expected), "{script}: {shown}");
            if script.starts_with("mkdir made; echo") && script.contains("exit") {
                let SandboxError::Environment { output, .. } = &e else {
                    panic!("{e:?}");
                };
                assert!(output.contains("no such version") && shown.contains("no such version"));
                assert_eq!((e.code(), e.is_retryable()), ("sandbox.environment", false));
            }
            assert_eq!(published(&dir), 0, "{script}");
        }
    }
    for bad in ["", ".", "../x", "/etc", "made/.."] {
        let mut e = what(&w, "true");
        e.makes = vec![bad.into()];
        let refused = get(&w, &dir, &e);
        assert!(
            matches!(refused, Err(SandboxError::Path { .. })),
            "{bad}: {refused:?}"
        );
    }
}

/// The other process of the tests below: sets up, and says whether it ran the commands itself.
#[allow(clippy::print_stdout)]
pub(crate) fn other_process() {
    let mut w = World::new();
    let dir = std::env::args().nth(2).unwrap();
    w.repo = Path::new(&dir).join("repo");
    let ready = get(&w, &Path::new(&dir).join("environments"), &what(&w, SLOW)).unwrap();
    println!("commands: {}", ready.setup.len());
}

#[allow(clippy::disallowed_methods)] // Hosts of sandboxes.
fn start(w: &World) -> Child {
    Command::new("/proc/self/exe")
        .args([CHILD, w.dir.0.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn one_of_several_processes_sets_up() {
    let w = World::new();
    let children: Vec<Child> = (0..3).map(|_| start(&w)).collect();
    let own = get(&w, &w.dir.0.join("environments"), &what(&w, SLOW)).unwrap();
    let mut runs = own.setup.len();
    for mut child in children {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(child.wait().unwrap().success());
        runs += line
            .trim()
            .strip_prefix("commands: ")
            .unwrap()
            .parse::<usize>()
            .unwrap();
    }
    assert_eq!(runs, 1);
    let file = own.generation.path.join("made/deep/file");
    assert_eq!(fs::read(file).unwrap(), b"whole\n");
}

pub(crate) fn nothing_half_done_is_left() {
    let w = World::new();
    let dir = w.dir.0.join("environments");
    // At some point of it, from before the first command to after the last.
    for wait in [0, 100, 300, 600, 1000, 1150, 1300] {
        let mut child = start(&w);
        thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        // Its own directory, which it no longer removes; its sandbox may still be dying.
        let own = std::env::temp_dir().join(format!("sbx-test-{}-0", child.id()));
        until("its sandbox is gone", || {
            fs::remove_dir_all(&own).is_ok() || !own.exists()
        });
        if dir.exists() && published(&dir) == 1 {
            // It was done.
            break;
        }
    }
    let done = dir.exists() && published(&dir) == 1;
    let ready = get(&w, &dir, &what(&w, SLOW)).unwrap();
    assert_eq!(ready.setup.len(), usize::from(!done));
    assert_eq!(
        fs::read(ready.generation.path.join("made/deep/file")).unwrap(),
        b"whole\n"
    );
    // What a killed one had begun to publish is gone too.
    drop(ready);
    let name = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
    let tmp = name
        .filter(|p| p.extension().is_none())
        .map(|p| p.with_extension("tmp"));
    let tmp = tmp.collect::<Vec<_>>().remove(0);
    fs::remove_dir_all(tmp.with_extension("")).unwrap();
    fs::create_dir_all(tmp.join("made/deep")).unwrap();
    fs::write(tmp.join("made/half"), "x").unwrap();
    let ready = get(&w, &dir, &what(&w, SLOW)).unwrap();
    assert!(ready.setup.len() == 1 && !ready.generation.path.join("made/half").exists());
    assert!(!tmp.exists());
}

pub(crate) fn environments_have_a_bound() {
    alone("environments::environments_have_a_bound", bound);
}

fn bound() {
    let w = World::new();
    let dir = w.dir.0.join("environments");
    let all = Environments::open(&dir).unwrap();
    let fill = |n: u32| {
        what(
            &w,
            &format!("mkdir made; head -c 100000 /dev/zero > made/z{n}"),
        )
    };
    let ready: Vec<Prepared> = (0..4).map(|n| get(&w, &dir, &fill(n)).unwrap()).collect();
    let names: Vec<String> = ready.iter().map(|r| r.key.hex().to_owned()).collect();
    let held = all.prune(0).unwrap();
    assert!(
        held.removed.is_empty() && held.in_use.len() == 4,
        "{held:?}"
    );
    let spec = spec_of(&fill(1), &ready[1]);
    let s = w.try_open(&spec).unwrap();
    drop(ready);
    // The first is used again, so that the third is the one used longest ago.
    drop(get(&w, &dir, &fill(0)).unwrap());
    let pruned = all.prune(250_000).unwrap();
    assert_eq!(
        pruned.removed,
        [names[2].clone(), names[3].clone()],
        "{pruned:?}"
    );
    let pruned = all.prune(0).unwrap();
    assert_eq!(
        (&pruned.in_use[..], &pruned.removed[..]),
        (&names[1..2], &names[..1])
    );
    assert_eq!(w.out(&s, "ls made"), "z1\n");
    close(s);
    let pruned = all.prune(0).unwrap();
    assert_eq!(
        (pruned.removed.len(), pruned.kept_bytes),
        (1, 0),
        "{pruned:?}"
    );
    let left = fs::read_dir(&dir).unwrap().count();
    assert_eq!(left, 0);
}

pub(crate) fn a_virtual_environment_is_shared() {
    let w = World::new();
    fs::write(w.repo.join("setup.py"), "from setuptools import setup\n").unwrap();
    let script = r#"
import zipfile
with zipfile.ZipFile("tiny-1.0-py3-none-any.whl", "w") as z:
    z.writestr("tiny.py", "WHO = 'true'\n")
    info = "tiny-1.0.dist-info/"
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "")
"#;
    crate::support::host("/usr/bin/python3", &["-c", script], &w.repo);
    commit_all(&w.repo);
    let cache = Cache::open(w.dir.0.join("pip"), CacheKind::Pip).unwrap();
    let e = Environment {
        inputs: vec!["tiny-1.0-py3-none-any.whl".into()],
        setup: vec![
            Invocation::new(["cp", "tiny-1.0-py3-none-any.whl", "/cache/pip"]),
            Invocation::new(["python3", "-m", "venv", "--without-pip", ".venv"]),
            sh("python3 -m pip --python .venv/bin/python install -q --no-index tiny"),
        ],
        makes: vec![".venv".into()],
        caches: vec![(cache.clone(), "/cache/pip".into())],
        spec: w.spec(),
        ..Environment::default()
    };
    let dir = w.dir.0.join("environments");
    let before = cache.view("/cache/pip").unwrap();
    let ready = get(&w, &dir, &e).unwrap();
    // Not asked for: an agent may have written the inputs.
    assert!(ready.promotions.is_empty());
    assert_eq!(cache.view("/cache/pip").unwrap(), before);
    let trusted = Environment {
        promote: true,
        also: vec!["once more".into()],
        ..e.clone()
    };
    let promoted = get(&w, &dir, &trusted).unwrap().promotions;
    assert_eq!(promoted[0].added.len(), 1);
    let spec = spec_of(&e, &ready);
    let (a, b) = (w.try_open(&spec).unwrap(), w.try_open(&spec).unwrap());
    let who = ".venv/bin/python -c 'import tiny; print(tiny.WHO)'";
    w.out(
        &a,
        "for f in .venv/lib/python*/site-packages/tiny.py; do echo \"WHO = 'false'\" > $f; done",
    );
    assert_eq!(
        (w.out(&a, who), w.out(&b, who)),
        ("false\n".into(), "true\n".into())
    );
    if is_root() {
        // Not the host's root: who agents are.
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(ready.generation.path.join(".venv"))
            .unwrap()
            .uid();
        assert_ne!(owner, 0);
    }
    let s = block_on(w.backend.open(&spec, &w.cx)).unwrap();
    [a, b, s].into_iter().for_each(close);
}
