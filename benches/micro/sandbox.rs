use crate::{Bed, Result, ambient};
use smallhands::{
    core::{CallCx, CancelToken},
    sandbox::{Ended, Invocation, RepoSource, SandboxBackend, SandboxSpec, Uncommitted},
    standard,
};
use smallhands_benchmarks::{Record, beside};
use std::{fs, path::Path, process::Command};

/// A sandbox opened on a commit, `true` run in it, closed; beside `true` run in a plain copy.
pub(crate) fn bench(bed: &Bed) -> Result<Vec<Record>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo-repo");
    let (repo, state) = (bed.dir.join("repo"), bed.dir.join("sandbox"));
    copy(&source, &repo)?;
    for args in [
        &["init", "-q"][..],
        &["add", "-A"],
        &[
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@localhost",
            "commit",
            "-qm",
            "all",
        ],
    ] {
        let status = Command::new("git").current_dir(&repo).args(args).status()?;
        if !status.success() {
            return Err(format!("git {args:?}: {status}").into());
        }
    }
    let repos = standard::repos(&state, Path::new("git"))?;
    let commit = repos.import(&repo, None, Uncommitted::Exclude)?.commit;
    let backend = standard::sandbox(&state, repos)?;
    let spec = SandboxSpec {
        source: Some(RepoSource { commit }),
        ..SandboxSpec::default()
    };
    let at = bed.dir.join("copy");
    let timing = beside(
        bed.rounds * 2,
        || bed.rt.block_on(sandboxed(&*backend, &spec)),
        || {
            copy(&source, &at)?;
            let status = Command::new("true").current_dir(&at).status()?;
            fs::remove_dir_all(&at)?;
            status.success().then_some(()).ok_or("true is not".into())
        },
    )?;
    let anchor = "copy, spawn, remove";
    Ok(vec![timing.record(
        "sandbox/open_exec_close",
        "ms",
        1e3,
        anchor,
    )])
}

async fn sandboxed(backend: &dyn SandboxBackend, spec: &SandboxSpec) -> Result {
    let call = CallCx::detached(ambient(), CancelToken::new());
    let sandbox = backend.open(spec, &call).await?;
    let done = (sandbox.exec(&Invocation::new(["true"]), &mut |_, _| {}, &call)).await?;
    sandbox.close().await?;
    match done.ended {
        Ended::Exited(0) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn copy(from: &Path, to: &Path) -> Result {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}
