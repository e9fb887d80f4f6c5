//! What test runners print, as one report.

use crate::tests_tool::{Runner, TestCommand, TestFailure, TestReport, ended};
use regex::Regex;
use smallhands_sandbox::{Ended, Execution};
use std::{collections::BTreeMap, sync::LazyLock};

/// So much of the end of the output is kept.
const TAIL: usize = 8 << 10;
/// So many connections are kept: reports are journaled more than once.
const EGRESS: usize = 100;

pub(crate) fn report(c: &TestCommand, done: &Execution) -> TestReport {
    let text = done.text();
    let (passed, failed, skipped) = match c.runner {
        Runner::Pytest => pytest(&text),
        Runner::CargoTest => cargo(&text),
        Runner::Generic => generic(&c.argv.join(" "), done, &text),
    };
    let mut r = TestReport {
        runner: c.runner,
        ok: done.ok() && failed.is_empty() && !passed.is_empty(),
        passed,
        failed,
        skipped,
        ended: ended(&done.ended),
        not_started: matches!(done.ended, Ended::NotStarted(_)),
        timed_out: done.ended == Ended::TimedOut,
        millis: u64::try_from(done.wall.as_millis()).unwrap_or(u64::MAX),
        egress: done.egress.iter().take(EGRESS).cloned().collect(),
        egress_cut: done.egress_cut + done.egress.len().saturating_sub(EGRESS) as u64,
        tail: text[text.ceil_char_boundary(text.len().saturating_sub(TAIL))..].into(),
    };
    // A runner that died in the middle names no failing test; the run is red all the same.
    if r.failed.is_empty() && !r.ok && (r.any() || r.timed_out) && !r.not_started {
        let id = c.argv.join(" ");
        let message = format!("the test run ended with: {}", r.ended);
        let details = r.tail.clone();
        r.failed.push(TestFailure {
            id,
            message,
            details,
        });
    }
    r
}

type Parsed = (Vec<String>, Vec<TestFailure>, u64);

