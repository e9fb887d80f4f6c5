/// Where the lines of a file begin.
#[derive(Debug)]
pub(crate) struct Lines {
    starts: Vec<usize>,
    len: usize,
}

impl Lines {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let after = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n');
        Self {
            starts: std::iter::once(0)
                .chain(after.map(|(i, _)| i + 1))
                .collect(),
            len: bytes.len(),
        }
    }

    /// The line, from 0, of a byte.
    pub(crate) fn of(&self, byte: usize) -> usize {
        self.starts.partition_point(|s| *s <= byte) - 1
    }

    /// Where line `n`, from 0, begins; the end of the file for lines beyond it.
    pub(crate) fn start(&self, n: usize) -> usize {
        self.starts.get(n).copied().unwrap_or(self.len)
    }

    /// Where the line of a byte ends, behind its newline.
    pub(crate) fn end_of(&self, byte: usize) -> usize {
        self.start(self.of(byte) + 1)
    }
}

/// Whether a byte may be part of a word; all of a non-ASCII character may.
pub(crate) fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80
}

/// Whether there is nothing but white space.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

/// The white space at the start.
pub(crate) fn indent(line: &[u8]) -> usize {
    line.iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count()
}
