//! All files together: copies, snapshots, forks, diffs.

use super::{
    bed::{Bed, Boxed, said},
    sandbox_files,
};
use crate::expect;
use smallhands_sandbox::{Content, RepoSource, SandboxError, SandboxSpec};
use std::{collections::BTreeSet, fs, time::Duration};

/// Every kind of change that a snapshot must carry.
const EDIT: &str = "set -e; printf 'one\\n2\\nthree\\n' > src/a.txt; rm data/c.bin README.md; \
                    rm -r src/deep; echo file > src/deep; chmod -x run.sh; ln -sfn data link; \
                    printf '\\000\\001\\377' > new.bin; echo x > tool; chmod +x tool; \
                    mkdir -p empty/inner; ln -s nowhere dangling; echo x > \"$(printf 'n\\377me')\"; \
                    echo x > 'with space and \"quotes\"'";

async fn edited(b: &Bed, s: &Boxed) -> Result<String, String> {
    b.out(s, EDIT).await?;
    b.tree(s).await
}

pub(super) async fn clean(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let listed = s.list("").await.map_err(said)?;
    let dirs = ["data", "src", "src/deep"].map(str::to_owned);
    let files = sandbox_files();
    let names = files
        .iter()
        .map(|c| String::from_utf8_lossy(&c.path).into_owned());
    let promised: BTreeSet<String> = names.chain(dirs).collect();
    expect(
        "names",
        &listed.into_iter().map(|e| e.path).collect(),
        &promised,
    )?;
    for file in files {
        let path = String::from_utf8_lossy(&file.path);
        match file.now {
            Content::File { bytes, .. } => {
                expect(&path, &s.read(&path).await.map_err(said)?, &bytes)?;
            }
            Content::Symlink { target } => {
                let seen = b.out(&s, &format!("readlink {path}")).await?;
                expect(&path, &seen.trim().as_bytes(), &&target[..])?;
            }
            _ => {}
        }
    }
    expect(
        "executable",
        &b.out(&s, "test ! -x README.md && ./run.sh").await?.as_str(),
        &"run\n",
    )
}

pub(super) async fn empty(b: Bed) -> Result<(), String> {
    let s = b.try_open(&SandboxSpec::default()).await.map_err(said)?;
    expect("files", &b.out(&s, "ls -A").await?.as_str(), &"")?;
    s.write("a/b", b"x\n").await.map_err(said)?;
    let patch = s.diff().await.map_err(said)?;
    expect("in the diff", &patch.contains("+++ b/a/b"), &true)?;
    let forked = s.fork().await.map_err(said)?;
    expect(
        "in a fork",
        &b.out(&forked, "cat a/b").await?.as_str(),
        &"x\n",
    )
}

pub(super) async fn missing(b: Bed) -> Result<(), String> {
    let nowhere = SandboxSpec {
        source: Some(RepoSource {
            commit: "0123456789".repeat(4),
        }),
        ..SandboxSpec::default()
    };
    let path = SandboxSpec {
        read_only: vec!["/no/such/toolchain".into()],
        ..b.spec()
    };
    let snapshot = SandboxSpec {
        from: Some(smallhands_core::BlobRef {
            digest: smallhands_core::Digest::of_bytes(b"never stored"),
            len: 12,
        }),
        ..b.spec()
    };
    let layer = SandboxSpec {
        require: vec!["a layer that nobody has".into()],
        ..b.spec()
    };
    for (what, spec) in [
        ("commit", nowhere),
        ("path", path),
        ("snapshot", snapshot),
        ("layer", layer),
    ] {
        expect(what, &b.try_open(&spec).await.is_err(), &true)?;
    }
    Ok(())
}

pub(super) async fn cancelled_open(b: Bed) -> Result<(), String> {
    let kept = b.kept();
    b.cancel.cancel();
    match b.try_open(&b.spec()).await {
        Err(SandboxError::Cancelled) => gone(&b, &kept).await,
        other => Err(format!("promised Cancelled, seen {other:?}")),
    }
}

pub(super) async fn probe(b: Bed) -> Result<(), String> {
    let kept = b.kept();
    let can = b.given.backend.probe().await;
    expect("usable", &can.usable(), &true)?;
    expect("kept", &b.kept(), &kept)
}

pub(super) async fn apart(b: Bed) -> Result<(), String> {
    let before = b.source();
    expect("the source can be seen", &before.is_empty(), &false)?;
    let (one, two) = (b.open().await?, b.open().await?);
    let clean = b.tree(&two).await?;
    let changed = edited(&b, &one).await?;
    one.write("run.sh", b"x").await.map_err(said)?;
    one.remove("tool").await.map_err(said)?;
    expect("a change is one", &(changed == clean), &false)?;
    expect("the other sandbox", &b.tree(&two).await?, &clean)?;
    expect("a later one", &b.tree(&b.open().await?).await?, &clean)?;
    expect("the source is as before", &(b.source() == before), &true)
}

pub(super) async fn read_only(b: Bed) -> Result<(), String> {
    let dir = b.given.state_dir.with_extension("granted");
    fs::create_dir_all(&dir).map_err(said)?;
    fs::write(dir.join("file"), "granted\n").map_err(said)?;
    let spec = SandboxSpec {
        read_only: vec![dir.clone()],
        ..b.spec()
    };
    let s = b.try_open(&spec).await.map_err(said)?;
    let file = dir.join("file").display().to_string();
    expect(
        "at its path",
        &b.out(&s, &format!("cat '{file}'")).await?.as_str(),
        &"granted\n",
    )?;
    let change = format!("echo x > '{file}' || rm '{file}' || touch '{file}2'");
    expect("changed", &b.sh(&s, &change).await?.ok(), &false)?;
    expect(
        "on the host",
        &fs::read(file).map_err(said)?,
        &b"granted\n".to_vec(),
    )
}

