//! The head of a request to a proxy: strictly read, and made anew for the server.

use super::{
    EgressVia,
    host::{self, Host},
    opening::{Ask, Step, shown},
};

/// Longest head.
const MAX_HEAD: usize = 32 << 10;

/// For this hop only, or not for servers.
const DROPPED: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "upgrade",
    "host",
];

/// A whole answer of the proxy itself.
pub(super) fn answer(status: &str, text: &str) -> Vec<u8> {
    let text = format!("smallhands: {text}\n");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

pub(super) const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn bad(status: &str, why: &str) -> Step {
    Step::Bad {
        reply: answer(status, why),
        why: why.into(),
    }
}

pub(super) fn step(bytes: &[u8]) -> Step {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let Some(end) = end.filter(|end| *end <= MAX_HEAD) else {
        return if bytes.len() >= MAX_HEAD + 4 {
            bad(
                "431 Request Header Fields Too Large",
                "the head of the request is too long",
            )
        } else {
            Step::More
        };
    };
    match std::str::from_utf8(&bytes[..end]) {
        Ok(head) => read(head, end + 4),
        Err(_) => bad("400 Bad Request", "the head of the request is no text"),
    }
}

fn read(head: &str, used: usize) -> Step {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let odd = |c: char| c.is_control() && c != '\t';
    if head.split("\r\n").any(|line| line.contains(odd)) {
        return bad(
            "400 Bad Request",
            "there is a control character in the request",
        );
    }
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = parts[..] else {
        return bad("400 Bad Request", "it is no HTTP/1 request");
    };
    if !is_token(method) {
        return bad("400 Bad Request", "it is no HTTP/1 request");
    }
    let (via, place, path) = if method == "CONNECT" {
        (EgressVia::Connect, host::authority(target, None), "")
    } else {
        let Some((authority, path)) = absolute(target) else {
            return bad(
                "400 Bad Request",
                "this is a proxy: it takes CONNECT, whole http: addresses, and SOCKS5",
            );
        };
        (EgressVia::Http, host::authority(authority, Some(80)), path)
    };
    let (host, port) = match place {
        Ok(both) => both,
        Err(why) => {
            return bad(
                "400 Bad Request",
                &format!("`{}` cannot be asked for: {why}", shown(target)),
            );
        }
    };
    let headers: Option<Vec<_>> = lines.map(header).collect();
    let Some(headers) = headers else {
        return bad("400 Bad Request", "a header of the request cannot be read");
    };
    let (head, body) = if via == EgressVia::Connect {
        (Vec::new(), u64::MAX)
    } else {
        match rebuild([method, path, version], &host, port, &headers) {
            Ok(made) => made,
            Err(step) => return *step,
        }
    };
    Step::Ask(Ask {
        used,
        via,
        host,
        port,
        head,
        body,
    })
}

fn is_token(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(ok)
}

/// Authority and path of a whole address.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let scheme = target.get(..7)?;
    if !scheme.eq_ignore_ascii_case("http://") || target.contains('#') {
        return None;
    }
    let rest = &target[7..];
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(rest.split_at(at))
}

fn header(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    is_token(name).then(|| (name, value.trim_matches([' ', '\t'])))
}

