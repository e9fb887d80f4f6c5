//! A small graph in each state and each form, to the letter.

use crate::kit::{Run, graph, plain, task};
use smallhands_core::{Binding, Condition, Join, OnFailure, Repeat, SubGraph, TaskSpec};
use smallhands_graph::{Event, Picture, Style, dot, mermaid, terminal};

/// A task for each state.
fn states() -> Run {
    let undecided = task("judge")
        .needs("plan")
        .when(Condition::Named("x".into()));
    let mut run = Run::new([
        task("plan"),
        task("build")
            .needs("plan")
            .on_failure(OnFailure::SkipDependents),
        task("after").needs("build"),
        task("slow").needs("plan"),
        task("question").needs("plan"),
        undecided,
        task("next").needs("plan"),
        task("late").needs("slow").needs("question").needs("plan"),
        task("unwanted").needs("plan"),
    ]);
    run.begin("plan").after(1_250).done("plan");
    run.begin("build")
        .begin("slow")
        .begin("question")
        .after(500);
    run.ask("question").attempt("slow", 2).after(183_600);
    run.fail("build", "no\x1b[31m\ncompiler");
    run.apply(&Event::Patched {
        patch: smallhands_graph::GraphPatch {
            cancel: vec!["unwanted".into()],
            ..Default::default()
        },
        by: None,
    });
    run
}

/// Nothing of it has run.
fn policies() -> Picture {
    let again = Repeat {
        until: Condition::Named("good".into()),
        max: 5,
        feed: None,
    };
    Picture::from(&graph([
        task("list"),
        task("fetch").map("url", "list", "/urls"),
        task("each").map("x", "list", ""),
        task("improve").bind("draft", "fetch", "").repeat(again),
        task("first").needs("fetch").needs("each").join(Join::Any),
        task("two")
            .needs("fetch")
            .needs("each")
            .needs("improve")
            .join(Join::AtLeast(2)),
        task("end")
            .bind("a", "two", "/n")
            .bind("b", "two", "/m")
            .bind("c", "first", "")
            .when(Condition::Named("worth".into())),
    ]))
}

/// A sub-graph, a map within it, and what was to undo one of its tasks.
fn nested() -> Run {
    let each = task("each").map("x", "list", "");
    let sub = SubGraph {
        tasks: vec![task("list").into(), each.into()],
        output: None,
    };
    let mut run = Run::new([
        TaskSpec::sub_graph("in", sub),
        task("end").needs("in"),
        // Looks like an instance, and is none.
        task("end[x]").needs("end"),
    ]);
    let mut list = task("in/list");
    list.bind = vec![Binding {
        field: "q".into(),
        from: "in".into(),
        pointer: "/query".into(),
    }];
    run.expand("in", [list, task("in/each").map("x", "in/list", "")]);
    run.begin("in/list").after(1_000).done("in/list");
    let undone = task("in/each[b]").on_failure(OnFailure::Compensate("w".into()));
    let open = task("in/each[c]");
    run.expand("in/each", [task("in/each[a]"), undone, open]);
    run.begin("in/each[a]").after(61_000).done("in/each[a]");
    run.begin("in/each[c]");
    run.begin("in/each[b]")
        .after(1_100)
        .fail("in/each[b]", "no");
    run.expand("in/each[b]", [task("in/each[b]~undo")]);
    run
}

/// Text for terminal, Mermaid and DOT, one file each.
macro_rules! golden {
    ($name:literal) => {
        [
            include_str!(concat!("golden/", $name, ".txt")),
            include_str!(concat!("golden/", $name, ".mmd")),
            include_str!(concat!("golden/", $name, ".dot")),
        ]
    };
}

fn all(run: &Run) -> [String; 3] {
    [
        terminal(&run.state, run.now(), &Style::default()),
        mermaid(&run.state),
        dot(&run.state),
    ]
}

#[track_caller]
fn same(drawn: [String; 3], golden: [&str; 3]) {
    for (drawn, golden) in drawn.iter().zip(golden) {
        assert_eq!(drawn, golden, "\n{drawn}");
    }
}

#[test]
fn each_state_has_its_looks() {
    same(all(&states()), golden!("states"));
}

#[test]
fn a_graph_that_has_not_run_shows_its_policies() {
    let p = policies();
    same([plain(&p), p.mermaid(), p.dot()], golden!("policies"));
}

#[test]
fn what_stands_for_a_task_hangs_below_it() {
    same(all(&nested()), golden!("nested"));
}

#[test]
fn a_map_at_work_counts_its_own() {
    let mut run = Run::new([task("list"), task("each").map("x", "list", "")]);
    run.begin("list").done("list");
    run.expand("each", [task("each[a]"), task("each[b]")]);
    run.begin("each[a]").after(2_500).done("each[a]");
    assert_eq!(
        terminal(&run.state, run.now(), &Style::default()),
        "✓ list        done      0.0 s\n\
         ▷ each        expanded  2.5 s  waits for 1 of its 2 tasks; map over list\n\
         ├─ ✓ each[a]  done      2.5 s\n\
         └─ ○ each[b]  ready\n\
         4 tasks: 2 done, 1 expanded, 1 ready\n"
    );
}

#[test]
fn colours_only_on_request_and_never_beyond_the_width() {
    let mut run = Run::new([task("a"), task("日本語 of a long name").needs("a")]);
    run.begin("a").after(2_000);
    let draw = |color, width| terminal(&run.state, run.now(), &Style { color, width });
    assert_eq!(
        draw(true, 80),
        "\u{1b}[34m▶\u{1b}[0m a                      \u{1b}[34mrunning\u{1b}[0m  2.0 s\n\
         · 日本語 of a long name  waiting         waits for a\n\
         2 tasks: 1 running, 1 waiting\n"
    );
    assert_eq!(
        draw(false, 30),
        "▶ a              running  2.0…\n\
         · 日本語 of a …  waiting\n\
         2 tasks: 1 running, 1 waiting\n"
    );
}

#[test]
fn ids_cannot_end_a_text_or_hide() {
    let p = Picture::from(&graph([task("a\")\n\x1b(2J`#%\\<b>&"), task("b\u{202e}c")]));
    assert_eq!(
        p.mermaid(),
        "flowchart TD\n  n0[\"a#34;)#92;n#92;u{1b}(2J#96;#35;#37;#92;#60;b#62;#38;\"]\n  \
         n1[\"b#92;u{202e}c\"]\n"
    );
    assert!(
        p.dot()
            .contains(r#"n0 [label="a\")\\n\\u{1b}(2J`#%\\<b>&amp;"];"#)
    );
    assert_eq!(
        plain(&p),
        "┌─ a\")\\n\\u{1b}(2J`#%\\<b>&\n└─ b\\u{202e}c\n2 tasks\n"
    );
}
