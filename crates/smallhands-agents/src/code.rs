//! Source text: its language, its indentation, its functions.

use crate::Place;
use smallhands_memory::{ChunkKind, chunk_file};

/// As the fence of a code block names it.
pub(crate) fn language(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("py" | "pyi") => "python",
        Some("rs") => "rust",
        _ => "",
    }
}

pub(crate) fn indent_of(text: &str) -> &str {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
    &line[..line.len() - line.trim_start().len()]
}

pub(crate) fn dedent(text: &str) -> String {
    let indent = indent_of(text);
    let cut = |l: &str| l.strip_prefix(indent).unwrap_or(l.trim_start()).to_owned();
    match indent {
        "" => text.to_owned(),
        _ => text.lines().map(cut).collect::<Vec<_>>().join("\n"),
    }
}

pub(crate) fn indented(text: &str, indent: &str) -> String {
    let put = |l: &str| match l.is_empty() {
        true => String::new(),
        false => format!("{indent}{l}"),
    };
    text.lines().map(put).collect::<Vec<_>>().join("\n")
}

/// The last part of a qualified name.
pub(crate) fn last(symbol: &str) -> &str {
    symbol.rsplit(['.', ':']).next().unwrap_or(symbol)
}

/// The function of that name, with the imports that stand before it.
pub(crate) fn function(code: &str, name: &str, path: &str) -> Option<String> {
    let code = dedent(code);
    let chunks = chunk_file(path, code.as_bytes());
    let found = chunks
        .iter()
        .find(|c| c.symbol.as_deref().map(last) == Some(name) && c.kind != ChunkKind::Class)?;
    let imports: String = code[..found.bytes.0]
        .lines()
        .filter(|l| l.starts_with("import ") || l.starts_with("from "))
        .map(|l| format!("{l}\n"))
        .collect();
    let body = &code[found.bytes.0..found.bytes.1];
    Some(dedent(&format!("{imports}{body}")))
}

/// A function line by line, without its indentation.
#[derive(Debug)]
pub(crate) struct Body {
    /// All lines; the header comes first, with what stands above it.
    pub(crate) lines: Vec<String>,
    /// How many of them are the header.
    pub(crate) header: usize,
}

impl Body {
    /// `None` if it is no function, or its header has no end.
    pub(crate) fn of(place: &Place) -> Option<Self> {
        let name = place.function()?;
        let lines: Vec<_> = dedent(&place.hit.text).lines().map(str::to_owned).collect();
        let starts = |l: &String| {
            let mut at = l.match_indices(name).map(|(i, m)| &l[i + m.len()..]);
            at.any(|rest| rest.starts_with(['(', '<', '[']))
                && !l.trim_start().starts_with(['@', '#', '/'])
        };
        let first = lines.iter().position(starts)?;
        let ends = |l: &String| {
            let l = l.split(['#']).next().unwrap_or("").trim_end();
            l.ends_with([':', '{'])
        };
        let header = first + lines[first..].iter().position(ends)? + 1;
        Some(Self { lines, header })
    }

    /// Lines that do something, as indices.
    pub(crate) fn statements(&self) -> Vec<usize> {
        let mut quoted = false;
        let mut all = Vec::new();
        for (i, line) in self.lines.iter().enumerate().skip(self.header) {
            let text = line.trim();
            let marks = text.matches("\"\"\"").count() + text.matches("'''").count();
            let doc = quoted || marks > 0;
            quoted ^= marks % 2 == 1;
            let comment = text.starts_with('#') || text.starts_with("//");
            let word = text.chars().any(char::is_alphanumeric);
            if !doc && !comment && word {
                all.push(i);
            }
        }
        all
    }

    /// The lines before that one.
    pub(crate) fn until(&self, line: usize) -> String {
        self.lines[..line]
            .iter()
            .map(|l| format!("{l}\n"))
            .collect()
    }
}
