//! The re-executed helper, and its forks: namespaces, then a child that becomes PID 1 and the agent.

use super::{
    NOBODY, agent, agent_ids, cgroup,
    forks::{self, Direct},
    forward::Forward,
    landlock, limits, mounts,
    proto::{self, Fault, Placed, Policy, Reply, Say},
    seccomp::{self, Filters},
    sys, sys_priv,
};
use crate::Wall;
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

const NAMESPACES: [(libc::c_int, &str); 6] = [
    (libc::CLONE_NEWNS, "mount namespace"),
    (libc::CLONE_NEWPID, "pid namespace"),
    (libc::CLONE_NEWNET, "network namespace"),
    (libc::CLONE_NEWIPC, "ipc namespace"),
    (libc::CLONE_NEWUTS, "uts namespace"),
    (libc::CLONE_NEWCGROUP, "cgroup namespace"),
];

/// A host that is stopped must not hold the agent for good.
const STALLED: Duration = Duration::from_secs(600);

/// How the sandbox gets its privileges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// As the real root, which becomes this user and group once the mounts stand.
    Root(u32, u32),
    /// As anyone, with the rights of an own user namespace.
    Rootless {
        /// Who may be the real root, without its rights.
        root: bool,
    },
}

/// Never returns to the embedding program.
pub(super) fn main() -> ! {
    // The host sees the end of the stream and the status; there is nobody else to tell.
    let code = forks::run().unwrap_or(1);
    sys::exit_now(code)
}

/// One sandbox; with `made` this process is its PID 1.
pub(super) fn serve(
    mut sock: UnixStream,
    outlet: Option<OwnedFd>,
    filters: &Result<Filters, Fault>,
    made: Option<Direct>,
) -> io::Result<i32> {
    let Some((policy, _)) = proto::receive::<Policy>(&mut sock)? else {
        return Ok(0);
    };
    let start = match isolate(&policy, made, &mut sock) {
        Ok(start) => start,
        Err(fault) => return report(&mut sock, fault),
    };
    let filters = match filters {
        Ok(filters) => filters,
        Err(fault) => return report(&mut sock, fault.clone()),
    };
    if made.is_some() {
        return first(sock, &policy, start, filters, Placement::Outside);
    }
    // Before the fork: PID 1 is not to say hello without it.
    let forward = match Forward::prepare(&policy, outlet) {
        Ok(forward) => forward,
        Err(fault) => return report(&mut sock, fault),
    };
    let (confined, forward) = match forward {
        None => (None, None),
        Some(forward) => {
            let (confined, tell) = sys::pipe()?;
            (Some(confined), Some((forward, tell)))
        }
    };
    match sys::fork()? {
        sys::Fork::Parent(pid) => {
            drop((sock, confined));
            if let Some((forward, tell)) = forward {
                serve_outlet(forward, tell, pid, &policy, start, filters);
            }
            // PID 1 ends last of its namespace: when it is reaped, nothing of it is left.
            sys::wait_for(pid).map(|status| i32::from(status != 0))
        }
        sys::Fork::Child => {
            drop(forward);
            first(sock, &policy, start, filters, Placement::Inside(confined))
        }
    }
}

/// Where PID 1 begins.
enum Placement {
    /// Outside of its control groups, which the host makes meanwhile.
    Outside,
    /// In them; where there is a way out, that says here that it has its walls.
    Inside(Option<OwnedFd>),
}

/// PID 1.
fn first(
    mut sock: UnixStream,
    p: &Policy,
    start: Start,
    filters: &Filters,
    placement: Placement,
) -> io::Result<i32> {
    let mut placed = || match placement {
        Placement::Outside => enter_groups(&mut sock).and_then(|()| {
            let flag = libc::CLONE_NEWCGROUP;
            sys::unshare(flag).map_err(|e| unshare_fault("cgroup namespace", &e))
        }),
        Placement::Inside(_) => Ok(()),
    };
    let built = build(p, start, &mut placed);
    let ended = built.and_then(|(view, enforced)| {
        if let Placement::Inside(Some(said)) = placement {
            Forward::was_confined(said)?;
        }
        agent::serve(&mut sock, p, &view, &enforced, filters).map_err(|e| Fault::setup("agent", e))
    });
    match ended {
        Ok(()) => Ok(0),
        Err(fault) => report(&mut sock, fault),
    }
}

/// Carries connections out while PID 1 lives, which hears first whether it may count on that. What
/// goes wrong later, PID 1 goes on without.
fn serve_outlet(
    forward: Forward,
    tell: OwnedFd,
    pid: i32,
    p: &Policy,
    start: Start,
    filters: &Filters,
) {
    let user = match start {
        Start::Root(0, 0) | Start::Rootless { .. } => None,
        Start::Root(uid, gid) => Some((uid, gid)),
    };
    let fault = Forward::confine(p, user, filters).err();
    // Nobody reads it: then PID 1 is dead, which is seen next.
    drop(serde_json::to_writer(File::from(tell), &fault));
    if fault.is_none()
        && let Err(e) = forward.serve(pid)
    {
        // The host shows it if it shows anything of how the sandbox ended.
        drop(writeln!(io::stderr(), "the way out is closed: {e}"));
    }
}

