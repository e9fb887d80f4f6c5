//! Descriptors on their way from one process to another.
#![allow(unsafe_code)]

use super::sys::owned;
use std::{
    io::{self, Read},
    mem::zeroed,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
};

/// Most descriptors in one message.
const MOST: usize = 4;
/// Room for a header and as many descriptors, aligned as the header has to be.
type Room = [u64; 8];

/// A message that has no control data yet.
fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: an all-zero msghdr is valid: no name, no parts, no control data.
    let mut m: libc::msghdr = unsafe { zeroed() };
    m.msg_iov = part;
    m.msg_iovlen = 1;
    m
}

/// Sends some bytes and descriptors with the first of them; how many bytes went.
pub(super) fn send(to: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    if fds.len() > MOST {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let len = size_of_val(&fds[..]) as libc::c_uint;
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut room: Room = [0; 8];
    let mut m = message(&mut part);
    m.msg_control = room.as_mut_ptr().cast();
    // SAFETY: computes lengths only.
    m.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as _;
    // SAFETY: `room` is aligned, zeroed, and larger than one header with MOST descriptors.
    unsafe {
        let head = libc::CMSG_FIRSTHDR(&raw const m);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(len) as _;
        ptr::copy_nonoverlapping(
            fds.as_ptr().cast::<u8>(),
            libc::CMSG_DATA(head),
            len as usize,
        );
    }
    // SAFETY: the message, its part and its control data live across the call.
    let n = unsafe { libc::sendmsg(to.as_raw_fd(), &raw const m, libc::MSG_NOSIGNAL) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Reads a stream, and keeps the descriptors that come with it.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    from: &'a UnixStream,
    pub(super) fds: Vec<OwnedFd>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(from: &'a UnixStream) -> Self {
        let fds = Vec::new();
        Self { from, fds }
    }
}

impl Read for Reader<'_> {
    #[allow(clippy::unnecessary_cast)] // Libraries differ in the type of a length.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut part = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let mut room: Room = [0; 8];
        let mut m = message(&mut part);
        m.msg_control = room.as_mut_ptr().cast();
        m.msg_controllen = size_of::<Room>() as _;
        let flags = libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the message, its part and its control data live across the call.
        let n = unsafe { libc::recvmsg(self.from.as_raw_fd(), &raw mut m, flags) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel wrote whole headers into `room`, which the macros walk; each descriptor
        // in them is new and ours.
        unsafe {
            let mut head = libc::CMSG_FIRSTHDR(&raw const m);
            while let Some(h) = head.as_ref() {
                if h.cmsg_level == libc::SOL_SOCKET && h.cmsg_type == libc::SCM_RIGHTS {
                    let bytes = h.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                    let first = libc::CMSG_DATA(head).cast::<RawFd>();
                    for i in 0..bytes / size_of::<RawFd>() {
                        self.fds.push(owned(first.add(i).read_unaligned())?);
                    }
                }
                head = libc::CMSG_NXTHDR(&raw const m, head);
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Write, os::fd::AsFd};

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (a, b) = UnixStream::pair().unwrap();
        let (r, w) = super::super::sys::pipe().unwrap();
        assert_eq!(send(&a, b"one", &[w.as_fd()]).unwrap(), 3);
        assert_eq!(send(&a, b"two", &[]).unwrap(), 3);
        drop((w, a));
        let mut reader = Reader::new(&b);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), reader.fds.len()), ("onetwo", 1));
        let mut pipe = File::from(reader.fds.remove(0));
        pipe.write_all(b"through").unwrap();
        drop(pipe);
        let mut said = String::new();
        File::from(r).read_to_string(&mut said).unwrap();
        assert_eq!(said, "through");
        let five = [b.as_fd(); 5];
        assert!(send(&b, b"x", &five).is_err());
    }
}
