//! Attacks on those who come later: by what a task leaves in a cache.

use crate::{
    Result,
    outside::{good, refused},
    pass::Pass,
    report::{Control, Got, Row},
};
use smallhands_sandbox::{Cache, CacheView, Invocation, Origin, Refused};
use std::{fs, os::unix::fs::symlink, path::PathBuf};

/// Where sandboxes of the pass show a cache.
pub(crate) const AT: &str = "/cache/bait";

type Tried = fn(&Pass) -> Result<(Control, Got)>;

pub(crate) fn probes(p: &Pass) -> Result<Vec<Row>> {
    let list: &[(&str, Tried)] = &[
        ("cache_poisons_next_task", next_task),
        ("cache_entry_replaced", replaced),
        ("cache_link_to_host", link),
        ("cache_setuid_program", setuid),
    ];
    let mut rows = Vec::new();
    for (name, run) in list {
        let (control, got) = run(p).map_err(|e| format!("{name}: {e}"))?;
        rows.push(Row {
            user: p.user.clone(),
            class: "caches".into(),
            name: (*name).into(),
            control,
            inside: Some(got),
            without: Vec::new(),
        });
    }
    Ok(rows)
}

/// Runs a script in a sandbox with the cache, and promotes what it wrote as far as that goes; gives
/// back what did not, and where the result is.
pub(crate) fn promote(p: &Pass, cache: &Cache, script: &str) -> Result<(Vec<Refused>, PathBuf)> {
    let view: CacheView = cache.view(AT)?;
    let mut spec = p.spec();
    spec.caches = vec![view.clone()];
    let s = p.open(&spec)?;
    let script = format!("cd {AT}; {script}");
    let done = p.exec(&s, &Invocation::new(["sh", "-c", &script]))?;
    if !done.ok() {
        return Err(format!("the trap: {}", done.text()).into());
    }
    let done = p.wait(cache.promote(&*s, &view, Origin::Setup))?;
    p.wait(s.close())?;
    Ok((done.refused, done.generation.path))
}

fn cache(p: &Pass) -> Result<&Cache> {
    p.cache.as_ref().ok_or("no cache".into())
}

/// A directory that all may write, as caches are without a sandbox.
fn naive(p: &Pass) -> Result<PathBuf> {
    let dir = p.place.join("outside/cache");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("known"), "true")?;
    Ok(dir)
}

fn next_task(p: &Pass) -> Result<(Control, Got)> {
    let known = naive(p)?.join("known");
    fs::write(&known, "false")?;
    let fell = fs::read_to_string(known)? == "false";
    let (one, two) = (p.open(&p.spec())?, p.open(&p.spec())?);
    let poison = format!("echo false > {AT}/known; echo false > {AT}/new");
    let wrote = p.exec(&one, &Invocation::new(["sh", "-c", &poison]))?.ok();
    let look = Invocation::new(["sh".into(), "-c".into(), format!("cat {AT}/known; ls {AT}")]);
    let later = p.open(&p.spec())?;
    let mut clean = wrote;
    for s in [two, later] {
        clean &= p.exec(&s, &look)?.stdout == b"true\nknown\n";
        p.wait(s.close())?;
    }
    p.wait(one.close())?;
    Ok((
        good(fell, "nobody was poisoned"),
        refused(clean, "each writes to its own"),
    ))
}

fn replaced(p: &Pass) -> Result<(Control, Got)> {
    let known = naive(p)?.join("known");
    fs::write(&known, "false")?;
    let fell = fs::read_to_string(known)? == "false";
    let (left, now) = promote(p, cache(p)?, "rm known; echo false > known")?;
    let kept = fs::read_to_string(now.join("known"))? == "true\n";
    Ok((
        good(fell, "it was not replaced"),
        refused(kept && !left.is_empty(), "what is there stays"),
    ))
}

fn link(p: &Pass) -> Result<(Control, Got)> {
    let secret = p.host.baits.path("secret")?;
    let trap = naive(p)?.join("trap");
    drop(fs::remove_file(&trap));
    symlink(&secret, &trap)?;
    let read = fs::read_to_string(&trap)?;
    let fell = p.host.baits.found(read.as_bytes()).is_ok();
    let dir = p.host.baits.path("dir")?;
    let script = format!(
        "ln -s {} trap; ln -s {} traps",
        secret.display(),
        dir.display()
    );
    let (_, now) = promote(p, cache(p)?, &script)?;
    let there = |name| fs::symlink_metadata(now.join(name)).is_ok();
    Ok((
        good(fell, "the link leads nowhere"),
        refused(!there("trap") && !there("traps"), "no link is taken"),
    ))
}

fn setuid(p: &Pass) -> Result<(Control, Got)> {
    use std::os::unix::fs::PermissionsExt;
    let program = naive(p)?.join("program");
    fs::write(&program, "x")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    let fell = fs::metadata(&program)?.permissions().mode() & 0o4000 != 0;
    let script = "cp /usr/bin/id program; chmod 4755 program";
    let (_, now) = promote(p, cache(p)?, script)?;
    let set = fs::metadata(now.join("program")).is_ok_and(|m| m.permissions().mode() & 0o6000 != 0);
    Ok((
        good(fell, "the mode was not set"),
        refused(!set, "it is not taken"),
    ))
}
