//! What an agent leaves in a `.git` of its own: the host's git runs none of it, and reads nothing
//! outside. Each trap is sprung by a plain git first, so that it is one.

use crate::support::{World, block_on, close, git, host};
use smallhands_core::Timestamp;
use smallhands_sandbox::{Change, CommitMeta, Content, SandboxSpec, Uncommitted};
use std::{fs, path::Path, process::Command};

/// A name, a script in a repository with a file `a`, and what of git springs it. `$MARK` is a file
/// that appears then; `$OUT` is a directory outside with a secret.
type Trap = (&'static str, &'static str, &'static [&'static str]);

const TRAPS: &[Trap] = &[
    (
        "hook",
        "mkdir -p .git/hooks; printf '#!/bin/sh\ntouch $MARK\n' > .git/hooks/pre-commit; \
         chmod +x .git/hooks/pre-commit",
        &["commit", "-qam", "x"],
    ),
    (
        "hooks_path",
        "mkdir own; printf '#!/bin/sh\ntouch $MARK\n' > own/post-checkout; \
         chmod +x own/post-checkout; git config core.hooksPath \"$PWD/own\"",
        &["checkout", "-q", "-b", "b"],
    ),
    (
        "clean_filter",
        "echo '* filter=own' > .gitattributes; git config filter.own.clean 'touch $MARK; cat'",
        &["add", "-A"],
    ),
    (
        "process_filter",
        "echo '* filter=a=b' > .gitattributes; git config filter.a=b.process 'touch $MARK; false'; \
         git config filter.a=b.required true",
        &["add", "-A"],
    ),
    (
        "smudge_filter",
        "echo '* filter=own' > .gitattributes; git config filter.own.smudge 'touch $MARK; cat'; \
         rm a",
        &["checkout", "a"],
    ),
    (
        "fsmonitor",
        "git config core.fsmonitor 'touch $MARK; false'",
        &["status"],
    ),
    (
        "textconv",
        "echo '* diff=own' > .gitattributes; git config diff.own.textconv 'touch $MARK; cat'",
        &["diff"],
    ),
    (
        "external_diff",
        "git config diff.external 'touch $MARK; true'",
        &["diff"],
    ),
    (
        "pager",
        "git config core.pager 'touch $MARK; cat'; git config pager.status true",
        &["--paginate", "log"],
    ),
    (
        "include",
        "printf '[core]\n\tfsmonitor = touch $MARK; false\n' > own; \
         git config include.path ../own",
        &["status"],
    ),
    (
        "git_file",
        "cp -r .git elsewhere; git -C elsewhere config core.fsmonitor 'touch $MARK; false'; \
         rm -rf .git; echo 'gitdir: elsewhere' > .git",
        &["status"],
    ),
    (
        "git_link",
        "cp -r .git elsewhere; git -C elsewhere config core.fsmonitor 'touch $MARK; false'; \
         rm -rf .git; ln -s elsewhere .git",
        &["status"],
    ),
    (
        "nested",
        "mkdir sub; cp -r .git a sub; git -C sub config core.fsmonitor 'touch $MARK; false'",
        &["-C", "sub", "status"],
    ),
    (
        "ssh_command",
        "git config core.sshCommand 'touch $MARK; false'; git config remote.o.url git@h:x; \
         git config protocol.allow always",
        &["ls-remote", "o"],
    ),
    (
        "ext_remote",
        "git config protocol.ext.allow always; git config remote.o.url 'ext::touch $MARK'",
        &["ls-remote", "o"],
    ),
];

