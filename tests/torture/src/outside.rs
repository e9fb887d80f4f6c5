//! Somebody outside of a run, who watches it, answers, patches and pauses it.

use crate::{
    Result, ledger,
    ledger::{Act, Came, What},
    live::Life,
    plan::{Random, Shape, job, simple, task},
    text,
    work::answer_to,
};
use smallhands_core::{AskId, TaskId, TaskSpec};
use smallhands_graph::{
    Engine, Event, GraphError, GraphPatch, Node, NodeState, Rewire, RunHandle, RunState,
};
use std::{path::PathBuf, sync::Arc};

/// The one outside.
#[derive(Debug)]
pub(crate) struct Outsider {
    dir: PathBuf,
    run: String,
    shape: Shape,
    /// Forks are only answered, so that they come to the same end.
    only_answers: bool,
    paused: bool,
}

/// What it is moved to do.
enum Wish {
    Patch(Change),
    Pause,
}

/// What a patch does besides adding a task of its own.
#[derive(Clone, Copy, Debug)]
enum Change {
    Nothing,
    Replace,
    Rewire,
    Cancel,
    Remove,
    /// One that is at work.
    Supersede,
}

impl Outsider {
    pub(crate) fn new(life: &Life) -> Result<Self> {
        let acts = ledger::acts(&life.dir)?;
        let paused = |a: &Act| a.what == What::Pause;
        Ok(Self {
            dir: life.dir.clone(),
            run: life.run.to_string(),
            shape: life.shape,
            only_answers: life.is_fork(),
            paused: acts.iter().any(paused),
        })
    }

    fn note(&self, id: &str, what: &What, came: Came) -> Result {
        let act = Act {
            run: self.run.clone(),
            id: id.into(),
            what: what.clone(),
            came,
        };
        ledger::note(&self.dir, &act)
    }

    /// Does what an event moves it to do.
    pub(crate) async fn hear(
        &mut self,
        engine: &Engine,
        h: &RunHandle,
        seq: u64,
        event: &Event,
    ) -> Result {
        if let Event::Asked { task, id, .. } = event
            && seq.is_multiple_of(2)
        {
            let said = || h.answer(task, id, answer_to(task.as_str()));
            self.answer(task, id, said).await?;
        }
        let Some(wish) = self.wish(seq, event) else {
            return Ok(());
        };
        match wish {
            Wish::Patch(change) => self.patch(engine, h, seq, change).await,
            Wish::Pause => {
                self.paused = true;
                self.note("pause", &What::Pause, Came::Asked)?;
                h.pause();
                Ok(())
            }
        }
    }

    /// Notes an answer before it is given, and how it was taken.
    pub(crate) async fn answer<F>(
        &self,
        task: &TaskId,
        ask: &AskId,
        give: impl FnOnce() -> F,
    ) -> Result
    where
        F: Future<Output = std::result::Result<(), GraphError>>,
    {
        let (id, what) = (ask.to_string(), What::Answer(task.to_string()));
        self.note(&id, &what, Came::Asked)?;
        let came = match give().await {
            Ok(()) => Came::Yes,
            // Its time was over, or somebody cancelled it.
            Err(GraphError::UnknownQuestion { .. }) => Came::No,
            // The run came to rest meanwhile.
            Err(GraphError::Stopped(_)) => return Ok(()),
            Err(e) => return Err(e.to_string()),
        };
        self.note(&id, &what, came)
    }

    fn wish(&self, seq: u64, event: &Event) -> Option<Wish> {
        if self.only_answers {
            return None;
        }
        match self.shape {
            Shape::Rich(_) => self.script(event),
            Shape::Random(seed) => self.whim(seed, seq),
            _ => None,
        }
    }

    /// Each kind of act once.
    fn script(&self, event: &Event) -> Option<Wish> {
        match event {
            Event::Dispatched { task, .. } => match task.as_str() {
                "src" => Some(Wish::Patch(Change::Replace)),
                "fast" => Some(Wish::Patch(Change::Rewire)),
                "slow" => Some(Wish::Patch(Change::Cancel)),
                "flaky" => Some(Wish::Patch(Change::Remove)),
                "asks" => Some(Wish::Patch(Change::Nothing)),
                "grow" => Some(Wish::Patch(Change::Supersede)),
                _ => None,
            },
            Event::Expanded { task, .. } if task.as_str() == "sub" && !self.paused => {
                Some(Wish::Pause)
            }
            _ => None,
        }
    }

    fn whim(&self, seed: u64, seq: u64) -> Option<Wish> {
        let mut r = Random(seed ^ seq);
        match r.range(0, 140) {
            0 => Some(Wish::Patch(Change::Nothing)),
            1 => Some(Wish::Patch(Change::Replace)),
            2 | 3 => Some(Wish::Patch(Change::Rewire)),
            4 => Some(Wish::Patch(Change::Cancel)),
            5 => Some(Wish::Patch(Change::Remove)),
            6 => Some(Wish::Patch(Change::Supersede)),
            7 => Some(Wish::Pause),
            _ => None,
        }
    }

