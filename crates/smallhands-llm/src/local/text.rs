//! Text of one sample, from token bytes to reported pieces.

/// Text of a sample: bytes that are no whole character yet, and text not yet reported.
#[derive(Default)]
pub(super) struct TextBuffer {
    bytes: Vec<u8>,
    /// What the sample says so far.
    pub(super) text: String,
    reported: usize,
}

impl TextBuffer {
    /// Adds a token's bytes; true if a stop string is complete, which is then cut off.
    pub(super) fn push(&mut self, piece: &[u8], stop: &[String]) -> bool {
        let before = self.text.len();
        self.bytes.extend_from_slice(piece);
        while !self.bytes.is_empty() {
            let (valid, skip) = match std::str::from_utf8(&self.bytes) {
                Ok(_) => (self.bytes.len(), 0),
                Err(e) => (e.valid_up_to(), e.error_len().unwrap_or(0)),
            };
            self.text
                .push_str(&String::from_utf8_lossy(&self.bytes[..valid + skip]));
            self.bytes.drain(..valid + skip);
            if skip == 0 {
                break; // whole, or waiting for the rest of a character
            }
        }
        let found = stop.iter().filter(|s| !s.is_empty()).filter_map(|s| {
            let from = self
                .text
                .floor_char_boundary((before + 1).saturating_sub(s.len()));
            self.text[from..].find(s.as_str()).map(|at| from + at)
        });
        let cut = found.min();
        self.text.truncate(cut.unwrap_or(self.text.len()));
        cut.is_some()
    }

    /// Reports new text, but for a tail that may turn out to begin a stop string.
    pub(super) fn flush(&mut self, ended: bool, stop: &[String], mut report: impl FnMut(&str)) {
        let held = |s: &String| {
            let starts = s.char_indices().map(|(i, _)| i).skip(1);
            starts
                .filter(|&i| self.text.ends_with(&s[..i]))
                .max()
                .unwrap_or(0)
        };
        let keep = if ended {
            0
        } else {
            stop.iter().map(held).max().unwrap_or(0)
        };
        let until = self.text.len() - keep;
        if until > self.reported {
            report(&self.text[self.reported..until]);
            self.reported = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TextBuffer;

    fn run(pieces: &[&[u8]], stop: &[&str]) -> (String, Vec<String>, bool) {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let (mut buffer, mut deltas, mut ended) = (TextBuffer::default(), Vec::new(), false);
        for (i, piece) in pieces.iter().enumerate() {
            ended = buffer.push(piece, &stop);
            buffer.flush(ended || i + 1 == pieces.len(), &stop, |d| {
                deltas.push(d.to_owned())
            });
            if ended {
                break;
            }
        }
        (buffer.text, deltas, ended)
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let (text, deltas, _) = run(&[b"a\xF0\x9F", b"\x98", b"\x80b"], &[]);
        assert_eq!(
            (text.as_str(), deltas),
            ("a\u{1F600}b", vec!["a".into(), "\u{1F600}b".into()])
        );
    }

    #[test]
    fn bytes_that_never_become_a_character_are_replaced() {
        assert_eq!(run(&[b"a\xFFb\xC3", b"("], &[]).0, "a\u{FFFD}b\u{FFFD}(");
    }

    #[test]
    fn a_stop_string_over_three_tokens_is_cut_and_never_reported() {
        let (text, deltas, ended) = run(&[b"code\n`", b"`", b"`\nmore"], &["```"]);
        assert_eq!(
            (text.as_str(), deltas.concat().as_str(), ended),
            ("code\n", "code\n", true)
        );
    }

    #[test]
    fn a_false_start_of_a_stop_string_is_reported_later() {
        let (text, deltas, ended) = run(&[b"a``", b"b"], &["```"]);
        assert_eq!(
            (text.as_str(), deltas, ended),
            ("a``b", vec!["a".into(), "``b".into()], false)
        );
    }

    #[test]
    fn the_earliest_stop_string_wins() {
        assert_eq!(run(&[b"one END two STOP"], &["STOP", "END"]).0, "one ");
    }
}
