//! Through the public API, on realistic sources and the crate's own.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod chunks;
mod incremental;
mod ports;
mod search;

/// The fixtures under the paths that they would have in a repository.
const FIXTURES: &[(&str, &[u8])] = &[
    ("shop/cart.py", include_bytes!("fixtures/cart.py")),
    ("shop/http.py", include_bytes!("fixtures/http.py")),
    (
        "tests/test_cart.py",
        include_bytes!("fixtures/test_cart.py"),
    ),
    ("src/ring.rs", include_bytes!("fixtures/ring.rs")),
    ("lib/broken.py", include_bytes!("fixtures/broken.py")),
    ("lib/broken.rs", include_bytes!("fixtures/broken.rs")),
];

/// This crate's sources, as they are on disk.
fn own_sources() -> Vec<(String, Vec<u8>)> {
    fn walk(dir: &std::path::Path, out: &mut Vec<(String, Vec<u8>)>) {
        let mut entries: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, out);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
                let name = path
                    .to_str()
                    .unwrap()
                    .strip_prefix(root)
                    .unwrap()
                    .to_string();
                out.push((name, bytes));
            }
        }
    }
    let mut out = Vec::new();
    walk(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut out,
    );
    out
}