pub(super) async fn snapshot(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let promised = edited(&b, &s).await?;
    let blob = s.snapshot(&*b.blobs).await.map_err(said)?;
    expect("after taking it", &b.tree(&s).await?, &promised)?;
    s.close().await.map_err(said)?;
    let spec = SandboxSpec {
        from: Some(blob.clone()),
        ..b.spec()
    };
    let other = b.try_open(&spec).await.map_err(said)?;
    expect("elsewhere", &b.tree(&other).await?, &promised)?;
    let again = other.snapshot(&*b.blobs).await.map_err(said)?;
    expect("a snapshot of the same", &again, &blob)
}

pub(super) async fn cost(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    s.write("src/a.txt", b"changed").await.map_err(said)?;
    s.snapshot(&*b.blobs).await.map_err(said)?;
    // The one file and the list of changes.
    expect("blobs for one changed file", &b.blobs.puts(), &2)
}

pub(super) async fn restore(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let clean = b.tree(&s).await?;
    let changed = edited(&b, &s).await?;
    let blob = s.snapshot(&*b.blobs).await.map_err(said)?;
    b.out(&s, "rm tool; echo later > later; mkdir src/more")
        .await?;
    s.restore(Some(&blob), &*b.blobs).await.map_err(said)?;
    expect("the snapshot", &b.tree(&s).await?, &changed)?;
    s.restore(None, &*b.blobs).await.map_err(said)?;
    expect("the base", &b.tree(&s).await?, &clean)?;
    expect("the diff", &s.diff().await.map_err(said)?.as_str(), &"")
}

pub(super) async fn other_base(b: Bed) -> Result<(), String> {
    let (s, bare) = (b.open().await?, SandboxSpec::default());
    let blob = s.snapshot(&*b.blobs).await.map_err(said)?;
    let other = b.try_open(&bare).await.map_err(said)?;
    other.write("mine", b"x").await.map_err(said)?;
    let restored = other.restore(Some(&blob), &*b.blobs).await;
    expect("restored", &restored.is_ok(), &false)?;
    expect(
        "and nothing changed",
        &other.read("mine").await.is_ok(),
        &true,
    )?;
    let from = SandboxSpec {
        from: Some(blob),
        ..bare
    };
    expect("opened", &b.try_open(&from).await.is_ok(), &false)
}

pub(super) async fn fork(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let promised = edited(&b, &s).await?;
    let forked = s.fork().await.map_err(said)?;
    expect("the fork", &b.tree(&forked).await?, &promised)?;
    let patch = s.diff().await.map_err(said)?;
    expect("its diff", &forked.diff().await.map_err(said)?, &patch)?;
    b.out(&forked, "echo fork > src/a.txt; rm tool").await?;
    expect("the first", &b.tree(&s).await?, &promised)?;
    let fork = b.tree(&forked).await?;
    b.out(&s, "echo first > src/a.txt; echo x > more").await?;
    expect("the fork later", &b.tree(&forked).await?, &fork)?;
    s.close().await.map_err(said)?;
    expect("the fork alone", &b.tree(&forked).await?, &fork)
}

pub(super) async fn diff(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    expect("unchanged", &s.diff().await.map_err(said)?.as_str(), &"")?;
    let script = "set -e; printf 'one\\n2\\nthree\\n' > src/a.txt; rm data/c.bin README.md; \
                  chmod -x run.sh; echo new > src/new.txt; ln -sfn data link; \
                  echo x > src/deep/b.txt; echo b > src/deep/b.txt; \
                  mkdir -p .git empty; echo x > .git/x";
    b.out(&s, script).await?;
    let patch = s.diff().await.map_err(said)?;
    let named: Vec<_> = patch
        .lines()
        .filter_map(|l| l.strip_prefix("diff --git "))
        .collect();
    let promised = [
        "README.md",
        "data/c.bin",
        "link",
        "run.sh",
        "src/a.txt",
        "src/new.txt",
    ];
    let promised = promised.map(|p| format!("a/{p} b/{p}"));
    expect(
        "paths",
        &named.into_iter().collect(),
        &promised.iter().map(|p| &**p).collect::<BTreeSet<_>>(),
    )?;
    let part = |path: &str| {
        let head = format!("a/{path} ");
        let mut parts = patch.split("diff --git ");
        parts.find(|p| p.starts_with(&head)).unwrap_or("")
    };
    for (path, line) in [
        ("README.md", "deleted file mode 100644"),
        ("README.md", "-hello"),
        ("data/c.bin", "deleted file mode 100644"),
        ("run.sh", "new mode 100644"),
        ("src/a.txt", "-two"),
        ("src/a.txt", "+2"),
        ("src/new.txt", "new file mode 100644"),
        ("link", "+data"),
    ] {
        expect(line, &part(path).lines().any(|l| l == line), &true)?;
    }
    Ok(())
}

/// Everything of closed sandboxes is gone, at once or soon.
async fn gone(b: &Bed, kept: &[std::path::PathBuf]) -> Result<(), String> {
    for _ in 0..100 {
        if b.kept() == kept {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    expect("what is kept", &b.kept(), &kept.to_vec())
}

pub(super) async fn close(b: Bed) -> Result<(), String> {
    let kept = b.kept();
    let s = b.open().await?;
    edited(&b, &s).await?;
    let forked = s.fork().await.map_err(said)?;
    for s in [s, forked] {
        s.close().await.map_err(said)?;
    }
    expect("what is kept", &b.kept(), &kept)?;
    // One that is dropped goes too.
    drop(b.open().await?);
    gone(&b, &kept).await
}
