use crate::{FIXTURES, own_sources};
use smallhands_memory::{CodeIndex, CodeQuery, Hit, SourceFile};
use std::sync::OnceLock;

fn index() -> &'static CodeIndex {
    static INDEX: OnceLock<CodeIndex> = OnceLock::new();
    INDEX.get_or_init(build)
}

fn build() -> CodeIndex {
    let own = own_sources()
        .into_iter()
        .map(|(p, b)| SourceFile::new(format!("memory/{p}"), b));
    let fixtures = FIXTURES.iter().map(|(p, b)| SourceFile::new(*p, *b));
    CodeIndex::build(fixtures.chain(own)).unwrap()
}

fn best(hits: &[Hit]) -> Vec<&str> {
    hits.iter()
        .map(|h| h.symbol.as_deref().unwrap_or("-"))
        .collect()
}

fn check(query: &CodeQuery, want: &str) -> Vec<Hit> {
    let hits = index().search(query).unwrap();
    assert_eq!(
        best(&hits).first(),
        Some(&want),
        "{}\n{:?}",
        query.text,
        best(&hits)
    );
    assert!(hits.len() <= query.limit);
    assert!(hits.windows(2).all(|w| w[0].score >= w[1].score));
    for h in &hits {
        let sum: f32 = h.evidence.iter().map(|(_, s)| s).sum();
        assert!((h.score - sum).abs() < 1e-4, "{h:?}");
    }
    hits
}

const PYTEST: &str = r#"
____________________________ test_total_includes_tax ____________________________

cart = {'tea': Item(name='tea', price=Decimal('3.50'), quantity=2)}

    def test_total_includes_tax(cart):
>       assert cart.total == Decimal("8.33")

tests/test_cart.py:14:
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _
shop/cart.py:62: in total
    return net * (1 + TAX) - self._discount(net)
shop/cart.py:69: in _discount
    best = net * share
/usr/lib/python3.11/decimal.py:100: in __mul__
E       TypeError: unsupported operand type(s) for *: 'decimal.Decimal' and 'float'

shop/cart.py:69: TypeError
FAILED tests/test_cart.py::test_total_includes_tax - TypeError: unsupported operand
"#;

#[test]
fn a_pytest_failure_leads_to_the_function() {
    let hits = check(&CodeQuery::new(PYTEST), "Cart._discount");
    assert!(
        best(&hits[..4]).contains(&"Cart.total"),
        "{:?}",
        best(&hits)
    );
    let why: Vec<&str> = hits[0].evidence.iter().map(|(n, _)| n.as_str()).collect();
    assert!(
        why.contains(&"frame shop/cart.py:69") && why.contains(&"bm25"),
        "{why:?}"
    );
}

#[test]
fn a_python_traceback_leads_to_the_function() {
    let text = r#"Traceback (most recent call last):
  File "/home/ann/app/main.py", line 4, in <module>
    page = client.get("/a")
  File "/home/ann/app/shop/http.py", line 20, in get
    return self._with_backoff(lambda: self._open(path))
  File "/home/ann/app/shop/http.py", line 33, in _with_backoff
    return call()
  File "/usr/lib/python3.11/urllib/request.py", line 216, in urlopen
    return opener.open(url, data, timeout)
ValueError: unknown url type: 'shop/a'
"#;
    check(&CodeQuery::new(text), "Client._with_backoff");
    // The file has changed since: the name of the function counts more than the line.
    let moved = text.replace("line 33, in _with_backoff", "line 44, in _open");
    check(&CodeQuery::new(moved), "Client._open");
}

#[test]
fn a_rust_panic_leads_to_the_function() {
    let text = "\
running 1 test
thread 'tests::keeps_order' panicked at src/ring.rs:37:41:
attempt to calculate the remainder with a divisor of zero
stack backtrace:
   0: rust_begin_unwind
             at /rustc/59807616e1/library/std/src/panicking.rs:697:5
   3: ring::Ring<T>::push
             at ./src/ring.rs:37:41
   4: ring::tests::filled
             at ./src/ring.rs:87:9
";
    let hits = check(&CodeQuery::new(text), "Ring::push");
    assert_eq!(hits[0].lines, (33, 44));
    check(
        &CodeQuery::new("error[E0308]: mismatched types\n  --> src/ring.rs:73:5\n"),
        "checksum::fletcher",
    );
}

