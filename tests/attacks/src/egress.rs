//! Attacks on the way out: with a list of hosts, what is not on it must stay out of reach.

use crate::{
    Result,
    pass::{Boxed, Pass, judge},
    report::{Control, Got, Row},
};
use smallhands_attacks::all;
use smallhands_sandbox::{
    Egress, Resolver, SandboxBackend, SandboxSpec, Wall,
    linux::{NativeBackend, NativeOptions},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// Every name leads to this machine.
#[derive(Debug)]
struct Home;

impl Resolver for Home {
    fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(Ipv4Addr::LOCALHOST, port).into()])
    }
}

/// Where the same must succeed.
#[derive(Clone, Copy)]
enum Elsewhere {
    /// Inside, with it on the list.
    Listed,
    /// Outside, without a proxy.
    Outside,
}
use Elsewhere::{Listed, Outside};

/// Name, way, target (`TCP`, `TCP6` and `HOST` stand for the baits), and where it must succeed.
const LIST: &[(&str, &str, &str, Elsewhere)] = &[
    ("loopback_by_connect", "connect", "127.0.0.1:TCP", Listed),
    ("loopback_by_socks", "socks", "127.0.0.1:TCP", Listed),
    ("loopback_by_http", "http", "127.0.0.1:TCP", Listed),
    ("loopback_by_connect6", "connect", "[::1]:TCP6", Listed),
    ("host_by_connect", "connect", "HOST:TCP", Listed),
    (
        "name_to_loopback",
        "connect",
        "home.allowed.test:TCP",
        Listed,
    ),
    (
        "name_to_loopback_socks",
        "socks",
        "home.allowed.test:TCP",
        Listed,
    ),
    (
        "suffix_without_a_label",
        "connect",
        "evil-allowed.test:TCP",
        Listed,
    ),
    ("suffix_itself", "connect", "allowed.test:TCP", Listed),
    (
        "prefix_of_another",
        "connect",
        "a.allowed.test.evil.test:TCP",
        Listed,
    ),
    ("name_not_listed", "socks", "other.test:TCP", Listed),
    ("decimal_address", "connect", "2130706433:TCP", Outside),
    ("octal_address", "connect", "0177.0.0.1:TCP", Outside),
    ("hex_address", "socks", "0x7f000001:TCP", Outside),
    ("short_address", "http", "127.1:TCP", Outside),
    (
        "mapped_address",
        "connect",
        "[::ffff:127.0.0.1]:TCP",
        Outside,
    ),
];

/// Existing attacks that a list must not weaken.
const DIRECT: [&str; 6] = [
    "tcp_to_host",
    "tcp6_to_host",
    "udp_to_host",
    "dns_query",
    "host_address",
    "interfaces",
];

/// Taken away, the list still holds.
const WITHOUT: &[(&str, Wall)] = &[
    ("landlock", Wall::Landlock),
    ("seccomp", Wall::Seccomp),
    ("capabilities", Wall::Capabilities),
];

pub(crate) fn probes(p: &Pass) -> Result<Vec<Row>> {
    let mut options = NativeOptions::new(p.store.clone(), p.place.join("state"));
    options.resolver = Arc::new(Home);
    let backend = NativeBackend::new(options)?;
    let open = |egress: Egress, without: Vec<Wall>| -> Result<Boxed> {
        let spec = SandboxSpec {
            egress: Some(egress),
            without,
            ..p.spec()
        };
        Ok(p.wait(backend.open(&spec, &p.cx))?)
    };
    let suffix = filled(p, "*.allowed.test:TCP")?;
    let strict = || Egress::new([suffix.as_str()]);
    let mut rows = Vec::new();
    let s = open(strict()?, Vec::new())?;
    for (name, way, target, elsewhere) in LIST {
        let target = filled(p, target)?;
        let control = match elsewhere {
            Listed => {
                let here = filled(p, "127.0.0.1:TCP")?;
                let s = open(Egress::new([target.as_str(), &here])?, Vec::new())?;
                let got = ask(p, &s, way, &target)?;
                p.wait(s.close())?;
                control(got == Got::Succeeded, &format!("{got:?}"))
            }
            Outside => {
                let mut c = p.outside("ask_directly")?;
                let done = c.arg(format!("target={target}")).output()?;
                let said = String::from_utf8_lossy(&done.stdout).into_owned();
                control(done.status.success(), &said)
            }
        };
        let inside = Some(ask(p, &s, way, &target)?);
        rows.push(row(p, name, control, inside));
    }
    for probe in all().iter().filter(|probe| DIRECT.contains(&probe.name)) {
        let name = format!("{}_with_a_list", probe.name);
        let control = p.control(probe)?;
        rows.push(row(p, &name, control, Some(p.inside(&s, probe))));
    }
    p.wait(s.close())?;
    for (name, wall) in WITHOUT {
        let s = open(strict()?, vec![*wall])?;
        for ((_, way, target, _), row) in LIST.iter().zip(&mut rows) {
            let got = ask(p, &s, way, &filled(p, target)?)?;
            row.without.push(((*name).into(), got));
        }
        p.wait(s.close())?;
    }
    Ok(rows)
}

fn row(p: &Pass, name: &str, control: Control, inside: Option<Got>) -> Row {
    Row {
        user: p.user.clone(),
        class: "egress".into(),
        name: name.into(),
        control,
        inside,
        without: Vec::new(),
    }
}

fn control(good: bool, otherwise: &str) -> Control {
    match good {
        true => Control::Good,
        false => Control::Bad(otherwise.into()),
    }
}

fn filled(p: &Pass, target: &str) -> Result<String> {
    let bait = |name| p.host.baits.get(name);
    Ok(target
        .replace("TCP6", bait("tcp6")?)
        .replace("TCP", bait("tcp")?)
        .replace("HOST", bait("address")?))
}

fn ask(p: &Pass, s: &Boxed, way: &str, target: &str) -> Result<Got> {
    let mut what = p.attack("ask_proxy");
    what.argv.push(format!("way={way}"));
    what.argv.push(format!("target={target}"));
    Ok(judge(&p.exec(s, &what)?))
}
