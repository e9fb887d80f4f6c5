//! From outlines to pieces: every byte of the file goes to the innermost definition around it.

use super::{
    FUNCTION_LINES, Outline, Piece, REST_LINES,
    lines::{Lines, indent, is_blank, is_word},
};
use crate::ChunkKind;

pub(crate) fn pieces(bytes: &[u8], lines: &Lines, root: &Outline) -> Vec<Piece> {
    let mut a = Assembler {
        bytes,
        lines,
        out: Vec::new(),
    };
    a.emit(root, 0, bytes.len());
    a.out
}

struct Assembler<'a> {
    bytes: &'a [u8],
    lines: &'a Lines,
    out: Vec<Piece>,
}

impl Assembler<'_> {
    /// Emits a definition within `from..to`; returns where it really ended.
    fn emit(&mut self, o: &Outline, from: usize, to: usize) -> usize {
        let mut at = self.aligned_start(o.range.0, from).min(to);
        let end = self.aligned_end(o.range.1, at).clamp(at, to);
        let mut part = 0;
        for c in &o.children {
            let start = self.aligned_start(c.range.0, at).min(end);
            self.run(o, at, start, &mut part);
            at = self.emit(c, start, end);
        }
        self.run(o, at, end, &mut part);
        end
    }

    /// The start of the line if nothing but white space is before `at`.
    fn aligned_start(&self, at: usize, from: usize) -> usize {
        let at = at.max(from);
        let line = self.lines.start(self.lines.of(at)).max(from);
        if is_blank(&self.bytes[line..at]) {
            line
        } else {
            at
        }
    }

    /// The end of the line if nothing but white space, punctuation or a comment follows.
    fn aligned_end(&self, at: usize, start: usize) -> usize {
        if at <= start {
            return start;
        }
        let end = self.lines.end_of(at - 1);
        if end <= at {
            return at;
        }
        let tail = &self.bytes[at..end];
        let rest = tail
            .iter()
            .position(|b| !b.is_ascii_whitespace() && !matches!(b, b';' | b','))
            .map_or(&[][..], |i| &tail[i..]);
        if rest.is_empty() || rest.starts_with(b"#") || rest.starts_with(b"//") {
            end
        } else {
            at
        }
    }

    /// What lies between `from` and `to` and belongs to `o` itself.
    fn run(&mut self, o: &Outline, from: usize, to: usize, part: &mut u32) {
        let Some((from, to)) = self.trimmed(from, to) else {
            return;
        };
        let mut limit = match o.kind {
            ChunkKind::Function | ChunkKind::Method => FUNCTION_LINES,
            _ => REST_LINES,
        };
        let mut at = from;
        while at < to {
            let end = self.cut(at, to, limit);
            if let Some((from, to)) = self.trimmed(at, end) {
                self.push(o, from, to, *part);
                *part += 1;
            }
            at = end;
            limit = REST_LINES;
        }
    }

    /// Without blank lines around; `None` if no letter or digit is left.
    fn trimmed(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let run = self.bytes.get(from..to)?;
        if !run.iter().any(|b| is_word(*b)) {
            return None;
        }
        let first = from + run.iter().position(|b| !b.is_ascii_whitespace())?;
        let last = from + run.iter().rposition(|b| !b.is_ascii_whitespace())?;
        let start = self.lines.start(self.lines.of(first)).max(from);
        Some((start, self.lines.end_of(last).min(to)))
    }

    /// Where a run that begins at `at` is best cut: before a blank or little indented line.
    fn cut(&self, at: usize, to: usize, limit: usize) -> usize {
        let (first, last) = (self.lines.of(at), self.lines.of(to - 1));
        if last - first < limit {
            return to;
        }
        let cost = |n: usize| {
            let line = &self.bytes[self.lines.start(n)..self.lines.start(n + 1)];
            if is_blank(line) { 0 } else { 1 + indent(line) }
        };
        let best = (first + REST_LINES * 3 / 5..=first + REST_LINES)
            .min_by_key(|n| (cost(*n), std::cmp::Reverse(*n)))
            .unwrap_or(first + REST_LINES);
        self.lines.start(best).clamp(at + 1, to)
    }

    fn push(&mut self, o: &Outline, from: usize, to: usize, part: u32) {
        let line = |byte| u32::try_from(self.lines.of(byte) + 1).unwrap_or(u32::MAX);
        let outside = |a: usize, b: usize| self.bytes[a.min(b)..b].iter().all(|b| !is_word(*b));
        let bare = !o.children.is_empty()
            && o.header.0 >= from
            && o.header.1 <= to
            && outside(from, o.header.0)
            && outside(o.header.1, to);
        self.out.push(Piece {
            lines: (line(from), line(to - 1)),
            bytes: (from, to),
            symbol: o.symbol.clone(),
            kind: o.kind,
            context: o.context.clone(),
            part,
            defines: o.defines && part == 0,
            test: o.test,
            bare,
            text: String::from_utf8_lossy(&self.bytes[from..to]).into_owned(),
        });
    }
}
