//! Files, snapshots, forks and diffs.

use crate::support::{Boxed, World, block_on, close, commit_all, git};
use smallhands_sandbox::{Change, Content, SandboxError, SandboxSpec, Snapshot};
use std::{fs, os::unix::fs::symlink, path::Path};

fn changes(w: &World, s: &Boxed) -> Vec<Change<Vec<u8>>> {
    block_on(async {
        let blob = s.snapshot(&*w.blobs).await.unwrap();
        let snapshot = Snapshot::load(&blob, &*w.blobs).await.unwrap();
        snapshot.changes(&*w.blobs).await.unwrap()
    })
}

pub(crate) fn what_is_no_file_is_refused() {
    let w = World::new();
    let s = w.open();
    w.out(&s, "ln -s /proc/self/fd fds; mkfifo pipe");
    block_on(async {
        for path in ["fds/0", "pipe"] {
            let r = s.read(path).await;
            assert!(r.is_err(), "read {path}: {r:?}");
            let r = s.write(path, b"x").await;
            assert!(r.is_err(), "write {path}: {r:?}");
        }
    });
    close(s);
}

const EDIT: &str = r#"
set -e
printf 'one\n2\nthree\n' > src/a.txt
rm data/c.bin README.md
rm -r src/deep && mkdir src/deep && echo other > src/deep/other.txt
chmod -x run.sh
ln -sfn data link
printf '\000\001\377' > new.bin
printf '#!/bin/sh\n' > tool && chmod +x tool
mkdir -p empty/inner
ln -s nowhere dangling
printf 'caf\351\n' > latin.txt
printf x > "$(printf 'n\377me')"
printf x > 'with space and "quotes"'
echo a > trailing && truncate -s 0 trailing
touch .gitignore && cp -p .gitignore same && mv same .gitignore
mkdir .git && echo evil > .git/config
mkfifo fifo
"#;

fn edit(w: &World, s: &Boxed) {
    let done = w.sh(s, EDIT);
    assert!(done.ok(), "{}", done.text());
}

