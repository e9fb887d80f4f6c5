//! How a connection begins: what is asked for, in one of three ways.

use super::{EgressRefusal, EgressVia, host::Host, http};
use std::net::{Ipv4Addr, Ipv6Addr};

/// What a connection is for.
#[derive(Debug)]
pub(super) struct Ask {
    /// Bytes of the request.
    pub(super) used: usize,
    pub(super) via: EgressVia,
    pub(super) host: Host,
    pub(super) port: u16,
    /// To be sent first.
    pub(super) head: Vec<u8>,
    /// How much may follow it.
    pub(super) body: u64,
}

#[derive(Debug)]
pub(super) enum Step {
    /// It has not come whole yet.
    More,
    /// So many bytes are answered so, and more comes.
    Reply(usize, &'static [u8]),
    Ask(Ask),
    /// Nothing that could be granted.
    Bad {
        reply: Vec<u8>,
        why: String,
    },
}

/// Looks at what came so far; `greeted` after a [`Step::Reply`].
pub(super) fn step(bytes: &[u8], greeted: bool) -> Step {
    match bytes.first() {
        None => Step::More,
        Some(5) if greeted => socks(bytes),
        Some(5) => greeting(bytes),
        Some(b) if b.is_ascii_uppercase() && !greeted => http::step(bytes),
        Some(_) => Step::Bad {
            reply: Vec::new(),
            why: "it is neither HTTP nor SOCKS5".into(),
        },
    }
}

fn greeting(bytes: &[u8]) -> Step {
    let Some(&count) = bytes.get(1) else {
        return Step::More;
    };
    let used = 2 + usize::from(count);
    match bytes.get(2..used) {
        None => Step::More,
        Some(methods) if methods.contains(&0) => Step::Reply(used, &[5, 0]),
        Some(_) => Step::Bad {
            reply: vec![5, 0xff],
            why: "it insists on a password".into(),
        },
    }
}

fn socks(bytes: &[u8]) -> Step {
    let bad = |code: u8, why: &str| Step::Bad {
        reply: socks_reply(code),
        why: why.into(),
    };
    let (at, length) = match bytes {
        [_, command, ..] if *command != 1 => return bad(7, "it asks for more than a connection"),
        [_, _, zero, ..] if *zero != 0 => return bad(1, "it is no SOCKS5 request"),
        [_, _, _, 1, ..] => (4, 4),
        [_, _, _, 4, ..] => (4, 16),
        [_, _, _, 3, n, ..] => (5, usize::from(*n)),
        [_, _, _, 3] | [_] | [_, _] | [_, _, _] => return Step::More,
        _ => return bad(8, "it asks for an address of no known kind"),
    };
    let used = at + length + 2;
    let Some(rest) = bytes.get(at..used) else {
        return Step::More;
    };
    let (place, port) = rest.split_at(length);
    let port = u16::from_be_bytes([port[0], port[1]]);
    let host = if let Ok(four) = <[u8; 4]>::try_from(place)
        && bytes[3] == 1
    {
        Ok(Host::Address(Ipv4Addr::from(four).into()))
    } else if let Ok(six) = <[u8; 16]>::try_from(place)
        && bytes[3] == 4
    {
        Host::six(Ipv6Addr::from(six))
    } else {
        match std::str::from_utf8(place) {
            Ok(text) if !text.starts_with('[') => Host::parse(text),
            _ => Err("it is no host name"),
        }
    };
    match host {
        Ok(_) if port == 0 => bad(1, "its port is no number"),
        Err(why) => bad(
            2,
            &format!("`{}` cannot be asked for: {why}", place.escape_ascii()),
        ),
        Ok(host) => Step::Ask(Ask {
            used,
            via: EgressVia::Socks5,
            host,
            port,
            head: Vec::new(),
            body: u64::MAX,
        }),
    }
}

fn socks_reply(code: u8) -> Vec<u8> {
    vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// What was written inside, fit for a log: of bounded length, and nothing that a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(100)
        .flat_map(char::escape_default)
        .collect()
}

/// The word that a connection stands.
pub(super) fn granted(via: EgressVia) -> Vec<u8> {
    match via {
        EgressVia::Connect => http::CONNECTED.into(),
        EgressVia::Socks5 => socks_reply(0),
        _ => Vec::new(),
    }
}

/// The word that a connection is refused.
pub(super) fn refused(via: EgressVia, reason: EgressRefusal, detail: &str) -> Vec<u8> {
    match via {
        // It was told already that the connection stands.
        _ if matches!(reason, EgressRefusal::NotTls | EgressRefusal::ServerName) => Vec::new(),
        EgressVia::Socks5 => socks_reply(2),
        _ => http::answer("403 Forbidden", detail),
    }
}

/// The word that a connection could not be made.
pub(super) fn failed(via: EgressVia, why: &str) -> Vec<u8> {
    match via {
        EgressVia::Socks5 => socks_reply(4),
        _ => http::answer("502 Bad Gateway", why),
    }
}
