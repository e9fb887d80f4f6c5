//! The store: what it takes from a user's repository, and that it leaves it alone.

use crate::support::{World, commit_all, git, host};
use smallhands_core::Timestamp;
use smallhands_sandbox::{Change, CommitMeta, Content, SandboxError, Uncommitted};
use std::{fs, path::Path};

/// Everything in a directory: names, modes, times, sizes and content.
fn fingerprint(dir: &Path) -> String {
    let script = "find . -printf '%P %y %m %s %T@\\n' | LC_ALL=C sort; \
                  find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    host("sh", &["-c", script], dir)
}

pub(crate) fn meta() -> CommitMeta {
    CommitMeta {
        message: "Fix it\n\nIn detail.".into(),
        author_name: "Agent".into(),
        author_email: "agent@localhost".into(),
        time: Timestamp(1_700_000_000_000),
    }
}

fn edit(path: &str, bytes: &[u8]) -> Change<Vec<u8>> {
    Change {
        path: path.into(),
        now: Content::File {
            exec: false,
            bytes: bytes.to_vec(),
        },
    }
}

pub(crate) fn an_import_leaves_the_repository_alone() {
    let w = World::new();
    fs::write(w.repo.join("README.md"), "changed\n").unwrap();
    fs::write(w.repo.join("src/a.txt"), "staged\n").unwrap();
    git(&w.repo, &["add", "src/a.txt"]);
    fs::remove_file(w.repo.join("data/c.bin")).unwrap();
    fs::write(w.repo.join("untracked \"q\".txt"), "u\n").unwrap();
    fs::write(w.repo.join("ignored.log"), "i\n").unwrap();
    let hook = w.repo.join(".git/hooks/post-index-change");
    fs::write(
        &hook,
        format!("#!/bin/sh\ntouch {}/hooked\n", w.dir.0.display()),
    )
    .unwrap();
    host("chmod", &["755", hook.to_str().unwrap()], &w.repo);
    git(
        &w.repo,
        &[
            "config",
            "core.fsmonitor",
            &format!("touch {}/hooked", w.dir.0.display()),
        ],
    );
    fs::remove_file(w.dir.0.join("hooked")).unwrap_or_default();
    let before = fingerprint(&w.repo);
    let head = git(
        &w.repo,
        &["-c", "core.fsmonitor=false", "rev-parse", "HEAD"],
    );

    let clean = w.store.import(&w.repo, None, Uncommitted::Exclude).unwrap();
    assert_eq!(
        (clean.commit.as_str(), clean.included),
        (head.trim(), false)
    );
    assert_eq!(clean.branch.as_deref(), Some("main"));
    let mut dirty = clean.dirty.clone();
    dirty.sort();
    assert_eq!(dirty, ["README.md", "data/c.bin", "src/a.txt"]);

    let some = w.store.import(&w.repo, None, Uncommitted::Include).unwrap();
    assert!(some.included && some.commit != some.head_commit);
    assert_eq!(
        w.store.read_file(&some.commit, "README.md").unwrap(),
        b"changed\n"
    );
    assert_eq!(
        w.store.read_file(&some.commit, "src/a.txt").unwrap(),
        b"staged\n"
    );
    let gone = w.store.read_file(&some.commit, "data/c.bin");
    assert!(matches!(gone, Err(SandboxError::NotFound(_))));
    let again = w.store.import(&w.repo, None, Uncommitted::Include).unwrap();
    assert_eq!(again, some, "the same content is the same commit");

    let all = w
        .store
        .import(&w.repo, None, Uncommitted::IncludeUntracked)
        .unwrap();
    let files = w.store.files(&all.commit).unwrap();
    let names: Vec<&str> = files.iter().map(|(n, _)| n.as_str()).collect();
    assert!(
        names.contains(&"untracked \"q\".txt") && !names.contains(&"ignored.log"),
        "{names:?}"
    );
    assert!(files.contains(&("README.md".into(), 8)));
    assert_eq!(fingerprint(&w.repo), before);
    assert!(!w.dir.0.join("hooked").exists());
    let checkout = w.store.checkout(&all.commit).unwrap();
    assert_eq!(fs::read(checkout.join("README.md")).unwrap(), b"changed\n");
    assert!(!checkout.join(".git").exists());
}

