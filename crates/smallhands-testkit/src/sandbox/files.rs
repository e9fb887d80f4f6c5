//! Single files, seen from the host.

use super::bed::{Bed, said};
use crate::expect;
use smallhands_sandbox::{DirEntry, EntryKind, SandboxError};
use std::fmt::Debug;

pub(super) async fn read_and_write(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    expect(
        "a file",
        &s.read("README.md").await.map_err(said)?,
        &b"hello\n".to_vec(),
    )?;
    let linked = s.read("link").await.map_err(said)?;
    expect("through a link", &linked, &b"one\ntwo\nthree\n".to_vec())?;
    for missing in [s.read("none").await.map(drop), s.remove("none").await] {
        match missing {
            Err(SandboxError::NotFound(_)) => {}
            other => return Err(format!("promised NotFound, seen {other:?}")),
        }
    }
    expect(
        "a directory is no file",
        &s.read("src").await.is_err(),
        &true,
    )?;
    let big: Vec<u8> = (0..(3 << 20) + 5).map(|i| (i % 251) as u8).collect();
    s.write("new/deep/big", &big).await.map_err(said)?;
    let back = s.read("new/deep/big").await.map_err(said)?;
    expect("3 MiB come back", &(back == big), &true)?;
    s.write("new/deep/big", b"").await.map_err(said)?;
    expect(
        "emptied",
        &s.read("new/deep/big").await.map_err(said)?,
        &vec![],
    )?;
    s.write("run.sh", b"#!/bin/sh\necho new\n")
        .await
        .map_err(said)?;
    expect(
        "the mode is kept",
        &b.out(&s, "./run.sh").await?.as_str(),
        &"new\n",
    )?;
    expect(
        "remove what is not empty",
        &s.remove("new").await.is_err(),
        &true,
    )?;
    for path in ["new/deep/big", "new/deep", "new", "link"] {
        s.remove(path).await.map_err(said)?;
    }
    expect(
        "a link's target stays",
        &s.read("src/a.txt").await.is_ok(),
        &true,
    )
}

pub(super) async fn list(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    b.out(&s, "mkdir .git empty && echo x > .git/x").await?;
    let entry = |path: &str, kind, len| DirEntry {
        path: path.into(),
        kind,
        len,
    };
    let seen = |all: Vec<DirEntry>| -> Vec<DirEntry> {
        let sized = |e: DirEntry| match e.kind {
            EntryKind::File => e,
            _ => DirEntry { len: 0, ..e },
        };
        all.into_iter().map(sized).collect()
    };
    let src = [
        entry("src/a.txt", EntryKind::File, 14),
        entry("src/deep", EntryKind::Dir, 0),
        entry("src/deep/b.txt", EntryKind::File, 2),
    ];
    let mut all = vec![
        entry("README.md", EntryKind::File, 6),
        entry("data", EntryKind::Dir, 0),
        entry("data/c.bin", EntryKind::File, 4),
        entry("empty", EntryKind::Dir, 0),
        entry("link", EntryKind::Symlink, 0),
        entry("run.sh", EntryKind::File, 19),
        entry("src", EntryKind::Dir, 0),
    ];
    all.extend(src.clone());
    expect("everything", &seen(s.list("").await.map_err(said)?), &all)?;
    expect(
        "below",
        &seen(s.list("src").await.map_err(said)?),
        &src.to_vec(),
    )
}

fn refused<T: Debug>(path: &str, r: Result<T, SandboxError>) -> Result<(), String> {
    match r {
        Err(SandboxError::Path { .. }) => Ok(()),
        other => Err(format!("{path:?}: promised Path, seen {other:?}")),
    }
}

pub(super) async fn paths(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let before = b.source();
    for path in [
        "/etc/passwd",
        "../x",
        "src/../../x",
        "a/../../../etc/passwd",
        "\0",
        "/",
    ] {
        refused(path, s.read(path).await)?;
        refused(path, s.write(path, b"x").await)?;
        refused(path, s.remove(path).await)?;
        refused(path, s.list(path).await)?;
    }
    refused("", s.remove("").await)?;
    expect("the source is as before", &(b.source() == before), &true)
}

pub(super) async fn links(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let script = "ln -s /etc/passwd file; ln -s / root; ln -s ../../../../etc up; ln -s loop loop";
    b.out(&s, script).await?;
    for path in ["file", "root/etc/passwd", "up/passwd", "loop"] {
        expect(path, &s.read(path).await.is_err(), &true)?;
        expect(path, &s.write(path, b"x").await.is_err(), &true)?;
    }
    expect(
        "write below",
        &s.write("root/tmp/kit", b"x").await.is_err(),
        &true,
    )?;
    expect("list", &s.list("root").await.is_err(), &true)?;
    // Inside, up and down again is fine.
    b.out(&s, "ln -s .. src/up").await?;
    expect("inside", &s.read("src/up/README.md").await.is_ok(), &true)
}
