//! What code that nobody has read may try. Each is named by the attack, with a control where the
//! same thing works outside.

use crate::support::{Boxed, World, close, host};
use smallhands_sandbox::{Ended, Invocation, Limits, SandboxError, SandboxSpec, Wall};
use std::{fs, net::TcpListener, path::Path, time::Duration};

/// A call by number through python, which tells the error by name.
fn system_call(w: &World, s: &Boxed, args: &str) -> String {
    let script = format!(
        "import ctypes, errno\nc = ctypes.CDLL(None, use_errno=True)\nc.syscall.restype = \
         ctypes.c_long\nr = c.syscall({args})\nprint(errno.errorcode[ctypes.get_errno()] if r < 0 \
         else 'OK')"
    );
    let done = w.exec(s, &Invocation::new(["/usr/bin/python3", "-c", &script]));
    done.text().trim().to_owned()
}

pub(crate) fn host_files_are_not_there() {
    let w = World::new();
    fs::write(w.dir.0.join("host-secret"), "s").unwrap();
    let s = w.open();
    let secret = w.dir.0.join("host-secret");
    for path in [
        "/etc/shadow",
        "/root",
        "/home",
        env!("CARGO_MANIFEST_DIR"),
        "/sys",
        "/var/lib",
        "/boot",
        "/run",
        "/proc/1/environ",
        "/proc/1/root/etc",
        "/proc/1/cwd/",
        "/proc/1/fd/3",
        "/dev/vda",
        "/dev/kvm",
        "/dev/tty",
        secret.to_str().unwrap(),
    ] {
        w.refused(&s, &format!("cat {path} || ls {path}/"));
    }
    assert_eq!(
        w.out(&s, "ls -A /tmp /home 2>/dev/null || true"),
        "/tmp:\nhome\n"
    );
    let top = w.out(&s, "ls -A /");
    assert!(
        top.lines()
            .all(|d| !matches!(d, "root" | "home" | "mnt" | "sys" | "boot")),
        "{top}"
    );
    close(s);
}

pub(crate) fn the_system_is_read_only() {
    let w = World::new();
    let s = w.open();
    for path in [
        "/usr", "/usr/bin", "/etc", "/", "/bin", "/lib", "/proc", "/dev", "/var",
    ] {
        w.refused(&s, &format!("touch {path}/x"));
    }
    w.refused(&s, "echo x >> /etc/passwd");
    w.refused(&s, "rm /usr/bin/env");
    assert_eq!(
        w.out(
            &s,
            "echo x > /tmp/x; echo y > /dev/shm/y; cat /tmp/x /dev/shm/y"
        ),
        "x\ny\n"
    );
    close(s);
}

pub(crate) fn the_kernel_is_not_configurable() {
    let w = World::new();
    let s = w.open();
    for file in [
        "sys/kernel/core_pattern",
        "sys/vm/overcommit_memory",
        "sysrq-trigger",
    ] {
        if Path::new("/proc").join(file).exists() {
            w.refused(&s, &format!("echo x > /proc/{file}"));
        }
    }
    w.refused(&s, "echo 1 > /proc/sys/kernel/ns_last_pid");
    w.refused(&s, "dmesg");
    close(s);
}

pub(crate) fn there_is_no_network() {
    let w = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let s = w.open();
    let connect =
        format!("use IO::Socket::INET; exit(IO::Socket::INET->new('127.0.0.1:{port}') ? 0 : 1)");
    // The control: outside, the same program gets through.
    host("perl", &["-e", &connect], Path::new("/"));
    let inside = w.exec(&s, &Invocation::new(["perl", "-e", &connect]));
    assert_eq!(inside.ended, Ended::Exited(1));
    let interfaces = w.out(&s, "cat /proc/net/dev");
    assert_eq!(interfaces.lines().count(), 3, "only lo: {interfaces}");
    // Test servers of its own work.
    let own = "use IO::Socket::INET; my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => \
               '127.0.0.1:0') or die; my $c = IO::Socket::INET->new('127.0.0.1:' . \
               $l->sockport) or die; print 'ok'";
    assert_eq!(
        w.exec(&s, &Invocation::new(["perl", "-e", own])).stdout,
        b"ok"
    );
    close(s);
}

pub(crate) fn abstract_sockets_of_the_host_are_out_of_reach() {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    };
    let w = World::new();
    let name = format!("sbx-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let script = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')");
    host("/usr/bin/python3", &["-c", &script], Path::new("/"));
    let s = w.open();
    let inside = w.exec(&s, &Invocation::new(["/usr/bin/python3", "-c", &script]));
    assert!(!inside.ok());
    close(s);
}

