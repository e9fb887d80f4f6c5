//! Graphs of ten thousand tasks stay readable.

use crate::kit::{Run, graph, plain, task};
use smallhands_core::OnFailure;
use smallhands_graph::{Picture, Style, terminal};

const N: usize = 10_000;

fn lines(p: &Picture) -> Vec<String> {
    // Every form, because none may take its time.
    assert!(p.mermaid().lines().count() >= N && p.dot().lines().count() >= N);
    let text = plain(p);
    let lines: Vec<_> = text.lines().map(String::from).collect();
    assert!(lines.len() < 200, "{} lines", lines.len());
    assert!(lines.iter().all(|l| l.chars().count() <= 80));
    lines
}

#[test]
fn a_fan_is_three_lines() {
    let mut tasks = vec![task("a")];
    tasks.extend((0..N).map(|i| task(&format!("t{i}")).needs("a")));
    let mut end = task("z");
    end.needs = (0..N).map(|i| format!("t{i}").into()).collect();
    tasks.push(end);
    assert_eq!(
        lines(&Picture::from(&graph(tasks))),
        [
            "a",
            "t0 … t9999  10000 tasks",
            "z           needs t0, t1, t2 and 9997 more",
            "10002 tasks"
        ]
    );
}

#[test]
fn a_chain_is_cut_into_bands() {
    let chain = (0..N).map(|i| match i {
        0 => task("t0"),
        i => task(&format!("t{i}")).needs(format!("t{}", i - 1)),
    });
    let lines = lines(&Picture::from(&graph(chain)));
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[99], "t9900 … t9999  100 tasks");
}

#[test]
fn what_no_rule_folds_is_cut_into_bands_too() {
    // Too few in each layer to be alike, and many layers.
    let of = |layer, i| format!("t{layer}/{i}");
    let tasks = (0..90).flat_map(|layer| {
        (0..3).map(move |i| {
            let t = task(&of(layer, i));
            match layer {
                0 => t,
                l => t.needs(of(l - 1, i)).needs(of(l - 1, (i + 1) % 3)),
            }
        })
    });
    let text = plain(&Picture::from(&graph(tasks)));
    assert_eq!(text.lines().count(), 91, "{text}");
    assert!(text.starts_with("t0/0 … t0/2    3 tasks\n"), "{text}");
}

#[test]
fn layers_keep_their_order() {
    let layered = (0..N).map(|i| {
        let t = task(&format!("t{i}"));
        match i {
            0..100 => t,
            i => t
                .needs(format!("t{}", i - 100))
                .needs(format!("t{}", i / 100 * 100 - 7)),
        }
    });
    let lines = lines(&Picture::from(&graph(layered)));
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[1], "t100 … t199    100 tasks");
}

#[test]
fn instances_of_a_map_are_one_line() {
    let goes_on = |t: smallhands_core::TaskSpec| t.on_failure(OnFailure::SkipDependents);
    let of = |i| format!("fetch[k{i}]");
    let mut run = Run::new([
        task("list"),
        task("fetch")
            .map("url", "list", "")
            .on_failure(OnFailure::Continue),
        task("merge").needs("fetch"),
    ]);
    run.begin("list").done("list").after(10);
    run.expand("fetch", (0..1000).map(|i| goes_on(task(&of(i)))));
    for i in 0..1000 {
        run.begin(&of(i)).after(1);
        match i {
            17 | 402 => run.fail(&of(i), "no"),
            _ => run.done(&of(i)),
        };
    }
    let text = terminal(&run.state, run.now(), &Style::default());
    let line = "├─ ✗ fetch[...]  998 done, 2 failed  1.0 s; failed: fetch[k17], fetch[k402]";
    assert!(text.contains(line), "{text}");
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn what_failed_stands_out_of_a_large_run() {
    // States alternate, so that no neighbours are alike.
    let mut run = Run::new((0..N).map(|i| task(&format!("t{i}")).on_failure(OnFailure::Continue)));
    for i in (0..N).step_by(2) {
        run.begin(&format!("t{i}"));
        match i % 1000 {
            0 => run.fail(&format!("t{i}"), "no"),
            _ => run.done(&format!("t{i}")),
        };
    }
    let lines = lines(&Picture::from(&run.state));
    assert_eq!(
        lines
            .iter()
            .filter(|l| l.contains("failed  0.0 s  no"))
            .count(),
        10
    );
    assert!(lines.contains(&"├─ ○ t1 … t9999  4990 done, 5000 ready  0.0 s".into()));
}

#[test]
fn a_comb_keeps_its_lines_short() {
    // Each task branches: one more lane a layer.
    let comb = (0..140).map(|i| match i {
        0 => task("t0"),
        i => task(&format!("t{i}")).needs(format!("t{}", (i - 1) / 2 * 2)),
    });
    let p = Picture::from(&graph(comb));
    assert!(
        plain(&p).lines().all(|l| l.chars().count() <= 80),
        "{}",
        plain(&p)
    );
}
