//! A run whose driver lives and does nothing any more.
use crate::kit::{Bed, Said, signal, slow};
use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_run_is_taken_from_a_driver_that_hangs() {
    use std::os::unix::process::CommandExt;
    let b = Bed::new();
    let first = slow(&b);
    let run = b.newest().unwrap();
    let pid = first.id();
    let asked = b.smallhands(&["resume", &run]);
    asked.refused(13, &format!("is being driven by process {pid}\n"));
    asked.refused(13, "only if it hangs and cannot be ended");
    signal(&first, "-STOP");
    let asked = b.smallhands(&["resume", &run]);
    asked.refused(13, &format!("by process {pid}, which is stopped"));
    asked.refused(13, &format!("smallhands resume {run} --take-over"));
    let records = || b.smallhands(&["show", &run, "--json"]).json()["records"].as_u64();
    let before = records();

    let mut second = b.command(&["resume", &run, "--take-over"]);
    let second = second
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the run goes on", || records() > before);
    // It is held as well as ever.
    b.smallhands(&["resume", &run])
        .refused(13, &format!("by process {}", second.id()));
    // The first one finds that it has lost the run, and ends.
    signal(&first, "-CONT");
    let said = Said::of(first.wait_with_output().unwrap());
    said.refused(1, "was taken over by another driver");
    signal(&second, "-KILL");
    let said = Said::of(second.wait_with_output().unwrap());
    let taken = format!("run {run} is taken from process {pid}: it can write no more");
    assert!(said.err.contains(&taken), "{said:?}");

    // Of nobody nothing is taken.
    let mut third = b.command(&["resume", &run, "--take-over"]);
    let third = third
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let before = records();
    until("it goes on once more", || records() > before);
    signal(&third, "-KILL");
    let said = Said::of(third.wait_with_output().unwrap());
    assert!(!said.err.contains("is taken"), "{said:?}");
    assert!(said.err.contains(", resumed"), "{said:?}");
}