#[allow(clippy::disallowed_methods)] // The control: what a host that trusts it would do.
fn plainly(dir: &Path, args: &[&str]) -> String {
    // A pager wants a terminal, which that program gives.
    let mut c = match args {
        ["--paginate", ..] => Command::new("script"),
        _ => Command::new("git"),
    };
    let shown = format!("git {}", args.join(" "));
    match args {
        ["--paginate", ..] => c.args(["-qec", &shown, "/dev/null"]),
        _ => c
            .args(["-c", "user.name=T", "-c", "user.email=t@localhost"])
            .args(args),
    };
    let out = c
        .current_dir(dir)
        .env("HOME", "/nonexistent")
        .env_remove("GIT_PAGER")
        .env_remove("PAGER")
        .output()
        .unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// All that the host does with what an agent made.
fn everything(w: &World, spec: &SandboxSpec, script: &str) -> String {
    let s = w.try_open(spec).unwrap();
    w.out(
        &s,
        "git init -q . && git add -A && git -c user.name=a -c user.email=a@a commit -qm a",
    );
    let done = w.sh(&s, &format!("{script}; echo x >> a"));
    assert!(done.ok(), "{}", done.text());
    let patch = block_on(s.diff()).unwrap();
    let blob = block_on(s.snapshot(&*w.blobs)).unwrap();
    let fork = block_on(s.fork()).unwrap();
    assert_eq!(block_on(fork.diff()).unwrap(), patch);
    close(fork);
    block_on(s.restore(Some(&blob), &*w.blobs)).unwrap();
    assert_eq!(block_on(s.diff()).unwrap(), patch);
    block_on(s.list("")).unwrap();
    close(s);
    patch
}

fn meta() -> CommitMeta {
    CommitMeta {
        message: "x".into(),
        author_name: "A".into(),
        author_email: "a@localhost".into(),
        time: Timestamp(0),
    }
}

fn world() -> (World, SandboxSpec) {
    let w = World::new();
    fs::write(w.repo.join("a"), "a\n").unwrap();
    crate::support::commit_all(&w.repo);
    let spec = w.spec();
    (w, spec)
}

pub(crate) fn traps_are_not_sprung() {
    let (w, spec) = world();
    for (name, script, command) in TRAPS {
        let mark = w.dir.0.join(format!("mark-{name}"));
        let script = script.replace("$MARK", mark.to_str().unwrap());
        // The same in a clone outside, where it works.
        let clone = format!("clone-{name}");
        git(&w.dir.0, &["clone", "-q", "repo", &clone]);
        let dir = w.dir.0.join(&clone);
        host(
            "sh",
            &["-c", &format!("{script}; test -e a && echo x >> a; :")],
            &dir,
        );
        let said = plainly(&dir, command);
        assert!(mark.exists(), "{name} is no trap: {said}");
        fs::remove_file(&mark).unwrap();

        let patch = everything(&w, &spec, &script);
        assert!(patch.contains("+x"), "{name}: {patch}");
        let base = spec.source.as_ref().map(|s| s.commit.clone()).unwrap();
        let commit = w.store.apply(&base, patch.as_bytes()).unwrap();
        w.store.checkout(&commit).unwrap();
        w.store
            .publish(&commit, &w.repo, &format!("agent/{name}"))
            .unwrap();
        assert!(!mark.exists(), "{name} was sprung");
    }
}

/// What the user's own repository would run is not run either when it is imported.
pub(crate) fn an_import_springs_none() {
    for (name, script, command) in TRAPS {
        // There it is the user who wants it so, or it is no repository of theirs.
        if ["nested", "git_file", "git_link"].contains(name) {
            continue;
        }
        let (w, _) = world();
        let mark = w.dir.0.join("mark");
        let script = script.replace("$MARK", mark.to_str().unwrap());
        host("sh", &["-c", &format!("{script}; echo x >> a")], &w.repo);
        let imported = w.store.import(&w.repo, None, Uncommitted::IncludeUntracked);
        let imported = imported.unwrap();
        assert!(imported.included, "{name}");
        let read = w.store.read_file(&imported.commit, "a").unwrap();
        assert!(read.ends_with(b"x\n"), "{name}");
        w.store.checkout(&imported.commit).unwrap();
        let changes = [Change {
            path: b"a".to_vec(),
            now: Content::Gone,
        }];
        let commit = w.store.commit(Some(&imported.commit), &changes, &meta());
        w.store.publish(&commit.unwrap(), &w.repo, "agent").unwrap();
        assert!(!mark.exists(), "{name} was sprung");
        host("sh", &["-c", "test -e a || echo y > a"], &w.repo);
        plainly(&w.repo, command);
        assert!(mark.exists(), "{name} is no trap");
    }
}

/// `core.worktree`, alternates and links that lead outside: nothing from there comes out.
pub(crate) fn nothing_outside_is_read() {
    let (w, spec) = world();
    let secret = w.dir.0.join("secret");
    fs::create_dir(&secret).unwrap();
    git(&secret, &["init", "-q", "-b", "main"]);
    fs::write(secret.join("a"), "hunter2\n").unwrap();
    git(&secret, &["add", "a"]);
    let commit = git(
        &secret,
        &[
            "commit-tree",
            "-m",
            "s",
            git(&secret, &["write-tree"]).trim(),
        ],
    );
    let (out, commit) = (secret.to_str().unwrap(), commit.trim());
    for (name, script, command) in [
        (
            "worktree",
            format!("git config core.worktree {out}"),
            &["diff", "HEAD", "--", ":/a"][..],
        ),
        (
            "alternates",
            format!(
                "mkdir -p .git/objects/info; echo {out}/.git/objects > .git/objects/info/alternates; \
                 echo {commit} > .git/refs/heads/main; echo {commit} > .git/refs/heads/master"
            ),
            &["show", "main:a"],
        ),
        (
            "git_file_outside",
            format!("rm -rf .git; echo 'gitdir: {out}/.git' > .git"),
            &["show", ":a"],
        ),
        (
            "link",
            format!("rm a; ln -s {out}/a a; ln -s {out} all"),
            &[
                "-c",
                "core.pager=cat",
                "grep",
                "--no-index",
                "hunter2",
                "--",
                "all/../a",
            ],
        ),
    ] {
        let clone = format!("clone-{name}");
        git(&w.dir.0, &["clone", "-q", "repo", &clone]);
        let dir = w.dir.0.join(&clone);
        host("sh", &["-c", &script], &dir);
        let said = match name {
            "link" => host("cat", &["a"], &dir),
            _ => plainly(&dir, command),
        };
        assert!(said.contains("hunter2"), "{name} is no trap: {said}");
        let s = w.try_open(&spec).unwrap();
        w.out(
            &s,
            "git init -q -b main .; git add -A; git -c user.name=a -c user.email=a@a commit -qm a",
        );
        w.out(&s, &script);
        let patch = block_on(s.diff()).unwrap();
        assert!(!patch.contains("hunter2"), "{name}: {patch}");
        let blob = block_on(s.snapshot(&*w.blobs)).unwrap();
        block_on(s.restore(Some(&blob), &*w.blobs)).unwrap();
        let read = block_on(s.read("a")).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&read).contains("hunter2"),
            "{name}"
        );
        close(s);
    }
}