pub(crate) fn dangerous_calls_are_denied() {
    let w = World::new();
    let s = w.open();
    let eperm = [
        ("unshare(NEWUSER)", libc::SYS_unshare, "0x10000000"),
        ("setns", libc::SYS_setns, "0, 0"),
        ("ptrace(TRACEME)", libc::SYS_ptrace, "0, 0, 0, 0"),
        ("keyctl", libc::SYS_keyctl, "0, -3, 0"),
        ("add_key", libc::SYS_add_key, "0, 0, 0, 0, 0"),
        ("bpf", libc::SYS_bpf, "0, 0, 0"),
        ("io_uring_setup", libc::SYS_io_uring_setup, "1, 0"),
        ("userfaultfd", libc::SYS_userfaultfd, "0"),
        (
            "perf_event_open",
            libc::SYS_perf_event_open,
            "0, 0, -1, -1, 0",
        ),
        ("mount", libc::SYS_mount, "b'none', b'/tmp', b'tmpfs', 0, 0"),
        ("umount", libc::SYS_umount2, "b'/proc', 2"),
        ("fsopen", libc::SYS_fsopen, "b'tmpfs', 0"),
        ("open_tree", libc::SYS_open_tree, "-100, b'/', 1"),
        ("move_mount", libc::SYS_move_mount, "-1, b'', -1, b'', 0"),
        ("pivot_root", libc::SYS_pivot_root, "b'.', b'.'"),
        ("chroot", libc::SYS_chroot, "b'/tmp'"),
        (
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            "-100, 0, 0",
        ),
        (
            "name_to_handle_at",
            libc::SYS_name_to_handle_at,
            "-100, b'.', 0, 0, 0",
        ),
        ("personality", libc::SYS_personality, "0x0040000"),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            "1, 0, 0, 0, 0, 0",
        ),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, "0, 0, 0"),
        ("kexec_load", libc::SYS_kexec_load, "0, 0, 0, 0"),
        ("init_module", libc::SYS_init_module, "0, 0, 0"),
        ("reboot", libc::SYS_reboot, "0, 0, 0, 0"),
        ("open_tree_attr", 467, "-100, b'/', 1, 0, 0"),
        (
            "mknod(char)",
            libc::SYS_mknodat,
            "-100, b'dev', 0o020666, 0",
        ),
        (
            "mknod(block)",
            libc::SYS_mknodat,
            "-100, b'dev', 0o060666, 0x800",
        ),
        ("clone(NEWUSER)", libc::SYS_clone, "0x10000011, 0, 0, 0, 0"),
        ("clone(NEWNET)", libc::SYS_clone, "0x40000011, 0, 0, 0, 0"),
        ("socket(VSOCK)", libc::SYS_socket, "40, 1, 0"),
        ("socket(PACKET)", libc::SYS_socket, "17, 3, 0"),
        ("socket(ALG)", libc::SYS_socket, "38, 5, 0"),
        ("socket(INET, RAW)", libc::SYS_socket, "2, 3, 1"),
        ("socket(NETLINK, NETFILTER)", libc::SYS_socket, "16, 3, 12"),
        ("ioctl(TIOCSTI)", libc::SYS_ioctl, "0, 0x5412, b'x'"),
        ("prlimit of PID 1", libc::SYS_prlimit64, "1, 7, 0, 0"),
    ];
    for (name, number, args) in eperm {
        assert_eq!(
            system_call(&w, &s, &format!("{number}, {args}")),
            "EPERM",
            "{name}"
        );
    }
    let clone3 = format!("{}, 0, 0", libc::SYS_clone3);
    assert_eq!(system_call(&w, &s, &clone3), "ENOSYS");
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        system_call(&w, &s, "0x40000000 + 39"),
        "ENOSYS",
        "x32 getpid"
    );
    // Controls: what is like them and harmless works.
    for (name, number, args) in [
        ("socket(INET, STREAM)", libc::SYS_socket, "2, 1, 0"),
        ("socket(UNIX)", libc::SYS_socket, "1, 1, 0"),
        ("personality query", libc::SYS_personality, "0xffffffff"),
        ("mkfifo", libc::SYS_mknodat, "-100, b'fifo', 0o010666, 0"),
        ("memfd_create", libc::SYS_memfd_create, "b'x', 0"),
    ] {
        assert_eq!(
            system_call(&w, &s, &format!("{number}, {args}")),
            "OK",
            "{name}"
        );
    }
    close(s);
}

