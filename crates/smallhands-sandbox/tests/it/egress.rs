//! The way out: what is on the list is reached, and nothing else, by whatever trick.

use crate::{
    hosts::is_capable_root,
    support::{Boxed, World, block_on, close},
    upstream::{Names, Upstream, hello_to, http_server, rules},
};
use smallhands_sandbox::{
    Egress, EgressRecord, EgressRefusal, EgressVerdict, EgressVia, Execution, Invocation,
    SandboxBackend, SandboxError, SandboxSpec, Wall,
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

/// What every script begins with: three ways to ask the proxy.
pub(crate) const PRELUDE: &str = r#"
import socket, sys, hashlib, threading, time, os, struct
def proxy():
    s = socket.create_connection(("127.0.0.1", 3128)); s.settimeout(60); return s
def rest(s):
    out = b""
    while True:
        b = s.recv(65536)
        if not b: return out
        out += b
def head(s):
    out = b""
    while not out.endswith(b"\r\n\r\n"):
        b = s.recv(1)
        if not b: break
        out += b
    return out
def connect(to):
    s = proxy(); s.sendall(b"CONNECT " + to.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    h = head(s)
    return s, h.split(b"\r\n")[0].decode()
def socks_raw(kind, addr, port):
    s = proxy(); s.sendall(b"\5\1\0"); assert s.recv(2) == b"\5\0"
    s.sendall(b"\5\1\0" + bytes([kind]) + addr + struct.pack(">H", port))
    return s, s.recv(10)[1]
def socks(name, port):
    return socks_raw(3, bytes([len(name)]) + name.encode(), port)
"#;

/// A world whose names are given, with what its log heard.
pub(crate) struct Way {
    pub(crate) w: World,
    pub(crate) names: Arc<Names>,
    pub(crate) s: Boxed,
}

impl Way {
    pub(crate) fn new(names: Names, egress: Egress) -> Self {
        let names = Arc::new(names);
        let w = World::with(|o| {
            o.resolver = names.clone();
            o.egress_log = Some(names.clone());
        });
        let spec = SandboxSpec {
            egress: Some(egress),
            ..w.spec()
        };
        let s = w.try_open(&spec).unwrap();
        Self { w, names, s }
    }

    fn run(&self, script: &str) -> Execution {
        let script = format!("{PRELUDE}\n{script}");
        let what = Invocation::new(["/usr/bin/python3", "-c", &script]);
        self.w.exec(&self.s, &what)
    }

    /// The output of a script that must succeed, and its connections.
    pub(crate) fn py(&self, script: &str) -> (String, Vec<EgressRecord>) {
        let (text, seen) = self.py_alone(script);
        let heard = std::mem::take(&mut *self.names.heard.lock().unwrap());
        assert_eq!(heard, seen, "the log and the result differ");
        (text, seen)
    }

    /// As [`Way::py`], where the log has heard of others.
    pub(crate) fn py_alone(&self, script: &str) -> (String, Vec<EgressRecord>) {
        let done = self.run(script);
        assert!(done.ok(), "{script}: {:?} {}", done.ended, done.text());
        (done.text().trim().to_owned(), done.egress)
    }

    /// What the proxy said of a script's only connection.
    fn refusal(&self, script: &str) -> EgressRefusal {
        let (_, seen) = self.py(script);
        match &seen[..] {
            [
                EgressRecord {
                    verdict: EgressVerdict::Refused { reason, .. },
                    address: None,
                    ..
                },
            ] => *reason,
            other => panic!("{script}: {other:?}"),
        }
    }
}

pub(crate) fn three_ways_to_an_allowed_host() {
    let up = http_server();
    let names = Names::new([("a.test", up.at), ("x.y.test", up.at)]);
    let way = Way::new(names, rules(&["a.test:80", "*.y.test:8000"], &[up.at]));
    let (said, seen) = way.py(r#"s, first = connect("A.test.:80"); print(first)
s.sendall(b"GET /c HTTP/1.0\r\n\r\n"); print(rest(s).split(b"\r\n\r\n")[1].decode())
s, code = socks("x.y.TEST", 8000); print(code)
s.sendall(b"GET /s HTTP/1.0\r\n\r\n"); print(rest(s).split(b"\r\n\r\n")[1].decode())
import urllib.request
print(urllib.request.urlopen("http://a.test/u?v").read().decode())
print(urllib.request.urlopen("http://a.test/p", b"x" * 100000).read().decode())"#);
    let want = "HTTP/1.1 200 Connection established\nGET /c  0\n0\nGET /s  0\n\
                GET /u?v a.test 0\nPOST /p a.test 100000";
    assert_eq!(said, want);
    // As they ended, in whatever order.
    let count = |via| seen.iter().filter(|r| r.via == via).count();
    let ways = [EgressVia::Connect, EgressVia::Socks5, EgressVia::Http];
    assert_eq!(ways.map(count), [1, 1, 2]);
    for r in &seen {
        assert_eq!(r.verdict, EgressVerdict::Allowed, "{r:?}");
        assert_eq!(r.address, Some(up.at));
        assert!(r.received > 0 && r.sent > 0, "{r:?}");
    }
    assert!(seen.iter().any(|r| r.sent > 100_000));
    let deep = seen.iter().find(|r| r.host == "x.y.test").unwrap();
    assert_eq!((deep.port, deep.via), (8000, EgressVia::Socks5));
    assert!(way.names.allowed.load(Ordering::SeqCst) == 4);
    let used = block_on(way.s.usage()).unwrap();
    let sum = |of: fn(&EgressRecord) -> u64| seen.iter().map(of).sum::<u64>();
    let want = (sum(|r| r.sent), sum(|r| r.received));
    assert_eq!((used.sent_bytes, used.received_bytes), want);
    // Of the sandbox, not of its present agent.
    block_on(way.s.restore(None, &*way.w.blobs)).unwrap();
    let used = block_on(way.s.usage()).unwrap();
    assert_eq!((used.sent_bytes, used.received_bytes), want);
    close(way.s);
}

pub(crate) fn what_is_not_listed_is_refused() {
    let up = http_server();
    let names = Names::new([
        ("a.example.com", up.at),
        ("evil-example.com", up.at),
        ("b.test", up.at),
    ]);
    let way = Way::new(names, rules(&["*.example.com:80"], &[up.at]));
    for (name, why) in [
        ("evil-example.com:80", EgressRefusal::NotListed),
        ("example.com:80", EgressRefusal::NotListed),
        ("a.example.com:81", EgressRefusal::NotListed),
        ("a.example.com.evil.test:80", EgressRefusal::NotListed),
        ("a.example.com..:80", EgressRefusal::Malformed),
        ("b.test:80", EgressRefusal::NotListed),
        ("a.example.com%2eevil.test:80", EgressRefusal::Malformed),
        ("a.example.com\\u200b:80", EgressRefusal::Malformed),
        ("\\u0430.example.com:80", EgressRefusal::Malformed),
        ("xn--80a.other.com:80", EgressRefusal::NotListed),
        ("u@a.example.com:80", EgressRefusal::Malformed),
        ("b.test@a.example.com:80", EgressRefusal::Malformed),
        ("a.example.com\\0.b.test:80", EgressRefusal::Malformed),
        ("127.0.0.1:1", EgressRefusal::NotListed),
        ("2130706433:80", EgressRefusal::Malformed),
        ("0177.0.0.1:80", EgressRefusal::Malformed),
        ("0x7f000001:80", EgressRefusal::Malformed),
        ("127.1:80", EgressRefusal::Malformed),
        ("[::ffff:127.0.0.1]:80", EgressRefusal::Malformed),
        ("[::1]:80", EgressRefusal::NotListed),
        ("169.254.169.254:80", EgressRefusal::NotListed),
    ] {
        let by_connect = format!("s, first = connect(\"{name}\"); assert \" 40\" in first, first");
        assert_eq!(way.refusal(&by_connect), why, "{name}");
        let by_http = format!(
            "s = proxy(); s.sendall(\"GET http://{name}/ HTTP/1.1\\r\\n\\r\\n\".encode()); \
             h = head(s); assert b\" 40\" in h, h"
        );
        assert_eq!(way.refusal(&by_http), why, "{name}");
        if let Some((host, port)) = name.rsplit_once(':').filter(|(h, _)| !h.starts_with('[')) {
            let name = format!("\"{host}\".encode()");
            let by_socks = format!(
                "n = {name}; s, code = socks_raw(3, bytes([len(n)]) + n, {port}); assert code == 2, code"
            );
            assert_eq!(way.refusal(&by_socks), why, "{host}");
        }
    }
    for raw in [
        "1, b'\\x7f\\0\\0\\1'",
        "4, bytes(15) + b'\\1'",
        "4, bytes(10) + b'\\xff\\xff\\x7f\\0\\0\\1'",
    ] {
        way.refusal(&format!(
            "s, code = socks_raw({raw}, 80); assert code == 2, code"
        ));
    }
    assert_eq!(up.seen(), 0);
    assert_eq!(way.names.asked(), 0, "a refused name was looked up");
    close(way.s);
}

pub(crate) fn private_addresses_and_rebinding() {
    let (up, inner) = (http_server(), http_server());
    let cloud: SocketAddr = "169.254.169.254:80".parse().unwrap();
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", inner.at.port())
        .parse()
        .unwrap();
    let names = Names::new([
        ("a.test", inner.at),
        ("cloud.test", cloud),
        ("mapped.test", mapped),
        ("both.test", inner.at),
        ("both.test", up.at),
    ]);
    names.changes("turn.test", [up.at, inner.at, up.at]);
    let all = [
        "a.test:80",
        "cloud.test:80",
        "mapped.test:80",
        "both.test:80",
        "turn.test:80",
    ];
    let way = Way::new(names, rules(&all, &[up.at]));
    for name in ["a.test", "cloud.test", "mapped.test"] {
        let script = format!("s, first = connect(\"{name}:80\"); assert \" 403 \" in first, first");
        assert_eq!(
            way.refusal(&script),
            EgressRefusal::PrivateAddress,
            "{name}"
        );
    }
    let (_, seen) = way.py("s, first = connect(\"both.test:80\"); assert \" 200 \" in first");
    assert_eq!(seen[0].address, Some(up.at));
    way.names.forget();
    let (_, seen) = way.py(
        "for want in [\" 200 \", \" 403 \", \" 200 \"]:\n s, first = connect(\"turn.test:80\"); \
         assert want in first, first",
    );
    assert_eq!(
        way.names.asked(),
        3,
        "a name is asked for once a connection"
    );
    let refused = |r: &&EgressRecord| matches!(r.verdict, EgressVerdict::Refused { .. });
    assert_eq!(seen.iter().filter(refused).count(), 1, "{seen:?}");
    assert_eq!(inner.seen(), 0);
    close(way.s);
}

pub(crate) fn tls_must_name_the_host() {
    let up = Upstream::new(|mut s| {
        let mut all = Vec::new();
        s.read_to_end(&mut all).unwrap();
        s.write_all(format!("{} bytes", all.len()).as_bytes())
            .unwrap();
    });
    let names = Names::new([("a.test", up.at)]);
    let way = Way::new(names, rules(&["a.test:443"], &[up.at]));
    let ask = |hello: &[u8], cut: usize| {
        let (a, b) = hello.split_at(cut);
        format!(
            "s, first = connect(\"a.test:443\"); assert \" 200 \" in first\n\
             s.sendall(bytes.fromhex(\"{}\")); time.sleep(0.05); s.sendall(bytes.fromhex(\"{}\"))\n\
             s.shutdown(1)\ntry: print(rest(s).decode())\nexcept OSError: print(\"reset\")",
            hex(a),
            hex(b)
        )
    };
    let good = [hello_to(Some("A.Test")), b"secret".to_vec()].concat();
    let (said, seen) = way.py(&ask(&good, 20));
    assert_eq!(said, format!("{} bytes", good.len()));
    assert_eq!(
        (seen[0].sent, &seen[0].verdict),
        (good.len() as u64, &EgressVerdict::Allowed)
    );
    for (hello, why) in [
        (hello_to(Some("b.test")), EgressRefusal::ServerName),
        (
            hello_to(Some("a.test.evil.test")),
            EgressRefusal::ServerName,
        ),
        (hello_to(None), EgressRefusal::ServerName),
        (
            b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n".to_vec(),
            EgressRefusal::NotTls,
        ),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), EgressRefusal::NotTls),
        (good[..30].to_vec(), EgressRefusal::NotTls),
    ] {
        let (said, seen) = way.py(&ask(&hello, 7));
        assert_eq!(said, "", "{why:?}");
        let [
            EgressRecord {
                verdict: EgressVerdict::Refused { reason, .. },
                sent: 0,
                ..
            },
        ] = &seen[..]
        else {
            panic!("{seen:?}")
        };
        assert_eq!(*reason, why);
    }
    close(way.s);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn there_is_no_other_way() {
    let up = http_server();
    let way = Way::new(
        Names::new([("a.test", up.at)]),
        rules(&["a.test:80"], &[up.at]),
    );
    let port = up.at.port();
    let script = format!(
        r#"def fails(f):
    try: f()
    except OSError as e: return
    raise SystemExit("it worked")
fails(lambda: socket.create_connection(("127.0.0.1", {port}), 5))
fails(lambda: socket.create_connection(("1.1.1.1", 443), 5))
fails(lambda: socket.create_connection(("2606:4700:4700::1111", 443), 5))
fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("1.1.1.1", 53)))
fails(lambda: socket.getaddrinfo("a.test", 80))
fails(lambda: socket.getaddrinfo("example.com", 80))
fails(lambda: socket.create_server(("127.0.0.1", 3128)))
own = socket.create_server(("127.0.0.1", 8080))
socket.create_connection(("127.0.0.1", 8080), 5)
pids = sorted(int(p) for p in os.listdir("/proc") if p.isdigit())
assert pids == [1, os.getpid()], pids
print(len([l for l in open("/proc/net/dev")][2:]))"#
    );
    let (said, seen) = way.py(&script);
    assert_eq!((said.as_str(), seen.len(), up.seen()), ("1", 0, 0));
    // Without a list there is nobody to ask.
    let s = way.w.open();
    let done = way.w.exec(
        &s,
        &Invocation::new(["/usr/bin/python3", "-c", &format!("{PRELUDE}\nproxy()")]),
    );
    assert!(
        !done.ok() && done.text().contains("refused"),
        "{}",
        done.text()
    );
    assert!(!way.w.out(&s, "env").contains("PROXY"));
    close(s);
    close(way.s);
}

