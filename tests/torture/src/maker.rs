//! Graphs of tasks of every kind.

use crate::{
    plan::{Random, simple, task},
    work::{Job, Work},
};
use smallhands_core::{
    Binding, Condition, Effect, Join, OnFailure, Repeat, Retry, SubGraph, TaskSpec,
};
use smallhands_graph::GraphPatch;

/// Makes random graphs.
pub(crate) struct Maker {
    pub(crate) random: Random,
    revives: bool,
}

impl Maker {
    pub(crate) fn new(seed: u64, revives: bool) -> Self {
        Self {
            random: Random(seed),
            revives,
        }
    }

    pub(crate) fn layers(&mut self, depth: u64, width: u64) -> Vec<TaskSpec> {
        let mut all: Vec<TaskSpec> = Vec::new();
        let mut above: Vec<String> = Vec::new();
        for layer in 0..depth {
            let mut here = Vec::new();
            for i in 0..self.random.range(1, width + 1) {
                let id = format!("l{layer}/{i}");
                let t = self.task(id.clone(), 0);
                let t = self.bound(t, &above);
                all.push(self.shaped(t, &above));
                here.push(id);
            }
            above.extend(here);
        }
        all
    }

    /// Needs one to three of those above.
    fn bound(&mut self, mut t: TaskSpec, above: &[String]) -> TaskSpec {
        if above.is_empty() {
            return t;
        }
        for k in 0..self.random.range(1, 4) {
            let from = &above[self.random.range(0, above.len() as u64) as usize];
            t = t.bind(&format!("in{k}"), from, "");
        }
        if self.random.one_in(9) {
            t = t.when(Condition::Named("even".into()));
        }
        match self.random.range(0, 8) {
            0 => t.group("two"),
            1 => t.group("rate"),
            _ => t,
        }
    }

    /// Some of them as a map, a loop, a sub-graph or with another join.
    fn shaped(&mut self, t: TaskSpec, above: &[String]) -> TaskSpec {
        let plain = !t.expands && !t.on_failure_is_special();
        match self.random.range(0, 10) {
            0 if plain && !above.is_empty() => self.mapped(t, above),
            1 if !t.expands => looped(t, self.random.range(1, 4)),
            2 if plain => self.held(t),
            3 | 4 if t.needs.len() > 1 => joined(t, self.random.range(1, 3) as u32),
            _ => t,
        }
    }

    /// Over the list that one of those above leaves; one that leaves none fails its map.
    fn mapped(&mut self, t: TaskSpec, above: &[String]) -> TaskSpec {
        let from = &above[self.random.range(0, above.len() as u64) as usize];
        let goes_on = match self.random.one_in(2) {
            true => OnFailure::Continue,
            false => OnFailure::SkipDependents,
        };
        let mut t = t.map("item", from, "/list").on_failure(goes_on);
        if let Some(m) = &mut t.map {
            m.max_parallel = self.random.one_in(2).then_some(2);
        }
        t
    }

    /// A task that stands for two, the second of which may be a map.
    fn held(&mut self, holder: TaskSpec) -> TaskSpec {
        let of_holder = |field: &str, pointer: &str| Binding {
            field: field.into(),
            from: "".into(),
            pointer: pointer.into(),
        };
        let mut a = self.task("a".into(), 9);
        if holder.bind.iter().any(|b| b.field == "in0") {
            a.bind.push(of_holder("in0", "/in0"));
        }
        let b = self.task("b".into(), 9).bind("in0", "a", "/n");
        let b = match self.random.one_in(2) {
            true => self.mapped(b, &["a".to_owned()]),
            false => b,
        };
        TaskSpec {
            worker: "".into(),
            graph: Some(Box::new(SubGraph {
                tasks: vec![a.into(), b.into()],
                output: self.random.one_in(2).then(|| "b".into()),
            })),
            on_failure: OnFailure::Continue,
            ..holder
        }
    }

