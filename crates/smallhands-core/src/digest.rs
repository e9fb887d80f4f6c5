use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr, sync::Arc};

/// A content hash that names its algorithm, as `sha256:<64 hex digits>` or `b3:<64 hex digits>`.
///
/// Parsing checks the form, so that a digest read from a journal can safely become a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Arc<str>);

/// The text is not `algorithm:<64 lower-case hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest; expected `sha256:` or `b3:` and 64 lower-case hex digits")]
pub struct InvalidDigest(String);

impl Digest {
    /// SHA-256 of the bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::from_hash("sha256", &Sha256::digest(bytes).into())
    }

    /// SHA-256 of our canonical encoding of a JSON value (sorted keys, tagged and length-prefixed),
    /// which does not depend on how any JSON library prints.
    pub fn of_json(v: &Value) -> Self {
        let mut bytes = Vec::new();
        canonical(v, &mut bytes);
        Self::of_bytes(&bytes)
    }

    /// Wraps a hash computed elsewhere, for stores with another algorithm.
    pub fn from_hash(algorithm: &str, hash: &[u8; 32]) -> Self {
        use fmt::Write;
        let mut s = String::with_capacity(algorithm.len() + 65);
        s.push_str(algorithm);
        s.push(':');
        for b in hash {
            let _ = write!(s, "{b:02x}");
        }
        Self(s.into())
    }

    /// `sha256`, `b3`.
    pub fn algorithm(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(s: &str) -> Result<Self, InvalidDigest> {
        let ok = s.split_once(':').is_some_and(|(a, h)| {
            matches!(a, "sha256" | "b3")
                && h.len() == 64
                && h.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        ok.then(|| Self(s.into()))
            .ok_or_else(|| InvalidDigest(s.chars().take(80).collect()))
    }
}
impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(s: String) -> Result<Self, InvalidDigest> {
        s.parse()
    }
}
impl From<Digest> for String {
    fn from(d: Digest) -> Self {
        d.0.as_ref().into()
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn canonical(v: &Value, out: &mut Vec<u8>) {
    fn text(tag: u8, s: &str, out: &mut Vec<u8>) {
        out.push(tag);
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    }
    match v {
        Value::Null => out.push(b'n'),
        Value::Bool(b) => out.extend([b'b', u8::from(*b)]),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => text(b'i', &i.to_string(), out),
            (None, Some(u), _) => text(b'i', &u.to_string(), out),
            (None, None, f) => {
                out.push(b'f');
                out.extend(f.unwrap_or(f64::NAN).to_bits().to_le_bytes());
            }
        },
        Value::String(s) => text(b's', s, out),
        Value::Array(a) => {
            out.push(b'a');
            out.extend((a.len() as u64).to_le_bytes());
            a.iter().for_each(|x| canonical(x, out));
        }
        Value::Object(m) => {
            let mut entries: Vec<_> = m.iter().collect();
            entries.sort_by_key(|(k, _)| *k);
            out.push(b'o');
            out.extend((entries.len() as u64).to_le_bytes());
            for (k, x) in entries {
                text(b'k', k, out);
                canonical(x, out);
            }
        }
    }
}

/// Where bytes lie in a [`BlobStore`](crate::BlobStore): their hash and length.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// The content's hash.
    pub digest: Digest,
    /// The content's length in bytes.
    pub len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_hash_ignores_key_order_and_tells_types_apart() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":[true,"x"]}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":[true,"x"],"a":1}"#).unwrap();
        assert_eq!(Digest::of_json(&a), Digest::of_json(&b));
        for (x, y) in [
            (json!("1"), json!(1)),
            (json!(1), json!(1.0)),
            (json!(["a", "b"]), json!(["ab"])),
            (json!(null), json!({})),
        ] {
            assert_ne!(Digest::of_json(&x), Digest::of_json(&y), "{x} {y}");
        }
    }

    #[test]
    fn a_digest_from_outside_cannot_be_a_path() {
        for bad in ["", "sha256:", "sha256:../../etc/passwd", "md5:00"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let d = Digest::of_bytes(b"x");
        assert_eq!(d.as_str().parse::<Digest>(), Ok(d.clone()));
        assert_eq!((d.algorithm(), d.hex().len()), ("sha256", 64));
    }
}