pub(crate) fn it_is_said_what_is_in_force() {
    let up = http_server();
    let way = Way::new(Names::new([]), rules(&["a.test:22"], &[up.at]));
    let done = way.w.sh(&way.s, "env | sort");
    assert!(
        done.enforced.iter().any(|e| e == "egress allow-list"),
        "{:?}",
        done.enforced
    );
    let env = done.text();
    for line in [
        "HTTPS_PROXY=http://127.0.0.1:3128",
        "no_proxy=localhost,::1",
        "GIT_SSH_COMMAND=ssh ",
    ] {
        assert!(env.contains(line), "{line}: {env}");
    }
    let mut own = Invocation::new(["env"]);
    own.env = vec![("HTTP_PROXY".into(), "mine".into())];
    assert!(
        way.w
            .exec(&way.s, &own)
            .text()
            .contains("HTTP_PROXY=mine\n")
    );
    let found = block_on(way.w.backend.probe());
    let layer = found
        .layers
        .iter()
        .find(|l| l.name == "egress allow-list")
        .unwrap();
    assert!(layer.works && !layer.required, "{layer:?}");
    let refused = way.w.try_open(&SandboxSpec {
        egress: Some(Egress::default()),
        without: vec![Wall::NetworkNamespace],
        ..way.w.spec()
    });
    assert!(
        matches!(&refused, Err(SandboxError::Unavailable { layer, .. }) if layer == "egress allow-list"),
        "{refused:?}"
    );
    let script = format!("{PRELUDE}\nprint(connect(\"b.test:22\")[1])");
    let walls = [
        Wall::UserChange,
        Wall::Landlock,
        Wall::Seccomp,
        Wall::Capabilities,
        Wall::MountFlags,
        Wall::IpcNamespace,
    ];
    for wall in walls
        .into_iter()
        .filter(|w| is_capable_root() || *w != Wall::UserChange)
    {
        let spec = SandboxSpec {
            egress: Some(Egress::default()),
            without: vec![wall],
            ..way.w.spec()
        };
        let s = way.w.try_open(&spec).unwrap();
        let done = way
            .w
            .exec(&s, &Invocation::new(["/usr/bin/python3", "-c", &script]));
        assert!(done.text().contains(" 403 "), "{wall:?}: {done:?}");
        close(s);
    }
    let fork = block_on(way.s.fork()).unwrap();
    let done = way
        .w
        .exec(&fork, &Invocation::new(["/usr/bin/python3", "-c", &script]));
    assert!(
        done.text().contains(" 403 ") && done.egress.len() == 1,
        "{done:?}"
    );
    close(fork);
    close(way.s);
}
