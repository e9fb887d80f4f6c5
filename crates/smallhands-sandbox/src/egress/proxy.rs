//! The host's end of a sandbox's way out: one thread, one stream, many connections.

use super::{
    Egress, EgressLog, EgressRecord, EgressRefusal, EgressVerdict, Resolver,
    dial::{Dialled, dial},
    host::Host,
    link::{Carried, Link, Shared},
    mux::Mux,
};
use crate::linux::sys_net;
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Threads that look up and connect at once.
const DIALS: usize = 32;
/// How long the connections of a dead command may take to hand on what it sent.
const SETTLE: Duration = Duration::from_millis(500);
/// Most records that are kept for the result of a command; the log gets all.
const RECORDS: usize = 1000;

/// What a proxy works with.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub(crate) egress: Egress,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) log: Option<Arc<dyn EgressLog>>,
}

/// What a command asked for, and how much of that is left out here.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) list: Vec<EgressRecord>,
    pub(crate) cut: u64,
}

#[derive(Debug)]
enum Order {
    Dialled(u32, Dialled),
    Settle(oneshot::Sender<Records>),
}

/// A proxy that runs. It ends with the stream.
#[derive(Debug)]
pub(crate) struct Handle {
    orders: Sender<Order>,
    wake: Arc<UnixStream>,
    /// A command ran since the last time that all was settled.
    unsettled: AtomicBool,
    carried: Arc<Carried>,
}

impl Handle {
    /// Bytes that went out, and that came in.
    pub(crate) fn carried(&self) -> (u64, u64) {
        let Carried { sent, received } = &*self.carried;
        (
            sent.load(Ordering::Relaxed),
            received.load(Ordering::Relaxed),
        )
    }

    /// A command begins.
    pub(crate) fn begin(&self) {
        self.unsettled.store(true, Ordering::SeqCst);
    }

    /// Ends the connections of a command that is dead, and tells what became of them.
    pub(crate) async fn settle(&self) -> Records {
        if !self.unsettled.swap(false, Ordering::SeqCst) {
            return Records::default();
        }
        let (tell, told) = oneshot::channel();
        give(&self.orders, &self.wake, Order::Settle(tell));
        told.await.unwrap_or_default()
    }
}

fn give(orders: &Sender<Order>, mut wake: &UnixStream, order: Order) {
    // Nobody takes it: then the proxy is gone. No room for the byte: then it is awake.
    if orders.send(order).is_ok() {
        drop(wake.write(&[1]));
    }
}

#[derive(Debug)]
struct Settling {
    tell: oneshot::Sender<Records>,
    until: Instant,
    /// The inside said that it has none left.
    told: bool,
}

#[derive(Debug)]
struct Proxy {
    outlet: Arc<Outlet>,
    stream: UnixStream,
    mux: Mux,
    links: BTreeMap<u32, Link>,
    left: u64,
    carried: Arc<Carried>,
    dials: usize,
    turn: usize,
    orders: Receiver<Order>,
    give: Sender<Order>,
    woken: UnixStream,
    wake: Arc<UnixStream>,
    settling: Option<Settling>,
    records: Records,
}

/// Serves what comes over a stream, on a thread of its own.
pub(crate) fn start(outlet: Outlet, stream: UnixStream) -> io::Result<(Handle, JoinHandle<()>)> {
    let (woken, wake) = UnixStream::pair()?;
    for socket in [&stream, &woken, &wake] {
        socket.set_nonblocking(true)?;
    }
    let wake = Arc::new(wake);
    let (give, orders) = mpsc::channel();
    let carried = Arc::<Carried>::default();
    let handle = Handle {
        orders: give.clone(),
        wake: wake.clone(),
        unsettled: AtomicBool::new(false),
        carried: carried.clone(),
    };
    // Those that the inside is done with may still be handing on what it sent.
    let accepts = outlet.egress.connections.clamp(1, 4096) as usize * 2;
    let proxy = Proxy {
        left: outlet.egress.max_bytes.unwrap_or(u64::MAX),
        outlet: Arc::new(outlet),
        stream,
        mux: Mux::host(accepts),
        links: BTreeMap::new(),
        carried,
        dials: 0,
        turn: 0,
        orders,
        give,
        woken,
        wake,
        settling: None,
        records: Records::default(),
    };
    let thread = thread::Builder::new().name("sandbox-egress".into());
    Ok((handle, thread.spawn(move || proxy.run())?))
}

