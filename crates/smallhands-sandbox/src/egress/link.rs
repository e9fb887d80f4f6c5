//! One connection, from what is asked for to its end.

use super::{
    Egress, EgressRecord, EgressRefusal, EgressVerdict, EgressVia,
    dial::Dialled,
    hello::{self, Hello},
    host::Host,
    mux::{MAX_DATA, Mux, Peer, is_later},
    opening::{self, Ask, Step},
};
use crate::linux::sys_net;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Where the first message must be TLS and name the host that was asked for.
const TLS: u16 = 443;

#[derive(Debug)]
enum State {
    /// The request is coming.
    Opening {
        greeted: bool,
    },
    /// Its host is allowed, and waits to be looked up and connected to.
    Waiting,
    Dialling,
    /// Connected, and the first message of TLS is coming.
    Hello,
    Flowing,
    /// Only the last word is still to be said.
    Parting,
    Over,
}

#[derive(Debug)]
pub(super) struct Link {
    id: u32,
    state: State,
    begun: Instant,
    /// The last change of state, or movement of bytes.
    moved: Instant,
    pub(super) record: EgressRecord,
    host: Option<Host>,
    upstream: Option<TcpStream>,
    to_upstream: Vec<u8>,
    to_command: Vec<u8>,
    /// Bytes that may still follow the request.
    body: u64,
    /// The upstream said all.
    answered: bool,
    /// We said that we said all.
    told_end: bool,
    /// Something came from upstream.
    pub(super) readable: bool,
}

/// What all connections of a sandbox have in common.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) egress: &'a Egress,
    pub(super) mux: &'a mut Mux,
    /// Bytes that may still pass.
    pub(super) left: &'a mut u64,
    pub(super) carried: &'a Carried,
}

/// Bytes of all connections that a sandbox ever had.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

