//! A command in a sandbox, with limits and with a list of hosts that it may reach.
//!
//! `cargo run -p sandbox-examples --bin sandbox_run` shows it with a server of its own.
//! `.. -- pypi.org:443 '*.pythonhosted.org:443' -- pip download --no-deps -d . six` runs yours.

use sandbox_examples::{ambient, git};
use smallhands_core::{CallCx, CancelToken};
use smallhands_sandbox::{
    Egress, Invocation, Limits, RepoStore, Resolver, SandboxBackend, SandboxSpec, SystemResolver,
    linux::{self, NativeBackend, NativeOptions},
};
use std::{
    error::Error,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

/// Asks for two hosts with a library that knows nothing of sandboxes.
const DEMO: &str = r#"
import urllib.request
for url in ["http://packages.example/index", "http://elsewhere.example/"]:
    try: print(url, "->", urllib.request.urlopen(url, timeout=10).read().decode())
    except Exception as e: print(url, "->", e)
"#;

/// What may be reached, the command, and who looks names up.
type Plan = (Egress, Vec<String>, Arc<dyn Resolver>);

fn main() -> Result<(), Box<dyn Error>> {
    // First in main: sandboxes start this program again as their helper.
    linux::init();
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (egress, argv, resolver) = match args.iter().position(|a| a == "--") {
        Some(at) => {
            let egress = Egress::new(args[..at].iter().map(String::as_str))?;
            let system: Arc<dyn Resolver> = Arc::new(SystemResolver);
            (egress, args[at + 1..].to_vec(), system)
        }
        None => demo()?,
    };

    let dir = tempfile::tempdir()?;
    let store = Arc::new(RepoStore::open(dir.path().join("store"), git()?)?);
    let mut options = NativeOptions::new(store, dir.path().join("state"));
    options.resolver = resolver;
    let backend = NativeBackend::new(options)?;

    let spec = SandboxSpec {
        limits: Limits {
            memory_bytes: Some(1 << 30),
            cpu_seconds: Some(60),
            processes: Some(64),
            ..Limits::default()
        },
        egress: Some(Egress {
            max_bytes: Some(100 << 20),
            idle_timeout: Duration::from_secs(30),
            ..egress
        }),
        ..SandboxSpec::default()
    };
    let cx = CallCx::detached(ambient(), CancelToken::new());

    let sandbox = backend.open(&spec, &cx).await?;
    let what = Invocation::new(argv).deadline(Duration::from_secs(60));
    let mut show = |_: &str, bytes: &[u8]| print!("{}", String::from_utf8_lossy(bytes));
    let done = sandbox.exec(&what, &mut show, &cx).await?;
    println!("\nended: {:?} after {:?}", done.ended, done.wall);
    for r in &done.egress {
        let bytes = format!("{} bytes out, {} in", r.sent, r.received);
        println!("asked for {}:{}: {:?}, {bytes}", r.host, r.port, r.verdict);
    }
    println!("in force: {}", done.enforced.join(", "));
    sandbox.close().await?;
    Ok(())
}

/// A server of our own, a name that leads to it, and a list with that name.
fn demo() -> io::Result<Plan> {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let at = server.local_addr()?;
    thread::spawn(move || server.incoming().flatten().for_each(|s| drop(answer(s))));
    // The address too: a name alone may lead to public addresses only.
    let egress = Egress::new(["packages.example:80", &at.to_string()]).map_err(io::Error::other)?;
    let argv = ["python3", "-c", DEMO].map(String::from).into();
    Ok((egress, argv, Arc::new(Here(at))))
}

fn answer(mut s: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    // One read is enough for a request this small.
    let _ = s.read(&mut request)?;
    s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nthree packages")
}

/// Every name leads to one address.
#[derive(Debug)]
struct Here(SocketAddr);

impl Resolver for Here {
    fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0])
    }
}
