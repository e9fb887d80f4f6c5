//! The rules of the house that a compiler does not know.

use crate::{
    Result,
    tools::{cargo, output, root},
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

/// Who may know whom, among our own crates.
const LAYERS: &[(&str, &[&str])] = &[
    ("smallhands-core", &[]),
    ("smallhands-graph", &["smallhands-core"]),
    ("smallhands-exec", &["smallhands-core"]),
    ("smallhands-sandbox", &["smallhands-core"]),
    ("smallhands-llm", &["smallhands-core"]),
    ("smallhands-memory", &["smallhands-core"]),
    ("smallhands-obs", &["smallhands-core"]),
    (
        "smallhands-tools",
        &["smallhands-core", "smallhands-memory", "smallhands-sandbox"],
    ),
    (
        "smallhands-agents",
        &[
            "smallhands-core",
            "smallhands-graph",
            "smallhands-llm",
            "smallhands-memory",
            "smallhands-sandbox",
            "smallhands-tools",
        ],
    ),
];

pub(crate) fn all() -> Result {
    let mut wrong = Vec::new();
    layers(&mut wrong)?;
    trees(&mut wrong)?;
    tidy(&mut wrong)?;
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

fn layers(wrong: &mut Vec<String>) -> Result {
    let text = output(&mut cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    for p in metadata["packages"].as_array().into_iter().flatten() {
        let name = p["name"].as_str().unwrap_or("");
        let Some((_, allowed)) = LAYERS.iter().find(|(n, _)| *n == name) else {
            continue;
        };
        for d in p["dependencies"].as_array().into_iter().flatten() {
            let dep = d["name"].as_str().unwrap_or("");
            if dep.starts_with("smallhands") && d["kind"].is_null() && !allowed.contains(&dep) {
                wrong.push(format!("{name} must not depend on {dep}"));
            }
        }
    }
    Ok(())
}

/// The crates that a set of features brings, ours included.
fn tree(args: &[&str]) -> Result<BTreeSet<String>> {
    let mut all = vec![
        "tree",
        "--quiet",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    all.extend(args);
    let text = output(&mut cargo(&all))?;
    let name = |l: &str| l.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(text.lines().filter(|l| !l.is_empty()).map(name).collect())
}

fn trees(wrong: &mut Vec<String>) -> Result {
    let heavy = [
        "tantivy",
        "tree-sitter",
        "reqwest",
        "hyper",
        "opentelemetry",
        "rustls",
        "hnsw_rs",
    ];
    let mut look = |what: &str, args: &[&str], most: usize, never: &[&str]| -> Result {
        let found = tree(args)?;
        println!("{what:<36} {:>3} crates (at most {most})", found.len());
        if found.len() > most {
            wrong.push(format!("{what}: {} crates, at most {most}", found.len()));
        }
        for n in never {
            if found.iter().any(|c| c.split(' ').next() == Some(n)) {
                wrong.push(format!("{what}: {n} must not be in its tree"));
            }
        }
        Ok(())
    };
    let c = ["tokio", "cc", "petgraph", "reqwest"];
    look("core", &["-p", "smallhands-core"], 30, &c)?;
    let lean = [&heavy[..], &["cc"]].concat();
    look(
        "core + graph + exec",
        &["-p", "embed_graph", "--no-default-features"],
        45,
        &lean,
    )?;
    look(
        "core + graph + exec, sqlite",
        &[
            "-p",
            "embed_graph",
            "--no-default-features",
            "--features",
            "sqlite",
        ],
        60,
        &heavy,
    )?;
    look(
        "graph, all features",
        &["-p", "smallhands-graph", "--all-features"],
        120,
        &heavy,
    )?;
    look("sandbox", &["-p", "smallhands-sandbox"], 60, &heavy)
}

fn tidy(wrong: &mut Vec<String>) -> Result {
    let mut c = std::process::Command::new("git");
    let files = output(
        c.current_dir(root())
            .args(["ls-files", "-co", "--exclude-standard"]),
    )?;
    // What would give away the machine that a line was written on.
    let own_paths = [
        concat!("/work/", "main"),
        concat!("/root/.ca", "rgo"),
        concat!("/root/.ca", "che"),
    ];
    // What fuzzers found is as it is.
    for f in files.lines().filter(|f| !f.starts_with("fuzz/corpus/")) {
        let path = root().join(f);
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let code = Path::new(f).extension().is_some_and(|e| e == "rs");
        if code && text.lines().count() > 700 {
            wrong.push(format!(
                "{f}: {} lines; two rooms in one?",
                text.lines().count()
            ));
        }
        for (line, n) in text.lines().zip(1..) {
            if line.ends_with([' ', '\t']) && !f.ends_with(".patch") {
                wrong.push(format!("{f}:{n}: white space at the end"));
            }
            if own_paths.iter().any(|p| line.contains(p)) {
                wrong.push(format!("{f}:{n}: a path of somebody's machine"));
            }
        }
    }
    Ok(())
}
