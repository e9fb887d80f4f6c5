//! Fuzzing of everything that reads what others wrote (`fuzz/`).

use crate::{
    Result,
    tools::{root, run, target, works},
};
use std::{env, fs, path::PathBuf, process::Command};

const VERSION: &str = "0.13.2";

/// Each target, or one, for so many seconds. What is found on the way is kept below the target
/// directory, so that the next time goes on from there; the tree holds a small part of it.
pub(crate) fn fuzz(only: &str, seconds: u64) -> Result {
    let all = targets()?;
    let wanted: Vec<&String> = all
        .iter()
        .filter(|t| only.is_empty() || *t == only)
        .collect();
    if wanted.is_empty() {
        return Err(format!("there are: fuzz {}", all.join(" | ")));
    }
    let tools = cargo_fuzz()?;
    for name in wanted {
        let found = absolute("fuzz-corpus")?.join(name);
        fs::create_dir_all(&found).map_err(|e| format!("{}: {e}", found.display()))?;
        let mut c = Command::new("rustup");
        c.args(["run", "nightly", "cargo", "fuzz", "run", "--target-dir"])
            .arg(absolute("fuzz")?)
            .arg(name)
            .arg(&found)
            .arg(root().join("fuzz/corpus").join(name))
            .args(["--", "-timeout=20", "-rss_limit_mb=2048", "-max_len=8192"])
            .args([
                "-print_final_stats=1",
                &format!("-max_total_time={seconds}"),
            ]);
        let path = env::var("PATH").unwrap_or_default();
        c.current_dir(root())
            .env("PATH", format!("{}:{path}", tools.display()))
            // The directories of one target are made and removed thousands of times a second.
            .envs(
                fs::metadata("/dev/shm")
                    .ok()
                    .map(|_| ("TMPDIR", "/dev/shm")),
            );
        run(&mut c)?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let dir = root().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut names: Vec<String> = files
        .flatten()
        .filter_map(|f| {
            f.file_name()
                .to_str()?
                .strip_suffix(".rs")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    Ok(names)
}

fn absolute(name: &str) -> Result<PathBuf> {
    std::path::absolute(target().join(name)).map_err(|e| e.to_string())
}

/// The directory of cargo-fuzz, compiled once where the machine has none.
fn cargo_fuzz() -> Result<PathBuf> {
    if !works("rustup", &["run", "nightly", "rustc", "--version"]) {
        return Err("fuzzing needs a nightly compiler: rustup toolchain install nightly".into());
    }
    let dir = absolute("tools/cargo-fuzz")?;
    let bin = dir.join("bin");
    if !works(bin.join("cargo-fuzz"), &["--version"]) {
        eprintln!(
            "getting cargo-fuzz {VERSION} (cargo install, into {})",
            dir.display()
        );
        let mut c =
            crate::tools::cargo(&["install", "cargo-fuzz", "--locked", "--version", VERSION]);
        run(c.arg("--root").arg(&dir))?;
    }
    Ok(bin)
}
