use crate::FIXTURES;
use smallhands_memory::{CodeIndex, CodeQuery, Hit, SkipReason, SourceFile};

fn files() -> Vec<SourceFile> {
    FIXTURES
        .iter()
        .map(|(p, b)| SourceFile::new(*p, *b))
        .collect()
}

fn hits(index: &CodeIndex, text: &str) -> Vec<Hit> {
    index.search(&CodeQuery::new(text)).unwrap()
}

#[test]
fn unchanged_files_are_not_parsed_again() {
    let first = CodeIndex::build(files()).unwrap();
    assert_eq!(
        (first.coverage().parsed, first.coverage().reused),
        (FIXTURES.len(), 0)
    );

    let again = CodeIndex::build_from(&first, files()).unwrap();
    assert_eq!(
        (again.coverage().parsed, again.coverage().reused),
        (0, FIXTURES.len())
    );
    assert_eq!(again.symbols(), first.symbols());

    let mut changed = files();
    changed[1]
        .bytes
        .extend(b"\ndef brand_new_helper():\n    return 1\n");
    changed[3].path = "tests/moved.rs".into();
    changed.remove(0);
    let third = CodeIndex::build_from(&again, changed).unwrap();
    assert_eq!(
        (third.coverage().parsed, third.coverage().reused),
        (1, FIXTURES.len() - 2)
    );
    assert_eq!(hits(&third, "brand_new_helper")[0].path, "shop/http.py");
    // Renamed: the chunks are the old ones, the path and what follows from it are new.
    let moved = third.chunks_of("tests/moved.rs");
    assert!(
        !moved.is_empty()
            && moved
                .iter()
                .all(|c| c.is_test && c.path == "tests/moved.rs")
    );
    assert!(
        hits(&third, "discount")
            .iter()
            .all(|h| h.path != "shop/cart.py")
    );
}

#[test]
fn a_build_from_another_index_equals_a_fresh_one() {
    let previous = CodeIndex::build(files().into_iter().take(3)).unwrap();
    let mut backwards = files();
    backwards.reverse();
    let a = CodeIndex::build(files()).unwrap();
    let b = CodeIndex::build_from(&previous, backwards).unwrap();
    for text in ["discount of a cart", "ring iter push", "retry with backoff"] {
        assert_eq!(hits(&a, text), hits(&b, text));
    }
}

#[test]
fn what_is_left_out_is_counted_by_reason() {
    let index = CodeIndex::build([
        SourceFile::new("a.py", "x = 1\n"),
        SourceFile::new("a.py", "y = 1\n"),
        SourceFile::new("big.py", "x = 1\n".repeat(200_000)),
        SourceFile::new("logo.bin", [1, 0, 2]),
        SourceFile::new("min.js", "a();".repeat(2000)),
        SourceFile::new("empty/__init__.py", ""),
        SourceFile::new("latin.py", b"# caf\xe9\ndef brew(): pass\n".as_slice()),
    ])
    .unwrap();
    let c = index.coverage();
    assert_eq!((c.files, c.chunks, c.parsed), (3, 2, 3));
    let skipped: Vec<_> = c.skipped.iter().map(|(r, n)| (*r, *n)).collect();
    assert_eq!(
        skipped,
        [
            (SkipReason::TooLarge, 1),
            (SkipReason::Binary, 1),
            (SkipReason::Minified, 1),
            (SkipReason::Duplicate, 1)
        ]
    );
    assert_eq!(
        index.paths().collect::<Vec<_>>(),
        ["a.py", "empty/__init__.py", "latin.py"]
    );
    assert_eq!(hits(&index, "brew")[0].bytes, (0, 24));
    let json = serde_json::to_value(c).unwrap();
    assert_eq!(json["skipped"]["too_large"], 1);
}

#[test]
fn an_empty_index_answers_nothing() {
    let index = CodeIndex::build([]).unwrap();
    assert!(hits(&index, "anything").is_empty());
    assert!(index.symbols().is_empty() && index.chunk_at("a.py", 1).is_none());
}
