//! Whatever ids are like, a picture stays well formed and shows no control character.

use crate::kit::{Run, task};
use proptest::{collection::vec, prelude::*, sample::Index};
use smallhands_core::{Condition, SubGraph, Timestamp};
use smallhands_graph::{Picture, Style};
use std::collections::HashSet;
use unicode_width::UnicodeWidthStr;

fn ids() -> impl Strategy<Value = String> {
    prop_oneof![
        vec(any::<char>(), 1..40).prop_map(String::from_iter),
        // What the forms could take for theirs.
        "[a-c\\[\\]/~\"'\\\\`<>&#%;{}|*\n\r\t\u{0}\u{1b}\u{9b}\u{202e}\u{301}\u{fe0f}日]{1,16}",
        // What looks like instances and children, of whom some exist.
        "[ab](\\[[ab]\\]|/[ab]|~undo){0,3}",
    ]
}

/// One of each kind, in several states, each with needs among those before it.
fn run(tasks: &[(String, Vec<Index>, u8)]) -> Run {
    let mut seen = HashSet::new();
    let mut specs = Vec::new();
    let mut before: Vec<&str> = Vec::new();
    for (id, needs, kind) in tasks.iter().filter(|t| seen.insert(&t.0)) {
        let mut t = task(id);
        for n in needs.iter().filter(|_| !before.is_empty()) {
            let from = *n.get(&before);
            t = match kind % 4 {
                0 => t.map(id, from, id),
                1 => t.bind(id, from, id),
                _ => t.needs(from),
            };
        }
        if kind % 5 == 0 {
            t.graph = Some(Box::new(SubGraph::default()));
        }
        if kind % 3 == 0 {
            t = t.when(Condition::Named("x".into()));
        }
        before.push(id);
        specs.push(t);
    }
    let mut run = Run::new(specs);
    for (i, id) in before.iter().enumerate() {
        match i % 4 {
            0 => run.begin(id).done(id),
            1 => run.begin(id).fail(id, id),
            2 => run.begin(id),
            _ => &mut run,
        };
    }
    run
}

/// Lines, each without a control character.
fn lines(text: &str) -> Vec<&str> {
    let body = text.strip_suffix('\n').unwrap();
    assert!(
        !body.chars().any(|c| c.is_control() && c != '\n'),
        "{text:?}"
    );
    body.split('\n').collect()
}

/// What stands outside of quotes; the quotes of DOT know `\"`, those of Mermaid do not.
fn unquoted(text: &str, escapes: bool) -> String {
    let (mut out, mut quoted, mut chars) = (String::new(), false, text.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted && escapes => assert!(chars.next().is_some()),
            _ if !quoted => out.push(c),
            _ => {}
        }
    }
    assert!(!quoted, "{text}");
    out
}

fn balanced(text: &str) {
    let mut open = Vec::new();
    for c in text.chars() {
        match c {
            '{' => open.push('}'),
            '[' => open.push(']'),
            '}' | ']' => assert_eq!(open.pop(), Some(c), "{text}"),
            _ => {}
        }
    }
    assert!(open.is_empty(), "{text}");
}

fn well_formed(picture: &Picture, tasks: usize, now: Timestamp) {
    let drawn = picture.dot();
    lines(&drawn);
    let bare = unquoted(&drawn, true);
    balanced(&bare);
    let known = |c: char| c.is_ascii_alphanumeric() || " \n{}[]=,;->".contains(c);
    assert!(bare.chars().all(known), "{bare}");
    let nodes = |text: &str| {
        let node = |l: &&&str| !l.contains("--") && !l.contains("->") && l.starts_with("  n");
        lines(text).iter().filter(node).count()
    };
    // One more: the defaults of all nodes.
    assert_eq!(nodes(&bare), tasks + 1, "{bare}");
    let drawn = picture.mermaid();
    assert!(!drawn.contains("%%") && !drawn.contains('`'));
    let bare = unquoted(&drawn, false);
    balanced(&bare);
    assert_eq!(nodes(&bare), tasks, "{bare}");
    for width in [20, 33, 80, 300] {
        for color in [false, true] {
            let text = picture.terminal(now, &Style { color, width });
            // Colours come from us alone.
            let plain = ["32", "31", "34", "33", "36", "2", "0"]
                .iter()
                .fold(text, |t, n| match color {
                    true => t.replace(&format!("\x1b[{n}m"), ""),
                    false => t,
                });
            let lines = lines(&plain);
            assert_eq!(lines.len(), tasks + 1, "{plain}");
            for l in lines {
                assert!(l.width() <= width, "{l:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn any_ids_are_drawn(tasks in vec((ids(), vec(any::<Index>(), 0..4), any::<u8>()), 1..20)) {
        let run = run(&tasks);
        let n = tasks.iter().map(|t| &t.0).collect::<HashSet<_>>().len();
        well_formed(&Picture::from(&run.state), n, run.now());
    }
}
