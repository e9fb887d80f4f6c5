//! Tells the crate which commit it is built from.
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // A build script asks git and answers cargo.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let o = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(o.stdout).ok()?;
    o.status.success().then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Written by each commit and checkout, in a worktree too.
    if let Some(log) = git(&[
        "rev-parse",
        "--path-format=absolute",
        "--git-path",
        "logs/HEAD",
    ]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=SMALLHANDS_COMMIT={commit}");
}
