use crate::{FIXTURES, own_sources};
use smallhands_memory::{Chunk, ChunkKind, chunk_file};

fn fixture(path: &str) -> &'static [u8] {
    FIXTURES.iter().find(|(p, _)| *p == path).unwrap().1
}

/// One line a chunk: lines, kind, symbol, part, test.
fn listing(chunks: &[Chunk]) -> String {
    let line = |c: &Chunk| {
        let kind = match c.kind {
            ChunkKind::Function => "fn",
            ChunkKind::Method => "method",
            ChunkKind::Class => "class",
            ChunkKind::Module => "module",
            _ => "window",
        };
        let symbol = c.symbol.as_deref().unwrap_or("-");
        let part = if c.part > 0 {
            format!(" #{}", c.part)
        } else {
            String::new()
        };
        let test = if c.is_test { " test" } else { "" };
        format!("{}-{} {kind} {symbol}{part}{test}\n", c.lines.0, c.lines.1)
    };
    chunks.iter().map(line).collect()
}

fn check(path: &str, want: &str) {
    let got = listing(&chunk_file(path, fixture(path)));
    let trimmed = want.lines().map(str::trim).filter(|l| !l.is_empty());
    let want: String = trimmed.map(|l| format!("{l}\n")).collect();
    assert_eq!(got, want, "{path}\n{got}");
}

/// What must hold for the chunks of any bytes.
fn check_exact(path: &str, source: &[u8]) {
    let chunks = chunk_file(path, source);
    let mut covered = vec![false; source.len()];
    let mut end = 0;
    for c in &chunks {
        let (from, to) = c.bytes;
        assert!(
            from >= end && to > from,
            "{path}: {c:?} overlaps or is empty"
        );
        end = to;
        assert_eq!(c.text, String::from_utf8_lossy(&source[from..to]), "{path}");
        let line = |at: usize| source[..at].iter().filter(|b| **b == b'\n').count() as u32 + 1;
        assert_eq!(c.lines, (line(from), line(to - 1)), "{path}: {}", c.text);
        assert_eq!(c.path, path);
        let lines = c.lines.1 - c.lines.0 + 1;
        assert!(lines <= 121, "{path}: a chunk of {lines} lines");
        covered[from..to].fill(true);
    }
    for (at, b) in source.iter().enumerate() {
        assert!(
            covered[at] || !b.is_ascii_alphanumeric(),
            "{path}: byte {at} is in no chunk"
        );
    }
}

#[test]
fn python() {
    check(
        "shop/cart.py",
        "
        1-12 module -
        14-16 fn dumps
        19-19 module - #1
        22-23 class CartError
        26-30 class Item
        32-33 method Item.subtotal
        36-40 class Cart
        42-46 method Cart.__init__
        48-55 method Cart.add
        57-57 class Cart #1
        59-62 method Cart.total
        64-70 method Cart._discount
        72-73 class Cart.Meta
        75-76 method Cart.Meta.describe
        79-87 fn save
        90-91 module - #2
        ",
    );
    check(
        "tests/test_cart.py",
        "
        1-5 module - test
        8-10 fn cart test
        13-14 fn test_total_includes_tax test
        17-17 class TestDiscount test
        18-20 method TestDiscount.test_steps test
        ",
    );
}

#[test]
fn rust() {
    check(
        "src/ring.rs",
        "
        1-6 module -
        8-14 class Ring
        16-21 class RingError
        23-23 class Ring
        24-31 method Ring::with_capacity
        33-44 method Ring::push
        46-46 class Ring #1
        48-51 method Ring::iter
        54-54 class Ring
        55-57 method Ring::fmt
        60-62 class Drain
        63-65 method Drain::drain_all
        68-70 fn ring
        72-72 module checksum
        73-73 fn checksum::fletcher
        75-75 module checksum::table
        76-78 fn checksum::table::entry
        82-84 module tests test
        86-88 fn tests::filled test
        90-93 fn tests::keeps_order test
        ",
    );
}

#[test]
fn broken_code_still_yields_its_functions() {
    check(
        "lib/broken.py",
        "
        1-1 module -
        3-4 fn good
        6-6 class Half
        7-8 method Half.method
        10-11 method Half.other
        13-14 fn after
        ",
    );
    check(
        "lib/broken.rs",
        "
        1-3 fn good
        5-5 module -
        6-8 fn method
        10-10 fn second
        12-13 module - #1
        ",
    );
}

#[test]
fn chunks_are_exact_ranges_of_the_source_and_leave_nothing_out() {
    let own = own_sources();
    let own = own.iter().map(|(p, b)| (p.as_str(), b.as_slice()));
    for (path, source) in FIXTURES.iter().copied().chain(own) {
        check_exact(path, source);
        check_exact(&format!("{path}.txt"), source);
        let crlf = String::from_utf8_lossy(source).replace('\n', "\r\n");
        check_exact(path, crlf.as_bytes());
    }
    for (path, source) in FIXTURES.iter().copied() {
        // Cut anywhere, and with bytes that are not UTF-8.
        for at in (0..source.len()).step_by(53) {
            check_exact(path, &source[..at]);
            let mut damaged = source.to_vec();
            damaged[at] = 0xff;
            check_exact(path, &damaged);
            damaged[at] = b'(';
            check_exact(path, &damaged);
        }
    }
}

