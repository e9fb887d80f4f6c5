//! What a clean copy holds of a repository, and what it does not.

use crate::support::{World, block_on, close, commit_all, git, host};
use smallhands_sandbox::{
    Change, Content, Imported, RepoSource, SandboxError, SandboxSpec, Uncommitted,
};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

fn at(commit: &str) -> SandboxSpec {
    SandboxSpec {
        source: Some(RepoSource {
            commit: commit.into(),
        }),
        ..SandboxSpec::default()
    }
}

fn import(w: &World, what: Uncommitted) -> Imported {
    w.store.import(&w.repo, None, what).unwrap()
}

/// Makes the user's repository a host for submodules that are directories here.
fn add_submodule(repo: &Path, from: &Path, name: &str) {
    let from = from.to_str().unwrap();
    let file = ["-c", "protocol.file.allow=always"];
    git(
        repo,
        &[&file[..], &["submodule", "add", "-q", from, name]].concat(),
    );
}

fn repository(dir: PathBuf, file: &str, text: &str) -> PathBuf {
    fs::create_dir(&dir).unwrap();
    git(&dir, &["init", "-q", "-b", "main"]);
    fs::write(dir.join(file), text).unwrap();
    commit_all(&dir);
    dir
}

/// A patch must lead from a clone of the user's repository to what is in the sandbox.
fn applies(w: &World, patch: &str, clone: &str) -> PathBuf {
    let to = w.dir.0.join(clone);
    let args = ["-c", "protocol.file.allow=always", "clone", "-q"];
    let args = [&args[..], &["--recurse-submodules", "repo", clone]].concat();
    git(&w.dir.0, &args);
    fs::write(w.dir.0.join("patch"), patch).unwrap();
    git(&to, &["apply", "--check", "../patch"]);
    git(&to, &["apply", "../patch"]);
    to
}

pub(crate) fn nothing_but_the_commit_is_visible() {
    let w = World::new();
    fs::write(w.repo.join(".env"), "TOKEN=hunter2\n").unwrap();
    fs::write(w.repo.join("secret.log"), "hunter2\n").unwrap();
    git(&w.repo, &["checkout", "-q", "-b", "other"]);
    fs::write(w.repo.join("other.txt"), "hunter2\n").unwrap();
    git(&w.repo, &["add", "other.txt"]);
    git(&w.repo, &["commit", "-qm", "hunter2"]);
    git(&w.repo, &["tag", "secret-tag"]);
    git(&w.repo, &["checkout", "-q", "main"]);
    fs::write(w.repo.join("README.md"), "hunter2\n").unwrap();
    git(&w.repo, &["stash"]);
    git(
        &w.repo,
        &["remote", "add", "origin", "https://u:hunter2@host.test/x"],
    );
    let s = w.try_open(&w.spec()).unwrap();
    assert_eq!(
        w.out(&s, "find . -name '.git*' | sort").trim(),
        "./.gitignore"
    );
    let places = "/workspace /tmp /etc /var /dev/shm /home /root";
    let found = w.out(&s, &format!("grep -rl hunter2 {places} 2>/dev/null; true"));
    assert_eq!(found, "");
    let refused = w.refused(
        &s,
        "git -C /workspace log --all 2>&1 || { test $? != 127; exit 1; }",
    );
    assert!(!refused.contains("hunter2"), "{refused}");
    close(s);
    // The control: what was hidden is there, and is shown to who asks.
    let all = import(&w, Uncommitted::IncludeUntracked);
    let s = w.try_open(&at(&all.commit)).unwrap();
    let found = w.out(&s, "grep -rl hunter2 . | sort");
    assert_eq!(found, "./.env\n", "what is ignored stays hidden");
    close(s);
    // Our own store has just the commits that it was asked for.
    let objects = host(
        "git",
        &[
            "--git-dir",
            w.dir.0.join("store/objects.git").to_str().unwrap(),
            "log",
            "--all",
            "--format=%s",
        ],
        &w.dir.0,
    );
    assert!(!objects.contains("hunter2"), "{objects}");
}

