//! What sandboxes share: caches and environments.

use super::bed::{Bed, Boxed, said};
use crate::expect;
use smallhands_sandbox::{CacheView, Generation, SandboxError, SandboxSpec};
use std::{fs, path::Path};

const AT: &str = "/cache/kit";

fn cache(b: &Bed, generation: Generation) -> SandboxSpec {
    SandboxSpec {
        caches: vec![CacheView {
            generation,
            at: AT.into(),
        }],
        ..b.spec()
    }
}

/// Opens it, or sees that a backend that shows none says so.
async fn shown(
    b: &Bed,
    ask: impl Fn(Generation) -> SandboxSpec,
) -> Result<Option<(Boxed, Generation)>, String> {
    if let Some(generation) = b.given.generation.clone() {
        let s = b.try_open(&ask(generation.clone())).await.map_err(said)?;
        return Ok(Some((s, generation)));
    }
    let any = Generation {
        path: b.given.source_dir.clone(),
    };
    match b.try_open(&ask(any)).await {
        Err(SandboxError::Unavailable { .. }) => Ok(None),
        other => Err(format!("promised Unavailable, seen {other:?}")),
    }
}

pub(super) async fn apart(b: Bed) -> Result<(), String> {
    let spec = |g| cache(&b, g);
    let Some((one, generation)) = shown(&b, spec).await? else {
        return Ok(());
    };
    let look = format!("cd {AT}; cat shared/known; ls -R");
    let clean = b.out(&one, &look).await?;
    expect("as published", &clean.starts_with("known\n"), &true)?;
    let script = format!("cd {AT}; echo false > shared/known; echo false > new; mkdir d");
    b.out(&one, &script).await?;
    let seen = b
        .out(&one, &format!("cat {AT}/shared/known {AT}/new"))
        .await?;
    expect("what was written", &seen.as_str(), &"false\nfalse\n")?;
    let two = b.try_open(&spec(generation.clone())).await.map_err(said)?;
    expect("another one", &b.out(&two, &look).await?, &clean)?;
    let patch = one.diff().await.map_err(said)?;
    expect("the diff", &patch.as_str(), &"")?;
    let forked = one.fork().await.map_err(said)?;
    let seen = b
        .out(&forked, &format!("cat {AT}/new; echo fork > {AT}/new"))
        .await?;
    expect("a fork", &seen.as_str(), &"false\n")?;
    let seen = b.out(&one, &format!("cat {AT}/new")).await?;
    expect("after its fork wrote", &seen.as_str(), &"false\n")?;
    for s in [one, forked] {
        s.close().await.map_err(said)?;
    }
    expect("a later one", &b.out(&two, &look).await?, &clean)
}

pub(super) async fn export(b: Bed) -> Result<(), String> {
    let dir = b.given.state_dir.with_extension("exported");
    let Some((s, _)) = shown(&b, |g| cache(&b, g)).await? else {
        return Ok(());
    };
    let script = "mkdir -p d/e; printf x > d/e/file; printf x > tool; chmod 0777 tool; ln -s /etc link; \
                  mkfifo pipe; printf x > suid; chmod 4711 suid; head -c 101 /dev/zero > large";
    for (place, from) in [(AT, AT), ("/workspace/made", "made")] {
        b.out(&s, &format!("mkdir -p {place}; cd {place}; {script}"))
            .await?;
        let into = dir.join(from.trim_start_matches('/'));
        fs::create_dir_all(&into).map_err(said)?;
        let refused = s.export(from, &into, 100).await.map_err(said)?;
        b.out(&s, &format!("echo later > {place}/d/e/file")).await?;
        let left: Vec<_> = refused.iter().map(|r| r.path.clone()).collect();
        for path in ["pipe", "suid", "large"] {
            expect(path, &left.iter().any(|p| p == Path::new(path)), &true)?;
            expect(path, &into.join(path).exists(), &false)?;
        }
        let file = fs::read(into.join("d/e/file")).map_err(said)?;
        expect("a file", &file, &b"x".to_vec())?;
        expect("a tool", &mode(&into.join("tool"))?, &0o755)?;
        expect("a file's mode", &mode(&into.join("d/e/file"))?, &0o644)?;
        let link = fs::read_link(into.join("link")).map_err(said)?;
        expect("a link", &link.as_path(), &Path::new("/etc"))?;
    }
    let nothing = s.export("no/such", &dir, 100).await;
    expect("what is not there", &nothing.is_err(), &true)?;
    b.out(&s, "ln -s /etc out").await?;
    let outside = s.export("out", &dir, 1 << 20).await;
    expect("through a link", &outside.is_err(), &true)
}

#[cfg(unix)]
fn mode(path: &Path) -> Result<u32, String> {
    use std::os::unix::fs::PermissionsExt;
    let meta = fs::metadata(path).map_err(said)?;
    Ok(meta.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
fn mode(path: &Path) -> Result<u32, String> {
    // There are none: what was promised.
    Ok(if path.ends_with("tool") { 0o755 } else { 0o644 })
}

pub(super) async fn environment(b: Bed) -> Result<(), String> {
    let spec = |g| SandboxSpec {
        environment: Some(g),
        ..b.spec()
    };
    let Some((s, generation)) = shown(&b, spec).await? else {
        return Ok(());
    };
    let look = "cat shared/known README.md";
    expect(
        "beneath",
        &b.out(&s, look).await?.as_str(),
        &"known\nhello\n",
    )?;
    expect("the diff", &s.diff().await.map_err(said)?.as_str(), &"")?;
    let clean = s.snapshot(&*b.blobs).await.map_err(said)?;
    b.out(&s, "echo x > shared/known; echo y > shared/new")
        .await?;
    let changed = s.snapshot(&*b.blobs).await.map_err(said)?;
    let from = SandboxSpec {
        from: Some(changed.clone()),
        ..spec(generation.clone())
    };
    let look_new = "cat shared/known shared/new";
    let other = b.try_open(&from).await.map_err(said)?;
    expect(
        "a snapshot",
        &b.out(&other, look_new).await?.as_str(),
        &"x\ny\n",
    )?;
    let two = b.try_open(&spec(generation.clone())).await.map_err(said)?;
    expect(
        "another one",
        &b.out(&two, look).await?.as_str(),
        &"known\nhello\n",
    )?;
    s.restore(Some(&clean), &*b.blobs).await.map_err(said)?;
    expect(
        "restored",
        &b.out(&s, look).await?.as_str(),
        &"known\nhello\n",
    )?;
    let bare = SandboxSpec {
        from: Some(changed),
        ..b.spec()
    };
    expect("without it", &b.try_open(&bare).await.is_ok(), &false)
}