pub(crate) fn privileges_are_gone() {
    let w = World::new();
    let s = w.open();
    let status = w.out(&s, "cat /proc/self/status");
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert_ne!(w.out(&s, "id -u").trim(), "0");
    assert_eq!(
        system_call(&w, &s, &format!("{}, 0", libc::SYS_setuid)),
        "EINVAL"
    );
    assert_eq!(
        w.out(&s, "cat /proc/self/uid_map")
            .split_whitespace()
            .nth(2),
        Some("1")
    );
    w.refused(&s, "nice -n -5 true 2>&1 | grep -v . && chrt -f 1 true");
    let setuid = "cp /usr/bin/id x && chmod u+s x && ./x -u";
    assert_ne!(w.out(&s, setuid).trim(), "0");
    close(s);
}

pub(crate) fn other_processes_are_out_of_reach() {
    let w = World::new();
    let s = w.open();
    let me = std::process::id();
    w.refused(&s, &format!("kill -9 {me}"));
    w.refused(&s, "kill -9 1");
    assert!(
        w.out(&s, "ps -e -o pid= 2>/dev/null || ls -d /proc/[0-9]*")
            .lines()
            .count()
            < 10
    );
    assert!(w.sh(&s, "true").ok());
    close(s);
}

pub(crate) fn limits_bind() {
    let w = World::new();
    let limits = Limits {
        memory_bytes: Some(512 << 20),
        cpu_seconds: Some(1),
        file_bytes: Some(1 << 20),
        open_files: Some(32),
        processes: Some(20),
        tmp_bytes: 4 << 20,
        ..Limits::default()
    };
    let s = w.try_open(&SandboxSpec { limits, ..w.spec() }).unwrap();
    let py = |code: &str| w.exec(&s, &Invocation::new(["/usr/bin/python3", "-c", code]));
    assert!(py("x = bytearray(1 << 30)").text().contains("MemoryError"));
    assert_eq!(
        w.sh(&s, "while :; do :; done").ended,
        Ended::Signaled(9),
        "cpu"
    );
    assert!(!w.sh(&s, "head -c 2000000 /dev/zero > big").ok());
    assert_eq!(w.out(&s, "wc -c < big"), "1048576\n");
    assert!(
        py("import os\nfor _ in range(100): os.open('/dev/null', 0)")
            .text()
            .contains("Too many")
    );
    let bomb = "import os, time\nn = 0\ntry:\n  while n < 100:\n    if os.fork() == 0:\n      \
                time.sleep(100)\n    n += 1\nexcept OSError: pass\nprint(n)";
    let forked = py(bomb).text().trim().parse::<u32>().unwrap();
    assert!(forked < 20, "{forked}");
    let fill = w.sh(
        &s,
        "for i in 1 2 3 4 5 6; do head -c 1000000 /dev/zero > /tmp/$i; done",
    );
    assert!(fill.text().contains("No space left"), "{}", fill.text());
    assert!(w.sh(&s, "ulimit -c").text().starts_with('0'));
    w.refused(&s, "ulimit -n 64");
    close(s);
}

pub(crate) fn a_fork_bomb_ends_with_its_command() {
    let w = World::new();
    let s = w.open();
    let bomb = "b() { b | b & }; b; sleep 100";
    let what = Invocation::new(["sh", "-c", bomb]).deadline(Duration::from_secs(2));
    assert_eq!(w.exec(&s, &what).ended, Ended::TimedOut);
    assert!(w.sh(&s, "true").ok());
    close(s);
}

pub(crate) fn an_output_flood_does_not_fill_the_host() {
    let w = World::new();
    let s = w.open();
    let what = Invocation::new(["sh", "-c", "yes & yes >&2"]).deadline(Duration::from_millis(500));
    let done = w.exec(&s, &what);
    assert_eq!(done.ended, Ended::TimedOut);
    assert!(done.stdout.len() <= 256 << 10 && done.stderr.len() <= 256 << 10);
    assert!(done.cut_bytes > 0);
    close(s);
}

