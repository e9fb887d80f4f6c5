use super::host::{Host, authority};
use crate::SandboxError;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, str::FromStr};

/// One host, or all below a suffix, with a port: `crates.io:443`, `*.github.com:443`,
/// `127.0.0.1:8080`.
///
/// - A name is matched whole, whatever its case, with or without a dot at its end; it is allowed
///   where it leads to public addresses only.
/// - `*.example.com` is every name below `example.com`, at any depth, but not that itself, and
///   `evil-example.com` is not below it.
/// - An address is allowed as it stands, though it be private or this machine's own; names that
///   lead to it on this port are then no longer refused for that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EgressRule {
    below: bool,
    host: Host,
    port: u16,
}

impl EgressRule {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it names exactly this host.
    pub(super) fn names(&self, host: &str) -> bool {
        match &self.host {
            Host::Name(name) => !self.below && name == host,
            Host::Address(address) => address.to_string() == host,
        }
    }

    #[cfg_attr(not(all(feature = "linux", target_os = "linux")), allow(dead_code))]
    pub(super) fn allows(&self, host: &Host, port: u16) -> bool {
        self.port == port
            && match (&self.host, host) {
                (Host::Name(suffix), Host::Name(name)) if self.below => name
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
                (listed, asked) => !self.below && listed == asked,
            }
    }

    /// Whether it names this very address.
    pub(super) fn allows_address(&self, to: SocketAddr) -> bool {
        self.port == to.port() && self.host == Host::Address(to.ip())
    }
}

impl FromStr for EgressRule {
    type Err = SandboxError;

    fn from_str(text: &str) -> Result<Self, SandboxError> {
        let bad = |reason: &str| SandboxError::EgressRule {
            rule: text.chars().take(300).collect(),
            reason: reason.into(),
        };
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (host, port) = authority(rest, None).map_err(bad)?;
        match &host {
            Host::Address(_) if below => return Err(bad("nothing is below an address")),
            Host::Address(a) if a.is_unspecified() || a.is_multicast() => {
                return Err(bad("that address is nobody's"));
            }
            Host::Name(name) if below && !name.contains('.') => {
                return Err(bad("it is too wide: write at least two labels after `*.`"));
            }
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                return Err(bad("write the address itself, as 127.0.0.1"));
            }
            _ => {}
        }
        Ok(Self { below, host, port })
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.below { "*." } else { "" };
        write!(f, "{star}{}:{}", self.host, self.port)
    }
}

impl TryFrom<String> for EgressRule {
    type Error = SandboxError;
    fn try_from(text: String) -> Result<Self, SandboxError> {
        text.parse()
    }
}

impl From<EgressRule> for String {
    fn from(rule: EgressRule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> EgressRule {
        text.parse().unwrap()
    }

    #[test]
    fn suffixes_end_at_labels() {
        let below = rule("*.Example.com:443");
        let ask = |name: &str, port| below.allows(&Host::parse(name).unwrap(), port);
        for name in ["a.example.com", "A.B.EXAMPLE.COM", "a.example.com."] {
            assert!(ask(name, 443), "{name}");
        }
        for name in [
            "example.com",
            "evil-example.com",
            "evilexample.com",
            "example.com.evil.com",
            "a.example.org",
            "com",
            "127.0.0.1",
        ] {
            assert!(!ask(name, 443), "{name}");
        }
        assert!(!ask("a.example.com", 80));
        let exact = rule("example.com:80");
        assert!(exact.allows(&Host::parse("EXAMPLE.com.").unwrap(), 80));
        assert!(!exact.allows(&Host::parse("a.example.com").unwrap(), 80));
    }

    #[test]
    fn rules_are_text_and_bad_ones_say_why() {
        for text in [
            "crates.io:443",
            "*.github.com:443",
            "127.0.0.1:8080",
            "[::1]:80",
        ] {
            assert_eq!(rule(text).to_string(), text);
            let json = serde_json::to_string(&rule(text)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(
                serde_json::from_str::<EgressRule>(&json).unwrap(),
                rule(text)
            );
        }
        for text in [
            "",
            "*",
            "*:443",
            "*.com:443",
            "a.*.com:443",
            "**.example.com:443",
            "example.com",
            "example.com:*",
            "https://example.com:443",
            "example.com:443/path",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "*.127.0.0.1:80",
            "localhost:80",
            "bücher.de:443",
        ] {
            let e = text.parse::<EgressRule>().unwrap_err();
            assert_eq!(e.code(), "sandbox.egress_rule", "{text}");
        }
        assert!(serde_json::from_str::<super::super::Egress>(r#"{"allowed": []}"#).is_err());
    }
}