pub(crate) fn older_revisions_and_subdirectories() {
    let w = World::new();
    let first = git(&w.repo, &["rev-parse", "HEAD"]).trim().to_owned();
    git(&w.repo, &["tag", "-a", "-m", "t", "v1"]);
    fs::write(w.repo.join("README.md"), "second\n").unwrap();
    commit_all(&w.repo);
    fs::write(w.repo.join("README.md"), "third\n").unwrap();
    for rev in ["v1", "HEAD~1", &first, &first[..10]] {
        let got = w
            .store
            .import(&w.repo, Some(rev), Uncommitted::Include)
            .unwrap();
        assert_eq!(
            (&got.commit, got.included, got.dirty.len()),
            (&first, false, 0),
            "{rev}"
        );
    }
    let sub = w
        .store
        .import(&w.repo.join("src"), None, Uncommitted::Include)
        .unwrap();
    assert_eq!(
        w.store.read_file(&sub.commit, "README.md").unwrap(),
        b"third\n"
    );
    for rev in ["nope", "--upload-pack=x", "HEAD:README.md", ""] {
        let got = w.store.import(&w.repo, Some(rev), Uncommitted::Exclude);
        assert!(matches!(got, Err(SandboxError::Repo(_))), "{rev}: {got:?}");
    }
    git(&w.repo, &["checkout", "-q", "--detach"]);
    let detached = w.store.import(&w.repo, None, Uncommitted::Exclude).unwrap();
    assert_eq!(detached.branch, None);
    git(&w.dir.0, &["clone", "-q", "--bare", "repo", "bare.git"]);
    let bare = w
        .store
        .import(&w.dir.0.join("bare.git"), None, Uncommitted::Include)
        .unwrap();
    assert_eq!((bare.included, bare.dirty.len()), (false, 0));
}

pub(crate) fn what_is_no_repository_is_said_clearly() {
    let w = World::new();
    let text = |path: &Path| match w.store.import(path, None, Uncommitted::Exclude) {
        Err(SandboxError::Repo(text)) => text,
        other => panic!("{other:?}"),
    };
    let empty = w.dir.0.join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(text(&empty).contains("is not a git repository; run git init and commit first"));
    assert!(text(&w.dir.0.join("none")).contains("is not a git repository"));
    git(&empty, &["init", "-q"]);
    assert!(text(&empty).contains("has no commits yet"));
    for bad in ["HEAD", "--help", "../x", "", &"A".repeat(40)] {
        assert!(
            matches!(w.store.checkout(bad), Err(SandboxError::Repo(_))),
            "{bad}"
        );
    }
    assert!(w.store.checkout(&"0".repeat(40)).is_err());
}

pub(crate) fn commits_are_published_as_new_branches_only() {
    let w = World::new();
    fs::write(w.repo.join("README.md"), "dirty\n").unwrap();
    let base = w.store.import(&w.repo, None, Uncommitted::Include).unwrap();
    let one = w
        .store
        .commit(Some(&base.commit), &[edit("new.txt", b"n\n")], &meta())
        .unwrap();
    let two = w
        .store
        .commit(Some(&one), &[edit("more.txt", b"m\n")], &meta())
        .unwrap();
    assert_eq!(
        w.store
            .commit(Some(&one), &[edit("more.txt", b"m\n")], &meta())
            .unwrap(),
        two
    );
    let status = git(&w.repo, &["status", "--porcelain"]);
    w.store.publish(&two, &w.repo, "agent/fix").unwrap();
    assert_eq!(git(&w.repo, &["status", "--porcelain"]), status);
    assert_eq!(fs::read(w.repo.join("README.md")).unwrap(), b"dirty\n");
    git(&w.repo, &["fsck", "--full", "--strict"]);
    let log = git(&w.repo, &["log", "--format=%s|%an|%at", "main..agent/fix"]);
    let when = "1700000000";
    let wanted = [
        format!("Fix it|Agent|{when}"),
        format!("Fix it|Agent|{when}"),
    ];
    assert_eq!(log.lines().take(2).collect::<Vec<_>>(), wanted);
    assert_eq!(log.lines().count(), 3, "and the uncommitted changes: {log}");
    assert_eq!(git(&w.repo, &["show", "agent/fix:new.txt"]), "n\n");
    for (branch, text) in [
        ("agent/fix", "exists already"),
        ("main", "exists already"),
        ("a..b", "not a name"),
        ("-x", "not a name"),
    ] {
        let e = w
            .store
            .publish(&one, &w.repo, branch)
            .unwrap_err()
            .to_string();
        assert!(e.contains(text), "{e}");
    }
    // A repository that never had the base cannot take it.
    let other = w.dir.0.join("other");
    fs::create_dir(&other).unwrap();
    git(&other, &["init", "-q"]);
    assert!(w.store.publish(&two, &other, "x").is_err());
    assert_eq!(git(&other, &["for-each-ref"]), "");
}

