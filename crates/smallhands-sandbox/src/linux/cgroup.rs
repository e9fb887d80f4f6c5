//! Limits of a sandbox as a whole, where somebody let us make control groups: version 2 or 1.
//!
//! The host makes a group for each sandbox and puts the helper into it before that does anything; what
//! it starts is in it too, and none of it can see or leave it. A group is a directory: it is
//! removed with the sandbox's own, or like those by the next process if its host dies.

use crate::Limits;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

pub(super) const FIX: &str = "start the program where it may make control groups: as \
    systemd-run --user --scope -p Delegate=yes, as a service with Delegate=yes, or as root";
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Of one period of `cpu`, in microseconds.
const PERIOD: u64 = 100_000;
/// Of a group's processes, those that are ours: the helper and PID 1.
const OWN_PROCESSES: u64 = 2;
/// Only in groups of version 1.
const TASKS: &str = "tasks";

/// Where groups can be made, by controller, or why not.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<&'static str, Result<Place, String>>);

#[derive(Clone, Debug)]
struct Place {
    dir: PathBuf,
    v2: bool,
}

/// The groups of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Group {
    dirs: Vec<PathBuf>,
    /// Layers in force, in words.
    pub(super) enforced: Vec<String>,
    /// Layers that are not, and why.
    pub(super) missing: Vec<(String, String)>,
    pub(super) memory: Memory,
}

/// What the kernel counts of a sandbox's memory, if it does.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Option<Place>);

impl Places {
    /// Looks where this process is, and what is writable there.
    pub(super) fn find() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Self::from(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    fn from(own: &str, mounts: &str) -> Self {
        let find = |c| (c, v1(own, mounts, c).or_else(|| v2(own, mounts, c)));
        let why = |c: &str| {
            format!("no control group with the controller `{c}` may be written by this user")
        };
        let all = CONTROLLERS.map(find).into_iter();
        Self(all.map(|(c, p)| (c, p.ok_or_else(|| why(c)))).collect())
    }

    /// Directories to look for groups of the dead in.
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        let places = self.0.values().flatten();
        let mut dirs: Vec<_> = places.map(|p| p.dir.clone()).collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// Makes the groups that the limits ask for; what cannot be had is noted, not an error.
    pub(super) fn group(&self, name: &str, l: &Limits) -> Group {
        let mut g = Group::default();
        for (&controller, place) in &self.0 {
            let value = match controller {
                "memory" => l.total_memory_bytes,
                "pids" => l.processes.map(|n| n.saturating_add(OWN_PROCESSES)),
                _ => l.cpu_thousandths,
            };
            let Some(value) = value else { continue };
            let layer = format!("{controller} cgroup");
            let made = place.clone().and_then(|p| {
                let dir = p.dir.join(name);
                let set = make(&dir).and_then(|()| limit(&p, &dir, controller, value));
                g.dirs.push(dir.clone());
                set.map(|()| Place { dir, ..p }).map_err(|e| e.to_string())
            });
            match made {
                Ok(place) => {
                    g.enforced.push(match controller {
                        "memory" => format!("{layer} {} in all", super::limits::bytes(value)),
                        "pids" => format!("{layer} {value} in all"),
                        _ => format!("{layer} {value}/1000 of a processor in all"),
                    });
                    if controller == "memory" {
                        g.memory = Memory(Some(place));
                    }
                }
                Err(why) => g.missing.push((layer, why)),
            }
        }
        g
    }
}

/// Of two sandboxes of one name only one exists: a directory that is there is our own, of another
/// controller.
fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        r => r,
    }
}

fn limit(p: &Place, dir: &Path, controller: &str, value: u64) -> io::Result<()> {
    let set = |file: &str, text: String| fs::write(dir.join(file), text);
    match (controller, p.v2) {
        ("memory", true) => {
            set("memory.max", value.to_string())?;
            // Not there without swap.
            drop(set("memory.swap.max", "0".into()));
            Ok(())
        }
        ("memory", false) => {
            set("memory.limit_in_bytes", value.to_string())?;
            drop(set("memory.memsw.limit_in_bytes", value.to_string()));
            Ok(())
        }
        ("pids", _) => set("pids.max", value.to_string()),
        (_, true) => set("cpu.max", format!("{} {PERIOD}", quota(value))),
        (_, false) => set("cpu.cfs_quota_us", quota(value).to_string()),
    }
}

