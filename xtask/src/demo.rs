use crate::{
    Result,
    tools::{Temp, demo_repository, git, pytest, repair_args, smallhands},
};
use std::{path::Path, process::Command};

/// The main job on the example repository, judged once more from outside.
pub(crate) fn demo(recorded: bool) -> Result {
    let pytest = pytest()?;
    let program = smallhands(!recorded)?;
    let tmp = Temp::new("demo")?;
    let repo = tmp.0.join("textkit");
    demo_repository(&repo)?;
    println!(
        "\n$ smallhands run --repo textkit --test 'python3 -m pytest -q' \"make the tests pass\"\n"
    );
    let mut c = Command::new(&program);
    c.args(repair_args(&repo, &pytest))
        .args(["--branch", "repaired"]);
    if recorded {
        let answers = crate::tools::root().join("examples/demo-recorded.json");
        c.args(["--model", &format!("recorded:{}", answers.display())]);
    }
    // Not by `run`: the terminal stays ours, for progress and for Ctrl-C.
    let status = c
        .status()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    if !status.success() {
        return Err(format!("the demo did not repair the repository ({status})"));
    }
    judge(&repo, &pytest)?;
    println!(
        "checked from outside: the tests of branch `repaired` pass, the working tree is untouched"
    );
    Ok(())
}

/// Nobody's word is taken for it: the branch is checked out elsewhere and tested.
fn judge(repo: &Path, pytest: &Path) -> Result {
    if !git(repo, &["status", "--porcelain"])?.trim().is_empty() {
        return Err("the working tree was touched".into());
    }
    let check = repo.with_file_name("check");
    let (from, to) = (repo.display().to_string(), check.display().to_string());
    git(repo, &["clone", "-q", "--branch", "repaired", &from, &to])?;
    let changed = git(&check, &["diff", "--stat", "origin/main", "--", "tests"])?;
    if !changed.trim().is_empty() {
        return Err(format!("the tests themselves were changed:\n{changed}"));
    }
    let mut c = Command::new("python3");
    c.current_dir(&check)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .env("PYTHONPATH", pytest)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    crate::tools::output(&mut c)
        .map(drop)
        .map_err(|e| format!("the repaired branch is not green: {e}"))
}
