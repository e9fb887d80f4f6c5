//! Failing tests in as few words as a small model can bear.

use smallhands_tools::{TestFailure, TestReport};

/// So many tests are told of, and so many bytes in all.
pub(crate) const TESTS: usize = 3;
const BYTES: usize = 1400;
/// A value longer than this is cut.
const WIDTH: usize = 160;

/// What failed and why. `source` gives the text of a test function by its file and a line in it.
pub(crate) fn describe(r: &TestReport, source: impl Fn(&str, usize) -> Option<String>) -> String {
    let mut text = String::new();
    for f in r.failed.iter().take(TESTS) {
        let one = test(f, &source);
        if !text.is_empty() && text.len() + one.len() > BYTES {
            break;
        }
        text += &one;
        text.push_str("\n\n");
    }
    if text.is_empty() {
        text = r.feedback(BYTES);
    }
    text.truncate(text.floor_char_boundary(BYTES));
    text.truncate(text.trim_end().len());
    without_addresses(&text)
}

/// The file and line in each test where it failed: what `source` will be asked for.
pub(crate) fn places(r: &TestReport) -> Vec<(String, usize)> {
    let first = |f: &TestFailure| {
        let frame = frames(&f.details).into_iter().next()?;
        Some((frame.path.to_owned(), frame.line))
    };
    r.failed.iter().take(TESTS).filter_map(first).collect()
}

/// One level of a traceback.
#[derive(Default)]
struct Frame<'a> {
    path: &'a str,
    line: usize,
    code: Vec<&'a str>,
    locals: Vec<&'a str>,
    errors: Vec<&'a str>,
}

/// Reads a traceback in pytest's short style, with the values of local variables.
fn frames(details: &str) -> Vec<Frame<'_>> {
    let mut all: Vec<Frame<'_>> = Vec::new();
    for line in details.lines() {
        if let Some((path, n)) = place(line) {
            let line = n;
            all.push(Frame {
                path,
                line,
                ..Frame::default()
            });
        } else if let Some(last) = all.last_mut() {
            let text = line.trim();
            if let Some(e) = line.strip_prefix("E ") {
                last.errors.push(e.trim());
            } else if line.starts_with("        ") && local(text) {
                last.locals.push(text);
            } else if line.starts_with("    ") && !text.chars().all(|c| "^~ ".contains(c)) {
                last.code.push(text);
            }
        }
    }
    all
}

/// `path/to/file.py:12: in name`.
fn place(line: &str) -> Option<(&str, usize)> {
    let (path, rest) = line.split_once(':')?;
    let (number, rest) = rest.split_once(':')?;
    let sound = path.contains('.') && !path.contains(' ');
    let end = rest.is_empty() || rest == " " || rest.starts_with(" in ");
    (sound && end).then(|| Some((path, number.parse().ok()?)))?
}