fn quota(thousandths: u64) -> u64 {
    // The kernel takes no less.
    (thousandths.saturating_mul(PERIOD) / 1000).max(1000)
}

impl Group {
    /// Where the helper puts itself in, with [`enter`].
    pub(super) fn to_enter(&self) -> Vec<PathBuf> {
        let file = |dir: &PathBuf| match dir.join(TASKS) {
            tasks if tasks.exists() => tasks,
            _ => dir.join("cgroup.procs"),
        };
        let mut files: Vec<_> = self.dirs.iter().map(file).collect();
        files.dedup();
        files
    }
}

/// Moves this process, which has one thread, into a group, before it has children. For a thread that
/// moves itself in version 1 the kernel does not wait until it has seen all others: 0.3 ms instead
/// of 10.
pub(super) fn enter(group: &Path) -> io::Result<()> {
    fs::write(group, "0")
}

impl Memory {
    fn figure(&self, v2: (&str, &str), v1: (&str, &str)) -> Option<u64> {
        let place = self.0.as_ref()?;
        let (file, key) = if place.v2 { v2 } else { v1 };
        let text = fs::read_to_string(place.dir.join(file)).ok()?;
        let value = match key {
            "" => text.trim(),
            key => text.lines().find_map(|l| l.strip_prefix(key))?.trim(),
        };
        value.parse().ok()
    }

    /// How many processes were killed because the whole had too little memory.
    pub(super) fn out_of_memory(&self) -> u64 {
        let key = "oom_kill ";
        self.figure(("memory.events", key), ("memory.oom_control", key))
            .unwrap_or(0)
    }

    /// The most memory that it ever had.
    pub(super) fn peak(&self) -> Option<u64> {
        self.figure(("memory.peak", ""), ("memory.max_usage_in_bytes", ""))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.dirs {
            remove(dir);
        }
    }
}

/// A group empties a moment after its last process was reaped: on a busy machine, or where a
/// helper was killed before PID 1, not at once.
fn remove(dir: &Path) {
    for tries in 0..2000 {
        match fs::remove_dir(dir) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                if tries % 200 == 199 {
                    // All of them are ours, and about to end.
                    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                    let pids = pids.lines().filter_map(|l| l.parse().ok());
                    pids.for_each(super::sys::kill);
                }
                thread::sleep(Duration::from_millis(5));
            }
            _ => return,
        }
    }
    tracing::warn!(path = %dir.display(), "a control group stays behind");
}

/// Removes the groups whose names begin so: those of a dead process.
pub(super) fn sweep(dirs: impl Iterator<Item = PathBuf>, prefix: &str) {
    for dir in dirs {
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        let ours = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with(prefix);
        entries
            .flatten()
            .filter(ours)
            .for_each(|e| remove(&e.path()));
    }
}

/// Removes what dead processes left whose state directory is gone too: a group's name says whose it
/// is. Only if it is empty: a process that we do not see may live in another container.
pub(super) fn sweep_orphans(dirs: &[PathBuf]) {
    let entries = dirs.iter().filter_map(|d| fs::read_dir(d).ok());
    for entry in entries.flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.strip_prefix("smallhands-").unwrap_or("").split('-');
        let numbers = [parts.next(), parts.next()].map(|p| p.and_then(|n| n.parse::<u64>().ok()));
        if let [Some(pid), Some(start)] = numbers
            && super::den::start_time(&pid.to_string()).ok() != Some(start)
        {
            // Not empty: then it is somebody's.
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// Where a file system of groups shows the group `path`: mount point and path below it.
fn seen(mounts: &str, path: &str, fits: impl Fn(&str, &str) -> bool) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (root, point) = (left.next()?, left.next()?);
        let (kind, options) = (right.next()?, right.nth(1)?);
        // A container sees only what lies below its own group.
        let below = Path::new(path).strip_prefix(root).ok()?;
        fits(kind, options).then(|| (point.into(), below.into()))
    })
}

fn v1(own: &str, mounts: &str, controller: &str) -> Option<Place> {
    let has = |list: &str| list.split(',').any(|c| c == controller);
    let path = own.lines().find_map(|l| {
        let mut parts = l.splitn(3, ':').skip(1);
        parts
            .next()
            .filter(|list| has(list))
            .and_then(|_| parts.next())
    })?;
    let fits = |kind: &str, options: &str| kind == "cgroup" && has(options);
    let (point, below) = seen(mounts, path, fits)?;
    let dir = point.join(below);
    writable(&dir).then_some(Place { dir, v2: false })
}