pub(crate) fn read_only_paths_are_shown_and_refused() {
    let w = World::new();
    let tools = w.dir.0.join("tools");
    fs::create_dir_all(tools.join("bin")).unwrap();
    fs::write(tools.join("bin/hi"), "#!/bin/sh\necho hi\n").unwrap();
    host("chmod", &["755", "bin/hi"], &tools);
    let with = |path: &Path| SandboxSpec {
        read_only: vec![path.to_owned()],
        ..w.spec()
    };
    let s = w.try_open(&with(&tools)).unwrap();
    assert_eq!(w.out(&s, "hi"), "hi\n");
    w.refused(&s, &format!("touch {}/x", tools.display()));
    w.refused(&s, &format!("cat {}/store/gitconfig", w.dir.0.display()));
    close(s);
    for bad in [
        "/",
        "/workspace/x",
        "/proc/1",
        "/tmp",
        "/var/tmp",
        "relative",
        "/usr/../etc",
        "/dev",
    ] {
        let r = w.try_open(&with(Path::new(bad)));
        assert!(matches!(r, Err(SandboxError::Path { .. })), "{bad}: {r:?}");
    }
    let socket = w.dir.0.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let r = w.try_open(&with(&socket));
    assert!(matches!(r, Err(SandboxError::Path { .. })), "{r:?}");
    // Where a link of the sandbox's own leads.
    let linked = Path::new("/var/tmp").join(format!("sbx-granted-{}", std::process::id()));
    fs::create_dir_all(&linked).unwrap();
    fs::write(linked.join("file"), "granted").unwrap();
    let s = w.try_open(&with(&linked)).unwrap();
    assert_eq!(
        w.out(&s, &format!("cat {}/file", linked.display())),
        "granted"
    );
    close(s);
    assert!(!Path::new("/tmp").join(linked.file_name().unwrap()).exists());
    fs::remove_dir_all(linked).unwrap();
    let r = w.try_open(&with(Path::new("/no/such/toolchain")));
    assert!(matches!(r, Err(SandboxError::Setup { .. })), "{r:?}");
}

/// What no other layer stops: with Landlock off, each of these works.
pub(crate) fn landlock_is_in_force() {
    let w = World::new();
    let s = w.open();
    w.refused(&s, "echo x > /proc/self/comm");
    let abi = w
        .sh(&s, "true")
        .enforced
        .iter()
        .any(|e| e == "landlock abi 6");
    if abi {
        w.refused(&s, "kill -0 1");
    }
    close(s);
}

/// What is left out is gone, is not said to be in force, and takes nothing else with it.
pub(crate) fn a_wall_is_left_out_by_name_only() {
    let w = World::new();
    for (wall, listed, script) in [
        (Wall::Landlock, "landlock", "echo x > /proc/self/comm"),
        (Wall::Seccomp, "seccomp", "unshare -U true"),
        (
            Wall::NetworkNamespace,
            "network namespace",
            "test $(wc -l < /proc/net/dev) -gt 3 || test -e /proc/net/tcp",
        ),
        (
            Wall::MountFlags,
            "read-only mounts",
            "grep ' / .* rw,' /proc/self/mountinfo",
        ),
        (
            Wall::Capabilities,
            "no capabilities",
            "grep -v 0000000000000000 /proc/self/status | grep CapEff",
        ),
    ] {
        let spec = SandboxSpec {
            without: vec![wall],
            ..w.spec()
        };
        let s = w.try_open(&spec).unwrap();
        let (weaker, whole) = (w.sh(&s, script), w.sh(&w.open(), "true"));
        assert!(weaker.ok(), "{wall:?}: {}", weaker.text());
        let without = whole.enforced.iter().filter(|e| !e.starts_with(listed));
        assert!(without.eq(weaker.enforced.iter()), "{:?}", weaker.enforced);
        close(s);
    }
}

/// Behind Landlock and the uid nobody would notice the loss of these, so they are looked at.
pub(crate) fn mounts_are_restricted() {
    let w = World::new();
    let tools = w.dir.0.join("tools");
    fs::create_dir_all(&tools).unwrap();
    let spec = SandboxSpec {
        read_only: vec![tools.clone()],
        ..w.spec()
    };
    let s = w.try_open(&spec).unwrap();
    let info = w.out(&s, "cat /proc/self/mountinfo");
    let options = |point: &str| {
        let found = info.lines().find(|l| l.split(' ').nth(4) == Some(point));
        let line = found.unwrap_or_else(|| panic!("{point} in {info}"));
        line.split(' ')
            .nth(5)
            .unwrap()
            .split(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let tools = tools.to_str().unwrap();
    for (point, wanted) in [
        ("/", &["ro", "nosuid", "nodev"][..]),
        ("/usr", &["ro", "nosuid", "nodev"]),
        ("/etc/ld.so.cache", &["ro", "nosuid", "nodev"]),
        (tools, &["ro", "nosuid", "nodev"]),
        ("/proc", &["nosuid", "nodev", "noexec"]),
        ("/proc/sys", &["ro", "nosuid", "nodev", "noexec"]),
        ("/proc/irq", &["ro"]),
        ("/dev/null", &["nosuid", "noexec"]),
        ("/tmp", &["rw", "nosuid", "nodev"]),
        ("/dev/shm", &["rw", "nosuid", "nodev", "noexec"]),
        ("/workspace", &["rw", "nosuid", "nodev"]),
    ] {
        let have = options(point);
        for want in wanted {
            assert!(have.iter().any(|o| o == want), "{point}: {have:?}");
        }
    }
    assert!(
        !info.contains("objects.git") && !info.contains("sandboxes"),
        "{info}"
    );
    close(s);
}