fn re(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

/// The short summary (`-rA`) names each test, the sections above it hold the details.
fn pytest(text: &str) -> Parsed {
    static SUMMARY: LazyLock<Option<Regex>> =
        LazyLock::new(|| re(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (.+)$"));
    static SECTION: LazyLock<Option<Regex>> = LazyLock::new(|| re(r"^_{3,} (.+?) _{3,}$"));
    let mut details = BTreeMap::<String, String>::new();
    let mut open: Option<String> = None;
    let (mut passed, mut failed, mut skipped) = (Vec::new(), Vec::new(), 0);
    for line in text.lines() {
        if let Some(c) = SECTION.as_ref().and_then(|r| r.captures(line)) {
            let name = c[1].trim_start_matches("ERROR collecting ");
            open = Some(name.rsplit(" of ").next().unwrap_or(name).to_owned());
        } else if line.starts_with("=====") {
            open = None;
        } else if let Some(name) = &open {
            let d = details.entry(name.clone()).or_default();
            d.push_str(line);
            d.push('\n');
        } else if let Some(c) = SUMMARY.as_ref().and_then(|r| r.captures(line)) {
            let (id, message) = c[2].split_once(" - ").unwrap_or((&c[2], ""));
            match &c[1] {
                "PASSED" | "XFAIL" => passed.push(id.to_owned()),
                "SKIPPED" => skipped += 1,
                _ => failed.push((id.to_owned(), message.to_owned())),
            }
        }
    }
    let failed = failed.into_iter().map(|(id, message)| {
        // `path::Class::test[x]` has its section under `Class.test[x]`, a module under its path.
        let name = id
            .split_once("::")
            .map_or(id.as_str(), |(_, n)| n)
            .replace("::", ".");
        let details = details.get(&name).or_else(|| details.get(&id)).cloned();
        TestFailure {
            id,
            message,
            details: details.unwrap_or_default(),
        }
    });
    (passed, failed.collect(), skipped)
}

fn cargo(text: &str) -> Parsed {
    static LINE: LazyLock<Option<Regex>> =
        LazyLock::new(|| re(r"^test (.+?) \.\.\. (ok|FAILED|ignored)"));
    static SECTION: LazyLock<Option<Regex>> = LazyLock::new(|| re(r"^---- (.+?) stdout ----$"));
    let mut details = BTreeMap::<String, String>::new();
    let mut open: Option<String> = None;
    let (mut passed, mut failed, mut skipped) = (Vec::new(), Vec::new(), 0);
    for line in text.lines() {
        if let Some(c) = LINE.as_ref().and_then(|r| r.captures(line)) {
            match &c[2] {
                "ok" => passed.push(c[1].to_owned()),
                "ignored" => skipped += 1,
                _ => failed.push(c[1].to_owned()),
            }
        } else if let Some(c) = SECTION.as_ref().and_then(|r| r.captures(line)) {
            open = Some(c[1].to_owned());
        } else if line == "failures:" {
            open = None;
        } else if let Some(name) = &open {
            let d = details.entry(name.clone()).or_default();
            d.push_str(line);
            d.push('\n');
        }
    }
    let failed = failed.into_iter().map(|id| {
        let details = details.get(&id).cloned().unwrap_or_default();
        let message = details
            .lines()
            .find(|l| !l.trim().is_empty())
            .unwrap_or_default()
            .to_owned();
        TestFailure {
            id,
            message,
            details,
        }
    });
    let mut failed: Vec<_> = failed.collect();
    if passed.is_empty() && failed.is_empty() && text.lines().any(|l| l.starts_with("error")) {
        let errors = text
            .lines()
            .position(|l| l.starts_with("error"))
            .unwrap_or(0);
        let details = text
            .lines()
            .skip(errors)
            .take(60)
            .collect::<Vec<_>>()
            .join("\n");
        failed.push(TestFailure {
            id: "build".into(),
            message: "the crate does not build".into(),
            details,
        });
    }
    (passed, failed, skipped)
}

fn generic(name: &str, done: &Execution, text: &str) -> Parsed {
    match &done.ended {
        Ended::Exited(0) => (vec![name.into()], Vec::new(), 0),
        Ended::NotStarted(_) => Parsed::default(),
        e => {
            let from = text.ceil_char_boundary(text.len().saturating_sub(4000));
            let f = TestFailure {
                id: name.into(),
                message: ended(e),
                details: text[from..].into(),
            };
            (Vec::new(), vec![f], 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(command: &str, code: i32, out: &str) -> TestReport {
        let done = Execution {
            ended: Ended::Exited(code),
            stdout: out.into(),
            stderr: Vec::new(),
            cut_bytes: 0,
            wall: Duration::from_millis(7),
            enforced: Vec::new(),
            egress: Vec::new(),
            egress_cut: 0,
        };
        report(&TestCommand::parse(command).unwrap(), &done)
    }

    #[test]
    fn pytest_output() {
        let out = "\
.F                                                                       [100%]
=================================== FAILURES ===================================
__________________________________ test_sub ____________________________________

    def test_sub():
>       assert sub(3, 1) == 2
E       assert 4 == 2

test_calc.py:8: AssertionError
_____________________________ TestMore.test_x[1-2] _____________________________
boom
==================================== PASSES ====================================
=========================== short test summary info ============================
PASSED test_calc.py::test_add
SKIPPED [1] test_calc.py:9: later
FAILED test_calc.py::test_sub - assert 4 == 2
FAILED test_calc.py::TestMore::test_x[1-2] - boom - really
2 failed, 1 passed, 1 skipped in 0.02s
";
        let r = read("pytest -q", 1, out);
        assert_eq!((r.ok, r.skipped, r.runner), (false, 1, Runner::Pytest));
        assert_eq!(r.passed, ["test_calc.py::test_add"]);
        assert_eq!(r.failed[0].message, "assert 4 == 2");
        assert!(
            r.failed[0]
                .details
                .contains("test_calc.py:8: AssertionError")
        );
        assert!(!r.failed[0].details.contains("boom"));
        assert_eq!(
            (r.failed[1].message.as_str(), r.failed[1].details.as_str()),
            ("boom - really", "boom\n")
        );
        assert_eq!(r.summary(), "1 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn pytest_that_finds_nothing_or_breaks() {
        let none = read("python3 -m pytest", 5, "no tests ran in 0.01s\n");
        assert!(!none.ok && !none.any() && none.failed.is_empty());
        let broken = read(
            "pytest",
            2,
            "\
==================================== ERRORS ====================================
________________________ ERROR collecting test_calc.py _________________________
E   SyntaxError: invalid syntax
=========================== short test summary info ============================
ERROR test_calc.py
1 error in 0.05s
",
        );
        assert_eq!(broken.failed.len(), 1);
        assert!(broken.failed[0].details.contains("SyntaxError"));
        let died = read("pytest", 137, "PASSED a.py::t\n");
        assert_eq!((died.ok, died.failed.len()), (false, 1));
    }

    #[test]
    fn cargo_output() {
        let out = "\
running 3 tests
test a::works ... ok
test a::slow ... ignored
test a::fails ... FAILED

failures:

---- a::fails stdout ----

thread 'a::fails' panicked at src/lib.rs:9:5:
assertion `left == right` failed

failures:
    a::fails

test result: FAILED. 1 passed; 1 failed; 1 ignored
";
        let r = read("cargo test", 101, out);
        assert_eq!((r.passed.len(), r.failed.len(), r.skipped), (1, 1, 1));
        assert!(r.failed[0].message.contains("src/lib.rs:9:5"));
        let r = read(
            "cargo test",
            101,
            "   Compiling x\nerror[E0308]: mismatched types\n --> src/lib.rs:1:1\n",
        );
        assert_eq!(r.failed[0].id, "build");
        assert!(r.feedback(1000).contains("E0308"));
    }

    #[test]
    fn anything_else_is_judged_by_its_exit_code() {
        assert!(read("./check.sh", 0, "fine").ok);
        let r = read("'./my check' --all", 3, "bad");
        assert_eq!(
            (r.failed[0].id.as_str(), r.failed[0].message.as_str()),
            ("./my check --all", "exit 3")
        );
        assert!(TestCommand::parse("'open").is_err() && TestCommand::parse(" ").is_err());
    }
}