pub(crate) fn odd_things_survive() {
    odd_things(World::new());
}

pub(crate) fn odd_things_survive_without_an_overlay() {
    odd_things(World::with(|o| o.always_copy = true));
}

fn odd_things(w: World) {
    let name = |bytes: &[u8]| w.repo.join(OsStr::from_bytes(bytes));
    fs::write(name(b"latin\xe9"), "not UTF-8\n").unwrap();
    fs::create_dir(name(b"d\xff")).unwrap();
    fs::write(name(b"d\xff/\x01 \"quoted\"\n"), "x").unwrap();
    symlink("/etc/hostname", w.repo.join("absolute")).unwrap();
    symlink("nowhere/at all", w.repo.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"d\xff"), w.repo.join("to-odd")).unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    fs::write(w.repo.join("big.bin"), pointer).unwrap();
    fs::write(w.repo.join(".gitattributes"), "big.bin filter=lfs -text\n").unwrap();
    commit_all(&w.repo);
    for command in ["clean", "smudge", "process"] {
        let key = format!("filter.lfs.{command}");
        git(&w.repo, &["config", &key, "touch /tmp/lfs-ran; false"]);
    }
    git(&w.repo, &["config", "filter.lfs.required", "true"]);
    let s = w.try_open(&w.spec()).unwrap();
    assert_eq!(w.out(&s, "cat big.bin"), pointer);
    let listed = w.out(
        &s,
        "export LC_ALL=C; find . -name '*big*' -o -perm -100 -type f -printf '%P %m\\n'; \
         find . -type l -printf '%P -> %l\\0' | sort -z | od -An -c | tr -d ' \\n'",
    );
    assert!(listed.contains("run.sh 755"), "{listed}");
    for link in [
        "absolute->/etc/hostname",
        "dangling->nowhere/atall",
        "to-odd->d377",
    ] {
        assert!(listed.replace(['\\', ' '], "").contains(link), "{listed}");
    }
    // Seen, changed, and carried out again.
    let listing = block_on(s.list("")).unwrap();
    assert!(listing.iter().any(|e| e.path == "latin\u{fffd}"));
    w.out(
        &s,
        "printf more >> \"$(printf 'latin\\351')\"; chmod 755 README.md; chmod 644 run.sh; \
         ln -sfn dangling absolute; rm dangling; printf '\\000\\377' > \"$(printf 'new\\376')\"; \
         mv \"$(printf 'd\\377')\" \"$(printf 'e\\375')\"; mkdir -p empty/inner",
    );
    let blob = block_on(s.snapshot(&*w.blobs)).unwrap();
    let patch = block_on(s.diff()).unwrap();
    let state = "export LC_ALL=C; find . -path ./.git -prune -o -not -type d -printf '%P %y %m %l\\n' \
                 | sort | od -c; find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 cat | sha256sum";
    let wanted = w.out(&s, state);
    let fork = block_on(s.fork()).unwrap();
    let restored = SandboxSpec {
        from: Some(blob),
        ..w.spec()
    };
    let restored = w.try_open(&restored).unwrap();
    for other in [fork, restored] {
        assert_eq!(w.out(&other, state), wanted);
        assert!(w.out(&other, "find empty").contains("empty/inner"));
        close(other);
    }
    let clone = applies(&w, &patch, "clone");
    assert_eq!(host("sh", &["-c", state], &clone), wanted);
    assert!(!Path::new("/tmp/lfs-ran").exists());
    close(s);
}