fn state(w: &World, s: &Boxed) -> String {
    let script = "find . -path ./.git -prune -o ! -name fifo -printf '%P|%y|%l\\n' | LC_ALL=C sort; \
                  find . -path ./.git -prune -o -type f -perm -100 -print | LC_ALL=C sort; \
                  find . -path ./.git -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    let done = w.sh(s, script);
    assert!(done.ok(), "{}", done.text());
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn snapshot_of(w: World) {
    let s = w.open();
    assert_eq!(changes(&w, &s), []);
    let clean = state(&w, &s);
    edit(&w, &s);
    let edited = state(&w, &s);
    let all = changes(&w, &s);
    let find = |p: &[u8]| all.iter().find(|c| c.path == p).map(|c| &c.now);
    let file = |exec, bytes: &[u8]| Content::File {
        exec,
        bytes: bytes.to_vec(),
    };
    assert_eq!(find(b"README.md"), Some(&Content::Gone));
    assert_eq!(find(b"data/c.bin"), Some(&Content::Gone));
    assert_eq!(find(b"src/deep/b.txt"), Some(&Content::Gone));
    assert_eq!(find(b"src/a.txt"), Some(&file(false, b"one\n2\nthree\n")));
    assert_eq!(
        find(b"run.sh"),
        Some(&file(false, b"#!/bin/sh\necho run\n"))
    );
    assert_eq!(find(b"tool"), Some(&file(true, b"#!/bin/sh\n")));
    assert_eq!(find(b"n\xffme"), Some(&file(false, b"x")));
    assert_eq!(find(b"empty/inner"), Some(&Content::Dir));
    let link = Content::Symlink {
        target: b"data".to_vec(),
    };
    assert_eq!(find(b"link"), Some(&link));
    assert_eq!(find(b".gitignore"), None, "touched, and the same");
    assert!(all.iter().all(|c| !c.path.starts_with(b".git/")), "{all:?}");
    let paths: Vec<_> = all.iter().map(|c| &c.path).collect();
    assert!(
        paths
            .windows(2)
            .all(|p| !p[0].starts_with(&[&p[1][..], b"/"].concat()))
    );

    block_on(async {
        let blob = s.snapshot(&*w.blobs).await.unwrap();
        // In another sandbox, as another process would.
        let spec = SandboxSpec {
            from: Some(blob.clone()),
            ..w.spec()
        };
        let other = w.try_open(&spec);
        let other = other.unwrap();
        assert_eq!(state(&w, &other), edited);
        assert_eq!(changes(&w, &other), all);
        other.restore(None, &*w.blobs).await.unwrap();
        assert_eq!(state(&w, &other), clean);
        other.restore(Some(&blob), &*w.blobs).await.unwrap();
        assert_eq!(state(&w, &other), edited);
        other.close().await.unwrap();

        let forked = s.fork().await.unwrap();
        assert_eq!(state(&w, &forked), edited);
        w.out(&forked, "echo fork > only-here; rm tool");
        assert_eq!(state(&w, &s), edited, "a fork is independent");
        forked.close().await.unwrap();

        s.restore(None, &*w.blobs).await.unwrap();
        assert_eq!(state(&w, &s), clean);
        // Of another base it is refused.
        let bare = SandboxSpec {
            from: Some(blob),
            ..SandboxSpec::default()
        };
        let refused = w.try_open(&bare);
        assert!(
            matches!(refused, Err(SandboxError::Setup { .. })),
            "{refused:?}"
        );
    });
    close(s);
}

pub(crate) fn snapshots_carry_everything() {
    snapshot_of(World::new());
}

pub(crate) fn snapshots_carry_everything_without_an_overlay() {
    snapshot_of(World::with(|o| o.always_copy = true));
}

pub(crate) fn a_diff_applies() {
    for copy in [false, true] {
        let w = World::with(|o| o.always_copy = copy);
        let s = w.open();
        assert_eq!(block_on(s.diff()).unwrap(), "");
        edit(&w, &s);
        let patch = block_on(s.diff()).unwrap();
        let clone = w.dir.0.join("clone");
        git(&w.dir.0, &["clone", "-q", "repo", "clone"]);
        fs::write(w.dir.0.join("patch"), &patch).unwrap();
        git(&clone, &["apply", "--index", "../patch"]);
        // Empty directories and FIFOs are nothing to git; everything else is as inside.
        let done = state(&w, &s);
        for (name, ok) in [
            ("tool", true),
            ("README.md", false),
            ("src/deep/other.txt", true),
        ] {
            assert_eq!(clone.join(name).exists(), ok, "{name}");
            assert_eq!(done.contains(&format!("\n{name}|f|")), ok, "{name}");
        }
        assert_eq!(fs::read(clone.join("latin.txt")).unwrap(), b"caf\xe9\n");
        assert_eq!(fs::read(clone.join("new.bin")).unwrap(), b"\x00\x01\xff");
        assert_eq!(
            fs::read_link(clone.join("link")).unwrap(),
            Path::new("data")
        );
        assert!(!clone.join("fifo").exists());
        // And a tree made from the same changes is the same tree.
        let meta = smallhands_sandbox::CommitMeta {
            message: "m".into(),
            author_name: "n".into(),
            author_email: "e".into(),
            time: smallhands_core::Timestamp(1_000_000),
        };
        let base = w.spec().source.unwrap().commit;
        let commit = w
            .store
            .commit(Some(&base), &changes(&w, &s), &meta)
            .unwrap();
        w.store.publish(&commit, &w.repo, "agent/one").unwrap();
        let applied = git(&clone, &["write-tree"]);
        let published = git(&w.repo, &["rev-parse", "agent/one^{tree}"]);
        assert_eq!(applied, published);
        close(s);
    }
}

pub(crate) fn files_become_directories_and_back() {
    for copy in [false, true] {
        let w = World::with(|o| o.always_copy = copy);
        let s = w.open();
        let script = "rm README.md && mkdir README.md && echo x > README.md/in; rm -r src && echo \
                      file > src; rm link && mkdir link; rm -r data && ln -s run.sh data";
        w.out(&s, script);
        let before = state(&w, &s);
        let patch = block_on(s.diff()).unwrap();
        let forked = block_on(s.fork()).unwrap();
        assert_eq!(state(&w, &forked), before);
        assert_eq!(block_on(forked.diff()).unwrap(), patch);
        close(forked);
        fs::write(w.dir.0.join("patch"), &patch).unwrap();
        git(&w.repo, &["apply", "../patch"]);
        assert!(w.repo.join("README.md/in").is_file() && w.repo.join("src").is_file());
        assert!(w.repo.join("data").is_symlink());
        close(s);
    }
}

pub(crate) fn unreadable_files_are_saved_too() {
    let w = World::new();
    let s = w.open();
    w.out(
        &s,
        "echo s > secret; chmod 0 secret; mkdir shut; echo t > shut/t; chmod 0 shut",
    );
    let all = changes(&w, &s);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(
        w.sh(&s, "cat secret").text().contains("denied"),
        "the mode is as it was"
    );
    close(s);
    assert_eq!(w.sandboxes_left(), 0);
}

pub(crate) fn a_hostile_tree_is_removed() {
    let w = World::new();
    let s = w.open();
    let script = "perl -e 'for (1..600) { mkdir \"d\" x 20; chdir \"d\" x 20 }' && ln -s / root && \
                  mkdir x && chmod 0 x";
    w.out(&s, script);
    assert!(block_on(s.snapshot(&*w.blobs)).is_err(), "too deep");
    close(s);
    assert_eq!(w.sandboxes_left(), 0);
    // A dropped one cleans up in the background.
    let s = w.open();
    drop(s);
    for _ in 0..500 {
        if w.sandboxes_left() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the dropped sandbox left its files");
}

pub(crate) fn copies_start_without_an_index_of_the_user() {
    let w = World::new();
    symlink("/etc/passwd", w.repo.join("escape")).unwrap();
    commit_all(&w.repo);
    let s = w.open();
    assert!(w.refused(&s, "ls .git").contains("No such file"));
    assert!(matches!(
        block_on(s.read("escape")),
        Err(SandboxError::Path { .. })
    ));
    close(s);
}

pub(crate) fn forks_hold_what_was_removed_and_replaced() {
    for always_copy in [false, true] {
        let w = World::with(|o| o.always_copy = always_copy);
        let s = w.open();
        let script = "rm README.md run.sh; rm -r data src; mkdir data; echo new > data/new; \
             echo now a file > src; mkdir -p n/closed n/open; ln -s /nowhere n/link; mkfifo n/fifo; \
             echo x > n/x; chmod 755 n/x; chmod 500 n/closed; echo y > n/y; chmod 0 n/y";
        w.out(&s, script);
        let look = "ls -lR --time-style=+ | grep -v fifo | grep -v ^total; cat data/new src n/x";
        let forked = block_on(s.fork()).unwrap();
        assert_eq!(w.out(&forked, look), w.out(&s, look), "{always_copy}");
        let diff = block_on(s.diff()).unwrap();
        assert_eq!(block_on(forked.diff()).unwrap(), diff);
        // Each for itself from here on, and a fork of a fork too.
        w.out(&s, "echo mine >> data/new; rm n/x");
        let second = block_on(forked.fork()).unwrap();
        w.out(&forked, "echo its >> src");
        assert_eq!(
            w.out(&second, "cat data/new src n/x"),
            "new\nnow a file\nx\n"
        );
        assert_eq!(block_on(second.diff()).unwrap(), diff);
        close(s);
        w.out(&second, "echo still here >> src");
    }
}
