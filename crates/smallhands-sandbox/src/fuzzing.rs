//! What the fuzzers in `fuzz/` call with any bytes, and tests with their corpus. Each function
//! panics where a promise does not hold.

pub use crate::{
    egress::fuzzing::{hello, mux, proxy, request, rules},
    linux::fuzzing::{agent_frames, changes, host_frames},
};

#[cfg(test)]
mod tests {
    type Target = (&'static str, fn(&[u8]));

    #[test]
    fn the_corpus_is_read() {
        let targets: [Target; 8] = [
            ("agent_frames", super::agent_frames),
            ("changes", super::changes),
            ("hello", super::hello),
            ("host_frames", super::host_frames),
            ("mux", super::mux),
            ("proxy", super::proxy),
            ("request", super::request),
            ("rules", super::rules),
        ];
        for (name, check) in targets {
            let dir = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let files = std::fs::read_dir(dir).unwrap();
            let files = files.map(|f| check(&std::fs::read(f.unwrap().path()).unwrap()));
            assert!(files.count() > 3, "{name}");
        }
    }
}