pub(crate) fn submodules_are_shown_as_recorded() {
    let w = World::new();
    let inner = repository(w.dir.0.join("inner"), "deep.txt", "deep\n");
    let outer = repository(w.dir.0.join("outer"), "lib.txt", "one\n");
    add_submodule(&outer, &inner, "in side");
    commit_all(&outer);
    add_submodule(&w.repo, &outer, "vendor/lib");
    let args = ["-c", "protocol.file.allow=always", "submodule"];
    let args = [&args[..], &["update", "-q", "--init", "--recursive"]].concat();
    git(&w.repo, &args);
    commit_all(&w.repo);
    // What is recorded counts, not what lies there or was committed since.
    fs::write(w.repo.join("vendor/lib/lib.txt"), "two\n").unwrap();
    fs::write(w.repo.join("vendor/lib/untracked"), "hunter2\n").unwrap();
    fs::write(outer.join("lib.txt"), "three\n").unwrap();
    commit_all(&outer);

    let base = import(&w, Uncommitted::Exclude);
    let shown: Vec<_> = base
        .submodules
        .iter()
        .map(|m| (&m.path[..], m.present))
        .collect();
    assert_eq!(shown, [("vendor/lib", true), ("vendor/lib/in side", true)]);
    let s = w.try_open(&at(&base.commit)).unwrap();
    let list = "cd vendor; find . -type f | sort; cat lib/lib.txt 'lib/in side/deep.txt'";
    let files = "./lib/.gitmodules\n./lib/in side/deep.txt\n./lib/lib.txt\none\ndeep\n";
    assert_eq!(w.out(&s, list), files);

    w.out(
        &s,
        "echo x >> README.md; echo y >> vendor/lib/lib.txt; echo new > 'vendor/lib/in side/n'; \
         printf '\\000' > vendor/lib/bin; chmod 755 'vendor/lib/in side/deep.txt'",
    );
    let patch = block_on(s.diff()).unwrap();
    assert!(!patch.contains("Subproject"), "{patch}");
    let clone = applies(&w, &patch, "clone");
    let read = |p: &str| fs::read(clone.join(p)).unwrap();
    assert_eq!(read("vendor/lib/lib.txt"), b"one\ny\n");
    assert_eq!(read("vendor/lib/in side/n"), b"new\n");
    assert_eq!(read("vendor/lib/bin"), b"\0");
    let mode = fs::metadata(clone.join("vendor/lib/in side/deep.txt")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o111, 0o111);
    // A commit of the whole cannot hold that.
    let changes = [Change {
        path: b"vendor/lib/lib.txt".to_vec(),
        now: Content::Gone,
    }];
    let meta = super::repos::meta();
    let refused = w.store.commit(Some(&base.commit), &changes, &meta);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("`vendor/lib` is a submodule"), "{text}");
    close(s);
}

pub(crate) fn a_submodule_that_is_not_there_is_said_to_be_missing() {
    let w = World::new();
    let lib = repository(w.dir.0.join("lib"), "lib.txt", "one\n");
    add_submodule(&w.repo, &lib, "lib");
    commit_all(&w.repo);
    git(&w.repo, &["submodule", "-q", "deinit", "-f", "lib"]);
    let kept = w.repo.join(".git/modules/lib");
    fs::rename(&kept, w.dir.0.join("away")).unwrap();
    let base = import(&w, Uncommitted::Exclude);
    assert_eq!(base.submodules.len(), 1);
    assert!(!base.submodules[0].present);
    let s = w.try_open(&at(&base.commit)).unwrap();
    assert_eq!(w.out(&s, "find lib"), "lib\n");
    w.out(&s, "echo mine > lib/new.txt");
    let patch = block_on(s.diff()).unwrap();
    assert!(
        patch.contains("b/lib/new.txt") && !patch.contains("Subproject"),
        "{patch}"
    );
    close(s);
    // Got meanwhile, it is shown from then on.
    fs::rename(w.dir.0.join("away"), &kept).unwrap();
    let again = import(&w, Uncommitted::Exclude);
    assert!(again.submodules[0].present && again.commit == base.commit);
    let s = w.try_open(&at(&again.commit)).unwrap();
    assert_eq!(w.out(&s, "cat lib/lib.txt"), "one\n");
    close(s);
}

