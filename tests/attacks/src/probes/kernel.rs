//! The kernel's larger surfaces.

use super::{Place, Probe, probe, processes::reached};
use crate::sys::{self, at, at_mut, call};

pub(super) const LIST: &[Probe] = &[
    probe("kernel", "io_uring", Place::Host, |_| {
        let mut params = [0_u8; 120];
        call(libc::SYS_io_uring_setup, [1, at_mut(&mut params)]).map(drop)
    }),
    probe("kernel", "bpf", Place::Root, |_| {
        // An array map: type 2, keys of 4 bytes, values of 8, one entry.
        let attributes = [2_u32, 4, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        call(
            libc::SYS_bpf,
            [0, at(&attributes), size_of_val(&attributes)],
        )
        .map(drop)
    }),
    probe("kernel", "userfaultfd", Place::Host, |_| {
        call(libc::SYS_userfaultfd, [1]).map(drop)
    }),
    probe("kernel", "perf_event", Place::Root, |_| {
        let mut attributes = [0_u32; 32];
        // A software clock.
        (attributes[0], attributes[1]) = (1, 128);
        call(
            libc::SYS_perf_event_open,
            [at(&attributes), 0, usize::MAX, usize::MAX, 0],
        )
        .map(drop)
    }),
    probe("kernel", "personality", Place::Host, |_| {
        call(libc::SYS_personality, [0x0040_0000]).map(drop)
    }),
    #[cfg(target_arch = "x86_64")]
    probe("kernel", "modify_ldt", Place::Host, |_| {
        let mut buf = [0_u8; 16];
        call(libc::SYS_modify_ldt, [0, at_mut(&mut buf), 16]).map(drop)
    }),
    #[cfg(target_arch = "x86_64")]
    probe("kernel", "call_by_32_bit_number", Place::Host, |_| {
        sys::call_32(20, 0).map(drop)
    }),
    probe("kernel", "kernel_log", Place::Root, |_| {
        call(libc::SYS_syslog, [10, 0, 0]).map(drop)
    }),
    probe("kernel", "clear_kernel_log", Place::Root, |_| {
        // Sets the level of the console to what it is.
        call(libc::SYS_syslog, [8, 0, 7]).map(drop)
    }),
    // Bad arguments, which nobody looks at before the right to call at all.
    probe("kernel", "reboot", Place::Root, |_| {
        reached(call(libc::SYS_reboot, [0, 0, 0, 0]))
    }),
    probe("kernel", "swap", Place::Root, |_| {
        reached(call(
            libc::SYS_swapon,
            [at(&*sys::cstr("/no/such/file")), 0],
        ))
    }),
    probe("kernel", "accounting", Place::Root, |_| {
        reached(call(libc::SYS_acct, [at(&*sys::cstr("/no/such/file"))]))
    }),
    probe("kernel", "set_clock", Place::Root, |_| {
        // A zone that is none.
        reached(call(libc::SYS_settimeofday, [0, at(&[99_999_i32, 0])]))
    }),
    probe("kernel", "watch_all_files", Place::Root, |_| {
        call(libc::SYS_fanotify_init, [0, 0]).map(drop)
    }),
    probe("kernel", "quota", Place::Host, |_| {
        reached(call(libc::SYS_quotactl, [0x80_0001 << 8, 0, 0, 0]))
    }),
    probe("kernel", "move_pages", Place::Host, |_| {
        call(libc::SYS_move_pages, [0, 0, 0, 0, 0, 0]).map(drop)
    }),
    probe("kernel", "lock_all_memory", Place::Root, |_| {
        // More than any limit for the unprivileged.
        let size = 64_usize << 20;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let there = call(
            libc::SYS_mmap,
            [
                0,
                size,
                libc::PROT_READ as usize,
                flags as usize,
                usize::MAX,
                0,
            ],
        )?;
        call(libc::SYS_mlock, [there, size]).map(drop)
    }),
];
