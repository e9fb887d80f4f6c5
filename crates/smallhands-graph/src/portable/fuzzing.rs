//! Files of runs that somebody wrote.

use super::{Reading, Whole, next_line};

/// Line by line, whatever hash the end names: a state that takes a record holds together.
pub fn run_file(bytes: &[u8]) {
    let mut whole = bytes;
    let read = Whole::read(&mut whole);
    let (mut from, mut r) = (bytes, Reading::default());
    while let Ok(Some(text)) = next_line(&mut from) {
        let Ok(line) = serde_json::from_str(&text) else {
            break;
        };
        if r.take(line).is_err() {
            // It may be half applied, and nobody uses it.
            assert!(read.is_err());
            return;
        }
        let held = r.state.check_invariants();
        assert_eq!(held, Ok(()), "after {text}");
    }
    if let Ok(read) = read {
        assert_eq!(read.records.len(), r.records.len());
        assert_eq!(read.bytes, bytes.len() as u64);
    }
}
