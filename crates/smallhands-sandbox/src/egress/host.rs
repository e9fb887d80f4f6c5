//! Names and addresses as they are written, in one canonical form or not at all.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Who is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    /// Lower case, ASCII, without a dot at its end.
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(a)) => a.fmt(f),
            Self::Address(IpAddr::V6(a)) => write!(f, "[{a}]"),
        }
    }
}

impl Host {
    /// The strict reading: what two readers could take for different things is refused.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(rest) = text.strip_prefix('[') {
            let inner = rest.strip_suffix(']').ok_or("a bracket is not closed")?;
            let six = inner.parse::<Ipv6Addr>();
            let six = six.map_err(|_| "what stands in brackets is no IPv6 address")?;
            return Self::six(six);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err("it is no host name in ASCII letters, digits, hyphens and dots");
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if is_number(last) {
            // 127.1, 2130706433, 0x7f.1 and 0177.0.0.1 are addresses to some programs.
            return match text.parse::<Ipv4Addr>() {
                Ok(four) => Ok(Self::Address(four.into())),
                Err(_) => Err("it is a number, but no address of four plain decimal numbers"),
            };
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }

    pub(super) fn six(six: Ipv6Addr) -> Result<Self, &'static str> {
        match super::address::embedded(six) {
            Some(_) => Err("it is an IPv4 address inside an IPv6 one; use the IPv4 address"),
            None => Ok(Self::Address(six.into())),
        }
    }
}

fn is_label(label: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(ok)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_number(label: &str) -> bool {
    let hex = label.get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"))
        && label.bytes().skip(2).all(|b| b.is_ascii_hexdigit());
    hex || label.bytes().all(|b| b.is_ascii_digit())
}

/// `host:port`, the port in digits; `default` where there may be none.
pub(super) fn authority(text: &str, default: Option<u16>) -> Result<(Host, u16), &'static str> {
    if text.contains('@') {
        return Err("it names a user");
    }
    let in_brackets = text.rfind(']').unwrap_or(0);
    let (host, port) = match text.rfind(':').filter(|at| *at > in_brackets) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let port = match port {
        Some(p) => digits(p)
            .filter(|p| *p != 0)
            .ok_or("its port is no number")?,
        None => default.ok_or("it has no port")?,
    };
    Ok((Host::parse(host)?, port))
}

fn digits(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_or_none() {
        let name = |t: &str| Host::parse(t).map(|h| h.to_string());
        for (text, want) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("a_b.c-d", "a_b.c-d"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2606:4700::1111]", "[2606:4700::1111]"),
            ("1.2.3.4.com", "1.2.3.4.com"),
            ("0xyz.com", "0xyz.com"),
        ] {
            assert_eq!(name(text), Ok(want.to_owned()), "{text}");
        }
        for text in [
            "",
            ".",
            "example.com..",
            ".example.com",
            "a..b",
            "bücher.example",
            "example%2ecom",
            "exam\u{200b}ple.com",
            "example.com\0.evil.com",
            "user@example.com",
            "example.com:80",
            "ex ample.com",
            "-a.com",
            "a-.com",
            "example。com",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0X7F.0.0.1",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.1.",
            "1.2.3.0x4",
            "[::1",
            "::1",
            "[::1%lo]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[127.0.0.1]",
        ] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(Host::parse(&"a".repeat(64)).is_err());
        assert!(Host::parse(&["a"; 130].join(".")).is_err());
        for bad in [
            "a", "a:", "a:0", "a:+1", "a:65536", "a:1:2", "u@a:1", "[::1]x:1", ":1",
        ] {
            assert!(authority(bad, None).is_err(), "{bad}");
        }
        assert_eq!(authority("A.b.:443", None).unwrap().1, 443);
        assert_eq!(authority("[::1]", Some(80)).unwrap().0.to_string(), "[::1]");
    }
}
