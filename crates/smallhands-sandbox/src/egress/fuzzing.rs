//! What the proxy reads of an agent that says anything, and the rules that it keeps to.

use super::{
    Egress, EgressRule, EgressVia,
    address::is_public,
    dial::Dialled,
    hello::{self, Hello},
    host::{self, Host},
    link::{Carried, Link, Shared},
    mux::{MAX_DATA, Mux, Peer, WINDOW},
    opening::{self, Step},
};
use crate::linux::sys_net;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::OnceLock,
    time::Instant,
};

/// Frames of a peer that breaks rules, whole and byte by byte; or, as the first byte says, two
/// honest ends that do what the others say.
pub fn mux(bytes: &[u8]) {
    match bytes.split_first() {
        Some((kind, rest)) if kind % 2 == 0 => hostile(rest),
        Some((_, rest)) => honest(rest),
        None => {}
    }
}

fn hostile(bytes: &[u8]) {
    let inside = || {
        let mut mux = Mux::inside();
        for _ in 0..3 {
            mux.open();
        }
        mux
    };
    for make in [|| Mux::host(3), inside] {
        let (mut whole, mut slow) = (make(), make());
        let (mut ids, mut refused) = (Vec::new(), 0);
        let a = whole.feed(bytes, &mut ids, &mut refused);
        let (mut slow_ids, mut slow_refused) = (Vec::new(), 0);
        let mut each = bytes.chunks(1);
        let b = each.try_for_each(|c| slow.feed(c, &mut slow_ids, &mut slow_refused));
        assert_eq!((a, &ids, refused), (b, &slow_ids, slow_refused));
        assert_eq!(whole.out(), slow.out());
        assert!(ids.len() <= 3);
        for id in 0..9 {
            let (a, b) = (whole.received(id), slow.received(id));
            assert!(a == b && a.len() <= WINDOW);
            assert_eq!(whole.peer(id), slow.peer(id));
            assert!(whole.room(id) <= MAX_DATA);
        }
    }
}

/// What one end of a connection sent, and what the other end took out.
#[derive(Default)]
struct Way {
    sent: Vec<u8>,
    got: Vec<u8>,
    ended: bool,
}

struct Pair {
    ends: [Mux; 2],
    /// From the inside, from the host.
    ways: BTreeMap<u32, [Way; 2]>,
    /// Connections that somebody cut: only what came so far counts.
    cut: Vec<u32>,
    opened: Vec<u32>,
    refused: u64,
}

impl Pair {
    /// Hands on some of what one end has to say.
    fn carry(&mut self, from: usize, most: usize) -> bool {
        let some = self.ends[from].out();
        let some = some[..most.min(some.len())].to_vec();
        self.ends[from].written(some.len());
        let before = self.opened.len() as u64 + self.refused;
        let fed = self.ends[1 - from].feed(&some, &mut self.opened, &mut self.refused);
        assert_eq!(fed, Ok(()), "honest peers keep the rules");
        assert!(from == 0 || before == self.opened.len() as u64 + self.refused);
        !some.is_empty()
    }

    fn consume(&mut self, end: usize, id: u32, most: usize) -> bool {
        let some = self.ends[end].received(id);
        assert!(some.len() <= WINDOW);
        let some = some[..most.min(some.len())].to_vec();
        self.ends[end].consume(id, some.len());
        if let Some(ways) = self.ways.get_mut(&id) {
            let way = &mut ways[1 - end];
            way.got.extend(&some);
            assert!(way.sent.starts_with(&way.got), "other bytes than were sent");
        }
        !some.is_empty()
    }

