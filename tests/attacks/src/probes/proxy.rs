//! Asking the sandbox's own way out for what it must not give.

use super::{Place, Probe, probe};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

pub(super) const LIST: &[Probe] = &[
    // Which way, and for what, is said by the driver.
    probe("egress", "ask_proxy", Place::Helper, |b| {
        let proxy = (Ipv4Addr::LOCALHOST, 3128);
        let mut s = TcpStream::connect(proxy)?;
        s.set_read_timeout(Some(Duration::from_secs(10)))?;
        let target = b.get("target")?;
        match b.get("way")? {
            "socks" => socks(&mut s, target),
            "http" => http(&mut s, &format!("GET http://{target}/ HTTP/1.1\r\n\r\n")),
            _ => http(&mut s, &format!("CONNECT {target} HTTP/1.1\r\n\r\n")),
        }
    }),
    probe("egress", "ask_directly", Place::Helper, |b| {
        TcpStream::connect(b.get("target")?).map(drop)
    }),
];

/// A server that says nothing was reached too.
fn http(s: &mut TcpStream, request: &str) -> io::Result<()> {
    s.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 512];
    while !answer.ends_with(b"\n") {
        match s.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend(&part[..n]),
            // The proxy itself always ends in order.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
            Err(e) => return Err(e),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    match text.starts_with("HTTP/1.1 200") || text.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other(
            text.lines().last().unwrap_or("").to_owned(),
        )),
    }
}

fn socks(s: &mut TcpStream, target: &str) -> io::Result<()> {
    let bad = || io::Error::other("no bait of this form");
    let (host, port) = target.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(io::Error::other)?;
    s.write_all(&[5, 1, 0])?;
    s.read_exact(&mut [0; 2])?;
    let head = match host.parse::<Ipv4Addr>() {
        Ok(four) => [&[5, 1, 0, 1][..], &four.octets()].concat(),
        Err(_) => [&[5, 1, 0, 3, host.len() as u8], host.as_bytes()].concat(),
    };
    s.write_all(&[&head[..], &port.to_be_bytes()].concat())?;
    let mut answer = [0; 10];
    s.read_exact(&mut answer)?;
    match answer[1] {
        0 => Ok(()),
        code => Err(io::Error::other(format!("the proxy says {code}"))),
    }
}
