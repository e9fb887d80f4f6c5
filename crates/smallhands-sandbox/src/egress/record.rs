use super::{Egress, address::is_public};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Debug,
    io,
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

/// How a connection was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EgressVia {
    /// Nobody can say: it was no request that could be read.
    Unknown,
    /// `CONNECT host:port`.
    Connect,
    /// A request with a whole `http:` address.
    Http,
    /// SOCKS5.
    Socks5,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EgressRefusal {
    /// No request that the proxy takes.
    Malformed,
    /// No rule allows the host with this port.
    NotListed,
    /// The name leads to private addresses, this machine's or its cloud's.
    PrivateAddress,
    /// Port 443 was asked for, and what came first was not TLS.
    NotTls,
    /// TLS asked for no server, or for another one than the request.
    ServerName,
    /// The sandbox used up its bytes.
    ByteLimit,
    /// There are too many connections.
    TooMany,
}

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EgressVerdict {
    /// It was made, and ended by itself.
    Allowed,
    /// It was allowed, and could not be made, or broke.
    Failed(String),
    /// It was made, and the proxy ended it.
    Stopped(String),
    /// It was not made, or cut before anything of the command's was passed on.
    Refused {
        /// For programs.
        reason: EgressRefusal,
        /// For people.
        detail: String,
    },
}

/// One connection that a command asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord {
    /// Who was asked for; empty where that could not be read.
    pub host: String,
    /// Which port.
    pub port: u16,
    /// How.
    pub via: EgressVia,
    /// Where it led to.
    pub address: Option<SocketAddr>,
    /// What became of it.
    pub verdict: EgressVerdict,
    /// Bytes from the command to the host.
    pub sent: u64,
    /// Bytes from the host to the command.
    pub received: u64,
    /// From the first byte of the request to the end.
    pub duration: Duration,
}

/// Where decisions are told. Called on the proxy's thread, which waits: be quick.
pub trait EgressLog: Debug + Send + Sync + 'static {
    /// A connection was allowed, and made.
    fn allowed(&self, _so_far: &EgressRecord) {}
    /// A connection was refused or is over.
    fn over(&self, record: &EgressRecord);
}

/// Looks names up, on the host.
pub trait Resolver: Debug + Send + Sync + 'static {
    /// The addresses of a host, best first; usually with the port that is asked for. May block:
    /// it runs on a thread of its own. Each connection asks once, and goes to exactly what was
    /// answered, if that is public or listed by itself. One that never answers costs its thread.
    ///
    /// # Errors
    /// The name is not known or nobody can be asked.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// What the system's library answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

impl Egress {
    /// Whether a connection may go to an address that a name led to.
    #[cfg_attr(not(all(feature = "linux", target_os = "linux")), allow(dead_code))]
    pub(super) fn reaches(&self, to: SocketAddr) -> bool {
        is_public(to.ip()) || self.allow.iter().any(|r| r.allows_address(to))
    }
}
