//! Journals as released versions wrote them: they are read, mean what they meant, and are written
//! to the same bytes. A file here is never changed; a new version of a body gets new files.

use crate::runs::records;
use serde_json::{Value, json};
use smallhands_core::{
    AttemptReport, Binding, BlobRef, Budget, Condition, Digest, Effect, Failure, FailureClass,
    GroupLimit, Halt, Join, MapOver, OnFailure, Outcome, Question, Ran, Repeat, Resources, Retry,
    StepIntent, StepRecord, SubGraph, TaskOutput, TaskSpec, Timestamp, Usage,
};
use smallhands_graph::{
    Durability, Event, GraphPatch, Node, NodeState, Record, Rewire, RunState, RunStatus, Stored,
};
use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

const KINDS: [&str; 18] = [
    "created",
    "opened",
    "patched",
    "expanded",
    "judged",
    "dispatched",
    "step_began",
    "step_ended",
    "reserved",
    "settled",
    "asked",
    "answered",
    "expired",
    "ended",
    "revived",
    "reset",
    "cancel_requested",
    "stopped",
];

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn blob() -> BlobRef {
    BlobRef {
        digest: Digest::of_bytes(b"golden"),
        len: 6,
    }
}
fn usage(n: u64) -> Usage {
    Usage {
        input_tokens: n,
        calls: 1,
        ..Usage::default()
    }
}

/// A task with every field set that a task can have beside its form.
fn full() -> TaskSpec {
    let mut t = TaskSpec::new("full", "w")
        .input(json!({"a": [1, "ü", 1.5, null]}))
        .bind("from", "src", "/n")
        .needs("other")
        .join(Join::AtLeast(1))
        .when(Condition::Named("named".into()))
        .effect(Effect::Idempotent)
        .expands()
        .retry(Retry::attempts(3).only([FailureClass::Unavailable]))
        .timeout(Duration::from_millis(5))
        .total_timeout(Duration::from_millis(50))
        .on_failure(OnFailure::Compensate("undo".into()))
        .priority(-3)
        .group("g")
        .resources(Resources {
            cpu_milli: 1,
            memory_mb: 2,
            gpus: 3,
        })
        .idempotency_key("key");
    t.budget.tokens = Some(7);
    t
}

fn graph() -> GraphPatch {
    let mut map = TaskSpec::new("map", "w").map("item", "src", "/list");
    if let Some(m) = &mut map.map {
        let more: &mut MapOver = m;
        more.key = Some("/id".into());
        more.max_parallel = Some(2);
    }
    let mut inner = TaskSpec::new("in", "w");
    inner.bind.push(Binding {
        field: String::new(),
        from: "".into(),
        pointer: String::new(),
    });
    let inner = SubGraph {
        tasks: vec![Arc::new(inner)],
        output: Some("in".into()),
    };
    GraphPatch::adding([
        TaskSpec::new("src", "w"),
        TaskSpec::new("other", "w").on_failure(OnFailure::Continue),
        full(),
        map,
        TaskSpec::sub_graph("sub", inner).join(Join::All),
        TaskSpec::new("loop", "w").repeat(Repeat {
            until: Condition::Expr("output > 3".into()),
            max: 5,
            feed: Some("last".into()),
        }),
        TaskSpec::new("any", "w")
            .needs("src")
            .needs("other")
            .join(Join::Any),
    ])
}

fn failure() -> Failure {
    let f = Failure::new("golden.fail", FailureClass::Task, "no \"good\"").hint("mend it");
    f.retry_after(Duration::from_millis(9))
}
fn ended(task: &str, fence: u64, outcome: Outcome) -> Event {
    Event::Ended {
        task: task.into(),
        fence,
        report: AttemptReport {
            outcome,
            ran: Ran::Maybe,
        },
        retry_after_ms: None,
        repeat: false,
    }
}
fn placed(task: &str, attempt: u32) -> Event {
    Event::Dispatched {
        task: task.into(),
        attempt,
    }
}
fn done(v: Value) -> Outcome {
    Outcome::Done(TaskOutput {
        value: v,
        artifacts: vec![("log".into(), blob())],
        expansion: None,
    })
}
fn intent(key: &str) -> StepIntent {
    StepIntent {
        key: key.into(),
        effect: Effect::AtMostOnce,
        fingerprint: Digest::of_json(&json!(key)),
        reserve: Some(usage(9)),
    }
}