    fn task(&mut self, id: String, generation: u32) -> TaskSpec {
        let r = &mut self.random;
        let steps: Vec<_> = (0..r.range(1, 4))
            .map(|_| effect(r, self.revives))
            .collect();
        let once = steps.contains(&Effect::AtMostOnce);
        let fatal = self.revives && !once && r.one_in(6);
        let mut job = Job {
            ms: r.range(1, 5),
            fails: if !fatal && r.one_in(4) { 1 } else { 0 },
            fatal,
            doomed: !fatal && r.one_in(12),
            asks: r.one_in(7),
            list: r.range(0, 5),
            steps,
            ..Job::default()
        };
        job.patience = (job.asks && r.one_in(3)).then(|| r.range(5, 200));
        let grows = generation < 2 && r.one_in(6);
        if grows {
            job.grows = Some(self.growth(&id, generation + 1));
        }
        let mut t = task(id, &job)
            .priority(self.random.range(0, 3) as i32)
            .retry(Retry {
                max_attempts: job.fails + 1,
                first_delay_ms: 2,
                ..Retry::default()
            });
        t.expands = grows;
        // In doubt, such a step ends its task; the run goes on without it.
        let r = &mut self.random;
        let goes_on = once || job.doomed || (fatal && r.one_in(2));
        t.on_failure(match (goes_on, r.one_in(2)) {
            (true, true) => OnFailure::Continue,
            (true, false) => OnFailure::SkipDependents,
            (false, true) if fatal && generation == 0 => OnFailure::Compensate(Work::UNDO.into()),
            _ => OnFailure::FailRun,
        })
    }

    fn growth(&mut self, parent: &str, generation: u32) -> GraphPatch {
        let mut above = vec![parent.to_owned()];
        let mut p = GraphPatch::default();
        for i in 0..self.random.range(1, 4) {
            let id = format!("{parent}+{i}");
            let t = self.task(id.clone(), generation);
            p.add.push(self.bound(t, &above).into());
            above.push(id);
        }
        p
    }
}

trait Special {
    fn on_failure_is_special(&self) -> bool;
}
impl Special for TaskSpec {
    fn on_failure_is_special(&self) -> bool {
        matches!(self.on_failure, OnFailure::Compensate(_))
    }
}

fn effect(r: &mut Random, revives: bool) -> Effect {
    match r.range(0, 10) {
        0..=2 => Effect::Idempotent,
        3..=4 => Effect::Workspace,
        5..=6 => Effect::Verifiable,
        7..=8 if !revives => Effect::AtMostOnce,
        _ => Effect::Pure,
    }
}

fn with_job(t: TaskSpec, change: impl FnOnce(&mut Job)) -> TaskSpec {
    let mut job = crate::plan::job(&t);
    change(&mut job);
    t.input(serde_json::to_value(job).unwrap_or_default())
}

/// Again and again, each iteration fed with the one before it; a question is asked once in a run.
fn looped(t: TaskSpec, times: u64) -> TaskSpec {
    let t = with_job(t, |j| {
        j.until = times;
        j.asks = false;
        j.fatal = false;
    });
    t.repeat(Repeat {
        until: Condition::Named("enough".into()),
        max: 4,
        feed: Some("last".into()),
    })
}

fn joined(t: TaskSpec, n: u32) -> TaskSpec {
    let join = match n {
        1 => Join::Any,
        n => Join::AtLeast(n),
    };
    with_job(t, |j| j.deaf = true).join(join)
}

// ---- each once

/// Its commits are counted: one step is enough.
fn short() -> Job {
    Job {
        steps: vec![Effect::Verifiable],
        ms: 1,
        ..Job::default()
    }
}

