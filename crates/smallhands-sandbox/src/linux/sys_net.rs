//! The little that connections need of the system beyond `std`, for the host's side too.
#![allow(unsafe_code)]

use super::sys;
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    sys::poll(fds, timeout)
}

pub(crate) fn interest(fd: &impl AsRawFd, events: libc::c_short) -> libc::pollfd {
    sys::interest(fd.as_raw_fd(), events)
}

/// Makes the end of a connection a reset, which nobody takes for an orderly one.
pub(crate) fn abort_on_close(stream: &impl AsFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // What fails here leaves an orderly end, the best that is left.
    // SAFETY: a valid descriptor, and `linger` lives across the call.
    unsafe {
        libc::setsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
}
