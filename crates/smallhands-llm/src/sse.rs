//! Server-sent events, framed over bytes and decoded only when whole: a chunk of the network may
//! end anywhere, inside a character too.

use std::collections::VecDeque;

/// The longest event that is kept; more is a server gone wrong.
const LONGEST: usize = 16 << 20;

/// An event came that is longer than any answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Takes bytes, gives the data of events. Names, ids and retry times are not needed by any wire:
/// those that name their events repeat the name in the data.
#[derive(Debug, Default)]
pub(crate) struct Sse {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    after_cr: bool,
    begun: bool,
}

impl Sse {
    /// Adds the events that end in these bytes.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        events: &mut VecDeque<Vec<u8>>,
    ) -> Result<(), TooLong> {
        for &b in bytes {
            let second_half = std::mem::take(&mut self.after_cr) && b == b'\n';
            match b {
                _ if second_half => {}
                b'\n' | b'\r' => {
                    self.after_cr = b == b'\r';
                    events.extend(self.end_line());
                }
                _ => self.line.push(b),
            }
            if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > LONGEST {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    /// What the end of the stream leaves: some servers do not end their last event.
    pub(crate) fn end(&mut self) -> Option<Vec<u8>> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.data.take()
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.begun, true);
        let bom = [0xEF, 0xBB, 0xBF];
        let line = match line.strip_prefix(&bom) {
            Some(rest) if first => rest,
            _ => &line,
        };
        if line.is_empty() {
            return self.data.take();
        }
        // `data` alone is an empty line of data; anything else (comments too) is skipped.
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[],
            Some([b':', b' ', rest @ ..] | [b':', rest @ ..]) => rest,
            _ => return None,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            none => *none = Some(value.to_vec()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<String> {
        let (mut sse, mut events) = (Sse::default(), VecDeque::new());
        for p in pieces {
            sse.push(p, &mut events).unwrap();
        }
        events.extend(sse.end());
        let text = |e| String::from_utf8(e).unwrap();
        events.into_iter().map(text).collect()
    }

    const TEXT: &str = "\u{feff}: hello\n\ndata: {\"a\":\"äé→🦀\"}\n\n\
        event: x\r\nid: 7\r\ndata:no space\r\n\r\n\
        data: one\rdata:  two\r\r:keep-alive\n\n\
        data\n\ndatax: no\ndata: [DONE]\n\n";

    #[test]
    fn every_line_ending_comment_and_field_is_understood() {
        let expected = ["{\"a\":\"äé→🦀\"}", "no space", "one\n two", "", "[DONE]"];
        assert_eq!(parse(&[TEXT.as_bytes()]), expected);
    }

    #[test]
    fn where_the_stream_is_cut_makes_no_difference() {
        let bytes = TEXT.as_bytes();
        let whole = parse(&[bytes]);
        for i in 0..=bytes.len() {
            for j in i..=bytes.len() {
                assert_eq!(parse(&[&bytes[..i], &bytes[i..j], &bytes[j..]]), whole);
            }
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(parse(&single), whole);
    }

    #[test]
    fn an_event_without_its_empty_line_is_left_to_the_end() {
        assert_eq!(parse(&[b"data: [DONE]"]), ["[DONE]"]);
        assert_eq!(parse(&[b"data: [DONE]\r\n"]), ["[DONE]"]);
        assert_eq!(parse(&[b""]), [""; 0]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let (mut sse, mut events) = (Sse::default(), VecDeque::new());
        let piece = vec![b'x'; LONGEST];
        assert_eq!(sse.push(&piece, &mut events), Ok(()));
        assert_eq!(sse.push(b"x", &mut events), Err(TooLong));
    }
}
