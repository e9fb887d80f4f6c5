use crate::{
    Result, bench, checks, demo,
    tools::{cargo, linter, model, native, pytest, root, run, target},
    torture,
};
use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

type Stage = (&'static str, fn() -> Result);

/// What CI runs, in the order in which a mistake shows soonest.
const STAGES: &[Stage] = &[
    ("format", format),
    ("rules of the house", checks::all),
    ("spelling", || run(&mut linter("typos")?)),
    ("bans, licences, sources", || {
        deny(&["bans", "licenses", "sources"])
    }),
    ("clippy, all features", clippy),
    ("tests and doc tests", || tests(false)),
    ("documentation", documentation),
    ("each feature, each pair", features),
    ("examples and benches", examples),
    ("kill -9, 10 times", || tortured("kill9", 10)),
    ("torture graph, 300 kills", || tortured("graph", 300)),
    ("torture sandbox", || tortured("sandbox", 0)),
    ("figures: spine", || {
        bench::run("spine", bench::Flags::default())
    }),
    ("demo", ci_demo),
];

/// Every stage whose name has `part` in it, a table at the end. Of several each is a process of its
/// own, whose output is kept beside the build and whose telling lines are shown.
pub(crate) fn all(part: &str) -> Result {
    let stages: Vec<_> = STAGES.iter().filter(|s| s.0.contains(part)).collect();
    match stages[..] {
        [] => return Err(format!("there is no stage like `{part}`")),
        [(_, stage)] => return stage(),
        _ => {}
    }
    let mut table = Vec::new();
    let started = Instant::now();
    for (name, _) in stages {
        println!("\n==> {name}");
        let begin = Instant::now();
        let result = apart(name);
        if let Err(e) = &result {
            println!("{name}: {e}");
        }
        table.push((*name, begin.elapsed(), result.is_ok()));
    }
    println!("\n{:<28} {:>8}  result", "stage", "seconds");
    let row = |name: &str, d: Duration, text: &str| {
        println!("{name:<28} {:>8.1}  {text}", d.as_secs_f64())
    };
    for (name, took, ok) in &table {
        row(name, *took, if *ok { "ok" } else { "FAILED" });
    }
    row("all", started.elapsed(), "");
    let failed: Vec<_> = table.iter().filter(|t| !t.2).map(|t| t.0).collect();
    println!(
        "{} passed, {} failed",
        table.len() - failed.len(),
        failed.len()
    );
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("failed: {}", failed.join(", "))),
    }
}

/// One stage in a process of its own, and the end of what it said; if it failed, first the lines
/// that say why.
fn apart(name: &str) -> Result {
    let dir = target().join("ci");
    let path = dir.join(format!(
        "{}.log",
        name.replace(|c: char| !c.is_alphanumeric(), "-")
    ));
    let text = |e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(&dir).map_err(text)?;
    let log = fs::File::create(&path).map_err(text)?;
    let itself = std::env::current_exe().map_err(text)?;
    let status = Command::new(itself)
        .args(["ci", name])
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(text)?)
        .stderr(log)
        .env("RUST_BACKTRACE", "0")
        .status()
        .map_err(text)?;
    let said = String::from_utf8_lossy(&fs::read(&path).map_err(text)?).into_owned();
    let lines: Vec<_> = said.lines().collect();
    let last = match status.success() {
        true => 4,
        false => {
            let tells = |l: &str| {
                ["panicked at", "FAILED", "error", "warning: unused"]
                    .iter()
                    .any(|w| l.contains(w))
            };
            let telling = (0..lines.len())
                .filter(|i| tells(lines[*i]) || *i > 0 && lines[i - 1].contains("panicked at"));
            for i in telling.take(60) {
                println!("{}", lines[i]);
            }
            println!("... and at its end:");
            25
        }
    };
    for l in &lines[lines.len().saturating_sub(last)..] {
        println!("{l}");
    }
    match status.success() {
        true => Ok(()),
        false => Err(format!("{status}; all it said is in {}", path.display())),
    }
}

fn format() -> Result {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(embedder("fmt")?.arg("--check"))
}

/// Cargo for the crate outside the workspace: with our versions of what it shares with us.
fn embedder(verb: &str) -> Result<Command> {
    let to = root().join("tests/embedder/Cargo.lock");
    fs::copy(root().join("Cargo.lock"), to).map_err(|e| e.to_string())?;
    Ok(cargo(&[
        verb,
        "--manifest-path",
        "tests/embedder/Cargo.toml",
    ]))
}

