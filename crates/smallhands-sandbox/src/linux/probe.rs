//! What works here, found out by doing it.

use super::{Inner, cgroup, landlock, proto::Command};
use crate::{CacheView, Capabilities, Layer, Limits, SandboxError, SandboxSpec};
use std::fs;

/// In the order in which the helper sets them up.
const LAYERS: [&str; 12] = [
    "user namespace",
    "mount namespace",
    "pid namespace",
    "network namespace",
    "ipc namespace",
    "uts namespace",
    "cgroup namespace",
    "proc",
    "pivot_root",
    "no_new_privs",
    "landlock",
    "seccomp",
];

/// What was in force, and what was not, and why.
type Tried = (Vec<String>, Vec<(String, String)>);

/// Opens a throw-away sandbox on an empty base, and runs a command in it.
pub(super) async fn probe(inner: &Inner) -> Capabilities {
    let tried = attempt(inner).await;
    let mut layers = match &tried {
        Ok((enforced, _)) => LAYERS.iter().map(|name| works(name, enforced)).collect(),
        Err(e) => broken(e),
    };
    layers.push(overlay(&tried));
    layers.push(Layer {
        name: "rlimits".into(),
        works: tried.is_ok(),
        required: true,
        detail: match &tried {
            Ok(_) => "memory, cpu time, file size, open files, processes".into(),
            Err(_) => "not reached".into(),
        },
    });
    for name in [
        "caches",
        "environment",
        "egress allow-list",
        "memory cgroup",
        "pids cgroup",
        "cpu cgroup",
    ] {
        layers.push(whole(name, &tried));
    }
    Capabilities { layers }
}

/// What was in force around a command that ran.
async fn attempt(inner: &Inner) -> Result<Tried, SandboxError> {
    inner.check_helper()?;
    let none = Limits {
        total_memory_bytes: None,
        processes: None,
        ..Limits::default()
    };
    let base = inner.den.private(inner.den.next(), true, &none, 0)?;
    let lower = base.path().join("upper");
    let cache = crate::cache::empty(&base.path().join("cache"))?;
    let limits = Limits {
        cpu_thousandths: Some(1000),
        ..Limits::default()
    };
    let spec = SandboxSpec {
        limits,
        egress: Some(crate::Egress::default()),
        caches: vec![CacheView {
            generation: cache.clone(),
            at: "/cache".into(),
        }],
        environment: Some(cache),
        ..SandboxSpec::default()
    };
    let conn = inner.start_on(&spec, Some(&lower), None).await?;
    let (id, coming) = conn.begin(0, super::answer::Sink::None);
    let command = Command {
        argv: vec!["/usr/bin/true".into()],
        env: Vec::new(),
        cwd: String::new(),
        deadline_ms: 5000,
        stdin_len: 0,
        duplex: false,
    };
    // Whether that can be started does not matter: the layers come before it.
    conn.send(id, super::proto::Ask::Exec(command), &[]).await?;
    let answer = conn.wait(coming).await;
    let tried = (conn.enforced.clone(), conn.missing.clone());
    conn.close().await;
    answer.map(|_| tried)
}

fn works(name: &str, enforced: &[String]) -> Layer {
    let detail = enforced.iter().find(|e| e.starts_with(name));
    Layer {
        name: name.into(),
        works: detail.is_some(),
        required: true,
        detail: detail.map_or_else(
            || "not in force".into(),
            |d| format!("tried: {d}{}", landlock::lacks(d)),
        ),
    }
}

fn broken(e: &SandboxError) -> Vec<Layer> {
    let (culprit, why) = match e {
        SandboxError::Unavailable { layer, reason, fix } => {
            (layer.as_str(), format!("{reason}; {fix}"))
        }
        _ => ("helper", e.to_string()),
    };
    let at = LAYERS.iter().position(|l| *l == culprit);
    let mut layers: Vec<Layer> = LAYERS
        .iter()
        .enumerate()
        .map(|(i, name)| Layer {
            name: (*name).into(),
            works: at.is_some_and(|at| i < at),
            required: true,
            detail: match at {
                Some(at) if i < at => "tried".into(),
                Some(at) if i == at => why.clone(),
                _ => "not reached".into(),
            },
        })
        .collect();
    if at.is_none() {
        layers.insert(
            0,
            Layer {
                name: culprit.into(),
                works: false,
                required: true,
                detail: why,
            },
        );
    }
    layers
}

/// A layer that a sandbox need not have; limits of the whole among them.
fn whole(name: &str, tried: &Result<Tried, SandboxError>) -> Layer {
    let (works, detail) = match tried {
        Err(_) => (false, "not reached".into()),
        Ok((enforced, missing)) => match missing.iter().find(|(layer, _)| layer == name) {
            Some((_, why)) => (false, format!("{why}; {}", cgroup::FIX)),
            None => {
                let layer = works(name, enforced);
                (layer.works, layer.detail)
            }
        },
    };
    Layer {
        name: name.into(),
        works,
        required: false,
        detail,
    }
}

fn overlay(tried: &Result<Tried, SandboxError>) -> Layer {
    let (works, detail) = match tried {
        Ok((enforced, _)) => match enforced.iter().find(|e| e.contains("workspace")) {
            Some(how) => (how.starts_with("overlay"), how.clone()),
            None => (false, "not in force".into()),
        },
        Err(_) if fs::read_to_string("/proc/filesystems").is_ok_and(|f| f.contains("overlay")) => {
            (false, "known to the kernel, not reached".into())
        }
        Err(_) => (false, "not known to the kernel".into()),
    };
    Layer {
        name: "overlayfs".into(),
        works,
        required: false,
        detail: format!("{detail}; without it each sandbox copies its base"),
    }
}
