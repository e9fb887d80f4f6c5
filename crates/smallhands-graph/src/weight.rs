//! About how many bytes an event takes as JSON: cheap for the many small ones, near enough for those
//! that fill a queue.

use crate::Event;
use serde_json::Value;
use smallhands_core::{Halt, Outcome, TaskSpec};

/// What most take: names, numbers.
const FEW: usize = 256;

pub(crate) fn event(e: &Event) -> usize {
    let large = match e {
        Event::Ended { report, .. } => match &report.outcome {
            Outcome::Done(o) => {
                let added = o.expansion.as_ref().map_or(0, value);
                value(&o.value) + added + o.artifacts.len() * FEW
            }
            Outcome::Halted(Halt::Failed(f)) => f.message.len(),
            _ => 0,
        },
        Event::StepEnded { record, .. } => match &record.result {
            Ok(v) => value(v),
            Err(f) => f.message.len(),
        },
        Event::Answered { answer, .. } => value(answer),
        Event::Asked { question: q, .. } => {
            q.text.len() + value(&q.schema) + q.default.as_ref().map_or(0, value)
        }
        Event::Patched { patch: p, .. } => {
            let specs = p.add.iter().chain(&p.replace);
            specs.map(|s| spec(s)).sum::<usize>() + p.rewire.len() * FEW
        }
        Event::Expanded { children, .. } => children.iter().map(|s| spec(s)).sum(),
        Event::Created { environment, .. } => value(environment),
        _ => 0,
    };
    FEW + large
}

fn spec(s: &TaskSpec) -> usize {
    let schemas = [&s.input_schema, &s.output_schema].into_iter().flatten();
    let schemas = schemas.map(|v| value(v)).sum::<usize>();
    let inside = s.graph.iter().flat_map(|g| &g.tasks).map(|s| spec(s));
    let own = FEW + s.needs.len() * 32 + s.bind.len() * 64 + value(&s.input);
    own + schemas + inside.sum::<usize>()
}

fn value(v: &Value) -> usize {
    match v {
        Value::String(s) => s.len() + 2,
        Value::Array(all) => 2 + all.iter().map(|v| 1 + value(v)).sum::<usize>(),
        Value::Object(all) => {
            2 + all
                .iter()
                .map(|(k, v)| k.len() + 4 + value(v))
                .sum::<usize>()
        }
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GraphPatch;
    use serde_json::json;
    use smallhands_core::{AttemptReport, Ran, TaskOutput};

    #[test]
    fn what_is_large_is_weighed_about_right() {
        let task = |i: usize| TaskSpec::new(format!("task/{i}"), "worker").needs("another/task");
        let patch = GraphPatch::adding((0..1000).map(task));
        let rows: Vec<_> = (0..1000)
            .map(|n| json!({"n": n, "text": "some text", "ok": true}))
            .collect();
        let ended = |value| Event::Ended {
            task: "t".into(),
            fence: 1,
            report: AttemptReport {
                outcome: Outcome::Done(TaskOutput::from(value)),
                ran: Ran::Yes,
            },
            retry_after_ms: None,
            repeat: false,
        };
        let all = [
            Event::Patched { patch, by: None },
            ended(json!(rows)),
            ended(json!("x".repeat(100_000))),
            ended(json!(1)),
        ];
        for e in all {
            let mut text = Vec::new();
            e.encode(&mut text);
            let (about, is) = (event(&e), text.len());
            assert!(
                (is..is * 5).contains(&about),
                "{about} for {is}: {}",
                e.kind()
            );
        }
    }
}