    fn act(&mut self, what: u8, arg: u8) {
        let count = self.ways.len() as u32;
        let id = u32::from(arg) % count.max(1) + 1;
        let (end, many) = (usize::from(what >> 7), usize::from(arg) * 97);
        match what & 7 {
            0 => {
                if let Some(id) = self.ends[0].open() {
                    self.ways.insert(id, Default::default());
                }
            }
            1 | 2 => {
                let bytes: Vec<u8> = (0..many).map(|n| (n * 7) as u8 ^ arg).collect();
                let sent = self.ends[end].send(id, &bytes);
                assert!(sent <= bytes.len().min(MAX_DATA));
                if let Some(ways) = self.ways.get_mut(&id) {
                    assert!(!ways[end].ended || sent == 0, "sent after the end");
                    ways[end].sent.extend(&bytes[..sent]);
                }
            }
            3 => drop(self.consume(end, id, many)),
            4 => {
                self.ends[end].end(id);
                // The host does not know of one that is still on its way.
                if let Some(ways) = self.ways.get_mut(&id)
                    && (end == 0 || self.opened.contains(&id))
                {
                    ways[end].ended = true;
                }
            }
            5 if arg & 8 == 0 => {
                self.cut.push(id);
                match arg & 16 {
                    0 => self.ends[end].close(id),
                    _ => self.ends[end].reset(id),
                }
            }
            5 if end == 1 => self.ends[1].ask_to_settle(),
            5 => {
                if let Some(asked) = self.ends[0].settle.take() {
                    self.ends[0].settled(asked);
                }
            }
            _ => drop(self.carry(end, many)),
        }
    }
}

fn honest(bytes: &[u8]) {
    let mut p = Pair {
        ends: [Mux::inside(), Mux::host(4)],
        ways: BTreeMap::new(),
        cut: Vec::new(),
        opened: Vec::new(),
        refused: 0,
    };
    for op in bytes.chunks_exact(2).take(4096) {
        p.act(op[0], op[1]);
    }
    let ids: Vec<u32> = p.ways.keys().copied().collect();
    let mut moved = true;
    while moved {
        moved = p.carry(0, usize::MAX) | p.carry(1, usize::MAX);
        for &id in &ids {
            moved |= p.consume(0, id, usize::MAX) | p.consume(1, id, usize::MAX);
        }
    }
    assert_eq!(p.opened.len() as u64 + p.refused, ids.len() as u64);
    for (id, ways) in &p.ways {
        if p.cut.contains(id) || !p.opened.contains(id) {
            continue;
        }
        for (from, way) in ways.iter().enumerate() {
            assert_eq!(way.got.len(), way.sent.len(), "something was lost");
            let peer = p.ends[1 - from].peer(*id);
            assert_eq!(peer == Peer::Ended, way.ended, "{peer:?}");
        }
    }
}

/// Reads every beginning of some bytes; once there is an answer, more bytes do not change it.
fn settled<T: std::fmt::Debug>(bytes: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let step = 1 + bytes.len() / 512;
    let mut first: Option<(usize, String)> = None;
    let cuts = (0..bytes.len()).step_by(step).chain([bytes.len()]);
    let mut last = None;
    for cut in cuts {
        last = read(&bytes[..cut]);
        let shown = last.as_ref().map(|t| format!("{t:?}"));
        match (&first, shown) {
            (None, Some(shown)) => first = Some((cut, shown)),
            (Some((at, first)), shown) => {
                assert_eq!(Some(first), shown.as_ref(), "{at} and {cut} bytes differ");
            }
            (None, None) => {}
        }
    }
    last
}

/// What is asked of the proxy. The first byte says whether a greeting went before.
pub fn request(bytes: &[u8]) {
    let Some((greeted, bytes)) = bytes.split_first() else {
        return;
    };
    let step = settled(bytes, |b| match opening::step(b, greeted % 2 == 1) {
        Step::More => None,
        done => Some(done),
    });
    match step {
        Some(Step::Ask(ask)) => {
            assert!(ask.used <= bytes.len() && ask.port != 0);
            canonical(&ask.host);
            match ask.via {
                EgressVia::Http => plain_head(&ask.head, &ask.host, ask.port, ask.body),
                _ => assert!(ask.head.is_empty() && ask.body == u64::MAX),
            }
            assert!(ask.head.len() <= bytes.len() + 200);
        }
        Some(Step::Reply(used, _)) => assert!(used <= bytes.len()),
        Some(Step::Bad { reply, why }) => {
            assert!(reply.len() < 2000 && why.len() < 1200);
            assert!(!why.contains(char::is_control), "{why:?}");
        }
        Some(Step::More) | None => {}
    }
}