#[test]
fn descriptions_and_names_lead_to_the_function() {
    for (text, want) in [
        (
            "wait exponentially longer between repeated requests",
            "Client._with_backoff",
        ),
        (
            "splitting the Link header of a response",
            "parse_link_header",
        ),
        ("discounts for large carts", "Cart._discount"),
        (
            "when the buffer is full, the evicted element is wrong",
            "Ring::push",
        ),
        ("iter starts from the oldest slot", "Ring::iter"),
        ("`_open` ignores the timeout", "Client._open"),
        (
            "Ring::with_capacity(0) should not fail",
            "Ring::with_capacity",
        ),
        ("Client.get is slow", "Client.get"),
        (
            "how are identifiers split at case changes by the tokenizer",
            "split",
        ),
        ("where is a file skipped because it is minified", "skip"),
    ] {
        check(&CodeQuery::new(text), want);
    }
}

#[test]
fn tests_rank_lower_unless_they_are_asked_for() {
    let mut query = CodeQuery::new("test that the total includes the tax");
    let rank = |hits: &[Hit]| {
        best(hits)
            .iter()
            .position(|s| *s == "test_total_includes_tax")
    };
    let without = index().search(&query).unwrap();
    query.include_tests = true;
    let with = index().search(&query).unwrap();
    assert_eq!(rank(&with), Some(0));
    assert!(rank(&without).is_none_or(|r| r > 0), "{:?}", best(&without));
    assert!(
        without
            .iter()
            .filter(|h| h.is_test)
            .all(|h| h.evidence.iter().any(|e| e.0 == "test"))
    );
}

#[test]
fn a_prefix_is_a_directory_or_a_file() {
    let paths = |prefix: &str| {
        let mut q = CodeQuery::new("return self value total ring");
        q.path_prefix = Some(prefix.into());
        q.limit = 100;
        let mut p: Vec<String> = index()
            .search(&q)
            .unwrap()
            .into_iter()
            .map(|h| h.path)
            .collect();
        p.sort();
        p.dedup();
        p
    };
    assert_eq!(paths("shop"), ["shop/cart.py", "shop/http.py"]);
    assert_eq!(paths("./shop/"), ["shop/cart.py", "shop/http.py"]);
    assert_eq!(paths("shop/http.py"), ["shop/http.py"]);
    assert!(paths("sho").is_empty());
}

#[test]
fn an_ambiguous_name_is_no_evidence() {
    let same = |n: usize| {
        let f = |i| SourceFile::new(format!("p{i}/mod.py"), "def handle(x):\n    return x\n");
        CodeIndex::build((0..n).map(f)).unwrap()
    };
    let named = |i: &CodeIndex, text: &str| {
        let hits = i.search(&CodeQuery::new(text)).unwrap();
        hits[0].evidence.iter().any(|(n, _)| n != "bm25")
    };
    for text in ["`handle` fails", "mod.py:1: in handle", "see mod.py handle"] {
        assert!(named(&same(2), text), "{text}");
        assert!(!named(&same(20), text), "{text}");
    }
    assert!(named(&same(20), "/repo/p7/mod.py:2: in handle"));
    assert!(!named(&same(2), "/usr/lib/python3.11/mod.py:2: in handle"));
}

#[test]
fn places_and_definitions_can_be_looked_up() {
    let index = index();
    let at = |line| index.chunk_at("shop/cart.py", line).and_then(|c| c.symbol);
    assert_eq!(at(61).as_deref(), Some("Cart.total"));
    assert_eq!(at(59).as_deref(), Some("Cart.total"));
    assert_eq!(at(57).as_deref(), Some("Cart"));
    assert_eq!((at(58), at(0), at(10_000)), (None, None, None));
    assert!(index.chunk_at("nowhere.py", 1).is_none());
    let symbols = index.symbols();
    let rings: Vec<_> = symbols.iter().filter(|s| s.name == "Ring").collect();
    assert_eq!((rings.len(), rings[0].lines), (1, (8, 14)));
    assert!(
        symbols
            .iter()
            .any(|s| s.name == "CodeIndex::build" && s.path == "memory/src/index/mod.rs")
    );
}

#[test]
fn meaningless_queries_are_answered_by_nothing() {
    for text in ["", "   \n", "the of and", "((((", "\u{0}\u{fffd}", "zzzqqq"] {
        assert!(
            index().search(&CodeQuery::new(text)).unwrap().is_empty(),
            "{text:?}"
        );
    }
    let mut none = CodeQuery::new("cart");
    none.limit = 0;
    assert!(index().search(&none).unwrap().is_empty());
    let long = "cart total discount ".repeat(20_000);
    assert_eq!(index().search(&CodeQuery::new(long)).unwrap().len(), 10);
}
