//! The outline of Python that does not parse, by indentation alone: one unclosed bracket makes a
//! parser lose every definition behind it, just when somebody has to mend the file.

use super::{
    DEPTH, Outline,
    lines::{Lines, indent, is_blank},
    parse::{Scope, text},
};
use crate::ChunkKind;

pub(crate) fn outline(bytes: &[u8], lines: &Lines) -> Vec<Outline> {
    let mut out = Vec::new();
    let last = lines.of(bytes.len());
    Scanner { bytes, lines }.block(0, last + 1, &Scope::default(), &mut out);
    out
}

struct Scanner<'a> {
    bytes: &'a [u8],
    lines: &'a Lines,
}

impl Scanner<'_> {
    fn line(&self, n: usize) -> &[u8] {
        &self.bytes[self.lines.start(n)..self.lines.start(n + 1)]
    }

    fn block(&self, from: usize, to: usize, scope: &Scope, out: &mut Vec<Outline>) {
        let mut n = from;
        while n < to && scope.depth <= DEPTH {
            let Some((class, name)) = definition(self.line(n)) else {
                n += 1;
                continue;
            };
            let end = self.end(n, to);
            let symbol = scope.qualify(&name, ".");
            let header = (self.lines.start(n), self.lines.start(n + 1));
            let mut children = Vec::new();
            if class {
                let head = text(self.bytes, header.0, header.1);
                let inner = Scope {
                    name: Some(symbol.clone()),
                    context: scope.within(&head),
                    in_type: true,
                    ..scope.deeper()
                };
                self.block(n + 1, end, &inner, &mut children);
            }
            out.push(Outline {
                range: (self.lines.start(self.first(n, from)), self.lines.start(end)),
                header,
                kind: match (class, scope.in_type) {
                    (true, _) => ChunkKind::Class,
                    (false, true) => ChunkKind::Method,
                    (false, false) => ChunkKind::Function,
                },
                symbol: Some(symbol),
                context: scope.context.clone(),
                defines: true,
                test: scope.test,
                children,
            });
            n = end;
        }
    }

    /// The line after the body: the first that is not indented deeper and closes no bracket.
    fn end(&self, def: usize, to: usize) -> usize {
        let column = indent(self.line(def));
        let ends = |n: &usize| {
            let line = self.line(*n);
            let at = indent(line);
            !is_blank(line) && at <= column && !b")]}".contains(&line[at])
        };
        (def + 1..to).find(ends).unwrap_or(to)
    }

    /// The first of the decorators and comments right above.
    fn first(&self, def: usize, from: usize) -> usize {
        let column = indent(self.line(def));
        let belongs = |n: usize| {
            let line = self.line(n);
            let mark = line.get(column).copied().unwrap_or_default();
            indent(line) == column && b"@#".contains(&mark) && line.get(column + 1) != Some(&b'!')
        };
        let mut n = def;
        while n > from && belongs(n - 1) {
            n -= 1;
        }
        n
    }
}

/// Whether a line begins a class, and the name.
fn definition(line: &[u8]) -> Option<(bool, String)> {
    let line = &line[indent(line)..];
    let class = line.strip_prefix(b"class ");
    let function = || {
        let line = line.strip_prefix(b"async ").unwrap_or(line);
        line.strip_prefix(b"def ")
    };
    let rest = class.or_else(function)?.trim_ascii_start();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
    let end = rest.iter().position(|b| !word(b)).unwrap_or(rest.len());
    (end > 0).then(|| (class.is_some(), text(rest, 0, end)))
}
