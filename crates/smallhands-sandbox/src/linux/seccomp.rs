//! System calls that no command gets, whatever the other layers say.

use super::{proto::Fault, sys_priv};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::{collections::BTreeMap, io};

/// Compiled once by the agent, installed by each command.
#[derive(Debug)]
pub(super) struct Filters {
    denied: BpfProgram,
    absent: BpfProgram,
}

const NEW_NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The old way to raw frames; libc calls its name deprecated.
const SOCK_PACKET: libc::c_int = 10;

#[rustfmt::skip]
const DENIED: &[libc::c_long] = &[
    // Looking into and steering other processes.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_process_madvise, libc::SYS_pidfd_getfd, libc::SYS_kcmp,
    // Kernel surface with a history.
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_bpf, libc::SYS_userfaultfd, libc::SYS_perf_event_open, libc::SYS_keyctl,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_fanotify_init, libc::SYS_fanotify_mark,
    libc::SYS_lookup_dcookie, libc::SYS_move_pages, libc::SYS_migrate_pages,
    // Another view of files, or files without a path.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_mount_setattr, libc::SYS_fsopen,
    libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at, libc::SYS_quotactl, libc::SYS_quotactl_fd,
    // Namespaces.
    libc::SYS_unshare, libc::SYS_setns,
    // The machine.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load,
    libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_syslog,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_adjtimex, libc::SYS_clock_adjtime,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup, libc::SYS_nfsservctl,
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[libc::SYS_kexec_file_load];

/// Younger than our libc's list; the same on every architecture: process_mrelease,
/// open_tree_attr.
const DENIED_YOUNG: &[libc::c_long] = &[448, 467];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Filters {
    pub(super) fn compile() -> Result<Self, Fault> {
        let bad = |e: seccompiler::BackendError| unavailable(&e.to_string());
        let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(bad)?;
        let build = |rules: Rules, errno: libc::c_int| {
            let action = SeccompAction::Errno(errno as u32);
            SeccompFilter::new(rules, SeccompAction::Allow, action, arch)
                .and_then(BpfProgram::try_from)
                .map_err(bad)
        };
        // The flags of clone3 lie in memory where no filter can see them; without it, libc takes
        // clone.
        let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        Ok(Self {
            denied: build(denied().map_err(bad)?, libc::EPERM)?,
            absent: build(absent, libc::ENOSYS)?,
        })
    }

    /// Installs them in this process, for good.
    pub(super) fn install(&self) -> Result<(), Fault> {
        sys_priv::no_new_privs().map_err(|e| unavailable(&e.to_string()))?;
        guard_x32().map_err(|e| unavailable(&e.to_string()))?;
        for program in [&self.denied, &self.absent] {
            seccompiler::apply_filter(program).map_err(|e| unavailable(&e.to_string()))?;
        }
        Ok(())
    }
}

pub(super) fn unavailable(reason: &str) -> Fault {
    Fault::Unavailable {
        layer: "seccomp".into(),
        reason: reason.into(),
        fix: "use a kernel with CONFIG_SECCOMP_FILTER on x86_64, aarch64 or riscv64".into(),
    }
}

fn denied() -> Result<Rules, seccompiler::BackendError> {
    // A rule list without conditions matches every call of that number.
    let mut rules: Rules = DENIED
        .iter()
        .chain(DENIED_HERE)
        .chain(DENIED_YOUNG)
        .map(|&nr| (nr, Vec::new()))
        .collect();
    let arg = |i: u8, op: Op, value: u32| SeccompCondition::new(i, Dword, op, value.into());
    let one = |i: u8, op: Op, value: u32| SeccompRule::new(vec![arg(i, op, value)?]);
    let flag = |i: u8, mask: libc::c_int| one(i, Op::MaskedEq(mask as u32 as u64), mask as u32);

    let namespaces: Result<Vec<_>, _> = NEW_NAMESPACES.iter().map(|&f| flag(0, f)).collect();
    rules.insert(libc::SYS_clone, namespaces?);
    rules.insert(libc::SYS_socket, sockets()?);
    // Typing into a terminal, and other old holes of it.
    let terminal: Result<Vec<_>, _> = [libc::TIOCSTI, 0x541c, libc::TIOCSETD]
        .iter()
        .map(|&op| one(1, Op::Eq, op as u32))
        .collect();
    rules.insert(libc::SYS_ioctl, terminal?);
    // FIFOs and sockets may be made; devices, and overlay's whiteouts, not.
    let devices = |i: u8| -> Result<Vec<_>, _> {
        let format = Op::MaskedEq(u64::from(libc::S_IFMT));
        [libc::S_IFCHR, libc::S_IFBLK]
            .iter()
            .map(|&kind| one(i, format.clone(), kind))
            .collect()
    };
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, devices(1)?);
    rules.insert(libc::SYS_mknodat, devices(2)?);
    // Asking which personality it has, and setting the usual one, is harmless.
    let strange = vec![arg(0, Op::Ne, u32::MAX)?, arg(0, Op::Ne, 0)?];
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(strange)?]);
    // Limits of others: PID 1 has the same uid.
    rules.insert(libc::SYS_prlimit64, vec![one(0, Op::Ne, 0)?]);
    Ok(rules)
}

/// Only local, internet and routing sockets, and none of them raw.
fn sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let arg = |i: u8, op: Op, value: libc::c_int| {
        SeccompCondition::new(i, Dword, op, value as u32 as u64)
    };
    let kind = |value| arg(1, Op::MaskedEq(0xf), value);
    let strange = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ]
    .iter()
    .map(|&family| arg(0, Op::Ne, family))
    .collect::<Result<_, _>>()?;
    let netlink = |op| arg(0, op, libc::AF_NETLINK);
    Ok(vec![
        SeccompRule::new(strange)?,
        SeccompRule::new(vec![netlink(Op::Eq)?, arg(2, Op::Ne, libc::NETLINK_ROUTE)?])?,
        SeccompRule::new(vec![netlink(Op::Ne)?, kind(libc::SOCK_RAW)?])?,
        SeccompRule::new(vec![kind(SOCK_PACKET)?])?,
    ])
}

/// The x32 numbers pass as x86_64 and would slip through every other filter.
#[cfg(target_arch = "x86_64")]
fn guard_x32() -> io::Result<()> {
    const X32: u32 = 0x4000_0000;
    let op = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    sys_priv::install_filter(&[
        // The number stands first in seccomp_data.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        op(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        ),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn guard_x32() -> io::Result<()> {
    Ok(())
}
