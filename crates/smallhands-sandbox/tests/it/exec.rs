//! What a command gets and gives.

use crate::support::{World, block_on, close};
use smallhands_sandbox::{Ended, Invocation, SandboxError, SandboxSpec};
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

pub(crate) fn reads_its_input() {
    let w = World::new();
    let s = w.open();
    let mut cat = Invocation::new(["wc", "-c"]);
    assert_eq!(w.exec(&s, &cat).stdout, b"0\n");
    cat.stdin = vec![b'x'; 5 << 20];
    assert_eq!(w.exec(&s, &cat).stdout, b"5242880\n");
    // A command that reads nothing of a large input ends all the same.
    let mut deaf = Invocation::new(["true"]);
    deaf.stdin = vec![b'x'; 5 << 20];
    assert!(w.exec(&s, &deaf).ok());
    assert!(w.sh(&s, "true").ok());
    close(s);
}

pub(crate) fn nothing_outlives_the_deadline() {
    let w = World::new();
    let s = w.open();
    let script = "(setsid nohup sh -c 'while :; do date >> /workspace/beat; sleep 0.02; done' \
                  >/dev/null 2>&1 &) ; (setsid sleep 1000 &); echo started; sleep 1000";
    let begun = Instant::now();
    let what = Invocation::new(["sh", "-c", script]).deadline(Duration::from_millis(700));
    let done = w.exec(&s, &what);
    assert_eq!(done.ended, Ended::TimedOut);
    assert_eq!(done.stdout, b"started\n");
    assert!(begun.elapsed() < Duration::from_secs(60));
    let beats = w.out(&s, "wc -c < beat");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(w.out(&s, "wc -c < beat"), beats, "a daemon survived");
    // Nor the orderly end of a command.
    assert!(
        w.sh(&s, "setsid nohup sleep 1000 >/dev/null 2>&1 & exit 0")
            .ok()
    );
    let left = w.out(&s, "cat /proc/[0-9]*/comm");
    assert!(!left.contains("sleep"), "{left}");
    close(s);
}

pub(crate) fn background_output_does_not_hold_it() {
    let w = World::new();
    let s = w.open();
    let begun = Instant::now();
    let done = w.sh(&s, "sleep 500 & echo done");
    assert_eq!(
        (done.ended, done.stdout),
        (Ended::Exited(0), b"done\n".to_vec())
    );
    assert!(begun.elapsed() < Duration::from_secs(60));
    close(s);
}

pub(crate) fn output_is_capped_and_counted() {
    let w = World::new();
    let s = w.open();
    let mut what = Invocation::new(["sh", "-c", "seq 1 200000; echo last; echo err >&2"]);
    what.max_output = 1000;
    let mut live = 0_u64;
    let done = block_on(s.exec(&what, &mut |_, bytes| live += bytes.len() as u64, &w.cx)).unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(text.len(), 1000);
    assert!(
        text.starts_with("1\n2\n3\n") && text.ends_with("200000\nlast\n"),
        "{text}"
    );
    assert_eq!(done.cut_bytes, 1_288_895 + 5 - 1000);
    assert_eq!(done.stderr, b"err\n");
    assert!(live > 1000 && live <= 1_288_895 + 9, "{live}");
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

pub(crate) fn cancelling_kills() {
    let w = World::new();
    let s = w.open();
    let cancel = w.cancel.child();
    let begun = Instant::now();
    let result = std::thread::scope(|t| {
        t.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            w.cancel.cancel();
        });
        w.try_exec(&s, &Invocation::new(["sh", "-c", "touch ran; sleep 1000"]))
    });
    assert!(matches!(result, Err(SandboxError::Cancelled)), "{result:?}");
    assert!(cancel.is_cancelled() && begun.elapsed() < Duration::from_secs(60));
    // The sandbox goes on.
    assert!(block_on(s.read("ran")).is_ok());
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

pub(crate) fn commands_wait_for_each_other() {
    let w = World::new();
    let s = w.open();
    let script = "test ! -e busy && touch busy && sleep 0.05 && rm busy";
    std::thread::scope(|t| {
        let runs: Vec<_> = (0..5).map(|_| t.spawn(|| w.sh(&s, script).ended)).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), Ended::Exited(0));
        }
    });
    close(s);
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
}
