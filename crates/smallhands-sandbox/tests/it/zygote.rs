//! Sandboxes that are made of the same process, one after the other.

use crate::support::{World, close};
use smallhands_sandbox::{SandboxSpec, Wall};

pub(crate) fn the_next_sandbox_knows_nothing_of_the_last() {
    let w = World::new();
    let spec = w.spec();
    let first = w.try_open(&spec).unwrap();
    w.out(&first, "echo changed > README.md; echo left > /tmp/left");
    let second = w.try_open(&spec).unwrap();
    assert_eq!(w.out(&second, "cat README.md; ls /tmp"), "hello\nhome\n");
    let mut other = spec.clone();
    other.limits.open_files = Some(77);
    let third = w.try_open(&other).unwrap();
    assert_eq!(w.out(&third, "ulimit -n; cat README.md"), "77\nhello\n");
    let empty = w.try_open(&SandboxSpec::default()).unwrap();
    assert_eq!(w.out(&empty, "ls"), "");
    [first, second, third, empty].into_iter().for_each(close);
}

pub(crate) fn what_waits_for_the_next_has_only_what_that_asks_for() {
    let w = World::new();
    let network = |s| w.out(s, "readlink /proc/self/ns/net");
    let spec = |without: &[Wall]| SandboxSpec {
        without: without.to_vec(),
        ..SandboxSpec::default()
    };
    let first = w.try_open(&spec(&[])).unwrap();
    let second = w.try_open(&spec(&[])).unwrap();
    let open = w.try_open(&spec(&[Wall::NetworkNamespace])).unwrap();
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let host = format!("{}\n", host.display());
    assert_eq!(network(&open), host);
    let both = [network(&first), network(&second)];
    assert!(both[0] != both[1] && !both.contains(&host), "{both:?}");
    [first, second, open].into_iter().for_each(close);
}
