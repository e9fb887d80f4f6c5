use regex::{Regex, RegexSet};
use smallhands_core::Redactor;
use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    sync::Arc,
};

/// Each class with a pattern; its first group, if it has one, is what is masked.
const PATTERNS: &[(&str, &str)] = &[
    (
        "key",
        r"\b(?:sk|rk|pk)-(?:ant-|proj-|live-|test-)?[A-Za-z0-9_-]{16,}",
    ),
    (
        "key",
        r"\b(?:ghp|gho|ghu|ghs|ghr|github_pat|glpat|xox[abprs]|hf|npm|pypi)[_-][A-Za-z0-9_-]{16,}",
    ),
    ("key", r"\bAKIA[0-9A-Z]{16}\b"),
    ("key", r"\bAIza[0-9A-Za-z_-]{35}\b"),
    (
        "jwt",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",
    ),
    (
        "pem",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    ),
    ("url", r"\b[a-z][a-z0-9+.-]*://[^\s:/@]+:([^\s:/@]+)@"),
    ("auth", r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9+/_.=-]{16,})"),
    (
        "secret",
        r#"(?i)\b[a-z0-9_-]*(?:password|passwd|secret|token|api_?key)["']?\s*[=:]\s*["']?([^\s"',;&\[\]{}]{8,})"#,
    ),
];

/// Masks provider keys, tokens, private keys, URL passwords and values that it was told of as
/// `[REDACTED:class]`.
#[derive(Clone)]
pub struct SecretRedactor(Arc<Inner>);

struct Inner {
    known: Vec<String>,
    any: RegexSet,
    each: Vec<(&'static str, Regex)>,
}

impl fmt::Debug for SecretRedactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRedactor({} known)", self.0.known.len())
    }
}

impl Default for SecretRedactor {
    fn default() -> Self {
        Self::new([])
    }
}

impl SecretRedactor {
    /// With these values on top of the patterns; very short ones are left out, for they would mask
    /// half of any text.
    pub fn new(known: impl IntoIterator<Item = String>) -> Self {
        let mut known: Vec<_> = known.into_iter().filter(|k| k.len() >= 6).collect();
        known.sort_by_key(|k| std::cmp::Reverse(k.len()));
        // The patterns are constants and a test compiles them all.
        let each = PATTERNS
            .iter()
            .filter_map(|(class, p)| Some((*class, Regex::new(p).ok()?)))
            .collect();
        let any = RegexSet::new(PATTERNS.iter().map(|(_, p)| p)).unwrap_or_default();
        Self(Arc::new(Inner { known, any, each }))
    }
}

impl Redactor for SecretRedactor {
    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut out = Cow::Borrowed(text);
        for k in &self.0.known {
            if out.contains(k.as_str()) {
                out = Cow::Owned(out.replace(k.as_str(), "[REDACTED:known]"));
            }
        }
        if !self.0.any.is_match(&out) {
            return out;
        }
        for (class, re) in &self.0.each {
            let masked = re.replace_all(&out, |c: &regex::Captures<'_>| {
                let whole = &c[0];
                let mask = format!("[REDACTED:{class}]");
                match c.get(1) {
                    Some(g) if g.as_str().starts_with("[REDACTED") => whole.to_owned(),
                    Some(g) => {
                        let start = g.start() - c.get(0).map_or(0, |m| m.start());
                        format!("{}{mask}{}", &whole[..start], &whole[start + g.len()..])
                    }
                    None => mask,
                }
            });
            if let Cow::Owned(s) = masked {
                out = Cow::Owned(s);
            }
        }
        out
    }
}

/// A stream whose lines are redacted before they leave the process. The last line, if it does not
/// end, leaves at the drop.
#[derive(Debug)]
pub struct Redacting<W: Write> {
    to: W,
    redactor: SecretRedactor,
    line: Vec<u8>,
}

impl<W: Write> Redacting<W> {
    /// Redacts what is written to `to`.
    pub fn new(to: W, redactor: SecretRedactor) -> Self {
        Self {
            to,
            redactor,
            line: Vec::new(),
        }
    }
    fn emit(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        self.to.write_all(self.redactor.redact(&text).as_bytes())
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.emit()?;
            }
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Drop for Redacting<W> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // Nobody is left to be told.
            drop(self.emit());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(SecretRedactor::default().0.each.len(), PATTERNS.len());
    }

    #[test]
    fn secrets_are_masked_and_ordinary_text_is_not() {
        let r = SecretRedactor::new(["hunter2hunter2".into()]);
        let cases = [
            (
                "key sk-proj-abcdefghijklmnopqrstuvwxyz end",
                "key [REDACTED:key] end",
            ),
            ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[REDACTED:key]"),
            (
                "postgres://me:s3cret@db/x",
                "postgres://me:[REDACTED:url]@db/x",
            ),
            (
                "Authorization: Bearer abcdefghijklmnop123",
                "Authorization: Bearer [REDACTED:auth]",
            ),
            (
                r#"{"api_key": "abcdefgh12345"}"#,
                r#"{"api_key": "[REDACTED:secret]"}"#,
            ),
            ("my hunter2hunter2!", "my [REDACTED:known]!"),
        ];
        for (from, to) in cases {
            assert_eq!(r.redact(from), to);
            assert_eq!(r.redact(to), to, "twice is once");
        }
        for plain in [
            "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
            "fn token(&self) -> Token { self.token }",
            "550e8400-e29b-41d4-a716-446655440000",
            "tokens: 12345, password: str",
        ] {
            assert!(matches!(r.redact(plain), Cow::Borrowed(_)), "{plain}");
        }
    }

    #[test]
    fn a_secret_split_over_two_writes_is_masked() {
        let mut out = Vec::new();
        {
            let mut w = Redacting::new(&mut out, SecretRedactor::default());
            for part in [
                "a sk-ant-api03-abcd",
                "efghijklmnopqrst b\nrest sk-",
                "live-abcdefghijklmnop1",
            ] {
                w.write_all(part.as_bytes()).unwrap();
            }
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a [REDACTED:key] b\nrest [REDACTED:key]"
        );
    }
}
