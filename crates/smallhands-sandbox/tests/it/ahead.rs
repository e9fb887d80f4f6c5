//! Sandboxes that are opened before they are asked for.

use crate::support::{World, close};
use smallhands_sandbox::SandboxSpec;
use std::{
    fs,
    time::{Duration, Instant},
};

fn ahead() -> World {
    World::with(|o| o.ahead = true)
}

pub(crate) fn one_opened_ahead_is_like_any_other() {
    let w = ahead();
    let spec = w.spec();
    let first = w.try_open(&spec).unwrap();
    w.out(&first, "echo changed > README.md; echo left > /tmp/left");
    let second = w.try_open(&spec).unwrap();
    assert_eq!(w.out(&second, "cat README.md; ls /tmp"), "hello\nhome\n");
    // Not like the one that waits.
    let mut other = spec.clone();
    other.limits.open_files = Some(77);
    let third = w.try_open(&other).unwrap();
    assert_eq!(w.out(&third, "ulimit -n; cat README.md"), "77\nhello\n");
    let empty = w.try_open(&SandboxSpec::default()).unwrap();
    assert_eq!(w.out(&empty, "ls"), "");
    [first, second, third, empty].into_iter().for_each(close);
}

pub(crate) fn what_is_granted_is_looked_at_again() {
    let w = ahead();
    let granted = w.dir.0.join("granted");
    let grant = |text: &str| {
        fs::create_dir(&granted).unwrap();
        fs::write(granted.join("f"), text).unwrap();
    };
    grant("old");
    let spec = SandboxSpec {
        read_only: vec![granted.clone()],
        ..SandboxSpec::default()
    };
    close(w.try_open(&spec).unwrap());
    // Not removed at once, or its inode might be had again.
    fs::rename(&granted, w.dir.0.join("before")).unwrap();
    assert!(w.try_open(&spec).is_err());
    grant("new");
    let s = w.try_open(&spec).unwrap();
    let read = format!("cat {}/f", granted.display());
    assert_eq!(w.out(&s, &read), "new");
    close(s);
}

pub(crate) fn none_is_left_behind() {
    let w = ahead();
    close(w.open());
    let World { backend, dir, .. } = w;
    drop(backend);
    let boxes = dir.0.join("state/sandboxes");
    let until = Instant::now() + Duration::from_secs(20);
    while fs::read_dir(&boxes).unwrap().next().is_some() {
        assert!(Instant::now() < until, "a sandbox that nobody took is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}