pub(crate) fn bad_names_are_refused() {
    let w = World::new();
    let base = w.spec().source.unwrap().commit;
    for bad in [
        ".git/config",
        "a/.GIT/hooks/x",
        "../x",
        "a/../b",
        "/etc/x",
        "git~1/x",
        "a//b",
        "",
    ] {
        let r = w.store.diff(Some(&base), &[edit(bad, b"x")]);
        assert!(matches!(r, Err(SandboxError::Repo(_))), "{bad}: {r:?}");
    }
}

pub(crate) fn attributes_and_filters_run_nothing() {
    let w = World::new();
    let trap = w.dir.0.join("trap");
    fs::write(
        w.repo.join(".gitattributes"),
        "* filter=evil diff=evil text eol=crlf ident\n",
    )
    .unwrap();
    fs::write(w.repo.join("id.txt"), "$Id$\n").unwrap();
    commit_all(&w.repo);
    for key in [
        "filter.evil.smudge",
        "diff.evil.textconv",
        "diff.evil.command",
    ] {
        git(
            &w.repo,
            &["config", key, &format!("touch {}", trap.display())],
        );
    }
    let base = w.spec().source.unwrap().commit;
    let files = w.store.checkout(&base).unwrap();
    assert_eq!(
        fs::read(files.join("id.txt")).unwrap(),
        b"$Id$\n",
        "as stored"
    );
    let patch = w
        .store
        .diff(Some(&base), &[edit("id.txt", b"new\n")])
        .unwrap();
    assert!(patch.contains("+new\n"), "{patch}");
    assert!(!trap.exists());
}

pub(crate) fn ignored_files_stay_out_of_patches() {
    use std::os::unix::fs::symlink;
    let w = World::new();
    fs::create_dir_all(w.repo.join("sub")).unwrap();
    fs::write(w.repo.join("sub/.gitignore"), "/out/\n!keep.log\n").unwrap();
    fs::write(w.repo.join("tracked.log"), "t\n").unwrap();
    let outside = w.dir.0.join("outside");
    fs::write(&outside, "untouched").unwrap();
    fs::create_dir_all(w.repo.join("trap")).unwrap();
    symlink(&outside, w.repo.join("trap/.gitignore")).unwrap();
    git(&w.repo, &["add", "-f", "tracked.log"]);
    commit_all(&w.repo);
    let base = w.spec().source.unwrap().commit;
    let changes = [
        edit("a.log", b"no\n"),
        edit("sub/keep.log", b"yes\n"),
        edit("sub/out/deep/x", b"no\n"),
        edit("tracked.log", b"yes\n"),
        edit(":(odd)", b"yes\n"),
        edit("trap/.gitignore", b"*.tmp\n"),
        edit("trap/x.tmp", b"no\n"),
        edit("new/.gitignore", b"*\n"),
        edit("new/x", b"no\n"),
    ];
    let patch = w.store.diff(Some(&base), &changes).unwrap();
    let mut files: Vec<&str> = patch
        .lines()
        .filter_map(|l| l.strip_prefix("+++ b/"))
        .collect();
    files.sort_unstable();
    assert_eq!(
        files,
        [":(odd)", "sub/keep.log", "tracked.log", "trap/.gitignore"],
        "{patch}"
    );
    assert!(!patch.contains("+no"));
    assert_eq!(fs::read(&outside).unwrap(), b"untouched");
}
