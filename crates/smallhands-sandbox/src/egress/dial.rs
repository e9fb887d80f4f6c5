//! From a host's name to a connection, on a thread that may wait.

use super::{Egress, EgressRefusal, Resolver, host::Host};
use std::{
    net::{SocketAddr, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

#[derive(Debug)]
pub(super) enum Dialled {
    To(TcpStream, SocketAddr),
    Refused(EgressRefusal, String),
    Failed(String),
}

/// The host was allowed already; its addresses are judged here, and connected to as they are.
pub(super) fn dial(egress: &Egress, resolver: &dyn Resolver, host: &Host, port: u16) -> Dialled {
    let found = match host {
        Host::Address(a) => Ok(vec![SocketAddr::new(*a, port)]),
        // Whatever somebody's resolver does, somebody waits for an answer.
        Host::Name(name) => catch_unwind(AssertUnwindSafe(|| resolver.resolve(name, port)))
            .unwrap_or_else(|_| Err(std::io::Error::other("the resolver panicked"))),
    };
    let found = match found {
        Ok(found) => found,
        Err(e) => return Dialled::Failed(format!("{host} is not known: {e}")),
    };
    let Some(first) = found.first() else {
        return Dialled::Failed(format!("{host} has no address"));
    };
    let allowed: Vec<_> = found.iter().filter(|a| egress.reaches(**a)).collect();
    if allowed.is_empty() {
        let detail = format!(
            "{host} leads to {first}, which is not public; list that address itself to allow it"
        );
        return Dialled::Refused(EgressRefusal::PrivateAddress, detail);
    }
    let until = Instant::now() + egress.connect_timeout;
    let mut why = String::new();
    for to in allowed {
        let left = until.saturating_duration_since(Instant::now());
        // Zero would be an error of its own.
        match TcpStream::connect_timeout(to, left.max(Duration::from_millis(1))) {
            Ok(stream) => return Dialled::To(stream, *to),
            Err(e) => why = format!("{host} at {to} cannot be reached: {e}"),
        }
    }
    Dialled::Failed(why)
}