fn opening() -> Vec<Event> {
    vec![
        Event::Created {
            goal: "every kind".into(),
            config: blob(),
            budget: Budget {
                tokens: Some(100),
                ..Budget::default()
            },
            durability: Durability::PowerLoss,
            executor: "golden".into(),
            environment: json!({"rustc": "1.95"}),
            secrets: vec!["KEY".into()],
            limits: [("g".into(), GroupLimit::rate(2, Duration::from_secs(1)))].into(),
        },
        Event::Opened {
            owner: "golden".into(),
            epoch: 1,
        },
        Event::Patched {
            patch: graph(),
            by: None,
        },
    ]
}

fn steps(task: &str, fence: u64) -> Vec<Event> {
    let task = || task.into();
    vec![
        Event::StepBegan {
            task: task(),
            fence,
            intent: intent("pay"),
        },
        Event::Reserved {
            task: task(),
            fence,
            id: "pay/1".into(),
            most: usage(5),
        },
        Event::Settled {
            task: task(),
            fence,
            id: "pay/1".into(),
            actual: usage(2),
        },
        Event::StepEnded {
            task: task(),
            fence,
            record: StepRecord {
                intent: intent("pay"),
                result: Ok(json!({"paid": 1})),
                checkpoint: Some(blob()),
                usage: Some(usage(4)),
            },
        },
    ]
}

/// One run with every kind.
fn every_kind() -> Vec<Event> {
    let mut all = opening();
    let ask = |id: &str, default: Option<Value>| Event::Asked {
        task: "other".into(),
        id: id.into(),
        question: Question {
            default,
            ..Question::new("which?")
                .schema(json!({"type": "integer"}))
                .deadline(Timestamp(77))
        },
    };
    all.push(placed("src", 1));
    all.extend(steps("src", 4));
    all.push(ended(
        "src",
        4,
        done(json!({"n": 1, "list": [{"id": "x"}]})),
    ));
    all.push(placed("other", 1));
    all.extend([ask("a", None), ask("b", Some(json!(3)))]);
    all.push(ended(
        "other",
        10,
        Outcome::Halted(Halt::Suspended("a".into())),
    ));
    all.push(Event::Answered {
        task: "other".into(),
        id: "a".into(),
        answer: json!(2),
    });
    all.push(Event::Expired {
        task: "other".into(),
        id: "b".into(),
    });
    all.extend(forms());
    all.extend(changes());
    all
}

/// Maps, conditions and loops, from the record 15 on.
fn forms() -> Vec<Event> {
    let mut all = Vec::new();
    let instance = TaskSpec::new("map[x]", "w").input(json!({"item": {"id": "x"}}));
    all.push(Event::Expanded {
        task: "map".into(),
        children: vec![Arc::new(instance)],
    });
    all.push(Event::Judged {
        task: "full".into(),
        holds: true,
    });
    all.push(placed("loop", 1));
    let Event::Ended {
        task,
        fence,
        report,
        ..
    } = ended("loop", 18, done(json!(1)))
    else {
        unreachable!()
    };
    all.push(Event::Ended {
        task,
        fence,
        report,
        retry_after_ms: Some(4),
        repeat: true,
    });
    all
}

/// What changes a run, from the record 20 on.
fn changes() -> Vec<Event> {
    let patched = Event::Patched {
        patch: GraphPatch {
            expected_revision: Some(1),
            add: vec![Arc::new(TaskSpec::new("new", "w"))],
            replace: vec![Arc::new(TaskSpec::new("any", "w2").needs("src"))],
            rewire: vec![Rewire {
                task: "loop".into(),
                needs: vec!["src".into()],
                bind: vec![Binding {
                    field: "n".into(),
                    from: "src".into(),
                    pointer: "/n".into(),
                }],
            }],
            cancel: vec!["map".into()],
            remove: vec!["sub".into()],
        },
        by: Some("src".into()),
    };
    let mut all = vec![patched];
    all.push(placed("new", 1));
    all.push(ended("new", 21, Outcome::Halted(Halt::Failed(failure()))));
    all.push(Event::Revived {
        tasks: vec!["new".into()],
    });
    all.push(Event::Reset { task: "src".into() });
    all.push(Event::CancelRequested);
    all.push(Event::Stopped {
        status: RunStatus::Cancelled,
    });
    all
}