pub(super) fn report(sock: &mut UnixStream, fault: Fault) -> io::Result<i32> {
    let say = Say::Fault(fault);
    proto::send(sock, &Reply { id: 0, say }, &[])?;
    Ok(1)
}

fn isolate(p: &Policy, made: Option<Direct>, sock: &mut UnixStream) -> Result<Start, Fault> {
    if p.version != proto::VERSION {
        let why = format!(
            "host speaks version {}, helper {}",
            p.version,
            proto::VERSION
        );
        return Err(Fault::setup("helper", why));
    }
    if made.is_none() {
        enter_groups(sock)?;
    }
    // Best effort: when memory runs out, the kernel should look here rather than at the host.
    drop(fs::write("/proc/self/oom_score_adj", "300"));
    let has_user = made.is_some_and(|m| m.namespaces & libc::CLONE_NEWUSER != 0);
    let start = match agent_ids().filter(|_| !has_user) {
        Some(_) if !p.has(Wall::UserChange) => Start::Root(0, 0),
        Some((uid, gid)) if sys_priv::can_administer() => Start::Root(uid, gid),
        Some((uid, gid)) if sys_priv::can_change_uid() => {
            sys_priv::become_user(uid, gid).map_err(|e| Fault::setup("change of user", e))?;
            Start::Rootless { root: false }
        }
        _ => Start::Rootless {
            root: made.map_or_else(sys_priv::uid, |m| m.ids.0) == 0,
        },
    };
    match (start, made.filter(|_| has_user)) {
        (Start::Rootless { .. }, Some(made)) => map_user(made.ids)?,
        (Start::Rootless { .. }, None) => user_namespace()?,
        (Start::Root(..), _) => {}
    }
    for (flag, layer) in namespaces(p) {
        let later = made.is_some() && flag == libc::CLONE_NEWCGROUP;
        if !later && made.is_none_or(|m| m.namespaces & flag == 0) {
            sys::unshare(flag).map_err(|e| unshare_fault(layer, &e))?;
        }
    }
    Ok(start)
}

/// Once the host has made them, and before anything is started that would not be in them.
fn enter_groups(sock: &mut UnixStream) -> Result<(), Fault> {
    let at = |e: io::Error| Fault::setup("control group", e);
    let placed = proto::receive::<Placed>(sock).map_err(at)?;
    let (Placed { groups }, _) = placed.ok_or_else(|| at(ErrorKind::UnexpectedEof.into()))?;
    groups.iter().try_for_each(|g| cgroup::enter(g)).map_err(at)
}

fn namespaces(p: &Policy) -> impl Iterator<Item = (libc::c_int, &'static str)> {
    NAMESPACES.into_iter().filter(|(flag, _)| match *flag {
        libc::CLONE_NEWNET => p.has(Wall::NetworkNamespace),
        libc::CLONE_NEWIPC => p.has(Wall::IpcNamespace),
        _ => true,
    })
}

/// A user namespace in which we are who we are, but never root, and nobody else exists.
fn user_namespace() -> Result<(), Fault> {
    let ids = (sys_priv::uid(), sys_priv::gid());
    // Not set after a change of uid, and without it our own /proc/self is not ours.
    sys::set_dumpable(true)
        .and_then(|()| sys::unshare(libc::CLONE_NEWUSER))
        .map_err(|e| unshare_fault("user namespace", &e))?;
    map_user(ids)
}

/// Says who we are in a user namespace that we just came into.
fn map_user((uid, gid): (u32, u32)) -> Result<(), Fault> {
    let inside = |id: u32| if id == 0 { NOBODY } else { id };
    let go = || {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{} {uid} 1", inside(uid)))?;
        fs::write("/proc/self/gid_map", format!("{} {gid} 1", inside(gid)))?;
        // A change of dumpability, like one of uid, may clear it.
        sys::die_with_parent()
    };
    go().map_err(|e| namespace_fault("user namespace", &e))
}

fn unshare_fault(layer: &str, e: &io::Error) -> Fault {
    if e.raw_os_error() != Some(libc::ENOSPC) {
        return namespace_fault(layer, e);
    }
    let kind = match layer.split(' ').next() {
        Some("mount") => "mnt",
        Some("network") => "net",
        other => other.unwrap_or(layer),
    };
    Fault::Unavailable {
        layer: layer.into(),
        reason: "there are as many as are allowed, or they are nested too deep (ENOSPC)".into(),
        fix: format!("sysctl user.max_{kind}_namespaces=10000"),
    }
}

