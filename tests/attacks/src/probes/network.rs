//! Anything beyond the sandbox's own loopback.

use super::{Place, Probe, probe, processes::reached};
use crate::{
    Baits,
    sys::{at, at_mut, call},
};
use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

pub(super) const LIST: &[Probe] = &[
    probe("network", "tcp_to_host", Place::Host, |b| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port(b, "tcp")?)).map(drop)
    }),
    probe("network", "tcp6_to_host", Place::Host, |b| {
        TcpStream::connect((Ipv6Addr::LOCALHOST, port(b, "tcp6")?)).map(drop)
    }),
    probe("network", "udp_to_host", Place::Host, |b| {
        ask((Ipv4Addr::LOCALHOST, port(b, "udp")?).into(), b"hello")
    }),
    probe("network", "dns_query", Place::Host, |b| {
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06secret\x07example\0\0\x01\0\x01";
        ask((Ipv4Addr::LOCALHOST, port(b, "udp")?).into(), query)
    }),
    probe("network", "host_address", Place::Host, |b| {
        TcpStream::connect_timeout(
            &SocketAddr::new(
                b.get("address")?.parse().map_err(io::Error::other)?,
                port(b, "tcp")?,
            ),
            Duration::from_secs(2),
        )
        .map(drop)
    }),
    probe("network", "host_port_taken", Place::Host, |b| {
        // Which of the host's ports are in use is seen by trying them.
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port(b, "tcp")?)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(()),
            Err(e) => Err(e),
            Ok(_) => Err(io::Error::other("it is free here")),
        }
    }),
    probe("network", "interfaces", Place::Host, |_| {
        let text = fs::read_to_string("/proc/net/dev")?;
        let more = text
            .lines()
            .skip(2)
            .any(|l| !l.trim_start().starts_with("lo:"));
        more.then_some(())
            .ok_or_else(|| io::Error::other("only lo"))
    }),
    probe("network", "connections_of_host", Place::Host, |b| {
        let wanted = format!(":{:04X} ", port(b, "tcp")?);
        let seen = fs::read_to_string("/proc/net/tcp")?.contains(&wanted);
        seen.then_some(())
            .ok_or_else(|| io::Error::other("not shown"))
    }),
    probe("network", "raw_socket", Place::Root, |_| {
        socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
    }),
    probe("network", "packet_socket", Place::Root, |_| {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0x300)
    }),
    probe("network", "old_packet_socket", Place::Root, |_| {
        socket(libc::AF_INET, 10, 0x300)
    }),
    probe("network", "vsock", Place::Host, |_| {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    probe("network", "netfilter_socket", Place::Host, |_| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)
    }),
    probe("network", "audit_socket", Place::Host, |_| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT)
    }),
    probe("network", "event_socket", Place::Host, |_| {
        socket(
            libc::AF_NETLINK,
            libc::SOCK_DGRAM,
            libc::NETLINK_KOBJECT_UEVENT,
        )
    }),
    probe("network", "make_interface", Place::Root, |_| {
        // Asked for more than is given, so that nothing changes where it is allowed.
        let fd = call(
            libc::SYS_socket,
            [libc::AF_INET as usize, libc::SOCK_DGRAM as usize, 0],
        )?;
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        call(
            libc::SYS_ioctl,
            [fd, libc::SIOCGIFFLAGS as usize, at_mut(&mut request)],
        )?;
        call(
            libc::SYS_ioctl,
            [fd, libc::SIOCSIFFLAGS as usize, at(&request)],
        )
        .map(drop)
    }),
];

fn port(b: &Baits, name: &str) -> io::Result<u16> {
    Ok(b.number(name)? as u16)
}

fn ask(of: SocketAddr, what: &[u8]) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(if of.port() == 0 {
        1
    } else {
        500
    })))?;
    socket.connect(of)?;
    socket.send(what)?;
    socket.recv(&mut [0; 64]).map(drop)
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    reached(call(
        libc::SYS_socket,
        [family as usize, kind as usize, protocol as usize],
    ))
}
