//! Graphs from a seed.

use crate::work::{Job, Work};
use smallhands_core::{Condition, Effect, OnFailure, Retry, TaskSpec};
use smallhands_graph::GraphPatch;
use std::{fmt, str::FromStr, sync::Arc};

/// SplitMix64: the same numbers everywhere, for ever.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// One in `from..to`.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.number() % (to - from).max(1)
    }
    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.number().is_multiple_of(n)
    }
}

/// What kind of graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A few tasks of every kind, for the enumeration of commits.
    Small(u64),
    /// Layers, chains and growth.
    Random(u64),
    /// One after the other.
    Chain(usize),
    /// All at once, then a join; the i-th takes longer than the one before it.
    Branches(usize),
    /// All at once, as fast as they can, then a join.
    Fan(usize),
}

impl FromStr for Shape {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is not small, random, chain, branches or fan with :N");
        let (word, n) = s.split_once(':').ok_or_else(bad)?;
        let n: u64 = n.parse().map_err(|_| bad())?;
        let size = usize::try_from(n).map_err(|_| bad())?;
        match word {
            "small" => Ok(Self::Small(n)),
            "random" => Ok(Self::Random(n)),
            "chain" => Ok(Self::Chain(size)),
            "branches" => Ok(Self::Branches(size)),
            "fan" => Ok(Self::Fan(size)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small(n) => write!(f, "small:{n}"),
            Self::Random(n) => write!(f, "random:{n}"),
            Self::Chain(n) => write!(f, "chain:{n}"),
            Self::Branches(n) => write!(f, "branches:{n}"),
            Self::Fan(n) => write!(f, "fan:{n}"),
        }
    }
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph at the beginning.
    pub tasks: Vec<TaskSpec>,
    /// How many tasks at once.
    pub parallel: usize,
    /// Whether tasks run in worker processes.
    pub pool: bool,
}

impl Plan {
    /// Always the same for the same shape.
    pub fn of(shape: Shape) -> Self {
        let (tasks, parallel) = match shape {
            Shape::Small(seed) => (Maker::new(seed).layers(3, 3), 3),
            Shape::Random(seed) => {
                let mut m = Maker::new(seed);
                let depth = m.random.range(3, 7);
                (m.layers(depth, 6), 6)
            }
            Shape::Chain(n) => (chain(n), 4),
            Shape::Branches(n) => (joined(n, |i| 10 * (i + 1)), n),
            Shape::Fan(n) => (joined(n, |i| 2 + i % 3), 8),
        };
        let pool = matches!(shape, Shape::Random(seed) if seed % 4 == 3);
        Self {
            tasks,
            parallel,
            pool,
        }
    }

    /// Every task that can ever exist, grown ones included.
    pub fn all(&self) -> Vec<TaskSpec> {
        let mut open = self.tasks.clone();
        let mut all = Vec::new();
        while let Some(t) = open.pop() {
            open.extend(
                job(&t)
                    .grows
                    .into_iter()
                    .flat_map(|p| p.add)
                    .map(Arc::unwrap_or_clone),
            );
            all.push(t);
        }
        all
    }
}

/// What a task of ours does.
pub fn job(t: &TaskSpec) -> Job {
    serde_json::from_value(t.input.clone()).unwrap_or_default()
}

fn task(id: String, job: &Job) -> TaskSpec {
    TaskSpec::new(id, Work::NAME).input(serde_json::to_value(job).unwrap_or_default())
}

fn simple(ms: u64) -> Job {
    Job {
        steps: vec![Effect::Idempotent, Effect::Verifiable],
        ms,
        ..Job::default()
    }
}

fn chain(n: usize) -> Vec<TaskSpec> {
    let each = |i: usize| {
        let t = task(format!("c{i}"), &simple(3));
        match i {
            0 => t,
            _ => t.bind("a", format!("c{}", i - 1), "/n"),
        }
    };
    (0..n).map(each).collect()
}

fn joined(n: usize, ms: impl Fn(u64) -> u64) -> Vec<TaskSpec> {
    let mut all: Vec<_> = (0..n)
        .map(|i| task(format!("b{i:02}"), &simple(ms(i as u64))))
        .collect();
    let join = (0..n).fold(task("join".into(), &simple(1)), |t, i| {
        t.needs(format!("b{i:02}"))
    });
    all.push(join);
    all
}

struct Maker {
    random: Random,
    /// Some runs fail and are revived; those have no effect that nobody may repeat, because to
    /// revive a task is to say that it may be done again.
    revives: bool,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let revives = seed % 3 == 1;
        Self {
            random: Random(seed),
            revives,
        }
    }

    fn layers(&mut self, depth: u64, width: u64) -> Vec<TaskSpec> {
        let mut all: Vec<TaskSpec> = Vec::new();
        let mut above: Vec<String> = Vec::new();
        for layer in 0..depth {
            let mut here = Vec::new();
            for i in 0..self.random.range(1, width + 1) {
                let id = format!("l{layer}/{i}");
                let t = self.task(id.clone(), 0);
                all.push(self.bound(t, &above));
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
            t = t.bind(&format!("in{k}"), from, "/n");
        }
        if self.random.one_in(9) {
            t = t.when(Condition::Named("even".into()));
        }
        t
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
            asks: r.one_in(7),
            steps,
            ..Job::default()
        };
        let grows = generation < 2 && r.one_in(6);
        if grows {
            job.grows = Some(self.growth(&id, generation + 1));
        }
        let r = &mut self.random;
        let mut t = task(id, &job).priority(r.range(0, 3) as i32).retry(Retry {
            max_attempts: job.fails + 1,
            first_delay_ms: 2,
            ..Retry::default()
        });
        t.expands = grows;
        // In doubt, such a step ends its task; the run goes on without it.
        let goes_on = once || (fatal && r.one_in(2));
        match (goes_on, r.one_in(2)) {
            (true, true) => t.on_failure(OnFailure::Continue),
            (true, false) => t.on_failure(OnFailure::SkipDependents),
            _ => t,
        }
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

fn effect(r: &mut Random, revives: bool) -> Effect {
    match r.range(0, 10) {
        0..=2 => Effect::Idempotent,
        3..=4 => Effect::Workspace,
        5..=6 => Effect::Verifiable,
        7..=8 if !revives => Effect::AtMostOnce,
        _ => Effect::Pure,
    }
}