#[test]
fn what_is_above_a_definition_belongs_to_it() {
    for (path, symbol, begins, ends) in [
        (
            "shop/cart.py",
            "Cart.total",
            "    @property\n",
            "_discount(net)\n",
        ),
        (
            "shop/cart.py",
            "Cart.add",
            "    # Merging keeps",
            "# the caller saves\n",
        ),
        (
            "shop/cart.py",
            "Cart",
            "# Not thread safe",
            "currency = \"EUR\"\n",
        ),
        (
            "src/ring.rs",
            "Ring::push",
            "    /// Adds an element",
            "    }\n",
        ),
        (
            "src/ring.rs",
            "Ring::iter",
            "    // The oldest first.",
            "    }\n",
        ),
        (
            "src/ring.rs",
            "tests::keeps_order",
            "    #[test]",
            "    }\n",
        ),
    ] {
        let chunks = chunk_file(path, fixture(path));
        let c = chunks
            .iter()
            .find(|c| c.symbol.as_deref() == Some(symbol))
            .unwrap();
        assert!(
            c.text.starts_with(begins) && c.text.ends_with(ends),
            "{}",
            c.text
        );
    }
}

#[test]
fn methods_carry_the_headers_around_them() {
    for (path, symbol, want) in [
        ("shop/cart.py", "Cart.add", "class Cart(dict):"),
        (
            "shop/cart.py",
            "Cart.Meta.describe",
            "class Cart(dict):\nclass Meta:",
        ),
        (
            "src/ring.rs",
            "Ring::fmt",
            "impl<T: fmt::Debug> fmt::Debug for Ring<T>",
        ),
        (
            "src/ring.rs",
            "checksum::table::entry",
            "mod checksum\npub mod table",
        ),
    ] {
        let chunks = chunk_file(path, fixture(path));
        let c = chunks
            .iter()
            .find(|c| c.symbol.as_deref() == Some(symbol))
            .unwrap();
        assert_eq!(c.context.as_deref(), Some(want));
    }
}

#[test]
fn long_code_is_split_and_short_functions_are_not() {
    let body: String = (0..300).map(|i| format!("    x{i} = {i}\n\n")).collect();
    let source = format!("def long():\n{body}\ndef short():\n{}", &body[..600]);
    let chunks = chunk_file("a.py", source.as_bytes());
    check_exact("a.py", source.as_bytes());
    let of = |s: &str| {
        chunks
            .iter()
            .filter(|c| c.symbol.as_deref() == Some(s))
            .count()
    };
    assert_eq!(of("long"), 10, "{}", listing(&chunks));
    assert_eq!(of("short"), 1);
    assert_eq!(
        chunks.iter().map(|c| c.part).max(),
        Some(of("long") as u32 - 1)
    );
    let constants: String = (0..150).map(|i| format!("A{i} = {i}\n")).collect();
    assert_eq!(
        listing(&chunk_file("b.py", constants.as_bytes()))
            .lines()
            .count(),
        3
    );
}

#[test]
fn files_of_other_languages_become_windows() {
    let text = "# Title\n\nSome words.\n".repeat(50);
    let chunks = chunk_file("docs/guide.md", text.as_bytes());
    check_exact("docs/guide.md", text.as_bytes());
    assert!(chunks.len() >= 3 && chunks.iter().all(|c| c.kind == ChunkKind::Window));
    assert!(chunk_file("empty.py", b"").is_empty());
    assert!(chunk_file("blank.rs", b"\n\n  \n").is_empty());
}

#[test]
fn tests_are_known_by_their_path() {
    for (path, want) in [
        ("tests/a.py", true),
        ("pkg/tests/deep/a.rs", true),
        ("test_x.py", true),
        ("pkg/x_test.py", true),
        ("conftest.py", true),
        ("src/tests.rs", true),
        ("src/testing/a.py", false),
        ("latest/contest.py", false),
    ] {
        let chunks = chunk_file(path, b"x = 1\n");
        assert_eq!(chunks[0].is_test, want, "{path}");
    }
}

#[test]
fn hostile_nesting_does_no_harm() {
    for source in [
        "class A:\n".to_string() + &" ".repeat(3) + &"if x:\n".repeat(3000),
        (0..500)
            .map(|i| format!("{}class A{i}:\n", " ".repeat(i)))
            .collect(),
        "(".repeat(100_000),
        "def f(:\n".repeat(2000),
    ] {
        check_exact("a.py", source.as_bytes());
    }
    for source in [
        "mod a { impl B { ".repeat(1000),
        "{".repeat(100_000),
        "fn f(".repeat(2000),
    ] {
        check_exact("a.rs", source.as_bytes());
    }
}
