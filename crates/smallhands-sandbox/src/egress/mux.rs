//! Many connections over one byte stream, and nothing but that: no shared memory, no descriptors.
//!
//! A frame is a kind, a connection (`u32`, little-endian), a length (`u32`) and, for [`DATA`], that
//! many bytes. The inside opens connections, with ever greater numbers. Each direction of each may
//! have [`WINDOW`] bytes under way that the other end did not yet pass on; [`CREDIT`] gives some
//! back. So both ends can always read what comes, one stuck connection holds up no other, and
//! memory is bounded. A peer that breaks a rule loses the stream.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, Read, Write},
};

/// Bytes under way in one direction of a connection.
pub(crate) const WINDOW: usize = 64 << 10;
/// Most bytes in a frame.
pub(crate) const MAX_DATA: usize = 16 << 10;
/// From here on no more data is taken to be sent.
const SOFT: usize = 256 << 10;
/// More than an honest peer that reads can leave unsent.
const HARD: usize = 4 << 20;
const HEADER: usize = 9;

/// From the inside: a new connection.
const OPEN: u8 = 1;
const DATA: u8 = 2;
/// So many bytes more may come.
const CREDIT: u8 = 3;
/// No more data this way.
const END: u8 = 4;
/// Gone in both directions; what was sent before still counts.
const CLOSE: u8 = 5;
/// Gone, and broken: nothing counts any more.
const RESET: u8 = 6;
/// From the host: all commands are dead, say when their connections are done with.
const SETTLE: u8 = 7;
/// They are.
const SETTLED: u8 = 8;

/// The peer broke a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream of connections is broken: {}", self.0)
    }
}

/// What the peer said about a connection's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    #[default]
    Sends,
    /// It sends no more, and still reads.
    Ended,
    /// It neither sends nor reads any more.
    Closed,
    /// It broke.
    Reset,
}

#[derive(Debug, Default)]
struct Chan {
    received: Vec<u8>,
    peer: Peer,
    /// What we may still send.
    credit: usize,
    ended: bool,
    /// Bytes that the peer may still send.
    owed: usize,
    /// Passed on, and not yet given back to the peer.
    passed: usize,
}

/// One end of the stream, without the stream itself.
#[derive(Debug)]
pub(crate) struct Mux {
    /// Whether the other end opens connections, and how many at once.
    accepts: Option<usize>,
    chans: BTreeMap<u32, Chan>,
    last: u32,
    partial: Vec<u8>,
    out: Vec<u8>,
    /// How often the host asked to settle.
    asked: u32,
    /// The host asked to settle, with this number; or the inside said that it did, to the last one.
    pub(crate) settle: Option<u32>,
}

impl Mux {
    /// The end that opens connections.
    pub(crate) fn inside() -> Self {
        Self::new(None)
    }

    /// The end that takes up to so many of them.
    pub(crate) fn host(accepts: usize) -> Self {
        Self::new(Some(accepts))
    }

    fn new(accepts: Option<usize>) -> Self {
        Self {
            accepts,
            chans: BTreeMap::new(),
            last: 0,
            partial: Vec::new(),
            out: Vec::new(),
            asked: 0,
            settle: None,
        }
    }

    fn put(&mut self, kind: u8, id: u32, len: usize) {
        self.out.push(kind);
        self.out.extend(id.to_le_bytes());
        self.out.extend((len as u32).to_le_bytes());
    }

    /// A new connection; `None` once the numbers are used up.
    pub(crate) fn open(&mut self) -> Option<u32> {
        self.last = self.last.checked_add(1)?;
        self.add(self.last);
        self.put(OPEN, self.last, 0);
        Some(self.last)
    }

    fn add(&mut self, id: u32) {
        let chan = Chan {
            credit: WINDOW,
            owed: WINDOW,
            ..Chan::default()
        };
        self.chans.insert(id, chan);
    }

