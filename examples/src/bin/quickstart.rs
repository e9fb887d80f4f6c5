//! A failing test repaired end to end: sandbox, clean copy, model, judge, branch.
//! The model is scripted, so that it needs no key and no download.
//!
//! `cargo run -p smallhands-examples --bin quickstart`

use smallhands::{
    SmallHands,
    agents::{Finished, RepairSpec},
    core::{Budget, Failure, FailureClass},
    llm::Scripted,
    sandbox::{RepoSource, SandboxSpec, Uncommitted},
    standard::{self, Target},
    tools::TestCommand,
};
use std::{error::Error, fs, path::Path, process::Command, sync::Arc};

fn main() -> Result<(), Box<dyn Error>> {
    // First in main: sandboxes start this program again as their helper.
    smallhands::init(|_| {
        Err(Failure::new(
            "example",
            FailureClass::Input,
            "no worker processes here",
        ))
    });
    tokio::runtime::Runtime::new()?.block_on(quickstart())
}

async fn quickstart() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let repo = dir.path().join("repo");
    broken_repository(&repo)?;

    // The standard layers, in a directory of their own.
    let state = dir.path().join("state");
    let repos = standard::repos(&state, Path::new("git"))?;
    let base = repos.import(&repo, None, Uncommitted::Exclude)?;
    let model = Scripted::new("demo", |_, _| {
        "```python\ndef add(a, b):\n    return a + b\n```".into()
    });
    let hands = SmallHands::builder()
        .store(standard::store(&state)?)
        .sandbox(standard::sandbox(&state, repos.clone())?)
        .model(Arc::new(model))
        .delivery(standard::delivery(
            repos,
            &base.commit,
            Target::Branch {
                repo: repo.clone(),
                branch: "repaired".into(),
            },
            "repair add",
        ))
        .build()?;

    let sandbox = SandboxSpec {
        source: Some(RepoSource {
            commit: base.commit,
        }),
        ..SandboxSpec::default()
    };
    let spec = RepairSpec::new(
        "make the tests pass",
        sandbox,
        TestCommand::parse("python3 test_calc.py")?,
    );
    let run = hands
        .repair(
            "quickstart",
            spec,
            serde_json::Value::Null,
            Budget::default(),
        )
        .await?;
    let done = run.wait().await?;

    let value = done
        .state
        .value("finish")
        .ok_or("the repair did not finish")?;
    let report: Finished = serde_json::from_value(value.clone())?;
    println!(
        "{}before: {}, after: {}",
        report.patch,
        report.before.summary(),
        report.after.summary()
    );
    println!("branch: {:?}", report.delivered.branch);
    Ok(())
}

fn broken_repository(repo: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(repo)?;
    fs::write(repo.join("calc.py"), "def add(a, b):\n    return a - b\n")?;
    fs::write(
        repo.join("test_calc.py"),
        "from calc import add\n\nassert add(2, 3) == 5, add(2, 3)\n",
    )?;
    for args in [
        &["init", "-q"][..],
        &["add", "-A"],
        &[
            "-c",
            "user.name=me",
            "-c",
            "user.email=me@localhost",
            "commit",
            "-qm",
            "a bug",
        ],
    ] {
        let status = Command::new("git").current_dir(repo).args(args).status()?;
        assert!(status.success());
    }
    Ok(())
}