/// Each feature once; with `revives` one task fails the run, which has to be revived then, and no
/// effect is one that nobody may repeat.
pub(crate) fn rich(revives: bool) -> Vec<TaskSpec> {
    let once = match revives {
        true => Effect::Pure,
        false => Effect::AtMostOnce,
    };
    let job = |steps: &[Effect]| Job {
        steps: steps.to_vec(),
        ms: 1,
        ..Job::default()
    };
    let source = Job {
        list: 3,
        ..job(&[Effect::Idempotent])
    };
    let each = job(&[Effect::Verifiable, Effect::Workspace, once]);
    let mut map = task("map", &each)
        .map("item", "src", "/list")
        .on_failure(OnFailure::Continue);
    if let Some(m) = &mut map.map {
        m.max_parallel = Some(2);
    }
    let mut all = vec![
        task("src", &source),
        map,
        sub_graph().bind("in0", "src", "/n"),
        looped(
            task("loop", &job(&[Effect::Idempotent, Effect::Verifiable])),
            2,
        )
        .bind("in0", "src", "/n"),
    ];
    all.extend(joins());
    all.extend(failures(revives));
    let asks = Job {
        asks: true,
        ..short()
    };
    let patient = Job {
        patience: Some(40),
        ..asks.clone()
    };
    all.extend([task("asks", &asks), task("patient", &patient)]);
    all.extend((0..3).map(|i| task(format!("grouped{i}"), &job(&[Effect::Pure])).group("two")));
    // For patches: they wait long enough to be changed.
    all.extend((0..4).map(|i| task(format!("spare{i}"), &short()).needs("loop")));
    let last = ["map", "sub", "loop", "any", "two", "after1", "flaky"];
    let end = (last.iter()).fold(task("end", &short()), |t, id| t.bind(id, *id, ""));
    all.push(end);
    all
}

fn sub_graph() -> TaskSpec {
    let mut a = task("a", &short());
    a.bind.push(Binding {
        field: "in0".into(),
        from: "".into(),
        pointer: "/in0".into(),
    });
    let b = task("b", &short()).bind("in0", "a", "/n");
    let graph = SubGraph {
        tasks: vec![a.into(), b.into()],
        output: Some("b".into()),
    };
    TaskSpec::sub_graph("sub", graph)
}

fn joins() -> Vec<TaskSpec> {
    let deaf = Job {
        deaf: true,
        ..short()
    };
    let any = ["fast", "slow"]
        .iter()
        .fold(task("any", &deaf), |t, id| t.bind(id, *id, "/n"))
        .join(Join::Any);
    let two = ["fast", "slow", "doomed0"]
        .iter()
        .fold(task("two", &deaf), |t, id| t.needs(*id))
        .join(Join::AtLeast(2));
    vec![task("fast", &short()), task("slow", &simple(6)), any, two]
}

fn failures(revives: bool) -> Vec<TaskSpec> {
    let doomed = Job {
        doomed: true,
        ..short()
    };
    let flaky = Job {
        fails: 1,
        ..short()
    };
    let retry = Retry {
        max_attempts: 2,
        first_delay_ms: 2,
        ..Retry::default()
    };
    let parent = "grow";
    let mut growth = GraphPatch::default();
    for i in 0..2 {
        let t = task(format!("{parent}+{i}"), &short()).bind("in0", parent, "/n");
        growth.add.push(t.into());
    }
    let grows = Job {
        grows: Some(growth),
        ..short()
    };
    let mut all = vec![
        task("doomed0", &doomed).on_failure(OnFailure::SkipDependents),
        task("doomed1", &doomed).on_failure(OnFailure::Continue),
        task("after0", &short()).bind("in0", "doomed0", "/n"),
        task("after1", &short()).bind("in0", "doomed1", "/n"),
        task("flaky", &flaky).retry(retry),
        task(parent, &grows).expands(),
        task("even", &short())
            .bind("in0", "fast", "/n")
            .when(Condition::Named("even".into())),
    ];
    if revives {
        let fatal = Job {
            fatal: true,
            ..short()
        };
        let undo = OnFailure::Compensate(Work::UNDO.into());
        all.push(task("fatal", &fatal).needs("slow").on_failure(undo));
    }
    all
}