    /// Reads what the stream has now, and takes it as [`feed`](Self::feed) does. False: it ended.
    pub(crate) fn fill(
        &mut self,
        stream: &mut impl Read,
        opened: &mut Vec<u32>,
        refused: &mut u64,
    ) -> io::Result<bool> {
        let mut buf = vec![0; 64 << 10];
        match stream.read(&mut buf) {
            Ok(0) => Ok(false),
            Ok(n) => {
                let fed = self.feed(&buf[..n], opened, refused);
                fed.map_err(|e| io::Error::other(e.to_string()))?;
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(e) if is_later(&e) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Takes bytes of the stream; new connections are added to `opened`, and those that are too
    /// many to `refused`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        opened: &mut Vec<u32>,
        refused: &mut u64,
    ) -> Result<(), Broken> {
        self.partial.extend(bytes);
        let mut at = 0;
        while let Some(head) = self.partial.get(at..at + HEADER) {
            let word =
                |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
            let (kind, id, len) = (head[0], word(1), word(5) as usize);
            if kind == DATA {
                if len == 0 || len > MAX_DATA {
                    return Err(Broken("a frame of the wrong size"));
                }
                let from = at + HEADER;
                let Some(data) = self.partial.get(from..from + len) else {
                    break;
                };
                if let Some(c) = self.chans.get_mut(&id) {
                    c.take(data)?;
                }
                at = from + len;
            } else {
                at += HEADER;
                self.note(kind, id, len, opened, refused)?;
            }
        }
        self.partial.drain(..at);
        if self.out.len() > HARD {
            return Err(Broken("it asks and does not read the answers"));
        }
        Ok(())
    }

    fn note(
        &mut self,
        kind: u8,
        id: u32,
        len: usize,
        opened: &mut Vec<u32>,
        refused: &mut u64,
    ) -> Result<(), Broken> {
        if kind == OPEN {
            let Some(most) = self.accepts.filter(|_| id > self.last) else {
                return Err(Broken("a connection that cannot be"));
            };
            self.last = id;
            if self.chans.len() < most {
                self.add(id);
                opened.push(id);
            } else {
                *refused += 1;
                self.put(RESET, id, 0);
            }
            return Ok(());
        }
        match (kind, self.accepts) {
            (SETTLE, None) | (SETTLED, Some(_)) => {
                // An answer to an earlier one comes late where nobody waited for it.
                if kind == SETTLE || id == self.asked {
                    self.settle = Some(id);
                }
                return Ok(());
            }
            (CREDIT | END | CLOSE | RESET, _) => {}
            _ => return Err(Broken("a frame of no known kind")),
        }
        // What was said about a connection before the peer knew that it is gone.
        let Some(c) = self.chans.get_mut(&id) else {
            return Ok(());
        };
        match kind {
            CREDIT => {
                if len > WINDOW - c.credit {
                    return Err(Broken("more credit than there is room"));
                }
                c.credit += len;
            }
            END => c.peer = c.peer.max(Peer::Ended),
            CLOSE => c.peer = c.peer.max(Peer::Closed),
            _ => {
                c.peer = Peer::Reset;
                c.received.clear();
            }
        }
        Ok(())
    }

    /// What came and was not yet passed on.
    pub(crate) fn received(&self, id: u32) -> &[u8] {
        self.chans.get(&id).map_or(&[], |c| &c.received)
    }

    /// What the peer said of its end.
    pub(crate) fn peer(&self, id: u32) -> Peer {
        self.chans.get(&id).map_or(Peer::Reset, |c| c.peer)
    }

    /// Some of what came was passed on.
    pub(crate) fn consume(&mut self, id: u32, n: usize) {
        let Some(c) = self.chans.get_mut(&id) else {
            return;
        };
        let n = n.min(c.received.len());
        c.received.drain(..n);
        c.passed += n;
        // Seldom enough that there are few frames, early enough that nothing waits for them.
        if c.passed >= WINDOW / 2 && c.peer == Peer::Sends {
            let more = std::mem::take(&mut c.passed);
            c.owed += more;
            self.put(CREDIT, id, more);
        }
    }

    /// How much [`Mux::send`] would take now.
    pub(crate) fn room(&self, id: u32) -> usize {
        match self.chans.get(&id) {
            Some(c) if self.out.len() < SOFT && !c.ended && c.peer < Peer::Closed => {
                c.credit.min(MAX_DATA)
            }
            _ => 0,
        }
    }

    /// Sends the beginning of some bytes; how many fitted.
    pub(crate) fn send(&mut self, id: u32, bytes: &[u8]) -> usize {
        let n = self.room(id).min(bytes.len());
        if let Some(c) = self.chans.get_mut(&id).filter(|_| n > 0) {
            c.credit -= n;
            self.put(DATA, id, n);
            self.out.extend(&bytes[..n]);
        }
        n
    }

    /// Says, once, that nothing more is sent.
    pub(crate) fn end(&mut self, id: u32) {
        let Some(c) = self.chans.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut c.ended, true) {
            self.put(END, id, 0);
        }
    }

    /// Forgets a connection, and says so unless the peer knows.
    pub(crate) fn close(&mut self, id: u32) {
        self.forget(id, CLOSE);
    }

    /// Forgets a connection that broke.
    pub(crate) fn reset(&mut self, id: u32) {
        self.forget(id, RESET);
    }

    fn forget(&mut self, id: u32, kind: u8) {
        if let Some(c) = self.chans.remove(&id)
            && c.peer < Peer::Closed
        {
            self.put(kind, id, 0);
        }
    }

    /// Asks the inside to settle.
    pub(crate) fn ask_to_settle(&mut self) {
        self.settle = None;
        self.asked = self.asked.wrapping_add(1);
        self.put(SETTLE, self.asked, 0);
    }

    /// Tells the host that all is settled.
    pub(crate) fn settled(&mut self, asked: u32) {
        self.put(SETTLED, asked, 0);
    }

    /// Writes what the stream takes now.
    pub(crate) fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(n) => self.written(n),
                Err(e) if is_later(&e) => break,
                // Its end is read next.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What is to be written to the stream.
    pub(crate) fn out(&self) -> &[u8] {
        &self.out
    }

    /// So much of it was.
    pub(crate) fn written(&mut self, n: usize) {
        self.out.drain(..n);
    }
}

/// Whether the same call may succeed when something has happened.
pub(crate) fn is_later(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Chan {
    fn take(&mut self, data: &[u8]) -> Result<(), Broken> {
        if self.peer != Peer::Sends {
            return Err(Broken("data after its end"));
        }
        self.owed = self
            .owed
            .checked_sub(data.len())
            .ok_or(Broken("more data than was allowed"))?;
        self.received.extend(data);
        Ok(())
    }
}
