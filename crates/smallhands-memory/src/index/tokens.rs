//! The code tokenizer: every identifier whole and, at the same position, its stemmed parts.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// Longer runs (base64, hashes) say nothing.
const LONGEST: usize = 80;

#[derive(Clone, Debug, Default)]
pub(crate) struct CodeTokenizer;

impl Tokenizer for CodeTokenizer {
    type TokenStream<'a> = CodeTokens<'a>;
    fn token_stream<'a>(&'a mut self, text: &'a str) -> CodeTokens<'a> {
        CodeTokens::new(text)
    }
}

#[derive(Debug)]
pub(crate) struct CodeTokens<'a> {
    text: &'a str,
    at: usize,
    position: usize,
    parts: Vec<(usize, usize)>,
    next_part: usize,
    whole: String,
    token: Token,
}

impl<'a> CodeTokens<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            position: 0,
            parts: Vec::new(),
            next_part: 0,
            whole: String::new(),
            token: Token::default(),
        }
    }

    fn identifier(&mut self) -> Option<(usize, usize)> {
        let rest = &self.text[self.at..];
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let from = self.at + rest.find(word)?;
        let tail = &self.text[from..];
        let to = from + tail.find(|c| !word(c)).unwrap_or(tail.len());
        self.at = to;
        Some((from, to))
    }

    fn set(&mut self, from: usize, to: usize) {
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.position = self.position - 1;
        self.token.position_length = 1;
        self.token.text.clear();
        let lower = self.text[from..to].chars().flat_map(char::to_lowercase);
        self.token.text.extend(lower);
    }
}

impl TokenStream for CodeTokens<'_> {
    fn advance(&mut self) -> bool {
        loop {
            while let Some((from, to)) = self.parts.get(self.next_part).copied() {
                self.next_part += 1;
                self.set(from, to);
                stem(&mut self.token.text);
                if self.token.text != self.whole && self.token.text.len() > 1 {
                    return true;
                }
            }
            let Some((from, to)) = self.identifier() else {
                return false;
            };
            if to - from > LONGEST || self.text[from..to].bytes().all(|b| b == b'_') {
                continue;
            }
            self.position += 1;
            self.parts.clear();
            self.next_part = 0;
            split(self.text, from, to, &mut self.parts);
            self.set(from, to);
            self.whole.clone_from(&self.token.text);
            return true;
        }
    }
    fn token(&self) -> &Token {
        &self.token
    }
    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

/// Splits at underscores, at digits and where the case changes: `HTTPServer2_run` is `HTTP`,
/// `Server`, `2`, `run`.
fn split(text: &str, from: usize, to: usize, out: &mut Vec<(usize, usize)>) {
    let mut start = from;
    let mut previous: Option<char> = None;
    let mut chars = text[from..to].char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        let at = from + i;
        let next = chars.peek().map(|(_, c)| *c);
        let cut = previous.is_some_and(|p| {
            p.is_numeric() != c.is_numeric()
                || (p.is_lowercase() && c.is_uppercase())
                || (p.is_uppercase() && c.is_uppercase() && next.is_some_and(char::is_lowercase))
        });
        if c == '_' {
            out.extend((at > start).then_some((start, at)));
            start = at + 1;
            previous = None;
            continue;
        }
        if cut {
            out.push((start, at));
            start = at;
        }
        previous = Some(c);
    }
    out.extend((to > start).then_some((start, to)));
}

/// A light stem, the same for code and questions: plural, `-ing`, `-ed`, final `e`.
fn stem(w: &mut String) {
    if w.len() < 4 || !w.bytes().all(|b| b.is_ascii_lowercase()) {
        return;
    }
    if w.ends_with("ies") && w.len() > 4 {
        w.truncate(w.len() - 3);
        w.push('y');
    } else if w.ends_with('s') && !["ss", "us", "is"].iter().any(|e| w.ends_with(e)) {
        w.pop();
    }
    let cut = ["ing", "ed"]
        .iter()
        .find(|e| w.ends_with(**e))
        .map(|e| w.len() - e.len())
        .filter(|n| *n >= 3 && w[..*n].bytes().any(|b| b"aeiouy".contains(&b)));
    if let Some(n) = cut {
        w.truncate(n);
        let b = w.as_bytes();
        if b[n - 1] == b[n - 2] && !b"lszaeiou".contains(&b[n - 1]) {
            w.pop();
        }
    }
    if w.len() > 3 && w.ends_with('e') {
        w.pop();
    }
    if w.len() > 3 && w.ends_with('i') {
        w.pop();
        w.push('y');
    }
}

/// Each term of a question once, in order, without words that say nothing; at most `limit`.
pub(crate) fn query_terms(text: &str, limit: usize) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut out = Vec::new();
    let mut tokens = CodeTokens::new(text);
    while out.len() < limit && tokens.advance() {
        let t = &tokens.token().text;
        if t.len() > 1 && !STOP.contains(&t.as_str()) && seen.insert(t.clone()) {
            out.push(t.clone());
        }
    }
    out
}

const STOP: &[&str] = &[
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "because",
    "been", "before", "but", "by", "can", "could", "did", "do", "does", "for", "from", "had",
    "has", "have", "how", "if", "in", "into", "is", "it", "its", "just", "me", "my", "no", "not",
    "of", "on", "only", "or", "our", "out", "should", "so", "some", "such", "than", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "those", "to", "up", "use", "used",
    "using", "was", "we", "were", "what", "when", "where", "which", "who", "why", "will", "with",
    "would", "you", "your",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_kept_whole_and_split_at_one_position() {
        for (text, want) in [
            ("parse_files", "0:parse_files 0:pars 0:fil"),
            ("HTTPServer2", "0:httpserver2 0:http 0:server"),
            (
                "self.maxRetries = 3",
                "0:self 1:maxretries 1:max 1:retry 2:3",
            ),
            ("__init__ _", "0:__init__ 0:init"),
            ("utf8 naïveCafé", "0:utf8 0:utf 1:naïvecafé 1:naïve 1:café"),
            (
                "running, stopped; class",
                "0:running 0:run 1:stopped 1:stop 2:class",
            ),
        ] {
            let mut s = CodeTokens::new(text);
            let mut got = Vec::new();
            while s.advance() {
                let t = s.token();
                got.push(format!("{}:{}", t.position, t.text));
            }
            assert_eq!(got.join(" "), want, "{text}");
        }
    }

    #[test]
    fn words_of_one_family_meet() {
        for family in [
            &["parse", "parses", "parsed", "parsing"][..],
            &["retry", "retries", "retried"],
            &["split", "splits", "splitting"],
            &["call", "calls", "called", "calling"],
            &["cache", "cached", "caches", "caching"],
        ] {
            let stems: std::collections::HashSet<String> = family
                .iter()
                .map(|w| {
                    let mut w = (*w).to_string();
                    stem(&mut w);
                    w
                })
                .collect();
            assert_eq!(stems.len(), 1, "{stems:?}");
        }
    }
}
