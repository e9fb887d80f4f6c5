//! What a command gets and gives.

use crate::support::{World, block_on, close};
use smallhands_sandbox::{Ended, Invocation, Limits, OutputStream, SandboxError, SandboxSpec};
use std::{
    fs,
    time::{Duration, Instant},
};

pub(crate) fn ends_as_it_ends() {
    let w = World::new();
    let s = w.open();
    assert_eq!(w.sh(&s, "exit 0").ended, Ended::Exited(0));
    assert_eq!(w.sh(&s, "exit 42").ended, Ended::Exited(42));
    assert_eq!(w.sh(&s, "kill -TERM $$").ended, Ended::Signaled(15));
    for (argv, why) in [
        (vec!["no-such-program-anywhere"], "no such program"),
        (vec!["./README.md"], "denied"),
        (vec!["/workspace/none"], "no such program"),
    ] {
        let done = w.exec(&s, &Invocation::new(argv));
        let Ended::NotStarted(text) = done.ended else {
            panic!("{done:?}")
        };
        assert!(text.contains(why), "{text}");
    }
    let long = "x".repeat(200 << 10);
    for n in [1, 200] {
        let done = w.exec(&s, &Invocation::new(vec![long.as_str(); n]));
        assert!(matches!(done.ended, Ended::NotStarted(_)), "{n}");
    }
    assert!(matches!(
        block_on(s.read(&long)),
        Err(SandboxError::Path { .. })
    ));
    let mut there = Invocation::new(["pwd"]);
    there.cwd = "src/deep".into();
    assert_eq!(w.exec(&s, &there).stdout, b"/workspace/src/deep\n");
    there.cwd = "nowhere".into();
    assert!(matches!(w.exec(&s, &there).ended, Ended::NotStarted(_)));
    there.cwd = "../etc".into();
    let refused = w.try_exec(&s, &there);
    assert!(
        matches!(refused, Err(SandboxError::Path { .. })),
        "{refused:?}"
    );
    assert_eq!(w.out(&s, "./run.sh"), "run\n");
    close(s);
}