/// `name   = value`.
fn local(text: &str) -> bool {
    text.split_once(" = ").is_some_and(|(name, _)| {
        let name = name.trim_end();
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

fn test(f: &TestFailure, source: &impl Fn(&str, usize) -> Option<String>) -> String {
    let frames = frames(&f.details);
    let name = f.id.rsplit("::").next().unwrap_or(&f.id);
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        return other(f, name);
    };
    let mut said = vec![format!("Test {}:", name.split('[').next().unwrap_or(name))];
    if name.contains('[') {
        // One function for many values: the values say it all.
        said.extend(first.code.first().map(|c| format!("    {c}")));
        let locals = first.locals.iter().take(6);
        said.extend(locals.map(|l| format!("    where {}", value(l, WIDTH))));
    } else {
        let body = source(first.path, first.line).unwrap_or_default();
        let lines = body.lines().filter(|l| !l.trim().is_empty());
        let body: Vec<_> = lines.take(24).map(|l| format!("    {l}")).collect();
        let failing = first.code.iter().map(|c| format!("    {c}"));
        said.extend(if body.is_empty() {
            failing.collect()
        } else {
            body
        });
    }
    let errors = || frames.iter().flat_map(|f| f.errors.iter().copied());
    if errors().any(|e| e.contains("Timeout")) {
        // Where it was stopped is chance.
        said.push("The call did not return: an endless loop or recursion.".into());
        return said.join("\n");
    }
    said.extend(
        errors()
            .filter(|e| telling(e))
            .take(4)
            .map(|e| cut(e, WIDTH)),
    );
    if last.path != first.path && !last.path.starts_with(['/', '.']) {
        said.push(format!(
            "raised at line {}: {}",
            last.line,
            last.code.join(" ")
        ));
        let locals: Vec<_> = last.locals.iter().take(6).map(|l| value(l, 70)).collect();
        if !locals.is_empty() {
            said.push(format!("with {}", locals.join(", ")));
        }
    }
    said.join("\n")
}

/// A runner whose tracebacks are not known here.
fn other(f: &TestFailure, name: &str) -> String {
    let marked = |l: &&str| l.starts_with("E ") && telling(l[2..].trim());
    let mut lines: Vec<_> = f.details.lines().filter(marked).map(|l| &l[2..]).collect();
    if lines.is_empty() {
        lines = f.details.lines().filter(|l| !l.trim().is_empty()).collect();
    }
    let lines: Vec<_> = lines
        .iter()
        .take(12)
        .map(|l| cut(l.trim_end(), WIDTH))
        .collect();
    format!("Test {name}:\n{}", lines.join("\n"))
}

/// Not pytest's account of how two values differ.
fn telling(error: &str) -> bool {
    const NOISE: [&str; 9] = [
        "Use -v",
        "Full diff",
        "At index",
        "Left contains",
        "Right contains",
        "Omitting",
        "Differing",
        "?",
        "+  where",
    ];
    let diff = ["- ", "+ ", "  "].iter().any(|p| error.starts_with(p));
    !error.is_empty() && !diff && !NOISE.iter().any(|n| error.starts_with(n))
}

fn value(local: &str, width: usize) -> String {
    let text = match local.split_once(" = ") {
        Some((name, value)) => format!("{} = {value}", name.trim_end()),
        None => local.to_owned(),
    };
    cut(&text, width)
}

fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some(_) => format!("{} ...", text.chars().take(width - 4).collect::<String>()),
        None => text.to_owned(),
    }
}

/// Addresses differ from run to run and say nothing.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split(" at 0x");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for p in parts {
        clean.push_str(p.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, details: &str) -> TestReport {
        let failed = TestFailure {
            id: id.into(),
            message: String::new(),
            details: details.into(),
        };
        TestReport {
            runner: smallhands_tools::Runner::Pytest,
            ok: false,
            passed: Vec::new(),
            failed: vec![failed],
            skipped: 0,
            ended: "exit 1".into(),
            not_started: false,
            timed_out: false,
            millis: 1,
            tail: String::new(),
            egress: Vec::new(),
            egress_cut: 0,
        }
    }

    #[test]
    fn a_test_with_values() {
        let r = report(
            "tests/test_g.py::test_g[a0-13]",
            "tests/test_g.py:16: in test_g\n    assert g(*a) == b\n           ^^^^^\n        a          = [13, 13]\n        b          = 13\nlib/g.py:5: in g\n    return g(a % b, b)\nE   RecursionError: maximum depth\n        a          = 0\n        b          = 13\n",
        );
        assert_eq!(places(&r), [("tests/test_g.py".to_owned(), 16)]);
        assert_eq!(
            describe(&r, |_, _| None),
            "Test test_g:\n    assert g(*a) == b\n    where a = [13, 13]\n    where b = 13\nRecursionError: maximum depth\nraised at line 5: return g(a % b, b)\nwith a = 0, b = 13"
        );
    }

    #[test]
    fn a_test_with_a_body_and_an_endless_loop() {
        let r = report(
            "test_b.py::test1",
            "test_b.py:9: in test1\n    x.go(<N object at 0x7f12>)\nE   Failed: Timeout (>5.0s) from pytest-timeout.\n",
        );
        let body = |_: &str, _: usize| Some("def test1():\n\n    n = <N at 0x7f>\n".to_owned());
        assert_eq!(
            describe(&r, body),
            "Test test1:\n    def test1():\n        n = <N>\nThe call did not return: an endless loop or recursion."
        );
    }

    #[test]
    fn another_runner() {
        let r = report(
            "a::fails",
            "thread 'a' panicked at src/lib.rs:9:5:\nleft == right\n",
        );
        let text = describe(&r, |_, _| None);
        assert!(text.starts_with("Test fails:\nthread 'a'"), "{text}");
    }
}