pub(super) fn namespace_fault(layer: &str, e: &io::Error) -> Fault {
    let says = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|s| s.trim() == value);
    let fix = if says(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "AppArmor forbids it here: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an \
         AppArmor profile with `userns,` for this program"
    } else if says("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else {
        "in a container, allow unshare and mount: docker run --security-opt seccomp=unconfined \
         --security-opt apparmor=unconfined, or seccompProfile: Unconfined in Kubernetes"
    };
    Fault::Unavailable {
        layer: layer.into(),
        reason: e.to_string(),
        fix: fix.into(),
    }
}

/// Everything that PID 1 does before it says hello. Gives back the view and what is in force.
fn build(
    p: &Policy,
    start: Start,
    placed: &mut dyn FnMut() -> Result<(), Fault>,
) -> Result<(agent::View, Vec<String>), Fault> {
    let at = |stage: &'static str| move |e: io::Error| Fault::setup(stage, e);
    sys::die_with_parent().map_err(at("parent"))?;
    let ids = match start {
        Start::Root(uid, gid) => (uid, gid),
        Start::Rootless { .. } => (sys_priv::uid(), sys_priv::gid()),
    };
    if p.has(Wall::NetworkNamespace) {
        sys::loopback_up().map_err(at("loopback"))?;
    }
    sys::set_hostname("sandbox").map_err(at("host name"))?;
    let view = mounts::build(p, ids, placed)?;
    if matches!(start, Start::Root(..)) {
        sys_priv::become_user(ids.0, ids.1).map_err(at("change of user"))?;
        // The mounts stay with the old namespace: nobody inside has a right over them.
        user_namespace()?;
    }
    if p.has(Wall::Capabilities) {
        sys_priv::drop_capabilities().map_err(at("capabilities"))?;
    }
    sys_priv::no_new_privs().map_err(|e| Fault::Unavailable {
        layer: "no_new_privs".into(),
        reason: e.to_string(),
        fix: "use a kernel of 3.5 or later".into(),
    })?;
    if start == (Start::Rootless { root: true }) && p.limits.processes.is_some() {
        limits::must_bind().map_err(at("limits"))??;
    }
    // Commands have the same uid; without this they could look into PID 1.
    sys::set_dumpable(false).map_err(at("dumpable"))?;
    sys::die_with_parent().map_err(at("parent"))?;
    let mut enforced = layers(p, &view)?;
    enforced.extend(limits::in_force(&p.limits).map_err(at("limits"))?);
    let (empty, copied) = (view.lowers.is_empty(), view.copy_reason.clone());
    let view = agent::View::open(view, p).map_err(at("workspace"))?;
    enforced.push(match copied {
        _ if empty => "empty workspace".into(),
        None => "overlay workspace".into(),
        Some(why) if view.shared => format!("copied workspace ({why}; blocks are shared)"),
        Some(why) => format!("copied workspace ({why})"),
    });
    Ok((view, enforced))
}

/// Names what stands, and makes sure that commands can put the rest on themselves.
fn layers(p: &Policy, view: &mounts::View) -> Result<Vec<String>, Fault> {
    let mut enforced: Vec<String> = vec!["user namespace".into()];
    enforced.extend(namespaces(p).map(|(_, name)| name.into()));
    enforced.extend(["proc", "pivot_root"].map(String::from));
    if p.has(Wall::MountFlags) {
        enforced.push("read-only mounts".into());
    }
    if p.egress.is_some() {
        enforced.push("egress allow-list".into());
    }
    if p.has(Wall::Capabilities) {
        enforced.push("no capabilities".into());
    }
    enforced.push("no_new_privs".into());
    if p.has(Wall::Landlock) {
        let abi = sys_priv::landlock_abi().map_err(|e| landlock::missing(&e))?;
        enforced.push(format!("landlock abi {}", abi.min(landlock::NEWEST)));
    }
    if p.has(Wall::Seccomp) {
        sys_priv::seccomp_available().map_err(|e| seccomp::unavailable(&e.to_string()))?;
        enforced.push("seccomp".into());
    }
    if p.environment.is_some() {
        enforced.push("environment".into());
    }
    let reason = view.caches.iter().find_map(|c| c.copy_reason.as_ref());
    enforced.extend(match reason {
        _ if view.caches.is_empty() => None,
        None => Some("caches (overlay)".into()),
        Some(why) => Some(format!("caches (copied: {why})")),
    });
    Ok(enforced)
}

/// The time-outs of the agent's side of the stream.
pub(super) fn bound(sock: &UnixStream) -> io::Result<()> {
    sock.set_write_timeout(Some(STALLED))?;
    sock.set_read_timeout(Some(STALLED))
}