impl Proxy {
    fn run(mut self) {
        let why = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break "the sandbox ended".to_owned(),
                Err(e) => {
                    tracing::warn!(error = %e, "a sandbox lost its way out");
                    break e.to_string();
                }
            }
        };
        // It may be closed already.
        drop(self.stream.shutdown(Shutdown::Both));
        self.stop_all(&why);
        if let Some(s) = self.settling.take() {
            // Nobody waits any more: then nobody needs it.
            drop(s.tell.send(std::mem::take(&mut self.records)));
        }
    }

    /// Waits for something and deals with it. False: the stream ended.
    fn turn(&mut self) -> io::Result<bool> {
        let out = if self.mux.out().is_empty() {
            0
        } else {
            libc::POLLOUT
        };
        let mut fds = vec![
            sys_net::interest(&self.stream, libc::POLLIN | out),
            sys_net::interest(&self.woken, libc::POLLIN),
        ];
        let mut ids: Vec<u32> = self.links.keys().copied().collect();
        fds.extend(self.links.values().map(|l| l.interest(&self.mux)));
        sys_net::poll(&mut fds, self.pause())?;
        for (link, fd) in self.links.values_mut().zip(&fds[2..]) {
            link.readable = fd.revents & !libc::POLLOUT != 0;
        }
        if fds[0].revents & !libc::POLLOUT != 0 && !self.read(&mut ids)? {
            return Ok(false);
        }
        if fds[1].revents != 0 {
            let mut buf = [0; 64];
            while matches!(self.woken.read(&mut buf), Ok(n) if n > 0) {}
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
        }
        // Not always the same one first: they share what room there is on the stream.
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % ids.len().max(1);
        ids.rotate_left(first);
        for id in ids {
            self.advance(id);
        }
        self.settle();
        self.mux.flush(&mut self.stream)?;
        Ok(true)
    }

    fn pause(&self) -> Option<Duration> {
        let settle = self.settling.as_ref().map(|s| s.until);
        let e = &self.outlet.egress;
        let next = self
            .links
            .values()
            .map(|l| l.deadline(e))
            .chain(settle)
            .min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn read(&mut self, ids: &mut Vec<u32>) -> io::Result<bool> {
        let (mut opened, mut refused) = (Vec::new(), 0);
        // What came before the peer broke a rule still counts.
        let more = self.mux.fill(&mut self.stream, &mut opened, &mut refused);
        let now = Instant::now();
        for id in opened {
            self.links.insert(id, Link::new(id, now));
            ids.push(id);
        }
        for _ in 0..refused {
            let mut link = Link::new(0, now);
            link.record.verdict = EgressVerdict::Refused {
                reason: EgressRefusal::TooMany,
                detail: "there are too many connections".into(),
            };
            self.note(link.record);
        }
        more
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Dialled(id, what) => {
                self.dials -= 1;
                if let Some(link) = self.links.get_mut(&id)
                    && link.dialled(what)
                {
                    let r = &link.record;
                    tracing::debug!(
                        host = r.host,
                        port = r.port,
                        "a connection out of a sandbox"
                    );
                    if let Some(log) = &self.outlet.log {
                        log.allowed(r);
                    }
                }
            }
            Order::Settle(tell) => {
                self.mux.ask_to_settle();
                let until = Instant::now() + SETTLE;
                let told = false;
                self.settling = Some(Settling { tell, until, told });
            }
        }
    }

    fn advance(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let egress = &self.outlet.egress;
        link.advance(&mut Shared {
            egress,
            mux: &mut self.mux,
            left: &mut self.left,
            carried: &self.carried,
        });
        if !link.is_over() && link.deadline(egress) <= Instant::now() {
            link.stop(&mut self.mux, "nothing moved for too long");
        }
        if link.is_waiting()
            && self.dials < DIALS
            && let Some((host, port)) = link.begin_dial()
        {
            self.dial(id, host, port);
        }
        if self.links.get(&id).is_some_and(Link::is_over)
            && let Some(link) = self.links.remove(&id)
            && link.is_worth_a_word()
        {
            self.note(link.record);
        }
    }

    fn dial(&mut self, id: u32, host: Host, port: u16) {
        let (outlet, orders, wake) = (self.outlet.clone(), self.give.clone(), self.wake.clone());
        self.dials += 1;
        let go = move || {
            let what = dial(&outlet.egress, &*outlet.resolver, &host, port);
            give(&orders, &wake, Order::Dialled(id, what));
        };
        let thread = thread::Builder::new().name("sandbox-dial".into());
        if let Err(e) = thread.spawn(go) {
            let failed = Dialled::Failed(format!("no thread to look it up: {e}"));
            self.obey(Order::Dialled(id, failed));
        }
    }

    fn settle(&mut self) {
        let Some(s) = &mut self.settling else { return };
        s.told |= self.mux.settle.take().is_some();
        if s.until > Instant::now() && !(s.told && self.links.is_empty()) {
            return;
        }
        self.stop_all("its command ended");
        if let Some(s) = self.settling.take() {
            // As above.
            drop(s.tell.send(std::mem::take(&mut self.records)));
        }
    }

    fn stop_all(&mut self, why: &str) {
        for (_, mut link) in std::mem::take(&mut self.links) {
            link.stop(&mut self.mux, why);
            if link.is_worth_a_word() {
                self.note(link.record);
            }
        }
    }

    fn note(&mut self, record: EgressRecord) {
        tracing::info!(
            host = record.host,
            port = record.port,
            via = ?record.via,
            address = ?record.address,
            verdict = ?record.verdict,
            sent = record.sent,
            received = record.received,
            "a connection out of a sandbox is over or refused"
        );
        if let Some(log) = &self.outlet.log {
            log.over(&record);
        }
        if self.records.list.len() < RECORDS {
            self.records.list.push(record);
        } else {
            self.records.cut += 1;
        }
    }
}