/// It is written in one way only, and is what nobody else takes for an address.
fn canonical(host: &Host) {
    let text = host.to_string();
    assert_eq!(Host::parse(&text).as_ref(), Ok(host));
    if let Host::Name(name) = host {
        assert!(!name.contains(|c: char| c.is_ascii_uppercase() || !c.is_ascii_graphic()));
        assert!(
            name.parse::<IpAddr>().is_err() && !c_takes_it(name),
            "{name}"
        );
    }
}

/// Whether `inet_aton` of C would read an address here, as many programs do.
fn c_takes_it(name: &str) -> bool {
    let number = |part: &str| match part.to_ascii_lowercase().strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()),
    };
    name.split('.').count() <= 4 && name.split('.').all(number)
}

/// The head of a request as the server must not misread it.
fn plain_head(head: &[u8], host: &Host, port: u16, body: u64) {
    let text = std::str::from_utf8(head).expect("text");
    let text = text.strip_suffix("\r\n\r\n").expect("an end");
    let mut lines = text.split("\r\n");
    assert!(!text.contains("\r\n\r\n") && !text.replace("\r\n", "").contains(['\r', '\n', '\0']));
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    assert!(first.len() == 3 && first[1].starts_with('/') && first[2].starts_with("HTTP/1."));
    let (mut hosts, mut lengths) = (Vec::new(), Vec::new());
    let mut last = "";
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts.push(value),
            "content-length" => lengths.push(value),
            "transfer-encoding" | "upgrade" | "proxy-authorization" => panic!("{line}"),
            _ => {}
        }
        last = line;
    }
    assert_eq!(last, "Connection: close");
    let [named] = hosts[..] else {
        panic!("{hosts:?}")
    };
    let named = host::authority(named, Some(80));
    assert_eq!(named.as_ref(), Ok(&(host.clone(), port)));
    assert!(lengths.len() <= 1);
    assert_eq!(lengths.first().map_or(Ok(0), |n| n.parse()), Ok(body));
}

/// The first message of TLS, cut anyhow into records; the first byte says how long these are.
pub fn hello(bytes: &[u8]) {
    let read = |b: &[u8]| match hello::read(b) {
        Hello::More => None,
        done => Some(done),
    };
    if let Some(Hello::Name(Some(name))) = settled(bytes, read) {
        assert_eq!(name, name.to_ascii_lowercase());
    }
    let Some((size, message)) = bytes.split_first() else {
        return;
    };
    let cut = |size: usize| -> Vec<u8> {
        let record = |r: &[u8]| {
            let length = (r.len() as u16).to_be_bytes();
            [&[22, 3, 1], &length[..], r].concat()
        };
        message.chunks(size).flat_map(record).collect()
    };
    let (small, large) = (cut(usize::from(*size) + 1), cut(1 << 14));
    assert_eq!(hello::read(&small), hello::read(&large));
    settled(&small, read);
}

/// What [`is_public`] must say, as a table: networks with the bits that count.
fn oracle(address: IpAddr) -> bool {
    const FOUR: [(u32, u32); 14] = [
        (0x0000_0000, 8),
        (0x0a00_0000, 8),
        (0x6440_0000, 10),
        (0x7f00_0000, 8),
        (0xa9fe_0000, 16),
        (0xac10_0000, 12),
        (0xc000_0000, 24),
        (0xc000_0200, 24),
        (0xc058_6300, 24),
        (0xc0a8_0000, 16),
        (0xc612_0000, 15),
        (0xc633_6400, 24),
        (0xcb00_7100, 24),
        (0xe000_0000, 3),
    ];
    const SIX: [(u128, u32); 4] = [
        (0x2001_0000 << 96, 23),
        (0x2001_0db8 << 96, 32),
        (0x2002_0000 << 96, 16),
        (0x3fff_0000 << 96, 20),
    ];
    let four = |a: u32| !FOUR.iter().any(|(net, bits)| (a ^ net) >> (32 - bits) == 0);
    match address {
        IpAddr::V4(a) => four(a.to_bits()),
        IpAddr::V6(a) if a.to_bits() >> 32 == 0x64_ff9b << 64 => four(a.to_bits() as u32),
        IpAddr::V6(a) => {
            let a = a.to_bits();
            a >> 125 == 1 && !SIX.iter().any(|(net, bits)| (a ^ net) >> (128 - bits) == 0)
        }
    }
}