pub(crate) fn a_submodule_leads_nowhere_else() {
    let w = World::new();
    let secret = repository(w.dir.0.join("secret"), "key", "hunter2\n");
    let lib = repository(w.dir.0.join("lib"), "lib.txt", "one\n");
    add_submodule(&w.repo, &lib, "lib");
    let head = git(&secret, &["rev-parse", "HEAD"]);
    // Whoever wrote the commit names a place outside, and a commit that is there.
    let modules = "[submodule \"../../../secret/.git\"]\n\tpath = lib\n\turl = x\n";
    fs::write(w.repo.join(".gitmodules"), modules).unwrap();
    let entry = format!("160000,{},lib", head.trim());
    git(&w.repo, &["add", ".gitmodules"]);
    git(&w.repo, &["update-index", "--cacheinfo", &entry]);
    git(&w.repo, &["commit", "-qm", "evil"]);
    let base = import(&w, Uncommitted::Exclude);
    assert!(base.submodules.iter().all(|m| !m.present));
    let s = w.try_open(&at(&base.commit)).unwrap();
    assert_eq!(w.out(&s, "find lib"), "lib\n");
    close(s);
}

pub(crate) fn empty_directories_come_with_untracked_files() {
    let w = World::new();
    for dir in ["empty/inner", "src/none", "build.log/x", "new/deep/none"] {
        fs::create_dir_all(w.repo.join(dir)).unwrap();
    }
    fs::create_dir(w.repo.join(OsStr::from_bytes(b"odd\xff%"))).unwrap();
    fs::write(w.repo.join("new/file"), "x").unwrap();
    let plain = w.try_open(&w.spec()).unwrap();
    assert_eq!(w.out(&plain, "find . -type d -empty"), "");
    close(plain);
    let all = import(&w, Uncommitted::IncludeUntracked);
    assert_eq!(import(&w, Uncommitted::IncludeUntracked), all);
    assert!(all.included && all.dirty.contains(&"src/none".to_owned()));
    let s = w.try_open(&at(&all.commit)).unwrap();
    let found = w.out(
        &s,
        "LC_ALL=C find . -type d -empty | sort | od -c | head -c 9999",
    );
    let want = "./empty/inner\n./new/deep/none\n./odd\u{0}%\n./src/none\n";
    let found: String = found
        .lines()
        .flat_map(|l| l.split_whitespace().skip(1))
        .map(|c| match c {
            "\\n" => "\n",
            "377" => "\u{0}",
            c => c,
        })
        .collect();
    assert_eq!(found, want);
    w.out(&s, "rmdir src/none empty/inner && echo y > new/file");
    let patch = block_on(s.diff()).unwrap();
    assert!(patch.contains("+y") && !patch.contains("none"), "{patch}");
    close(s);
    fs::remove_dir_all(w.repo.join("new")).unwrap();
    let fewer = import(&w, Uncommitted::IncludeUntracked);
    assert!(fewer.included && fewer.commit != all.commit);
}

/// Whoever writes a commit can write that message too.
pub(crate) fn a_message_makes_no_directory_outside() {
    let w = World::new();
    let outside = w.dir.0.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, w.repo.join("trap")).unwrap();
    git(&w.repo, &["add", "trap"]);
    let line = |path: &str| format!("{{\"path\":\"{path}\",\"now\":\"dir\"}}\n");
    let list = [
        "trap/x",
        "../outside/y",
        "/tmp/z-of-a-message",
        ".git/x",
        "fine/x",
    ]
    .map(line);
    let message = format!(
        "Uncommitted changes\n\nEmpty directories:\n{}",
        list.concat()
    );
    git(&w.repo, &["commit", "-qm", &message]);
    let s = w.try_open(&w.spec()).unwrap();
    assert_eq!(w.out(&s, "find . -type d -empty"), "./fine/x\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!Path::new("/tmp/z-of-a-message").exists());
    close(s);
}