/// Our own group, or the nearest above it that hands the controller down to its children: our own
/// does so only if no process is in it.
fn v2(own: &str, mounts: &str, controller: &str) -> Option<Place> {
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?;
    let (point, below) = seen(mounts, path, |kind, _| kind == "cgroup2")?;
    let own = point.join(below);
    let hands_down = |dir: &Path| {
        fs::read_to_string(dir.join("cgroup.subtree_control"))
            .is_ok_and(|list| list.split_whitespace().any(|c| c == controller))
    };
    let mut up = own
        .ancestors()
        .take_while(|d| d.starts_with(&point) && writable(d));
    let dir = up.find(|d| hands_down(d))?.to_owned();
    Some(Place { dir, v2: true })
}

fn writable(dir: &Path) -> bool {
    let may = |path: &Path| super::sys::may_write(path).is_ok();
    may(dir) && may(&dir.join("cgroup.procs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sbx-cgroup-{}", std::process::id()));
        let own = dir.join("user.slice/app.slice/own.scope");
        fs::create_dir_all(&own).unwrap();
        for d in [&own, own.parent().unwrap()] {
            fs::write(d.join("cgroup.procs"), "").unwrap();
        }
        let parent = own.parent().unwrap().join("cgroup.subtree_control");
        fs::write(parent, "memory pids\n").unwrap();
        fs::write(own.join("cgroup.subtree_control"), "\n").unwrap();
        dir
    }

    #[test]
    fn a_group_of_version_2_is_made_beside_our_own() {
        let dir = fake();
        let mounts = format!(
            "41 31 0:38 / {} rw,relatime - cgroup2 cgroup2 rw",
            dir.display()
        );
        let own = "0::/user.slice/app.slice/own.scope\n";
        let places = Places::from(own, &mounts);
        let app = dir.join("user.slice/app.slice");
        assert_eq!(places.dirs(), std::slice::from_ref(&app));
        let limits = Limits {
            total_memory_bytes: Some(1 << 30),
            processes: Some(10),
            cpu_thousandths: Some(500),
            ..Limits::default()
        };
        let g = places.group("smallhands-x-0", &limits);
        let read = |file: &str| fs::read_to_string(app.join("smallhands-x-0").join(file));
        assert_eq!(read("memory.max").unwrap(), "1073741824");
        assert_eq!(read("memory.swap.max").unwrap(), "0");
        assert_eq!(read("pids.max").unwrap(), "12");
        assert!(g.enforced.contains(&"memory cgroup 1 GiB in all".into()));
        // Not handed down.
        assert_eq!(g.missing[0].0, "cpu cgroup");
        assert_eq!(g.to_enter(), [app.join("smallhands-x-0/cgroup.procs")]);
        fs::write(
            app.join("smallhands-x-0/memory.events"),
            "oom 3\noom_kill 2\n",
        )
        .unwrap();
        assert_eq!(g.memory.out_of_memory(), 2);
        drop(g);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn orphans_are_removed_and_nobody_else() {
        let dir = std::env::temp_dir().join(format!("sbx-orphans-{}", std::process::id()));
        let (me, start) = (std::process::id(), super::super::den::start_time("self"));
        let mine = format!("smallhands-{me}-{}-0-0", start.unwrap());
        let names = ["smallhands-1-77-0-0", &mine, "smallhands-x", "other-1-77"];
        for name in names {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        sweep_orphans(std::slice::from_ref(&dir));
        let left = names.map(|n| dir.join(n).exists());
        assert_eq!(left, [false, true, true, true]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_container_sees_its_groups_from_its_own_on() {
        let found = |own, mounts| seen(mounts, own, |kind, o| kind == "cgroup" && o == "rw,memory");
        let mounts = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let below = (PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("a"));
        assert_eq!(found("/docker/1/a", mounts), Some(below));
        assert_eq!(found("/docker/2", mounts), None);
        let nothing = Places::from("", "");
        assert!(nothing.dirs().is_empty());
        let g = nothing.group("x", &Limits::default());
        assert!(g.enforced.is_empty() && g.missing.len() == 2, "{g:?}");
    }
}
