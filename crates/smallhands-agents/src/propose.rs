use crate::{
    Candidate, Draw, Edit, Located, Place, RepairParts, RepairSpec, Round,
    code::{Body, dedent},
    prompt,
    turn::{LINES, turns},
};
use serde::{Deserialize, Serialize};
use smallhands_core::{Halt, Notice, TaskContext, Worker, worker as make};
use smallhands_llm::ChatRequest;
use smallhands_memory::is_well_formed;
use std::sync::Arc;

#[derive(Deserialize)]
struct Input {
    round: Round,
    located: Located,
}

/// What the model proposed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proposed {
    /// How many attempts there are with this model.
    pub turns: usize,
    /// Different changes that were not tested before, in the order of drawing.
    pub candidates: Vec<Candidate>,
    /// Answers that were no change, by reason.
    pub unusable: Vec<String>,
    /// Who was asked.
    pub model: String,
}

/// One round's drawing.
struct Drawing<'a> {
    parts: &'a RepairParts,
    spec: &'a RepairSpec,
    cx: &'a TaskContext,
    round: &'a Round,
    located: &'a Located,
    seen: Vec<String>,
    out: Proposed,
}

pub(crate) fn worker(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Arc<dyn Worker> {
    make("propose", move |i: Input, cx: TaskContext| {
        let (parts, spec) = (parts.clone(), spec.clone());
        async move {
            let mut d = Drawing {
                parts: &parts,
                spec: &spec,
                cx: &cx,
                round: &i.round,
                located: &i.located,
                seen: i.round.seen.clone(),
                out: Proposed::default(),
            };
            d.draw().await?;
            Ok::<_, Halt>(d.out)
        }
    })
}

impl Drawing<'_> {
    async fn draw(&mut self) -> Result<(), Halt> {
        let model = self.parts.models.tier(self.round.tier);
        self.out.model.clone_from(&model.info().id);
        let turns = turns(&self.located.places, model.info().prefill);
        self.out.turns = turns.len();
        let Some(turn) = turns.get(self.round.turn) else {
            return Ok(());
        };
        let place = &self.located.places[turn.place];
        let said = |how: &str| format!("asking {} {how} {}", model.info().id, place.name());
        match turn.draw {
            Draw::RewriteLine => self.rewrite(place, true, said("to repair")).await,
            Draw::Rewrite => self.rewrite(place, false, said("to rewrite")).await,
            Draw::Continue { part } => {
                self.lines(place, part, prompt::go_on, said("for lines of"))
                    .await
            }
            Draw::Fill { part } => {
                self.lines(place, part, prompt::fill, said("to fill in"))
                    .await
            }
        }
    }

    async fn ask(&self, key: String, ask: ChatRequest, n: usize) -> Result<Vec<String>, Halt> {
        // The likeliest answer and a varied lot; the prompt is evaluated once.
        let seed = self.spec.seed.wrapping_mul(1000) + u64::from(self.round.round);
        let ask = ask
            .samples(self.spec.candidates, self.spec.temperature)
            .greedy_first()
            .seed(seed.wrapping_mul(100) + n as u64);
        let models = &self.parts.models;
        let answer = models.chat(self.cx, key, self.round.tier, ask).await?;
        Ok(answer.choices.into_iter().map(|c| c.text).collect())
    }

    async fn rewrite(&mut self, place: &Place, line: bool, said: String) -> Result<(), Halt> {
        self.cx.notice(Notice::Progress {
            text: said,
            done: None,
        });
        // Room for the function half as long again: an answer that rambles is no repair.
        let room = u32::try_from(place.hit.text.len() / 2 + 160).unwrap_or(u32::MAX);
        let goal = self.round.goals.first().unwrap_or(&self.spec.goal);
        let ask = prompt::rewrite(goal, place, &self.located.failures, line)
            .max_tokens(self.spec.max_tokens.min(room));
        for text in self.ask("ask".into(), ask, 0).await? {
            match prompt::read(&text, place) {
                Ok(edit) => self.add(edit),
                Err(why) => self.out.unusable.push(why.into()),
            }
        }
        Ok(())
    }

    async fn lines(
        &mut self,
        place: &Place,
        part: usize,
        prompt: fn(&Place, &Body, usize, &str) -> ChatRequest,
        said: String,
    ) -> Result<(), Halt> {
        let Some(body) = Body::of(place) else {
            return Ok(());
        };
        let all = body.statements();
        let lines = all.chunks(LINES).nth(part).unwrap_or_default();
        for (n, line) in lines.iter().enumerate() {
            self.cx.notice(Notice::Progress {
                text: said.clone(),
                done: Some((n as u64 + 1, lines.len() as u64)),
            });
            let ask = prompt(place, &body, *line, &self.located.failures);
            let key = format!("ask/{}", line + 1);
            for text in self.ask(key, ask.clone(), n).await? {
                for edit in prompt::read_line(&text, &ask, place, &body, *line) {
                    self.add(edit);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, edit: Edit) {
        let sound = |text: &str| is_well_formed(&edit.path, dedent(text).as_bytes());
        if sound(&edit.old) && !sound(&edit.new) {
            self.out.unusable.push("syntax".into());
            return;
        }
        let candidate = self.round.base.with(edit);
        let key = candidate.key();
        if self.seen.contains(&key) {
            self.out.unusable.push("repeated".into());
            return;
        }
        self.seen.push(key);
        self.out.candidates.push(candidate);
    }
}
