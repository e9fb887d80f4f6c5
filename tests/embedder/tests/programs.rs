//! Programs with and without the hook; neither runs its `main` a second time.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, process::Command};

/// What a program printed, and how often its `main` ran. A link and no copy: a file that is still
/// open for writing in a process just forked by the other test cannot be run.
fn run(program: &str) -> (String, usize) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let link = dir.path().join("program");
    fs::hard_link(program, &link).unwrap();
    let out = Command::new(&link).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let ran = fs::read_to_string(link.with_extension("ran")).unwrap();
    (String::from_utf8(out.stdout).unwrap(), ran.lines().count())
}

#[test]
fn with_the_hook_pool_and_sandbox_work() {
    assert_eq!(run(env!("CARGO_BIN_EXE_hooked")), ("ok ok\n".into(), 1));
}

#[test]
fn without_it_both_are_typed_errors_and_main_runs_once() {
    let errors = "exec.not_initialised sandbox.not_initialised\n";
    assert_eq!(run(env!("CARGO_BIN_EXE_unhooked")), (errors.into(), 1));
}