impl Link {
    pub(super) fn new(id: u32, now: Instant) -> Self {
        Self {
            id,
            state: State::Opening { greeted: false },
            begun: now,
            moved: now,
            record: EgressRecord {
                host: String::new(),
                port: 0,
                via: EgressVia::Unknown,
                address: None,
                verdict: EgressVerdict::Allowed,
                sent: 0,
                received: 0,
                duration: Duration::ZERO,
            },
            host: None,
            upstream: None,
            to_upstream: Vec::new(),
            to_command: Vec::new(),
            body: u64::MAX,
            answered: false,
            told_end: false,
            readable: false,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether anything was asked for at all.
    pub(super) fn is_worth_a_word(&self) -> bool {
        self.record.via != EgressVia::Unknown || self.record.verdict != EgressVerdict::Allowed
    }

    /// Whom to look up, if it is its turn: then it counts as begun.
    pub(super) fn begin_dial(&mut self) -> Option<(Host, u16)> {
        if !matches!(self.state, State::Waiting) {
            return None;
        }
        self.go(State::Dialling);
        Some((self.host.clone()?, self.record.port))
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// What to poll for upstream.
    pub(super) fn interest(&self, mux: &Mux) -> libc::pollfd {
        let mut events = 0;
        if matches!(self.state, State::Flowing) {
            if !self.answered && self.to_command.is_empty() && mux.room(self.id) > 0 {
                events |= libc::POLLIN;
            }
            if !self.to_upstream.is_empty() || !mux.received(self.id).is_empty() {
                events |= libc::POLLOUT;
            }
        }
        // With nothing wanted, an end of the connection would be told over and over.
        let stream = self.upstream.as_ref().filter(|_| events != 0);
        libc::pollfd {
            fd: stream.map_or(-1, AsRawFd::as_raw_fd),
            events,
            revents: 0,
        }
    }

    /// When it is ended if nothing happens before.
    pub(super) fn deadline(&self, e: &Egress) -> Instant {
        let patience = match self.state {
            State::Flowing | State::Parting => e.idle_timeout,
            // Addresses are tried for one of them, after a look-up that has no limit of its own.
            State::Waiting | State::Dialling => e.connect_timeout.saturating_mul(2),
            _ => e.connect_timeout,
        };
        let far = Duration::from_secs(30 * 24 * 3600);
        self.moved + patience.min(far)
    }

    fn go(&mut self, state: State) {
        self.state = state;
        self.moved = Instant::now();
    }

    fn end(&mut self, mux: &mut Mux, verdict: EgressVerdict) {
        self.record.duration = self.begun.elapsed();
        let broke = matches!(
            verdict,
            EgressVerdict::Failed(_) | EgressVerdict::Stopped(_)
        ) || mux.peer(self.id) == Peer::Reset;
        if broke && self.upstream.is_some() {
            // Neither side may take what it got for the whole.
            if let Some(stream) = &self.upstream {
                sys_net::abort_on_close(stream);
            }
            mux.reset(self.id);
        } else {
            mux.close(self.id);
        }
        if !matches!(self.record.verdict, EgressVerdict::Refused { .. }) {
            self.record.verdict = verdict;
        }
        self.upstream = None;
        self.go(State::Over);
    }

    /// Ends it from outside.
    pub(super) fn stop(&mut self, mux: &mut Mux, why: &str) {
        let verdict = match self.state {
            // What was asked for is on its way out, and had its verdict.
            State::Parting => self.record.verdict.clone(),
            State::Opening { .. } if mux.received(self.id).is_empty() => EgressVerdict::Allowed,
            _ => EgressVerdict::Stopped(why.into()),
        };
        self.end(mux, verdict);
    }

    fn refuse(&mut self, reason: EgressRefusal, detail: String) {
        self.to_command = opening::refused(self.record.via, reason, &detail);
        self.record.verdict = EgressVerdict::Refused { reason, detail };
        self.upstream = None;
        self.go(State::Parting);
    }

    /// Does what can be done without waiting.
    pub(super) fn advance(&mut self, s: &mut Shared<'_>) {
        let peer = s.mux.peer(self.id);
        if peer == Peer::Reset && !self.is_over() {
            let verdict = match self.state {
                State::Waiting | State::Dialling | State::Hello => {
                    EgressVerdict::Stopped("the command hung up".into())
                }
                _ => self.record.verdict.clone(),
            };
            return self.end(s.mux, verdict);
        }
        let ended = match self.state {
            State::Opening { greeted } => {
                self.open(s, greeted, peer);
                Ok(())
            }
            State::Hello => {
                self.check_hello(s, peer);
                Ok(())
            }
            State::Flowing => self.flow(s, peer),
            State::Waiting | State::Dialling if peer == Peer::Closed => {
                self.end(s.mux, EgressVerdict::Stopped("the command hung up".into()));
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(e) = ended {
            self.end(s.mux, EgressVerdict::Failed(e.to_string()));
        }
        self.speak(s.mux);
        if matches!(self.state, State::Parting)
            && (self.to_command.is_empty() || peer >= Peer::Closed)
        {
            self.end(s.mux, self.record.verdict.clone());
        }
    }

    /// Sends what the proxy itself has to say.
    fn speak(&mut self, mux: &mut Mux) {
        while !self.to_command.is_empty() {
            match mux.send(self.id, &self.to_command) {
                0 => return,
                n => drop(self.to_command.drain(..n)),
            }
        }
    }

    fn open(&mut self, s: &mut Shared<'_>, greeted: bool, peer: Peer) {
        match opening::step(s.mux.received(self.id), greeted) {
            Step::More if peer != Peer::Sends => {
                let cut = !s.mux.received(self.id).is_empty();
                let verdict = match cut {
                    true => EgressVerdict::Refused {
                        reason: EgressRefusal::Malformed,
                        detail: "the request ends in its middle".into(),
                    },
                    false => EgressVerdict::Allowed,
                };
                self.end(s.mux, verdict);
            }
            Step::More => {}
            Step::Reply(used, reply) => {
                s.mux.consume(self.id, used);
                self.to_command.extend(reply);
                self.go(State::Opening { greeted: true });
                self.open(s, true, peer);
            }
            Step::Bad { reply, why } => {
                self.refuse(EgressRefusal::Malformed, why);
                self.to_command = reply;
            }
            Step::Ask(ask) => {
                s.mux.consume(self.id, ask.used);
                self.judge(s, ask);
            }
        }
    }

    fn judge(&mut self, s: &Shared<'_>, ask: Ask) {
        self.record.host = ask.host.to_string();
        self.record.port = ask.port;
        self.record.via = ask.via;
        self.to_upstream = ask.head;
        self.body = ask.body;
        if !s.egress.allow.iter().any(|r| r.allows(&ask.host, ask.port)) {
            let detail = format!("{}:{} is not on the list", ask.host, ask.port);
            return self.refuse(EgressRefusal::NotListed, detail);
        }
        if *s.left == 0 {
            let detail = "this sandbox used up its bytes".into();
            return self.refuse(EgressRefusal::ByteLimit, detail);
        }
        self.host = Some(ask.host);
        self.go(State::Waiting);
    }

    /// Takes what came of looking the host up and connecting. True: there is a connection.
    pub(super) fn dialled(&mut self, what: Dialled) -> bool {
        if !matches!(self.state, State::Dialling) {
            return false;
        }
        match what {
            Dialled::Refused(reason, detail) => self.refuse(reason, detail),
            Dialled::Failed(why) => self.fail(why),
            Dialled::To(stream, address) => {
                self.record.address = Some(address);
                let ready = stream
                    .set_nonblocking(true)
                    .and_then(|()| stream.set_nodelay(true));
                if let Err(e) = ready {
                    self.fail(e.to_string());
                    return false;
                }
                self.upstream = Some(stream);
                self.to_command.extend(opening::granted(self.record.via));
                let named = matches!(self.host, Some(Host::Name(_)));
                let checked = named && self.record.port == TLS;
                self.go(match checked && self.record.via != EgressVia::Http {
                    true => State::Hello,
                    false => State::Flowing,
                });
                return true;
            }
        }
        false
    }

    fn fail(&mut self, why: String) {
        self.to_command = opening::failed(self.record.via, &why);
        self.record.verdict = EgressVerdict::Failed(why);
        self.go(State::Parting);
    }

    fn check_hello(&mut self, s: &mut Shared<'_>, peer: Peer) {
        let Some(Host::Name(host)) = &self.host else {
            return;
        };
        match hello::read(s.mux.received(self.id)) {
            Hello::More if peer == Peer::Sends => {}
            Hello::More => self.refuse(EgressRefusal::NotTls, "TLS did not begin".into()),
            Hello::Name(Some(name)) if name == *host => {
                self.go(State::Flowing);
                if let Err(e) = self.flow(s, peer) {
                    self.end(s.mux, EgressVerdict::Failed(e.to_string()));
                }
            }
            Hello::Name(name) => {
                let name = name.map_or("no server".into(), |n| opening::shown(&n));
                let detail = format!("TLS asks for {name}, the request for {host}");
                self.refuse(EgressRefusal::ServerName, detail);
            }
            Hello::Other(why) => self.refuse(EgressRefusal::NotTls, why.into()),
        }
    }

    fn flow(&mut self, s: &mut Shared<'_>, peer: Peer) -> io::Result<()> {
        let sent = self.upload(s)?;
        self.speak(s.mux);
        if self.readable && !self.answered && self.to_command.is_empty() && peer < Peer::Closed {
            self.download(s)?;
        }
        self.readable = false;
        if *s.left == 0 {
            let why = "this sandbox used up its bytes".into();
            self.end(s.mux, EgressVerdict::Stopped(why));
            return Ok(());
        }
        if sent && peer != Peer::Sends && !self.told_end {
            self.told_end = true;
            // It may have hung up already.
            drop(self.upstream.as_ref().map(|u| u.shutdown(Shutdown::Write)));
        }
        let through = self.answered && self.to_command.is_empty();
        if through && (self.told_end || self.record.via == EgressVia::Http)
            || sent && peer >= Peer::Closed
        {
            self.end(s.mux, EgressVerdict::Allowed);
        }
        Ok(())
    }

    /// True: everything that came was passed on.
    fn upload(&mut self, s: &mut Shared<'_>) -> io::Result<bool> {
        let Some(upstream) = &mut self.upstream else {
            return Ok(true);
        };
        loop {
            let own = !self.to_upstream.is_empty();
            let bytes = match own {
                true => &self.to_upstream[..],
                false => s.mux.received(self.id),
            };
            if bytes.is_empty() {
                return Ok(true);
            }
            if !own && self.body == 0 {
                // One request a connection: the next is to come over another one.
                if self.record.received > 0 {
                    self.end(s.mux, EgressVerdict::Allowed);
                    return Ok(false);
                }
                s.mux.consume(self.id, bytes.len());
                continue;
            }
            let most = if own { u64::MAX } else { self.body }.min(*s.left);
            let n = bytes.len().min(most.min(1 << 20) as usize);
            if n == 0 {
                return Ok(false);
            }
            let n = match upstream.write(&bytes[..n]) {
                Ok(n) => n,
                Err(e) if is_later(&e) => return Ok(false),
                Err(e) => return Err(e),
            };
            self.record.sent += n as u64;
            s.carried.sent.fetch_add(n as u64, Relaxed);
            *s.left -= n as u64;
            self.moved = Instant::now();
            if own {
                self.to_upstream.drain(..n);
            } else {
                if self.body != u64::MAX {
                    self.body -= n as u64;
                }
                s.mux.consume(self.id, n);
            }
        }
    }

    fn download(&mut self, s: &mut Shared<'_>) -> io::Result<()> {
        let Some(upstream) = &mut self.upstream else {
            return Ok(());
        };
        let mut buf = [0; MAX_DATA];
        let room = s.mux.room(self.id).min((*s.left).min(1 << 20) as usize);
        if room == 0 {
            return Ok(());
        }
        match upstream.read(&mut buf[..room]) {
            Ok(0) => {
                self.answered = true;
                s.mux.end(self.id);
            }
            Ok(n) => {
                s.mux.send(self.id, &buf[..n]);
                self.record.received += n as u64;
                s.carried.received.fetch_add(n as u64, Relaxed);
                *s.left -= n as u64;
            }
            Err(e) if is_later(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
        self.moved = Instant::now();
        Ok(())
    }
}
