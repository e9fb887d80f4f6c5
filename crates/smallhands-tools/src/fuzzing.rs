//! What the fuzzers in `fuzz/` call with any bytes, and a test with their corpus.

use crate::edit::{applied, split};

/// A text, what it becomes, and a patch of somebody's, each ended by a byte 0. The patch between
/// the two makes the second of the first; the other one fits or is refused.
pub fn patch(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |b| *b == 0).map(std::str::from_utf8);
    let mut next = || parts.next().and_then(Result::ok).unwrap_or_default();
    let (before, after, other) = (next(), next(), next());
    if before != after {
        let made = diffy::create_patch(before, after).to_string();
        // The name that it puts there stands for any.
        let made = made.replacen("--- original", "--- a/f", 1);
        let made = made.replacen("+++ modified", "+++ b/f", 1);
        let parts = split(&made).expect("it is a patch");
        let [part] = &parts[..] else {
            panic!("one file, and {} parts of {made:?}", parts.len())
        };
        let name = Some("f".to_owned());
        assert_eq!((&part.0, &part.1), (&name, &name));
        let done = applied(before, part);
        assert_eq!(done.ok().as_deref(), Some(after), "{made:?}");
    }
    for part in split(other).unwrap_or_default() {
        if let Ok(done) = applied(before, &part) {
            assert!(done.len() <= before.len() + other.len());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_is_read() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/patch");
        let files = std::fs::read_dir(dir).unwrap();
        let files = files.map(|f| super::patch(&std::fs::read(f.unwrap().path()).unwrap()));
        assert!(files.count() > 3);
    }
}
