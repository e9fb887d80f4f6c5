//! The one way of the attacks into the kernel.
#![allow(unsafe_code)]

use std::{ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

/// Any system call. An attack passes what it likes, and pointers only to what it owns.
pub(crate) fn call<const N: usize>(nr: libc::c_long, args: [usize; N]) -> io::Result<usize> {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: the kernel checks every pointer; the callers pass none but to live buffers of theirs,
    // of the size that the call wants. Those that make a process are made in single-threaded programs.
    let r = unsafe { libc::syscall(nr, a(0), a(1), a(2), a(3), a(4), a(5)) };
    match r {
        0.. => Ok(r as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A 32-bit system call, whose numbers are others.
#[cfg(target_arch = "x86_64")]
pub(crate) fn call_32(nr: u32, arg: u32) -> io::Result<usize> {
    let r: i32;
    // SAFETY: saves rbx, which the compiler keeps for itself; the call takes an integer.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {arg:e}", "int 0x80", "pop rbx",
            arg = in(reg) arg, inout("eax") nr as i32 => r,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    match r {
        0.. => Ok(r as usize),
        _ => Err(io::Error::from_raw_os_error(-r)),
    }
}

pub(crate) fn at<T: ?Sized>(it: &T) -> usize {
    std::ptr::from_ref(it).cast::<u8>() as usize
}

pub(crate) fn at_mut<T: ?Sized>(it: &mut T) -> usize {
    std::ptr::from_mut(it).cast::<u8>() as usize
}

pub(crate) fn cstr(path: impl AsRef<Path>) -> CString {
    // Attacks name no path with a NUL in it.
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap_or_default()
}

pub(crate) fn fork() -> io::Result<Option<i32>> {
    let pid = call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0])?;
    Ok((pid != 0).then_some(pid as i32))
}

pub(crate) fn exit(code: i32) -> ! {
    loop {
        drop(call(libc::SYS_exit_group, [code as usize]));
    }
}

pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    call(libc::SYS_kill, [pid as usize, signal as usize]).map(drop)
}

pub(crate) fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0_i32;
    call(libc::SYS_wait4, [pid as usize, at_mut(&mut status), 0, 0])?;
    Ok(status)
}
