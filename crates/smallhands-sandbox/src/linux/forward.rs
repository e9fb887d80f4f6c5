//! The inside's end of a sandbox's way out: from the loopback of the sandbox onto one stream.
//!
//! It runs in the helper, which otherwise only waits for PID 1: in the sandbox's network, and out of
//! sight of its commands, which can neither stop nor trace it. It reads nothing of what passes.

use super::{
    landlock,
    proto::{Fault, Policy},
    seccomp::Filters,
    sys, sys_net, sys_priv,
};
use crate::{
    Wall,
    egress::{
        PROXY,
        mux::{MAX_DATA, Mux, Peer, is_later},
    },
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// How long a command may go on sending to a connection that is over, so that it can still read
/// the last word.
const LINGER: Duration = Duration::from_secs(2);

/// A place to listen, and where it leads to.
#[derive(Debug)]
pub(super) struct Forward {
    listener: TcpListener,
    stream: UnixStream,
    most: usize,
}

#[derive(Debug)]
struct Conn {
    tcp: TcpStream,
    readable: bool,
    /// The command said all.
    heard: bool,
    /// The command was told that it heard all.
    told: bool,
    /// Its command is dead.
    dying: bool,
    /// Over, but for what the command still sends.
    lingers: Option<Instant>,
}

struct Forwarder {
    listener: TcpListener,
    stream: UnixStream,
    most: usize,
    mux: Mux,
    conns: BTreeMap<u32, Conn>,
    turn: usize,
    /// No descriptor was left for one more.
    choked: bool,
    /// The host's number for it.
    settling: Option<u32>,
}

impl Forward {
    /// Listens, in the network of the sandbox and before anything else runs there. `None`: no way
    /// out is wanted.
    pub(super) fn prepare(p: &Policy, stream: Option<OwnedFd>) -> Result<Option<Self>, Fault> {
        let Some(most) = p.egress else {
            return Ok(None);
        };
        let stream = stream.ok_or_else(|| Fault::setup("egress", "no stream came for it"))?;
        let stream = UnixStream::from(stream);
        let go = || {
            sys::loopback_up()?;
            let listener = TcpListener::bind(PROXY)?;
            listener.set_nonblocking(true)?;
            stream.set_nonblocking(true)?;
            let most = most.clamp(1, 4096) as usize;
            Ok(Self {
                listener,
                stream,
                most,
            })
        };
        go().map(Some)
            .map_err(|e: io::Error| Fault::setup("egress", e))
    }

    /// Gives up what forwarding does not need.
    pub(super) fn confine(
        p: &Policy,
        user: Option<(u32, u32)>,
        filters: &Filters,
    ) -> Result<(), Fault> {
        let at = |e: io::Error| Fault::setup("egress", e);
        match user {
            // That takes the capabilities away, too.
            Some((uid, gid)) => sys_priv::become_user(uid, gid).map_err(at)?,
            None => sys_priv::drop_capabilities().map_err(at)?,
        }
        sys_priv::no_new_privs().map_err(at)?;
        sys::set_dumpable(false).map_err(at)?;
        sys::die_with_parent().map_err(at)?;
        if p.has(Wall::Landlock) {
            landlock::Rules::new(&[], &[], &[])?.restrict()?;
        }
        if p.has(Wall::Seccomp) {
            filters.install()?;
        }
        Ok(())
    }

    /// Waits for what [`confine`](Self::confine) said in the other process. Nothing: it is dead.
    pub(super) fn was_confined(said: OwnedFd) -> Result<(), Fault> {
        match serde_json::from_reader(File::from(said)) {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => Err(fault),
            Err(e) => Err(Fault::setup("egress", e)),
        }
    }

    /// Forwards until PID 1 ends or the host hangs up.
    pub(super) fn serve(self, pid: i32) -> io::Result<()> {
        let first = sys::pidfd(pid as u32)?;
        let mut f = Forwarder {
            listener: self.listener,
            stream: self.stream,
            most: self.most,
            mux: Mux::inside(),
            conns: BTreeMap::new(),
            turn: 0,
            choked: false,
            settling: None,
        };
        while f.turn(&first)? {}
        Ok(())
    }
}

impl Forwarder {
    fn turn(&mut self, first: &OwnedFd) -> io::Result<bool> {
        let out = if self.mux.out().is_empty() {
            0
        } else {
            libc::POLLOUT
        };
        let full = self.choked || self.conns.len() >= self.most;
        let mut fds = vec![
            sys_net::interest(first, libc::POLLIN),
            sys_net::interest(&self.stream, libc::POLLIN | out),
            sys::interest(
                if full { -1 } else { self.listener.as_raw_fd() },
                libc::POLLIN,
            ),
        ];
        let mut ids: Vec<u32> = self.conns.keys().copied().collect();
        let conns = self.conns.iter();
        fds.extend(conns.map(|(id, c)| c.interest(*id, &self.mux)));
        sys::poll(&mut fds, self.pause())?;
        for (c, fd) in self.conns.values_mut().zip(&fds[3..]) {
            c.readable = fd.revents & !libc::POLLOUT != 0;
        }
        if fds[0].revents != 0 {
            return Ok(false);
        }
        // The inside opens connections: none are opened to it.
        if fds[1].revents & !libc::POLLOUT != 0
            && !(self.mux).fill(&mut self.stream, &mut Vec::new(), &mut 0)?
        {
            return Ok(false);
        }
        if fds[2].revents != 0 {
            self.accept(&mut ids);
        }
        if let Some(asked) = self.mux.settle.take() {
            self.settling = Some(asked);
            self.begin_to_settle();
        }
        // Not always the same one first: they share what room there is on the stream.
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % ids.len().max(1);
        ids.rotate_left(first);
        for id in ids {
            if let Some(c) = self.conns.get_mut(&id)
                && !c.advance(id, &mut self.mux)
            {
                self.conns.remove(&id);
                self.choked = false;
            }
        }
        if self.conns.is_empty()
            && let Some(asked) = self.settling.take()
        {
            self.mux.settled(asked);
        }
        self.mux.flush(&mut self.stream)?;
        Ok(true)
    }

    fn pause(&self) -> Option<Duration> {
        let next = self.conns.values().filter_map(|c| c.lingers).min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self, ids: &mut Vec<u32>) {
        while self.conns.len() < self.most {
            let tcp = match self.listener.accept() {
                Ok((tcp, _)) => tcp,
                Err(e) if is_later(&e) || e.kind() == ErrorKind::ConnectionAborted => return,
                Err(_) => {
                    self.choked = true;
                    return;
                }
            };
            let ready = tcp
                .set_nonblocking(true)
                .and_then(|()| tcp.set_nodelay(true));
            let Some(id) = ready.ok().and_then(|()| self.mux.open()) else {
                continue;
            };
            let conn = Conn {
                tcp,
                readable: true,
                heard: false,
                told: false,
                dying: false,
                lingers: None,
            };
            self.conns.insert(id, conn);
            ids.push(id);
        }
    }

    /// All commands are dead: what they sent is still passed on, and nothing passed to them.
    fn begin_to_settle(&mut self) {
        // Those that nobody took yet are dead, too.
        while self.listener.accept().is_ok() {}
        self.conns.retain(|_, c| c.lingers.is_none());
        for c in self.conns.values_mut() {
            c.dying = true;
            c.readable = true;
        }
    }
}

impl Conn {
    fn interest(&self, id: u32, mux: &Mux) -> libc::pollfd {
        let mut events = 0;
        if self.lingers.is_some() || (!self.heard && mux.room(id) > 0) {
            events |= libc::POLLIN;
        }
        if self.lingers.is_none() && !self.dying && !mux.received(id).is_empty() {
            events |= libc::POLLOUT;
        }
        // With nothing wanted, an end of the connection would be told over and over.
        let fd = if events == 0 {
            -1
        } else {
            self.tcp.as_raw_fd()
        };
        sys::interest(fd, events)
    }

    /// Does what can be done without waiting. False: it is over.
    fn advance(&mut self, id: u32, mux: &mut Mux) -> bool {
        if let Some(until) = self.lingers {
            let mut buf = [0; MAX_DATA];
            return match self.tcp.read(&mut buf) {
                Ok(n) => n > 0 && Instant::now() < until,
                Err(e) => is_later(&e) && Instant::now() < until,
            };
        }
        let peer = mux.peer(id);
        if peer == Peer::Reset {
            sys_net::abort_on_close(&self.tcp);
            mux.close(id);
            return false;
        }
        if self.exchange(id, mux).is_err() {
            mux.reset(id);
            return false;
        }
        let passed = self.dying || mux.received(id).is_empty();
        if passed && peer >= Peer::Ended && !self.told {
            self.told = true;
            // It may have hung up already.
            drop(self.tcp.shutdown(Shutdown::Write));
        }
        if passed && peer == Peer::Closed {
            mux.close(id);
            self.lingers = Some(Instant::now() + LINGER);
            return !self.heard && !self.dying;
        }
        let over = self.heard && (self.told || self.dying);
        if over {
            mux.close(id);
        }
        !over
    }

    fn exchange(&mut self, id: u32, mux: &mut Mux) -> io::Result<()> {
        loop {
            let bytes = mux.received(id);
            if bytes.is_empty() {
                break;
            }
            let written = match self.dying {
                true => Ok(bytes.len()),
                false => self.tcp.write(bytes),
            };
            match written {
                Ok(n) => mux.consume(id, n),
                Err(e) if is_later(&e) => break,
                Err(e) => return Err(e),
            }
        }
        let mut buf = [0; MAX_DATA];
        while self.readable && !self.heard {
            let room = mux.room(id);
            if room == 0 {
                break;
            }
            match self.tcp.read(&mut buf[..room]) {
                Ok(0) => {
                    self.heard = true;
                    mux.end(id);
                }
                Ok(n) => {
                    mux.send(id, &buf[..n]);
                }
                Err(e) if is_later(&e) => break,
                Err(e) => return Err(e),
            }
        }
        self.readable = false;
        Ok(())
    }
}