pub(crate) fn a_patch_goes_on_top_of_a_commit() {
    let w = World::new();
    let base = import(&w, Uncommitted::Exclude).commit;
    fs::write(w.repo.join("README.md"), "patched\n").unwrap();
    fs::write(w.repo.join("data/c.bin"), [9, 0, 9]).unwrap();
    fs::write(w.repo.join(OsStr::from_bytes(b"n\xe9w")), "new\n").unwrap();
    fs::set_permissions(w.repo.join("src/a.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(w.repo.join("link")).unwrap();
    git(&w.repo, &["add", "-A"]);
    let patch = git(&w.repo, &["diff", "--cached", "--binary"]);
    let commit = w.store.apply(&base, patch.as_bytes()).unwrap();
    assert_eq!(w.store.apply(&base, patch.as_bytes()).unwrap(), commit);
    assert_eq!(w.store.apply(&base, b"").unwrap(), base);
    let s = w.try_open(&at(&commit)).unwrap();
    assert_eq!(
        w.out(&s, "cat README.md n*; test -x src/a.txt; test ! -L link"),
        "patched\nnew\n"
    );
    w.out(&s, "echo more >> README.md");
    let more = block_on(s.diff()).unwrap();
    assert!(more.contains(" patched\n+more\n"), "{more}");
    close(s);
    for (bad, why) in [
        (&b"no patch"[..], "No valid patches"),
        (patch.replace("-hello", "-olleh").as_bytes(), "README.md"),
        (b"--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n", "none"),
        (
            b"--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+b\n",
            "invalid path",
        ),
        (
            b"--- /dev/null\n+++ b/.git/x\n@@ -0,0 +1 @@\n+b\n",
            "invalid path",
        ),
        (b"--- /dev/null\n+++ b/link/x\n@@ -0,0 +1 @@\n+b\n", "link"),
    ] {
        let e = w.store.apply(&base, bad).unwrap_err();
        assert!(matches!(&e, SandboxError::Patch(_)), "{e:?}");
        assert!(e.to_string().contains(why), "{e}");
        assert_eq!((e.code(), e.is_retryable()), ("sandbox.patch", false));
    }
    let other = w.store.apply(&"0".repeat(40), patch.as_bytes());
    assert!(matches!(other, Err(SandboxError::Repo(_))));
}

/// Where the file system has them, copies are made of shared blocks, and what is said of that is
/// true. Elsewhere bytes are copied, and that is said.
pub(crate) fn copies_share_blocks_where_they_can() {
    let w = World::with(|o| o.always_copy = true);
    let big = vec![7_u8; 1 << 20];
    fs::write(w.repo.join("big"), &big).unwrap();
    commit_all(&w.repo);
    let (a, b) = (w.dir.0.join("a"), w.dir.0.join("b"));
    fs::write(&a, &big).unwrap();
    let cp = "cp --reflink=always a b 2>/dev/null && echo yes || echo no";
    let can = host("sh", &["-c", cp], &w.dir.0).trim() == "yes";
    assert_eq!(can, b.metadata().is_ok_and(|m| m.len() == 1 << 20));
    let s = w.try_open(&w.spec()).unwrap();
    let done = w.sh(&s, "sha256sum < big; echo mine >> big; cp big big2");
    let how = done.enforced.iter().find(|e| e.contains("workspace"));
    let how = how.unwrap();
    assert_eq!(how.contains("blocks are shared"), can, "{how}");
    // Shared is not the same: what one changes, the base keeps.
    let other = w.try_open(&w.spec()).unwrap();
    assert_eq!(w.out(&other, "wc -c < big").trim(), "1048576");
    let fork = block_on(s.fork()).unwrap();
    assert_eq!(w.out(&fork, "tail -c 5 big").trim(), "mine");
    for s in [s, other, fork] {
        close(s);
    }
}
