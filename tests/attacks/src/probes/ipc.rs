//! What processes share without files.

use super::{Place, Probe, probe};
use crate::{
    Baits,
    sys::{self, at, call},
};
use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
};

pub(super) const LIST: &[Probe] = &[
    probe("ipc", "abstract_socket", Place::Host, |b| {
        let address = SocketAddr::from_abstract_name(b.get("abstract")?)?;
        UnixStream::connect_addr(&address).map(drop)
    }),
    probe("ipc", "socket_with_path", Place::Host, |b| {
        UnixStream::connect(b.path("socket")?).map(drop)
    }),
    probe("ipc", "docker_socket_like", Place::Host, |b| {
        // Relative and through a link, as a mount of it would be reached.
        let path = b.path("socket")?;
        drop(fs::remove_file("sock"));
        std::os::unix::fs::symlink(path, "sock")?;
        UnixStream::connect("sock").map(drop)
    }),
    probe("ipc", "shared_memory", Place::Host, |b| {
        call(
            libc::SYS_shmat,
            [b.number("shm")? as usize, 0, libc::SHM_RDONLY as usize],
        )
        .map(drop)
    }),
    probe("ipc", "semaphores", Place::Host, |b| {
        call(libc::SYS_semget, [b.number("key")? as usize, 1, 0]).map(drop)
    }),
    probe("ipc", "message_queue", Place::Host, |b| {
        call(libc::SYS_msgget, [b.number("key")? as usize, 0]).map(drop)
    }),
    probe("ipc", "posix_message_queue", Place::Host, |b| {
        let name = sys::cstr(b.get("mq")?);
        call(
            libc::SYS_mq_open,
            [at(&*name), libc::O_RDONLY as usize, 0, 0],
        )
        .map(drop)
    }),
    probe("ipc", "posix_shared_memory", Place::Host, |b| {
        b.found_in(b.path("dev_shm")?)
    }),
    probe("keyrings", "search_keyring", Place::Host, search),
    probe("keyrings", "add_key", Place::Host, |_| {
        let (kind, name) = (sys::cstr("user"), sys::cstr("attack"));
        let ring = libc::KEY_SPEC_PROCESS_KEYRING as isize as usize;
        call(
            libc::SYS_add_key,
            [at(&*kind), at(&*name), at("x"), 1, ring],
        )
        .map(drop)
    }),
    probe("keyrings", "request_key", Place::Host, |b| {
        let (kind, name) = (sys::cstr("user"), sys::cstr(b.get("key_name")?));
        call(libc::SYS_request_key, [at(&*kind), at(&*name), 0, 0]).map(drop)
    }),
];

fn search(b: &Baits) -> io::Result<()> {
    let (kind, name) = (sys::cstr("user"), sys::cstr(b.get("key_name")?));
    let search = libc::KEYCTL_SEARCH as usize;
    let mut last = Err(io::Error::other("no keyring"));
    for ring in [
        libc::KEY_SPEC_USER_KEYRING,
        libc::KEY_SPEC_SESSION_KEYRING,
        libc::KEY_SPEC_USER_SESSION_KEYRING,
    ] {
        last = last.or_else(|_| {
            call(
                libc::SYS_keyctl,
                [search, ring as isize as usize, at(&*kind), at(&*name), 0],
            )
            .map(drop)
        });
    }
    last
}