    async fn patch(&self, engine: &Engine, h: &RunHandle, seq: u64, change: Change) -> Result {
        let state = engine.load(h.id()).await.map_err(text)?;
        let asked = ledger::acts(&self.dir)?;
        let id = format!("patch{}", asked.len());
        let patch = made(&state, &id, seq, change);
        let what = What::Patch(Box::new(patch.clone()));
        self.note(&id, &what, Came::Asked)?;
        let came = match h.patch(patch).await {
            Ok(_) => Came::Yes,
            // The graph moved on before it came.
            Err(GraphError::Patch(_)) => Came::No,
            Err(GraphError::Stopped(_)) => return Ok(()),
            Err(e) => return Err(e.to_string()),
        };
        self.note(&id, &what, came)
    }
}

/// A patch that adds a task of its own, named as the patch is, and changes something else.
fn made(state: &RunState, id: &str, seq: u64, change: Change) -> GraphPatch {
    let mut r = Random(seq);
    let done: Vec<_> = named(state, |n| n.state == NodeState::Done);
    let mut own = task(id, &simple(1));
    if let Some(from) = pick(&mut r, &done) {
        own = own.bind("in0", from.spec.id.clone(), "");
    }
    let mut p = GraphPatch::adding([own]);
    match change {
        Change::Nothing => {
            let open = named(state, |n| !n.state.is_settled());
            let second = task(format!("{id}+0"), &simple(1)).bind("in0", id, "/n");
            p.add.push(Arc::new(match pick(&mut r, &open) {
                Some(n) => second.bind("in1", n.spec.id.clone(), ""),
                None => second,
            }));
        }
        Change::Replace => {
            let open = named(state, |n| is_idle(n) && can_be_replaced(n));
            p.replace
                .extend(pick(&mut r, &open).map(|n| longer(&n.spec)));
        }
        Change::Supersede => {
            let running = |n: &Node| matches!(n.state, NodeState::Running { .. });
            let open = named(state, |n| running(n) && can_be_replaced(n));
            p.replace
                .extend(pick(&mut r, &open).map(|n| longer(&n.spec)));
        }
        Change::Rewire => {
            let idle = named(state, |n| is_idle(n) && !n.spec.needs.is_empty());
            p.rewire
                .extend(pick(&mut r, &idle).map(|n| with_need(&n.spec, id)));
        }
        Change::Cancel => {
            let open = named(state, |n| !n.state.is_settled());
            p.cancel
                .extend(pick(&mut r, &open).map(|n| n.spec.id.clone()));
        }
        Change::Remove => {
            let needed = |id: &TaskId| state.nodes.values().any(|n| n.spec.needs.contains(id));
            let idle = named(state, |n| is_idle(n) && !needed(&n.spec.id));
            p.remove
                .extend(pick(&mut r, &idle).map(|n| n.spec.id.clone()));
        }
    }
    p
}

/// Those that a patch may name: not what stands inside others. Spare ones first.
fn named(state: &RunState, which: impl Fn(&Node) -> bool) -> Vec<&Node> {
    let outside = |n: &&Node| state.parent(&n.spec.id).is_none();
    let all = state.nodes.values().filter(outside);
    let mut all: Vec<_> = all.filter(|n| which(n)).collect();
    if all.iter().any(|n| is_spare(n)) {
        all.retain(|n| is_spare(n));
    }
    all
}

fn is_spare(n: &Node) -> bool {
    n.spec.id.as_str().starts_with("spare")
}

fn is_idle(n: &Node) -> bool {
    let fresh = matches!(
        n.state,
        NodeState::Waiting | NodeState::Ready | NodeState::Undecided
    );
    fresh && n.started.is_none()
}

/// A task that asks would forget the answer; one that adds work would add it twice.
fn can_be_replaced(n: &Node) -> bool {
    let job = job(&n.spec);
    n.spec.graph.is_none() && !job.asks && !n.spec.expands
}

fn pick<'a>(r: &mut Random, from: &[&'a Node]) -> Option<&'a Node> {
    match from.len() as u64 {
        0 => None,
        n => Some(from[r.range(0, n) as usize]),
    }
}

/// The same with one step more.
fn longer(spec: &TaskSpec) -> Arc<TaskSpec> {
    let mut job = job(spec);
    job.steps.push(smallhands_core::Effect::Idempotent);
    let input = serde_json::to_value(job).unwrap_or_default();
    Arc::new(spec.clone().input(input))
}

/// The same with one need more.
fn with_need(spec: &TaskSpec, id: &str) -> Rewire {
    let spec = spec.clone().bind("patched", id, "/n");
    Rewire {
        task: spec.id,
        needs: spec.needs,
        bind: spec.bind,
    }
}
