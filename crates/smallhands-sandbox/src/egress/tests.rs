//! The parts that read what others wrote, with seeded noise; no socket but one pair.

use super::{
    Egress, SystemResolver,
    hello::{self, tests as tls},
    mux::{MAX_DATA, Mux, Peer, WINDOW},
    opening::{self, Step},
    proxy::{self, Outlet},
};
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    sync::Arc,
    time::Duration,
};

/// xorshift: the same noise each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let n = self.below(most);
        (0..n).map(|_| self.next() as u8).collect()
    }
    /// Something like one of these: cut, doubled, with wrong bytes.
    fn like(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut out = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(6) {
            let at = self.below(out.len());
            match self.below(5) {
                0 => out.truncate(at),
                1 => drop(out.splice(at..at, self.bytes(9))),
                2 if !out.is_empty() => out[at] = self.next() as u8,
                3 => out.extend(seeds[self.below(seeds.len())].clone()),
                _ => drop(out.drain(at..(at + self.below(4)).min(out.len()))),
            }
        }
        out
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n"[..],
        b"GET http://a.test:80/x?y HTTP/1.1\r\nConnection: close, b\r\nB: c\r\n\r\n",
        b"POST http://a.test/ HTTP/1.0\r\nContent-Length: 12\r\n\r\nhello world!",
        b"\x05\x01\x00",
        b"\x05\x01\x00\x03\x06a.test\x01\xbb",
        b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
        b"GET http://[::1]:80/ HTTP/1.1\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into();
    all.push(tls::client_hello(&[tls::server_name("a.test")], 40));
    all
}

#[test]
fn readers_of_requests_survive_anything() {
    let (seeds, mut noise) = (seeds(), Noise(1));
    for i in 0..60_000 {
        let bytes = match i % 4 {
            0 => noise.bytes(300),
            _ => noise.like(&seeds),
        };
        for greeted in [false, true] {
            match opening::step(&bytes, greeted) {
                Step::Ask(ask) => {
                    assert!(ask.used <= bytes.len() && ask.port != 0);
                    let text = ask.host.to_string();
                    assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text}");
                    let head = String::from_utf8(ask.head).unwrap();
                    assert_eq!(
                        head.matches("\r\n\r\n").count(),
                        usize::from(!head.is_empty())
                    );
                    let hosts = head.to_ascii_lowercase().matches("\r\nhost:").count();
                    assert_eq!(hosts, usize::from(!head.is_empty()), "{head}");
                }
                Step::Reply(used, _) => assert!(used <= bytes.len()),
                Step::More | Step::Bad { .. } => {}
            }
        }
        if let hello::Hello::Name(Some(name)) = hello::read(&bytes) {
            assert_eq!(name, name.to_ascii_lowercase());
        }
    }
}

/// What one end sent and the other got, of one connection.
#[derive(Default)]
struct Flow {
    sent: Vec<u8>,
    got: Vec<u8>,
    ended: bool,
}

impl Flow {
    fn go_on(&mut self, id: u32, from: &mut Mux, to: &mut Mux, takes: bool, noise: &mut Noise) {
        let bytes = noise.bytes(5000);
        if self.sent.len() < 300_000 {
            let n = from.send(id, &bytes);
            self.sent.extend(&bytes[..n]);
        } else {
            from.end(id);
            self.ended = true;
        }
        if takes && !to.received(id).is_empty() {
            let n = noise.below(to.received(id).len() + 1);
            self.got.extend(&to.received(id)[..n]);
            to.consume(id, n);
        }
        assert!(to.received(id).len() <= WINDOW);
    }
}

/// Passes some of what one end has to say, cut anywhere, to the other.
fn pass(from: &mut Mux, to: &mut Mux, noise: &mut Noise, opened: &mut Vec<u32>) {
    let n = noise.below(from.out().len() + 1);
    assert_eq!(to.feed(&from.out()[..n], opened, &mut 0), Ok(()));
    from.written(n);
}

#[test]
fn connections_share_a_stream_without_loss() {
    for seed in 1..30 {
        let mut noise = Noise(seed * 7919);
        let (mut inside, mut host) = (Mux::inside(), Mux::host(8));
        let mut flows: BTreeMap<u32, [Flow; 2]> = BTreeMap::new();
        let mut opened = Vec::new();
        for _ in 0..6 {
            flows.insert(inside.open().unwrap(), Default::default());
        }
        // One whose receiver takes nothing holds up no other.
        let stuck = 1;
        let mut rounds = 0;
        let all = |flows: &BTreeMap<u32, [Flow; 2]>| {
            let mut both = flows
                .iter()
                .filter(|(id, _)| **id != stuck)
                .flat_map(|(_, f)| f);
            both.all(|f| f.ended && f.sent == f.got)
        };
        while !all(&flows) {
            rounds += 1;
            assert!(rounds < 100_000, "it stands still");
            for (&id, [up, down]) in &mut flows {
                let takes = id != stuck;
                up.go_on(id, &mut inside, &mut host, takes, &mut noise);
                down.go_on(id, &mut host, &mut inside, takes, &mut noise);
            }
            pass(&mut inside, &mut host, &mut noise, &mut opened);
            pass(&mut host, &mut inside, &mut noise, &mut Vec::new());
        }
        assert_eq!(opened, [1, 2, 3, 4, 5, 6]);
        assert!(flows[&stuck][0].sent.len() <= WINDOW);
    }
}

