//! Graphs from a seed.

use crate::{
    maker::{self, Maker},
    work::{Job, Work},
};
use smallhands_core::{Effect, GroupLimit, TaskId, TaskSpec};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

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
    /// Every feature once, for the enumeration of commits; odd ones fail and are revived.
    Rich(u64),
    /// Layers of tasks of every kind.
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
        let bad = || format!("`{s}` is not rich, random, chain, branches or fan with :N");
        let (word, n) = s.split_once(':').ok_or_else(bad)?;
        let n: u64 = n.parse().map_err(|_| bad())?;
        let size = usize::try_from(n).map_err(|_| bad())?;
        match word {
            "rich" => Ok(Self::Rich(n)),
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
            Self::Rich(n) => write!(f, "rich:{n}"),
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
    /// What its groups may do.
    pub limits: BTreeMap<String, GroupLimit>,
    /// How many tasks at once.
    pub parallel: usize,
    /// Whether tasks run in worker processes.
    pub pool: bool,
}

impl Plan {
    /// Always the same for the same shape.
    pub fn of(shape: Shape) -> Self {
        let (tasks, parallel) = match shape {
            Shape::Rich(seed) => (maker::rich(revives(seed)), 3),
            Shape::Random(seed) => {
                let mut m = Maker::new(seed, revives(seed));
                let depth = m.random.range(3, 7);
                (m.layers(depth, 6), 6)
            }
            Shape::Chain(n) => (chain(n), 4),
            Shape::Branches(n) => (joined(n, |i| 10 * (i + 1)), n),
            Shape::Fan(n) => (joined(n, |i| 2 + i % 3), 8),
        };
        let pool = matches!(shape, Shape::Random(seed) if seed % 4 == 3);
        let limits = [
            ("two", GroupLimit::parallel(2)),
            ("rate", GroupLimit::rate(3, Duration::from_millis(15))),
        ];
        let limits = limits.map(|(name, l)| (name.to_owned(), l)).into();
        Self {
            tasks,
            limits,
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

/// Some runs fail and are revived; those have no effect that nobody may repeat, because to revive a
/// task is to say that it may be done again.
fn revives(seed: u64) -> bool {
    seed % 3 == 1
}

/// What a task of ours does.
pub fn job(t: &TaskSpec) -> Job {
    serde_json::from_value(t.input.clone()).unwrap_or_default()
}

pub(crate) fn task(id: impl Into<TaskId>, job: &Job) -> TaskSpec {
    TaskSpec::new(id, Work::NAME).input(serde_json::to_value(job).unwrap_or_default())
}

pub(crate) fn simple(ms: u64) -> Job {
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
    let join = (0..n).fold(task("join", &simple(1)), |t, i| t.needs(format!("b{i:02}")));
    all.push(join);
    all
}