pub(crate) fn the_environment_is_made_not_inherited() {
    let w = World::new();
    let tools = w.dir.0.join("tools");
    fs::create_dir_all(tools.join("bin")).unwrap();
    let spec = SandboxSpec {
        env: vec![("A".into(), "spec".into()), ("B".into(), "spec".into())],
        read_only: vec![tools.clone()],
        ..w.spec()
    };
    let s = w.try_open(&spec).unwrap();
    let mut env = Invocation::new(["env"]);
    env.env = vec![("B".into(), "call".into())];
    let text = String::from_utf8(w.exec(&s, &env).stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let path = format!("PATH={}/bin:/usr/local/bin:/usr/bin:/bin", tools.display());
    let wanted = [
        "A=spec",
        "B=call",
        "HOME=/tmp/home",
        "LANG=C.UTF-8",
        path.as_str(),
        "PYTHONDONTWRITEBYTECODE=1",
        "TERM=dumb",
    ];
    assert_eq!(lines, wanted);
    assert_eq!(w.out(&s, "ls /proc/self/fd | wc -l"), "4\n");
    close(s);
}

pub(crate) fn a_dropped_call_is_cancelled() {
    let w = World::new();
    let s = w.open();
    block_on(async {
        let what = Invocation::new(["sh", "-c", "sleep 1000"]);
        let mut sink = |_: &str, _: &[u8]| {};
        let mut call = s.exec(&what, &mut sink, &w.cx);
        let once = std::future::poll_fn(|cx| {
            drop(call.as_mut().poll(cx));
            std::task::Poll::Ready(())
        });
        once.await;
        std::thread::sleep(Duration::from_millis(200));
        once_more(&mut call).await;
        drop(call);
    });
    let begun = Instant::now();
    assert!(w.sh(&s, "true").ok());
    assert!(begun.elapsed() < Duration::from_secs(60));
    close(s);
}

async fn once_more<F: Future + Unpin>(f: &mut F) {
    std::future::poll_fn(|cx| {
        drop(std::pin::Pin::new(&mut *f).poll(cx));
        std::task::Poll::Ready(())
    })
    .await;
}

pub(crate) fn a_server_is_spoken_to_over_its_streams() {
    let w = World::new();
    let s = w.open();
    let spawn = |script: &str| {
        let what = Invocation::new(["sh", "-c", script]);
        block_on(s.spawn(&what, &w.cx)).unwrap()
    };
    let echo = "while read x; do test $x = bye && exit 3; echo got $x; echo seen >&2; done";
    let mut p = spawn(echo);
    for n in 0..50 {
        block_on(p.write(format!("{n}\n").as_bytes())).unwrap();
        let mut out = Vec::new();
        while !out.ends_with(b"\n") {
            match block_on(p.read()).unwrap().unwrap() {
                (OutputStream::Stdout, bytes) => out.extend(bytes),
                (OutputStream::Stderr, bytes) => assert!(bytes.starts_with(b"seen")),
            }
        }
        assert_eq!(out, format!("got {n}\n").into_bytes());
        block_on(s.write("beside", b"x")).unwrap();
    }
    block_on(p.write(b"bye\n")).unwrap();
    while block_on(p.read()).unwrap().is_some() {}
    assert!(matches!(
        block_on(p.write(b"more")),
        Err(SandboxError::Ended)
    ));
    let done = block_on(p.wait()).unwrap();
    assert_eq!(done.ended, Ended::Exited(3));
    assert!(done.stdout.starts_with(b"got 0\n"));
    // More than pipes hold, both ways, to one that ends with its input.
    let mut p = spawn("cat");
    let big = vec![7; 3 << 20];
    block_on(p.write(&big)).unwrap();
    block_on(p.close_stdin()).unwrap();
    let mut back = Vec::new();
    while let Some((_, bytes)) = block_on(p.read()).unwrap() {
        back.extend(bytes);
    }
    assert!(back == big);
    assert!(block_on(p.wait()).unwrap().ok());
    // Dropped, it is over, and the sandbox is free.
    drop(spawn("sleep 1000"));
    assert!(w.sh(&s, "! pgrep sleep").ok());
    let used = block_on(s.usage()).unwrap();
    assert!(used.cpu > Duration::ZERO && used.peak_process_bytes > 100_000);
    // A sandbox that is dropped ends, whoever still talks to what is in it.
    let mut p = spawn("sleep 1000");
    drop(s);
    assert!(block_on(p.read()).unwrap().is_none());
    assert!(matches!(block_on(p.wait()), Err(SandboxError::Lost(_))));
}

/// Where groups can be made, the whole is bounded; where not, insisting is an error.
pub(crate) fn the_whole_has_limits_or_says_why_not() {
    let w = World::new();
    let open = |require: &str| {
        let limits = Limits {
            total_memory_bytes: Some(64 << 20),
            ..Limits::default()
        };
        w.try_open(&SandboxSpec {
            limits,
            require: vec![require.into()],
            ..w.spec()
        })
    };
    match open("memory cgroup") {
        Ok(s) => {
            // What stays in files leaves enough for the next command.
            assert!(!w.sh(&s, "head -c 200000000 /dev/zero > /dev/shm/x").ok());
            assert!(!w.sh(&s, "head -c 200000000 /dev/zero > /tmp/x").ok());
            assert!(w.sh(&s, "true").ok());
            let python = "x = bytearray(200 << 20)";
            let done = w.exec(&s, &Invocation::new(["/usr/bin/python3", "-c", python]));
            assert_eq!(done.ended, Ended::OutOfMemory);
            close(s);
        }
        Err(SandboxError::Unavailable { layer, fix, .. }) => {
            assert_eq!(layer, "memory cgroup");
            assert!(fix.contains("Delegate"), "{fix}");
        }
        Err(e) => panic!("{e}"),
    }
    // Less than a sandbox itself needs.
    for bytes in [0, 64 << 10, 512 << 10, 1 << 20] {
        let limits = Limits {
            total_memory_bytes: Some(bytes),
            ..Limits::default()
        };
        let spec = SandboxSpec { limits, ..w.spec() };
        let done = match w.try_open(&spec) {
            Err(e) => Err(e),
            Ok(s) => w.try_exec(&s, &Invocation::new(["true"])),
        };
        match done {
            Err(e) => assert!(e.to_string().contains("total_memory_bytes"), "{bytes}: {e}"),
            Ok(done) => assert!(done.ended != Ended::Exited(1), "{bytes}: {done:?}"),
        }
    }
    let refused = open("cpu cgroup");
    assert!(
        matches!(&refused, Err(SandboxError::Unavailable { layer, .. }) if layer == "cpu cgroup"),
        "{refused:?}"
    );
    close(open("seccomp").unwrap());
}

pub(crate) fn what_was_in_force_is_listed() {
    let w = World::new();
    let s = w.open();
    let done = w.sh(&s, "true");
    for part in [
        "user namespace",
        "network namespace",
        "seccomp",
        "landlock abi",
        "memory 4 GiB/process",
        "open files 1024/process",
        "processes 512",
    ] {
        assert!(
            done.enforced.iter().any(|e| e.starts_with(part)),
            "{part}: {:?}",
            done.enforced
        );
    }
    close(s);
    let require = |layer: &str| {
        w.try_open(&SandboxSpec {
            require: vec!["seccomp".into(), layer.into()],
            ..SandboxSpec::default()
        })
    };
    // This kernel's or an earlier one, not a later one.
    close(require("landlock abi 1").unwrap());
    let e = require("landlock abi 99").unwrap_err().to_string();
    assert!(
        e.contains("`landlock abi 99`") && e.contains("this kernel has landlock abi"),
        "{e}"
    );
}