fn frame(kind: u8, id: u32, len: usize, data: &[u8]) -> Vec<u8> {
    [
        &[kind][..],
        &id.to_le_bytes(),
        &(len as u32).to_le_bytes(),
        data,
    ]
    .concat()
}

#[test]
fn a_peer_that_breaks_a_rule_is_told_apart() {
    let feed = |frames: &[Vec<u8>]| {
        let mut mux = Mux::host(2);
        let mut refused = 0;
        let fed = mux.feed(&frames.concat(), &mut Vec::new(), &mut refused);
        (fed.is_ok(), refused, mux)
    };
    let open = |id| frame(1, id, 0, &[]);
    let block = vec![0; MAX_DATA];
    let data = |id| frame(2, id, MAX_DATA, &block);
    let full = vec![data(1); WINDOW / MAX_DATA];
    for (why, frames) in [
        ("no kind", vec![frame(99, 1, 0, &[])]),
        ("an empty frame", vec![open(1), frame(2, 1, 0, &[])]),
        (
            "a long frame",
            vec![open(1), frame(2, 1, MAX_DATA + 1, &[])],
        ),
        ("an old number", vec![open(2), open(1)]),
        ("a number twice", vec![open(1), open(1)]),
        ("credit for nothing", vec![open(1), frame(3, 1, 1, &[])]),
        (
            "data after the end",
            vec![open(1), frame(4, 1, 0, &[]), data(1)],
        ),
        (
            "too much",
            [vec![open(1)], full.clone(), vec![frame(2, 1, 1, b"x")]].concat(),
        ),
        ("the host's word", vec![frame(7, 0, 0, &[])]),
    ] {
        assert!(!feed(&frames).0, "{why}");
    }
    let (ok, refused, mux) = feed(&[open(1), open(2), open(3), data(3), data(9)]);
    assert!(ok && refused == 1 && mux.peer(3) == Peer::Reset);
    let (ok, _, mux) = feed(&[vec![open(1)], full].concat());
    assert!(ok && mux.received(1).len() == WINDOW);
    let flood: Vec<_> = (1..600_000).map(open).collect();
    assert!(
        !feed(&flood).0,
        "answers that nobody reads are not kept for ever"
    );
    assert!(
        Mux::inside()
            .feed(&open(1), &mut Vec::new(), &mut 0)
            .is_err()
    );
}

#[test]
fn a_proxy_survives_a_hostile_inside() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut s in upstream.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut s.try_clone()?, &mut s));
        }
    });
    let mut seeds = seeds();
    for text in [
        format!("CONNECT {at} HTTP/1.1\r\n\r\n"),
        format!("POST http://{at}/ HTTP/1.1\r\nContent-Length: 9\r\n\r\n"),
    ] {
        seeds.extend([text.clone().into_bytes(), text.into_bytes()]);
    }
    let rules = [at.to_string()];
    for seed in 1..40 {
        let mut noise = Noise(seed * 104_729);
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let outlet = Outlet {
            egress: Egress {
                connect_timeout: Duration::from_secs(1),
                connections: 4,
                ..Egress::new(rules.iter().map(String::as_str)).unwrap()
            },
            resolver: Arc::new(SystemResolver),
            log: None,
        };
        let (handle, thread) = proxy::start(outlet, theirs).unwrap();
        ours.set_nonblocking(true).unwrap();
        for i in 0..200 {
            let id = noise.below(12) as u32;
            let bytes = match noise.below(12) {
                0 => noise.bytes(20),
                1..5 => frame(1, i / 4, 0, &[]),
                5..10 => {
                    let data = noise.like(&seeds);
                    frame(2, id, data.len(), &data)
                }
                _ => frame(noise.below(9) as u8, id, noise.below(3) * 5000, &[]),
            };
            match ours.write(&bytes) {
                Err(e) if e.kind() != ErrorKind::WouldBlock => break,
                _ => {}
            }
            let mut sink = [0; 4096];
            while matches!(ours.read(&mut sink), Ok(n) if n > 0) {}
        }
        drop(ours);
        thread.join().unwrap();
        drop(handle);
    }
}

#[test]
fn a_late_answer_settles_nothing() {
    let (mut inside, mut host) = (Mux::inside(), Mux::host(8));
    let pass = |from: &mut Mux, to: &mut Mux| {
        assert_eq!(to.feed(from.out(), &mut Vec::new(), &mut 0), Ok(()));
        let n = from.out().len();
        from.written(n);
    };
    host.ask_to_settle();
    pass(&mut host, &mut inside);
    assert_eq!(inside.settle.take(), Some(1));
    // Nobody waited for it.
    host.ask_to_settle();
    inside.settled(1);
    pass(&mut inside, &mut host);
    assert_eq!(host.settle, None);
    pass(&mut host, &mut inside);
    inside.settled(2);
    pass(&mut inside, &mut host);
    assert_eq!(host.settle, Some(2));
}
