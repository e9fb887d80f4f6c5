//! A hostile `.git`: the host's own git must run nothing that an agent left there.

use crate::{
    Result,
    pass::Pass,
    report::{Control, Got, Row},
};
use smallhands_sandbox::{Invocation, RepoSource, SandboxSpec, Uncommitted};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// Each leaves a file called `$MARK` where the git that reads the tree runs it: a script that makes
/// the trap, and the command of a host that falls into it.
const TRAPS: &[(&str, &str, &[&str])] = &[
    (
        "git_fsmonitor",
        "git config core.fsmonitor 'touch $MARK; false'",
        &["status"],
    ),
    (
        "git_hook",
        "mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch $MARK\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; echo x >> a",
        &["commit", "-qam", "x"],
    ),
    (
        "git_hooks_path",
        "mkdir own; printf '#!/bin/sh\\ntouch $MARK\\n' > own/post-checkout; chmod +x own/post-checkout; git config core.hooksPath own",
        &["checkout", "-q", "-b", "other"],
    ),
    (
        "git_filter",
        "echo '* filter=own' > .gitattributes; git config filter.own.clean 'touch $MARK; cat'; echo x >> a",
        &["add", "-A"],
    ),
    (
        "git_external_diff",
        "git config diff.external 'touch $MARK; true'; echo x >> a",
        &["diff"],
    ),
    (
        "git_textconv",
        "echo '* diff=own' > .gitattributes; git config diff.own.textconv 'touch $MARK; cat'; echo x >> a",
        &["diff"],
    ),
    (
        "git_alias_of_include",
        "echo '[core]\n\tfsmonitor = touch $MARK; false' > own; git config include.path ../own",
        &["status"],
    ),
    (
        "git_file_elsewhere",
        "cp -r .git elsewhere; git -C elsewhere config core.fsmonitor 'touch $MARK; false'; mv .git old; echo 'gitdir: elsewhere' > .git",
        &["status"],
    ),
];

fn git(dir: &Path, args: &[&str]) -> Result {
    let id = [
        "-c",
        "user.name=T",
        "-c",
        "user.email=t@localhost",
        "-c",
        "safe.directory=*",
    ];
    let mut c = Command::new("git");
    c.args(id).args(args).current_dir(dir).env("HOME", dir);
    // Whether it likes the trap is not the question.
    c.stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()?;
    Ok(())
}

pub(crate) fn probes(p: &Pass) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, trap, fall) in TRAPS {
        let dir = p.place.join(name);
        fs::create_dir(&dir)?;
        git(&dir, &["init", "-q", "-b", "main"])?;
        fs::write(dir.join("a"), "a\n")?;
        git(&dir, &["add", "-A"])?;
        git(&dir, &["commit", "-qm", "x"])?;
        let commit = p.store.import(&dir, None, Uncommitted::Exclude)?.commit;
        let mark = p.place.join(format!("{name}.mark"));
        let script = trap.replace("$MARK", &mark.display().to_string());
        let got = inside(p, commit, &script, &mark)?;
        let outside = Command::new("sh")
            .args(["-c", &script])
            .current_dir(&dir)
            .env("HOME", &dir)
            .output()?;
        git(&dir, fall)?;
        let control = match mark.exists() {
            true => Control::Good,
            false => Control::Bad(format!(
                "it did not run: {}",
                String::from_utf8_lossy(&outside.stderr)
            )),
        };
        rows.push(Row {
            user: p.user.clone(),
            class: "git".into(),
            name: (*name).into(),
            control,
            inside: Some(got),
            without: Vec::new(),
        });
    }
    Ok(rows)
}

/// The trap is laid inside; then the host does everything that it does with a sandbox's files.
fn inside(p: &Pass, commit: String, script: &str, mark: &Path) -> Result<Got> {
    let spec = SandboxSpec {
        source: Some(RepoSource { commit }),
        ..p.spec()
    };
    let s = p.open(&spec)?;
    let script = format!("test -d .git || git init -q .; {script}");
    let mut what = Invocation::new(["sh", "-c", &script]);
    what.env = vec![("HOME".into(), "/tmp".into())];
    let done = p.exec(&s, &what)?;
    if !done.ok() {
        return Ok(Got::Broken(format!("the trap: {}", done.text())));
    }
    p.wait(s.diff())?;
    let blob = p.wait(s.snapshot(&*p.cx.ambient().blobs))?;
    let fork = p.wait(s.fork())?;
    p.wait(fork.diff())?;
    p.wait(fork.restore(Some(&blob), &*p.cx.ambient().blobs))?;
    p.wait(fork.list(""))?;
    p.wait(fork.close())?;
    p.wait(s.close())?;
    Ok(match mark.exists() {
        true => Got::Succeeded,
        false => Got::Refused("nothing of it was run".into()),
    })
}
