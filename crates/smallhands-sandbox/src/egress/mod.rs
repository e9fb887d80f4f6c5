//! The one way out of a sandbox: a list of hosts, and a proxy on the host that keeps to it.
//!
//! The network of a sandbox has nothing but its own loopback. With an [`Egress`] something listens
//! there, at [`PROXY`], and carries each connection over one inherited stream to the host. There
//! the proxy reads what is asked for (`CONNECT`, a request with a whole `http:` address, or
//! SOCKS5), decides, looks the name up and connects. Environment variables only tell programs where
//! the proxy is; what enforces the list is that there is no other way.

mod address;
mod host;
mod record;
mod rule;

#[cfg(all(feature = "linux", target_os = "linux"))]
mod dial;
#[cfg(all(any(test, fuzzing), feature = "linux", target_os = "linux"))]
pub(crate) mod fuzzing;
#[cfg(all(feature = "linux", target_os = "linux"))]
mod hello;
#[cfg(all(feature = "linux", target_os = "linux"))]
mod http;
#[cfg(all(feature = "linux", target_os = "linux"))]
mod link;
#[cfg(all(feature = "linux", target_os = "linux"))]
pub(crate) mod mux;
#[cfg(all(feature = "linux", target_os = "linux"))]
mod opening;
#[cfg(all(feature = "linux", target_os = "linux"))]
pub(crate) mod proxy;
#[cfg(all(test, feature = "linux", target_os = "linux"))]
mod tests;

pub use record::{
    EgressLog, EgressRecord, EgressRefusal, EgressVerdict, EgressVia, Resolver, SystemResolver,
};
pub use rule::EgressRule;

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where commands find the proxy: `127.0.0.1:3128`.
pub const PROXY: (std::net::Ipv4Addr, u16) = (std::net::Ipv4Addr::LOCALHOST, 3128);

/// What may be reached from inside, and how much of it. An empty list of rules is a proxy that
/// refuses, and logs, everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Hosts with ports; nothing else can be reached.
    pub allow: Vec<EgressRule>,
    /// Connections at once; more wait for their turn.
    pub connections: u32,
    /// Bytes of all connections together, both ways, as long as the sandbox lives; a fork and a
    /// restored one begin anew.
    pub max_bytes: Option<u64>,
    /// For each step until bytes flow: the request, the look-up with the connecting, the first
    /// message of TLS.
    pub connect_timeout: Duration,
    /// A connection is ended when nothing moves for so long.
    pub idle_timeout: Duration,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            connections: 256,
            max_bytes: None,
            connect_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(300),
        }
    }
}

impl Egress {
    /// These rules, as `host:port` each.
    ///
    /// # Errors
    /// A rule that is none, as [`EgressRule`] says.
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self, crate::SandboxError> {
        let allow = rules
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            allow,
            ..Self::default()
        })
    }

    /// What tells common programs where the proxy is.
    pub fn environment(&self) -> Vec<(String, String)> {
        let proxy = format!("http://{}:{}", PROXY.0, PROXY.1);
        // What is listed by its address is the host's, not the sandbox's own.
        let own = ["localhost", "127.0.0.1", "::1"]
            .into_iter()
            .filter(|own| !self.allow.iter().any(|r| r.names(own)));
        let own = own.collect::<Vec<_>>().join(",");
        let mut env: Vec<(&str, &str)> = [
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            // Not socks5: some Python clients fail at once where they lack the package for it.
            "ALL_PROXY",
            "all_proxy",
            "PIP_PROXY",
            "npm_config_proxy",
            "npm_config_https_proxy",
            "YARN_HTTP_PROXY",
            "YARN_HTTPS_PROXY",
            "CARGO_HTTP_PROXY",
        ]
        .map(|name| (name, proxy.as_str()))
        .into();
        env.extend(["NO_PROXY", "no_proxy", "npm_config_noproxy"].map(|n| (n, own.as_str())));
        env.push(("NODE_USE_ENV_PROXY", "1"));
        let ssh = format!(
            "ssh -o ProxyCommand='nc -X connect -x {}:{} %h %p'",
            PROXY.0, PROXY.1
        );
        if self.allow.iter().any(|r| r.port() == 22) {
            env.push(("GIT_SSH_COMMAND", &ssh));
        }
        let owned = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
        env.into_iter().map(owned).collect()
    }
}
