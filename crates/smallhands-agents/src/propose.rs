use crate::{Candidate, Edit, RepairParts, RepairSpec, prompt};
use serde::{Deserialize, Serialize};
use smallhands_core::{Digest, Halt, Notice, TaskContext, Worker, worker as make};
use smallhands_memory::Hit;
use smallhands_tools::TestReport;
use std::sync::Arc;

#[derive(Deserialize)]
struct Input {
    base: Candidate,
    round: u32,
    target: usize,
    tier: usize,
    report: TestReport,
    hits: Vec<Hit>,
}

/// What the model proposed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposed {
    /// How many places there are to try.
    pub places: usize,
    /// Different changes, in the order of drawing.
    pub candidates: Vec<Candidate>,
    /// Answers that were no change, by reason.
    pub unusable: Vec<String>,
    /// Who was asked.
    pub model: String,
}

pub(crate) fn worker(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Arc<dyn Worker> {
    make("propose", move |i: Input, cx: TaskContext| {
        let (parts, spec) = (parts.clone(), spec.clone());
        async move {
            let mut out = Proposed {
                places: i.hits.len(),
                ..Proposed::default()
            };
            let Some(hit) = i.hits.get(i.target % i.hits.len().max(1)) else {
                return Ok(out);
            };
            let model = parts.models.tier(i.tier);
            out.model.clone_from(&model.info().id);
            let name = hit.symbol.clone().unwrap_or_else(|| hit.path.clone());
            cx.notice(Notice::Progress {
                text: format!("asking {} to repair {name}", out.model),
                done: None,
            });
            let others: Vec<_> = i
                .hits
                .iter()
                .filter(|h| h.bytes != hit.bytes)
                .cloned()
                .collect();
            let ask = prompt::repair(&spec.goal, hit, &others, &i.report, i.round % 2 == 1)
                .max_tokens(spec.max_tokens.min(bound(hit)))
                .seed(spec.seed.wrapping_mul(1000) + u64::from(i.round));
            // The likeliest answer and a varied lot; the prompt is evaluated once.
            let ask = ask
                .samples(spec.candidates, spec.temperature)
                .greedy_first();
            let answer = parts.models.chat(&cx, "ask", i.tier, ask).await?;
            let mut seen = Vec::new();
            for choice in &answer.choices {
                match prompt::read(&choice.text, hit) {
                    Ok(edit) if seen.contains(&key(&edit)) => out.unusable.push("repeated".into()),
                    Ok(edit) => {
                        seen.push(key(&edit));
                        out.candidates.push(i.base.with(edit));
                    }
                    Err(why) => out.unusable.push(why.into()),
                }
            }
            Ok::<_, Halt>(out)
        }
    })
}

/// Room for the function half as long again: an answer that rambles is no repair.
fn bound(hit: &Hit) -> u32 {
    u32::try_from(hit.text.len() / 2 + 160).unwrap_or(u32::MAX)
}

/// Two edits that differ in comments and white space only are one.
fn key(e: &Edit) -> Digest {
    let code = |l: &str| {
        l.split('#')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect::<String>()
    };
    let text: Vec<_> = e.new.lines().map(code).filter(|l| !l.is_empty()).collect();
    Digest::of_bytes(text.join("\n").as_bytes())
}
