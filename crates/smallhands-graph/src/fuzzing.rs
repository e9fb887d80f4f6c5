//! What the fuzzers in `fuzz/` call with any bytes, and a test with their corpus.

#[cfg(feature = "blobs")]
pub use crate::portable::fuzzing::run_file;

use crate::{GraphError, TaskGraph};

/// A graph as JSON and as YAML: what is read can be written and is the same when read again, and
/// what is refused says where.
pub fn graph_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    read(text, TaskGraph::from_json(text));
    #[cfg(feature = "yaml")]
    read(text, TaskGraph::from_yaml(text));
}

fn read(text: &str, graph: Result<TaskGraph, GraphError>) {
    match graph {
        Ok(graph) => {
            let json = serde_json::to_string(&graph).expect("it can be written");
            let again = TaskGraph::from_json(&json).expect("and read");
            assert_eq!(again, graph);
        }
        Err(GraphError::At { line, column, .. }) => {
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&line), "{line} of {lines}");
            assert!(column >= 1);
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}

#[cfg(all(test, feature = "blobs"))]
mod tests {
    type Target = (&'static str, fn(&[u8]));

    #[test]
    fn the_corpus_is_read() {
        let targets: [Target; 2] = [
            ("graph_file", super::graph_file),
            ("run_file", super::run_file),
        ];
        for (name, check) in targets {
            let dir = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let files = std::fs::read_dir(dir).unwrap();
            let files = files.map(|f| check(&std::fs::read(f.unwrap().path()).unwrap()));
            assert!(files.count() > 3, "{name}");
        }
    }
}
