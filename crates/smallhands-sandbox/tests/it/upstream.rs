//! Servers on loopback, and names that lead to them.

use smallhands_sandbox::{Egress, EgressLog, EgressRecord, Resolver};
use std::{
    collections::{HashMap, VecDeque},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A server that answers each connection on a thread of its own, as long as the program runs.
pub(crate) struct Upstream {
    pub(crate) at: SocketAddr,
    seen: Arc<AtomicUsize>,
    busy: Arc<AtomicUsize>,
    first: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Upstream {
    pub(crate) fn new(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let up = Self {
            at: listener.local_addr().unwrap(),
            seen: Arc::default(),
            busy: Arc::default(),
            first: Arc::default(),
        };
        let serve = Arc::new(serve);
        let (seen, busy, first) = (up.seen.clone(), up.busy.clone(), up.first.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                seen.fetch_add(1, Ordering::SeqCst);
                busy.fetch_add(1, Ordering::SeqCst);
                let (serve, busy) = (serve.clone(), busy.clone());
                let thread = std::thread::spawn(move || {
                    let _end = End(busy);
                    serve(stream);
                });
                first.lock().unwrap().get_or_insert(thread);
            }
        });
        up
    }

    /// Connections that came.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Connections that are still served.
    pub(crate) fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    pub(crate) fn until_idle(&self) {
        self.until("a connection stays", |busy| busy == 0);
    }

    pub(crate) fn until(&self, otherwise: &str, done: impl Fn(usize) -> bool) {
        let begun = Instant::now();
        while !done(self.busy()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{otherwise}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the first connection to be served without a panic.
    pub(crate) fn join(&self) {
        let first = self.first.lock().unwrap().take().unwrap();
        first.join().unwrap();
    }
}

struct End(Arc<AtomicUsize>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says the first line, the host and the length of the body of a request.
pub(crate) fn http_server() -> Upstream {
    Upstream::new(|stream| drop(answer(stream)))
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut first, mut host, mut length) = (String::new(), String::new(), 0);
    lines.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("host") => host = value.into(),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().map_err(io::Error::other)?;
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    let what = first.rsplit_once(' ').map_or("", |(what, _)| what);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{what} {host} {length}"
    )
}

/// Names that lead where a test says, and the log of what happened.
#[derive(Debug, Default)]
pub(crate) struct Names {
    fixed: Vec<(&'static str, SocketAddr)>,
    turns: Mutex<HashMap<&'static str, VecDeque<SocketAddr>>>,
    asked: AtomicUsize,
    pub(crate) allowed: AtomicUsize,
    pub(crate) heard: Mutex<Vec<EgressRecord>>,
}

impl Names {
    pub(crate) fn new<const N: usize>(fixed: [(&'static str, SocketAddr); N]) -> Self {
        Self {
            fixed: fixed.into(),
            ..Self::default()
        }
    }
    /// A name that leads elsewhere each time.
    pub(crate) fn changes<const N: usize>(&self, name: &'static str, to: [SocketAddr; N]) {
        self.turns.lock().unwrap().insert(name, to.into());
    }
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
    pub(crate) fn forget(&self) {
        self.asked.store(0, Ordering::SeqCst);
    }
}

impl Resolver for Names {
    fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(turns) = self.turns.lock().unwrap().get_mut(host) {
            return Ok(turns.pop_front().into_iter().collect());
        }
        let found = self.fixed.iter().filter(|(name, _)| *name == host);
        Ok(found.map(|(_, at)| *at).collect())
    }
}

impl EgressLog for Names {
    fn allowed(&self, _: &EgressRecord) {
        self.allowed.fetch_add(1, Ordering::SeqCst);
    }
    fn over(&self, record: &EgressRecord) {
        self.heard.lock().unwrap().push(record.clone());
    }
}

/// A list with these names, which may lead to these addresses of this machine.
pub(crate) fn rules(names: &[&str], addresses: &[SocketAddr]) -> Egress {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let all = names
        .iter()
        .copied()
        .chain(addresses.iter().map(String::as_str));
    Egress::new(all).unwrap()
}

/// The first message of TLS, asking for this server.
pub(crate) fn hello_to(name: Option<&str>) -> Vec<u8> {
    fn sized(bytes: usize, body: &[u8]) -> Vec<u8> {
        let n = (body.len() as u32).to_be_bytes();
        [&n[4 - bytes..], body].concat()
    }
    let extension = name.map(|name| {
        let entry = [vec![0], sized(2, name.as_bytes())].concat();
        [vec![0, 0], sized(2, &sized(2, &entry))].concat()
    });
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(sized(1, &[9; 32]));
    body.extend(sized(2, &[0x13, 1]));
    body.extend(sized(1, &[0]));
    body.extend(sized(2, &extension.unwrap_or_default()));
    let message = [vec![1], sized(3, &body)].concat();
    [vec![22, 3, 1], sized(2, &message)].concat()
}
