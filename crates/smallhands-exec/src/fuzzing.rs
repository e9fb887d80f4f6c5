//! What the fuzzers in `fuzz/` call with any bytes, and a test with their corpus.

use crate::protocol::{FromWorker, ToWorker, encode, read};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufReader, Cursor};

/// Lines of a worker, and of an engine, that says anything: what can be read can be written, and
/// reads the same again, however it is cut.
pub fn worker_lines(bytes: &[u8]) {
    lines::<FromWorker>(bytes);
    lines::<ToWorker>(bytes);
}

fn lines<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let mut whole = Cursor::new(bytes);
    let mut slow = BufReader::with_capacity(1, bytes);
    loop {
        match (read::<T>(&mut whole), read::<T>(&mut slow)) {
            (Ok(Some(a)), Ok(Some(b))) => {
                let line = encode(&a).expect("what was read can be written");
                assert_eq!(line, encode(&b).expect("as above"));
                assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
                let again = read::<T>(&mut &line[..]).expect("what was written can be read");
                let again = again.map(|m| encode(&m).expect("as above"));
                assert_eq!(again, Some(line));
            }
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => return,
            _ => panic!("a line depends on how it is cut"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_is_read() {
        let dir = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fuzz/corpus/worker_lines"
        );
        let files = std::fs::read_dir(dir).unwrap();
        let files = files.map(|f| super::worker_lines(&std::fs::read(f.unwrap().path()).unwrap()));
        assert!(files.count() > 3);
    }
}