/// A line with a rule, a line with a host, and an address.
pub fn rules(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |b| *b == b'\n');
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
    let (rule, host) = (text(), text());
    let raw = parts.next().unwrap_or_default();
    let (four, six) = (raw.first_chunk::<4>(), raw.first_chunk::<16>());
    let four = four.map(|a| IpAddr::V4(Ipv4Addr::from(*a)));
    let six = six.map(|a| IpAddr::V6(Ipv6Addr::from(*a)));
    let rule = rule.parse::<EgressRule>().ok();
    let host = Host::parse(host).ok();
    if let Some(host) = &host {
        canonical(host);
    }
    let egress = Egress {
        allow: rule.iter().cloned().collect(),
        ..Egress::default()
    };
    for address in [four, six].into_iter().flatten() {
        assert_eq!(is_public(address), oracle(address), "{address}");
        for port in [80, 443, 8080] {
            let listed = rule.as_ref().is_some_and(|r| {
                let shown = SocketAddr::new(address, port).to_string();
                r.to_string() == shown
            });
            let to = SocketAddr::new(address, port);
            assert_eq!(egress.reaches(to), is_public(address) || listed, "{to}");
        }
    }
    let Some(rule) = rule else { return };
    let shown = rule.to_string();
    assert_eq!(shown.parse::<EgressRule>().ok().as_ref(), Some(&rule));
    if let Some(host) = host {
        let asked = format!("{host}:{}", rule.port());
        let below = shown.strip_prefix('*');
        let matches = match below {
            Some(suffix) => matches!(host, Host::Name(_)) && asked.ends_with(suffix),
            None => asked == shown,
        };
        assert_eq!(rule.allows(&host, rule.port()), matches, "{shown} {asked}");
        assert!(!rule.allows(&host, rule.port() ^ 1));
    }
}

/// A connection, and who is at its other end.
fn upstream() -> Option<(TcpStream, TcpStream)> {
    static LISTENER: OnceLock<Option<TcpListener>> = OnceLock::new();
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok();
    let listener = LISTENER.get_or_init(bind).as_ref()?;
    let near = TcpStream::connect(listener.local_addr().ok()?).ok()?;
    let (far, _) = listener.accept().ok()?;
    // So that none of very many stays in the kernel's lists.
    sys_net::abort_on_close(&far);
    far.set_nonblocking(true).ok()?;
    Some((near, far))
}

/// All that a sandbox says to the proxy, in pieces; nothing is looked up that no rule allows.
pub fn proxy(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let rules = ["example.com:443", "*.example.org:80", "127.0.0.1:8080"];
    let egress = Egress::new(rules).expect("rules");
    let (mut mux, mut left, carried) = (Mux::host(3), 1000_u64, Carried::default());
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    let mut far: Vec<TcpStream> = Vec::new();
    for piece in bytes.chunks(usize::from(*size) + 1) {
        let (mut opened, mut refused) = (Vec::new(), 0);
        let fed = mux.feed(piece, &mut opened, &mut refused);
        for id in opened {
            links.insert(id, Link::new(id, Instant::now()));
        }
        for link in links.values_mut() {
            let mut shared = Shared {
                egress: &egress,
                mux: &mut mux,
                left: &mut left,
                carried: &carried,
            };
            link.advance(&mut shared);
            if let Some((host, port)) = link.begin_dial() {
                let asked = format!("{host}:{port}");
                let below = asked.ends_with(".example.org:80");
                assert!(below || rules.contains(&asked.as_str()), "{asked}");
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let what = match upstream().filter(|_| port != 80) {
                    Some((near, other)) => {
                        far.push(other);
                        Dialled::To(near, to)
                    }
                    None => Dialled::Failed("nobody is there".into()),
                };
                link.dialled(what);
                link.advance(&mut shared);
            }
            assert!(link.record.sent + link.record.received <= 1000);
        }
        links.retain(|_, link| !link.is_over());
        assert!(links.len() <= 3 && mux.out().len() < 1 << 20);
        if fed.is_err() {
            break;
        }
        let said = mux.out().len();
        mux.written(said / 2);
    }
}