fn clippy() -> Result {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ];
    run(cargo(&args).envs(native()?))?;
    let mut c = embedder("clippy")?;
    c.arg("--target-dir").arg(target());
    run(c.args(["--all-targets", "--", "-D", "warnings"]))
}

pub(crate) fn deny(what: &[&str]) -> Result {
    run(linter("cargo-deny")?.args(["--locked", "check"]).args(what))
}

/// The sandbox's ports alone, as other backends take them, and the facade with each of its features
/// and with each two of its layers. Without
/// `local-model`, which builds llama.cpp and is in clippy's all features. Clippy, not check,
/// because only it makes errors of warnings without building every dependency again; no
/// `--no-dev-deps`, because a resolver since 2 leaves them out and the flag rewrites manifests.
fn features() -> Result {
    let ports = [
        "clippy",
        "-p",
        "smallhands-sandbox",
        "--no-default-features",
    ];
    run(cargo(&ports).args(["--quiet", "--", "-D", "warnings"]))?;
    const LAYERS: &str = "agents,exec,graph,llm,memory,obs,sandbox,tools";
    for which in [
        &[
            "--each-feature",
            "--exclude-all-features",
            "--exclude-features",
            "local-model",
        ][..],
        &[
            "--feature-powerset",
            "--depth",
            "2",
            "--include-features",
            LAYERS,
        ],
    ] {
        let mut c = linter("cargo-hack")?;
        c.args(["hack", "clippy", "--quiet", "-p", "smallhands"]);
        run(c.args(which).args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// All tests of the workspace and of the crate outside it; with `slow` those that ask a real model
/// too.
pub(crate) fn tests(slow: bool) -> Result {
    let mut c = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    c.envs(native()?).env("SMALLHANDS_TEST_PYTEST", pytest()?);
    if slow {
        c.env("SMALLHANDS_SLOW", "1")
            .env("SMALLHANDS_TEST_MODEL", model()?);
    }
    run(&mut c)?;
    run(embedder("test")?.arg("--target-dir").arg(target()))
}

fn tortured(name: &str, kills: u32) -> Result {
    let torture = torture::Torture {
        kills: Some(kills),
        tries: None,
        seed: 1,
        durability: String::new(),
        json: false,
    };
    torture::run(name, &torture)
}

fn documentation() -> Result {
    let args = [
        "doc",
        "--workspace",
        "--all-features",
        "--no-deps",
        "--quiet",
    ];
    run(cargo(&args)
        .envs(native()?)
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Every example to its end, and every bench a few times.
pub(crate) fn examples() -> Result {
    for name in [
        "quickstart",
        "custom_executor",
        "custom_tool",
        "resume_after_kill",
    ] {
        println!("--> {name}");
        run(&mut cargo(&[
            "run",
            "--quiet",
            "-p",
            "smallhands-examples",
            "--bin",
            name,
        ]))?;
    }
    for name in ["replan", "human_approval", "time_travel", "custom_store"] {
        println!("--> {name}");
        let which = ["-p", "graph-examples", "--bin", name];
        run(cargo(&["run", "--quiet"]).args(which))?;
    }
    for name in [
        "sandbox_run",
        "race_candidates",
        "shared_caches",
        "custom_sandbox",
    ] {
        println!("--> {name}");
        let which = ["-p", "sandbox-examples", "--bin", name];
        run(cargo(&["run", "--quiet"]).args(which))?;
    }
    println!("--> embed_graph");
    run(&mut cargo(&["run", "--quiet", "-p", "embed_graph"]))?;
    println!("--> benches");
    let quick = bench::Flags {
        quick: true,
        ..bench::Flags::default()
    };
    bench::graph(quick)?;
    bench::sandbox(quick)?;
    bench::micro(quick)
}

/// With the real model if it can be had; else with recorded answers, and that is said.
fn ci_demo() -> Result {
    match model() {
        Ok(path) => {
            println!("the model: {path}");
            demo::demo(false)
        }
        Err(e) => {
            println!(
                "DEMO SKIPPED: the model cannot be had ({e}); the same job with recorded answers:"
            );
            demo::demo(true)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ci_script_calls_us() {
        let script =
            std::fs::read_to_string(crate::tools::root().join(".ci/run")).unwrap_or_default();
        assert!(script.contains("cargo xtask ci"));
    }
}
