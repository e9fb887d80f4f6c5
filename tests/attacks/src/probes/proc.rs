//! The kernel's files.

use super::{Place, Probe, files::open_for_write, probe};
use crate::Baits;
use std::{fs, io, path::Path};

pub(super) const LIST: &[Probe] = &[
    probe("proc", "core_pattern", Place::Root, |_| {
        open_for_write("/proc/sys/kernel/core_pattern")
    }),
    probe("proc", "modprobe_path", Place::Root, |_| {
        // Without modules there is none; then the next best of the same kind.
        open_for_write("/proc/sys/kernel/modprobe")
            .or_else(|_| open_for_write("/proc/sys/kernel/hotplug"))
            .or_else(|_| open_for_write("/proc/sys/kernel/poweroff_cmd"))
    }),
    probe("proc", "overcommit_memory", Place::Root, |_| {
        open_for_write("/proc/sys/vm/overcommit_memory")
    }),
    probe("proc", "binfmt_or_pid_max", Place::Root, |_| {
        open_for_write("/proc/sys/kernel/pid_max")
    }),
    probe("proc", "ip_forward", Place::Root, |_| {
        open_for_write("/proc/sys/net/ipv4/ip_forward")
    }),
    probe("proc", "ns_last_pid", Place::Root, |_| {
        open_for_write("/proc/sys/kernel/ns_last_pid")
    }),
    probe("proc", "sysrq_trigger", Place::Root, |_| {
        open_for_write("/proc/sysrq-trigger").or_else(|_| open_for_write("/proc/sys/kernel/panic"))
    }),
    probe("proc", "irq_affinity", Place::Root, |_| {
        open_for_write("/proc/irq/default_smp_affinity")
    }),
    probe("proc", "kernel_addresses", Place::Root, |_| {
        let text = fs::read_to_string("/proc/kallsyms")?;
        let shown = text
            .lines()
            .take(50)
            .any(|l| !l.starts_with("0000000000000000"));
        shown
            .then_some(())
            .ok_or_else(|| io::Error::other("hidden"))
    }),
    probe("proc", "host_keys", Place::Host, |b| {
        b.found(&fs::read("/proc/keys")?)
    }),
    probe("proc", "timer_list", Place::Root, |_| {
        fs::read_to_string("/proc/timer_list").and_then(|t| not_empty(&t))
    }),
    probe("proc", "uevent_helper", Place::Root, |_| {
        open_for_write("/sys/kernel/uevent_helper")
            .or_else(|_| open_for_write("/sys/kernel/profiling"))
            .or_else(|_| open_for_write("/sys/kernel/mm/transparent_hugepage/enabled"))
    }),
    probe("proc", "cgroup_files", Place::Root, |_| {
        let tops = [
            "/sys/fs/cgroup/cgroup.procs",
            "/sys/fs/cgroup/memory/cgroup.procs",
        ];
        let mut r = Err(io::Error::from_raw_os_error(libc::ENOENT));
        for top in tops {
            r = r.or_else(|_| open_for_write(top));
        }
        r
    }),
    probe("proc", "root_of_others", Place::Host, |b| {
        through(b, "root")
    }),
    probe("proc", "directory_of_others", Place::Host, |b| {
        through(b, "cwd/../../../../../../..")
    }),
    probe("proc", "descriptors_of_others", Place::Host, |b| {
        each_process(|pid| {
            let fds = fs::read_dir(format!("/proc/{pid}/fd"))?;
            let mut files = fds.flatten().map(|f| f.path());
            let found = files.any(|f| plain(&f) && b.found_in(f).is_ok());
            found.then_some(()).ok_or_else(|| io::Error::other("none"))
        })
    }),
    probe("proc", "environment_of_others", Place::Host, |b| {
        each_process(|pid| b.found_in(format!("/proc/{pid}/environ")))
    }),
    probe("proc", "command_line_of_others", Place::Host, |b| {
        each_process(|pid| b.found_in(format!("/proc/{pid}/cmdline")))
    }),
    probe("proc", "memory_of_others", Place::Host, |b| {
        let victim = b.get("victim")?;
        each_process(|pid| match pid == victim || b.inside() {
            true => open_for_write(format!("/proc/{pid}/mem")),
            false => Err(io::Error::other("not it")),
        })
    }),
    probe("proc", "supervisor_descriptors", Place::Host, |_| {
        fs::read_dir(format!("/proc/{}/fd", parent()?)).map(drop)
    }),
    probe("proc", "supervisor_memory", Place::Host, |_| {
        open_for_write(format!("/proc/{}/mem", parent()?))
    }),
    probe("proc", "supervisor_maps", Place::Host, |_| {
        fs::read_to_string(format!("/proc/{}/maps", parent()?)).and_then(|t| not_empty(&t))
    }),
];

fn not_empty(text: &str) -> io::Result<()> {
    match text.is_empty() {
        true => Err(io::Error::other("empty")),
        false => Ok(()),
    }
}

fn parent() -> io::Result<u32> {
    Ok(std::os::unix::process::parent_id())
}

fn plain(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file())
}

/// Something of every process but this; the last refusal if all refuse.
fn each_process(tried: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    let own = std::process::id().to_string();
    let mut last = Err(io::Error::other("no other process is to be seen"));
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|n| n.parse::<u32>().is_ok() && *n != own)
        else {
            continue;
        };
        last = tried(pid);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// The secret, by way of what the kernel keeps of a process.
fn through(b: &Baits, way: &str) -> io::Result<()> {
    let secret = b.path("secret")?;
    let rest = secret.strip_prefix("/").unwrap_or(&secret).to_owned();
    each_process(|pid| b.found_in(Path::new("/proc").join(pid).join(way).join(&rest)))
}