/// The head for the server, with the host that was decided on, and the length of its body. After
/// one request the server is to hang up: the next may be for another one.
fn rebuild(
    [method, path, version]: [&str; 3],
    host: &Host,
    port: u16,
    headers: &[(&str, &str)],
) -> Result<(Vec<u8>, u64), Box<Step>> {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let place = if port == 80 {
        host.to_string()
    } else {
        format!("{host}:{port}")
    };
    let mut head = format!("{method} {slash}{path} {version}\r\nHost: {place}\r\n");
    let is = |name: &'static str| move |h: &&(&str, &str)| h.0.eq_ignore_ascii_case(name);
    let named: Vec<&str> = headers
        .iter()
        .filter(is("connection"))
        .flat_map(|(_, value)| value.split(',').map(str::trim))
        .collect();
    let mut body = None;
    for (name, value) in headers {
        let same = |other: &&str| name.eq_ignore_ascii_case(other);
        if same(&"transfer-encoding") {
            let why = "a body through the proxy needs its length ahead";
            return Err(Box::new(bad("411 Length Required", why)));
        }
        if same(&"content-length") {
            let plain = value.bytes().all(|b| b.is_ascii_digit());
            let length = value.parse().ok().filter(|_| plain && body.is_none());
            let Some(length) = length else {
                let why = "the length of the body cannot be read";
                return Err(Box::new(bad("400 Bad Request", why)));
            };
            body = Some(length);
        } else if DROPPED.iter().any(same) || named.iter().any(same) {
            continue;
        }
        head += &format!("{name}: {value}\r\n");
    }
    head += "Connection: close\r\n\r\n";
    Ok((head.into_bytes(), body.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<(String, u16, String, u64)> {
        match step(text.as_bytes()) {
            Step::Ask(a) => {
                assert_eq!(a.used, text.find("\r\n\r\n").unwrap() + 4);
                Some((
                    a.host.to_string(),
                    a.port,
                    String::from_utf8(a.head).unwrap(),
                    a.body,
                ))
            }
            Step::Bad { .. } => None,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn heads_are_made_anew() {
        let text = "POST http://Example.com:8080/a?b HTTP/1.1\r\nHost: evil.com\r\n\
                    Connection: keep-alive, X-Secret, Content-Length\r\nX-Secret: 1\r\nA:  b \r\n\
                    Proxy-Authorization: x\r\nContent-Length: 3\r\n\r\nabcGET";
        let (host, port, head, body) = asked(text).unwrap();
        assert_eq!((host.as_str(), port, body), ("example.com", 8080, 3));
        let want = "POST /a?b HTTP/1.1\r\nHost: example.com:8080\r\nA: b\r\n\
                    Content-Length: 3\r\nConnection: close\r\n\r\n";
        assert_eq!(head, want);
        let (_, port, head, body) = asked("GET HTTP://a.b?q HTTP/1.0\r\n\r\n").unwrap();
        assert!(
            head.starts_with("GET /?q HTTP/1.0\r\nHost: a.b\r\n"),
            "{head}"
        );
        assert_eq!((port, body), (80, 0));
        let connect = asked("CONNECT A.b:443 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(
            (connect.0.as_str(), connect.1, connect.2.as_str()),
            ("a.b", 443, "")
        );
    }

    #[test]
    fn what_is_odd_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n",
            "GET https://a.b/ HTTP/1.1\r\n\r\n",
            "GET http://u@a.b/ HTTP/1.1\r\n\r\n",
            "GET http://a.b@c.d/ HTTP/1.1\r\n\r\n",
            "GET http://a.b\\@c.d/ HTTP/1.1\r\n\r\n",
            "GET http://a.b#/ HTTP/1.1\r\n\r\n",
            "GET http:///x HTTP/1.1\r\n\r\n",
            "GET  http://a.b/ HTTP/1.1\r\n\r\n",
            "GET http://a.b/ HTTP/2\r\n\r\n",
            "G\0T http://a.b/ HTTP/1.1\r\n\r\n",
            "GET http://a.b/ HTTP/1.1\r\nA: b\nHost: c\r\n\r\n",
            "GET http://a.b/ HTTP/1.1\r\n folded: x\r\n\r\n",
            "GET http://a.b/ HTTP/1.1\r\nno colon\r\n\r\n",
            "GET http://a.b/ HTTP/1.1\r\nHost : x\r\n\r\n",
            "POST http://a.b/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST http://a.b/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST http://a.b/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "CONNECT a.b HTTP/1.1\r\n\r\n",
            "CONNECT http://a.b:80 HTTP/1.1\r\n\r\n",
            "CONNECT a.b:443/ HTTP/1.1\r\n\r\n",
            "CONNECT a%2eb:443 HTTP/1.1\r\n\r\n",
            "CONNECT a.b:443\r\n\r\n",
        ] {
            assert_eq!(asked(text), None, "{text}");
        }
        let long = format!("CONNECT a\u{202e}{}:1 HTTP/1.1\r\n\r\n", "x".repeat(9000));
        match step(long.as_bytes()) {
            Step::Bad { why, .. } => assert!(why.is_ascii() && why.len() < 300, "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(step(b"GET http://a.b/ HTTP/1.1\r\n"), Step::More));
        assert!(matches!(step(&vec![b'A'; MAX_HEAD + 4]), Step::Bad { .. }));
    }
}