fn stored(events: Vec<Event>) -> Vec<Stored> {
    let of = |(seq, e): (u64, Event)| Stored {
        seq,
        record: Record::of(Arc::new(e), Timestamp(1_000 + seq)),
    };
    (1..).zip(events).map(of).collect()
}

/// What is to be written: for each kind the run up to its first record, and whole runs.
fn files() -> Vec<(String, Vec<Stored>)> {
    let all = stored(every_kind());
    let upto = |kind: &str| {
        let n = all.iter().position(|s| s.record.kind == kind).unwrap();
        (kind.to_owned(), all[..=n].to_vec())
    };
    let mut files: Vec<_> = KINDS.into_iter().map(upto).collect();
    files.push(("run-every-kind".into(), all.clone()));
    for seed in [3, 14, 15, 92, 65] {
        files.push((format!("run-{seed}"), records(seed)));
    }
    files
}

fn fold(all: &[Stored]) -> RunState {
    let mut state = RunState::default();
    for s in all {
        let e = Event::from_record(&s.record).unwrap();
        state.apply(s.seq, s.record.at, &e).unwrap();
    }
    state.check_invariants().unwrap();
    state
}

/// What the records mean, apart from what a state looks like.
fn summary(s: &RunState) -> Value {
    let task = |n: &Node| {
        let code = match &n.state {
            NodeState::Failed(f) => json!(f.code),
            _ => Value::Null,
        };
        json!({
            "id": n.spec.id, "worker": n.spec.worker, "needs": n.spec.needs,
            "state": n.state.as_str(), "failure": code, "attempt": n.attempt,
            "iteration": n.iteration, "output": n.output, "steps": n.steps,
            "questions": n.questions, "answers": n.answers, "spent": n.spent,
            "started": n.started, "ended": n.ended, "parent": s.parent(&n.spec.id),
        })
    };
    let tasks: Vec<_> = s.nodes.values().map(task).collect();
    json!({
        "seq": s.seq, "revision": s.revision, "status": s.status, "goal": s.goal,
        "failing": s.failing, "cancelling": s.cancelling, "spent": s.spent,
        "ready": s.ready().collect::<Vec<_>>(), "limits": s.limits, "tasks": tasks,
    })
}

#[test]
#[ignore = "writes the files; they are never written again once a version is released"]
fn write() {
    fs::create_dir_all(dir()).unwrap();
    for (name, all) in files() {
        let line = |s: &Stored| serde_json::to_string(s).unwrap() + "\n";
        let text: String = all.iter().map(line).collect();
        fs::write(dir().join(format!("{name}.jsonl")), text).unwrap();
        let summary = serde_json::to_string_pretty(&summary(&fold(&all))).unwrap() + "\n";
        fs::write(dir().join(format!("{name}.summary.json")), summary).unwrap();
    }
}

#[test]
fn old_journals_are_read_mean_the_same_and_are_written_to_the_same_bytes() {
    let mut kinds = BTreeSet::new();
    let mut files = 0;
    for entry in fs::read_dir(dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "jsonl") {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).unwrap();
        let all: Vec<Stored> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        for (s, line) in all.iter().zip(text.lines()) {
            let event = Event::from_record(&s.record).unwrap();
            let again = Stored {
                seq: s.seq,
                record: Record::of(Arc::new(event), s.record.at),
            };
            assert_eq!(
                serde_json::to_string(&again).unwrap(),
                line,
                "{}",
                path.display()
            );
            kinds.insert(s.record.kind.to_string());
        }
        let wanted = fs::read_to_string(path.with_extension("summary.json")).unwrap();
        let wanted: Value = serde_json::from_str(&wanted).unwrap();
        let folded = summary(&fold(&all));
        assert_eq!(folded, wanted, "{}", path.display());
    }
    assert_eq!(kinds, KINDS.map(String::from).into());
    assert!(files > KINDS.len());
}

#[test]
fn a_version_that_this_program_does_not_know_is_refused_by_name() {
    let of = |version| Record::new("cancel_requested", version, Timestamp(1), "null");
    assert_eq!(Event::from_record(&of(1)), Ok(Event::CancelRequested));
    let e = Event::from_record(&of(2)).unwrap_err();
    assert!(
        e.contains("`cancel_requested` version 2 was written by a newer program"),
        "{e}"
    );
    let e = Event::from_record(&of(0)).unwrap_err();
    assert!(e.contains("`cancel_requested` version 0 never was"), "{e}");
}
