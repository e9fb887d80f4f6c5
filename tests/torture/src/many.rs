//! Many runs, many kills, one sum.

use crate::{
    Result,
    fault::Point,
    harness::{Campaign, Fault, Run, Suffered, durability_name},
    plan::{Random, Shape},
    verdict::Verdict,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// So many kills one run suffers at most.
const KILLS_PER_RUN: usize = 12;

/// The sum.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    seed: u64,
    durability: &'static str,
    /// Runs.
    pub runs: usize,
    /// Kills.
    pub kills: usize,
    /// Commits of the runs whose every commit is looked at.
    pub commits: u64,
    /// Those of them at which a life ended: the run's shape and the number of the commit.
    pub killed_at: BTreeSet<(String, u64)>,
    /// Kills at points in the code, by kind.
    pub points: BTreeMap<&'static str, usize>,
    starts: usize,
    forks: usize,
    /// The sum of the verdicts.
    pub sum: Verdict,
    /// Each fault, with the run that shows it.
    pub notes: Vec<String>,
    seconds: f64,
}

/// Most of the kills at each commit of two small runs with every feature, the rest wherever they
/// fall in larger ones.
///
/// # Errors
/// The machine does not play along; never what the engine did.
pub fn run(c: &Campaign) -> Result<Figures> {
    let begin = Instant::now();
    let root = std::env::temp_dir().join(format!("smallhands-torture-{}", std::process::id()));
    drop(fs::remove_dir_all(&root));
    let sum = Mutex::new(Figures {
        seed: c.seed,
        durability: durability_name(c.durability),
        ..Figures::default()
    });
    // One that only goes on, and one that fails and is revived.
    for shape in [Shape::Rich(3), Shape::Rich(1)] {
        let quiet = Run {
            shape,
            faults: Vec::new(),
            forks: None,
        };
        let counts = one(c, &root, &sum, &quiet)?.counts;
        lock(&sum).commits += counts[0];
        let mut runs = boundaries(shape, counts, c.kills).into_iter();
        side_by_side(c, &root, &sum, &mut |_| runs.next())?;
    }
    let mut random = Random(c.seed);
    side_by_side(c, &root, &sum, &mut |killed| {
        let left = c.kills.saturating_sub(killed);
        (left > 0).then(|| anywhere(&mut random, left))
    })?;
    let mut figures = lock(&sum).clone();
    figures.seconds = begin.elapsed().as_secs_f64();
    if figures.faults() == 0 {
        drop(fs::remove_dir_all(&root));
    }
    Ok(figures)
}

/// Each commit in one way, if there may be so many kills; then as many of the others as may be,
/// evenly: each commit in the other ways, each placement, each blob.
fn boundaries(shape: Shape, [commits, placed, blobs]: [u64; 3], kills: usize) -> Vec<Run> {
    let ways = Point::AT_COMMITS;
    // Two runs share the kills, and some are for what falls anywhere.
    let all = usize::try_from(commits).unwrap_or(usize::MAX);
    let most = (kills * 2 / 5).max(all.min(kills * 9 / 20));
    let first: Vec<_> = evenly((1..=commits).collect(), most).collect();
    let room = most.saturating_sub(first.len());
    let first = first.into_iter().enumerate();
    let first = first.map(|(i, n)| ways[i % ways.len()](n));
    let others =
        |turn: usize| (1..=commits).map(move |n| ways[(n as usize + turn) % ways.len()](n));
    let rest = (0..ways.len() - 1).flat_map(others);
    let rest = rest.chain((1..=placed).map(Point::Placing));
    let rest = rest.chain((1..=blobs).map(Point::Blob)).collect();
    let points = first.chain(evenly(rest, room));
    let run = |p| Run {
        shape,
        faults: vec![Fault::At(p)],
        forks: None,
    };
    points.map(run).collect()
}

fn evenly<T>(all: Vec<T>, most: usize) -> impl Iterator<Item = T> {
    let every = all.len().div_ceil(most.max(1)).max(1);
    all.into_iter().step_by(every).take(most)
}

fn anywhere(random: &mut Random, most: usize) -> Run {
    let shape = match random.range(0, 8) {
        0 => Shape::Fan(40),
        1 => Shape::Chain(20),
        _ => Shape::Random(random.number() >> 16),
    };
    let fault = |_| match random.range(0, 10) {
        0 => Fault::At(Point::Before(random.range(3, 20))),
        1 => Fault::At(Point::During(random.range(2, 20))),
        2 => Fault::At(Point::After(random.range(1, 20))),
        3 => Fault::At(Point::Within(random.range(1, 20))),
        4 => match random.one_in(2) {
            true => Fault::At(Point::Placing(random.range(1, 12))),
            false => Fault::At(Point::Blob(random.range(1, 4))),
        },
        _ => Fault::Kill(Duration::from_millis(random.range(8, 120))),
    };
    let faults = (0..most.min(KILLS_PER_RUN)).map(fault).collect();
    let forks = Some(random.number());
    Run {
        shape,
        faults,
        forks,
    }
}

/// Two at a time: most of a life is waiting for the disk.
fn side_by_side(
    c: &Campaign,
    root: &Path,
    sum: &Mutex<Figures>,
    next: &mut (dyn FnMut(usize) -> Option<Run> + Send),
) -> Result {
    let next = Mutex::new(next);
    let work = || -> Result {
        loop {
            let run = {
                let killed = lock(sum).kills;
                (lock(&next))(killed)
            };
            match run {
                Some(run) => until_hit(c, root, sum, &run)?,
                None => return Ok(()),
            }
        }
    };
    thread::scope(|s| {
        let all = [s.spawn(work), s.spawn(work)];
        all.into_iter().try_for_each(|t| {
            t.join()
                .map_err(|_| "a thread of the harness panicked".to_owned())?
        })
    })
}

/// A run comes to one commit more or less from time to time; the last ones need another try.
fn until_hit(c: &Campaign, root: &Path, sum: &Mutex<Figures>, run: &Run) -> Result {
    let single = matches!(run.shape, Shape::Rich(_));
    for _ in 0..3 {
        let suffered = one(c, root, sum, run)?;
        if !single || suffered.kills > 0 {
            break;
        }
    }
    Ok(())
}

fn one(c: &Campaign, root: &Path, sum: &Mutex<Figures>, run: &Run) -> Result<Suffered> {
    let n = {
        let mut f = lock(sum);
        f.runs += 1;
        f.runs
    };
    let dir = root.join(n.to_string());
    let (suffered, v) = c.torture(&dir, run)?;
    let mut f = lock(sum);
    f.kills += suffered.kills;
    f.starts += suffered.starts;
    f.forks += suffered.forks.len();
    for p in &suffered.hit {
        *f.points.entry(p.kind()).or_default() += 1;
        if let (Shape::Rich(_), Some(n)) = (run.shape, p.commit()) {
            f.killed_at.insert((run.shape.to_string(), n));
        }
    }
    for note in &v.notes {
        let note = format!("{}, {}: {note}", run.shape, dir.display());
        f.notes.push(note);
    }
    if v.faults() == 0 {
        drop(fs::remove_dir_all(&dir));
    }
    f.sum.add(&v);
    Ok(suffered)
}

fn lock<T: ?Sized>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Figures {
    /// All that must be zero.
    pub fn faults(&self) -> usize {
        self.sum.faults()
    }
    /// One object.
    pub fn to_json(&self) -> Value {
        let (s, a) = (&self.sum, self.sum.acts);
        json!({
            "name": "torture/graph/faults", "value": self.faults(), "unit": "faults", "better": "lower",
            "kills": self.kills, "finished_rerun": s.finished_rerun, "steps_rerun": s.steps_rerun,
            "lost": s.lost, "duplicated_once_effects": s.duplicated_once, "early": s.early,
            "wrong": s.wrong, "stuck": s.stuck, "unfinished_rerun": s.unfinished_rerun,
            "runs": self.runs, "starts": self.starts, "forks": self.forks,
            "commits": self.commits, "commits_killed": self.killed_at.len(), "points": self.points,
            "patches": a.patches, "patches_refused": a.refused, "patches_unknown": a.unknown,
            "patches_unknown_there": a.unknown_there, "answers": a.answers, "pauses": a.pauses,
            "durability": self.durability, "seed": self.seed, "seconds": self.seconds,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, a) = (&self.sum, self.sum.acts);
        writeln!(
            f,
            "{} runs, {} starts, {} forks in {:.0} s, {}, seed {}; killed at {} of {} commits of two runs; {} unfinished tasks ran again, as they should",
            self.runs,
            self.starts,
            self.forks,
            self.seconds,
            self.durability,
            self.seed,
            self.killed_at.len(),
            self.commits,
            s.unfinished_rerun
        )?;
        let points: Vec<_> = self
            .points
            .iter()
            .map(|(k, n)| format!("{n} {k}"))
            .collect();
        writeln!(
            f,
            "points: {}; patches: {} acknowledged, {} refused, {} unanswered ({} of them there); {} answers, {} pauses",
            points.join(", "),
            a.patches,
            a.refused,
            a.unknown,
            a.unknown_there,
            a.answers,
            a.pauses
        )?;
        write!(
            f,
            "kills={} finished_rerun={} lost={} duplicated_once_effects={} stuck={} steps_rerun={} early={} wrong={}",
            self.kills,
            s.finished_rerun,
            s.lost,
            s.duplicated_once,
            s.stuck,
            s.steps_rerun,
            s.early,
            s.wrong
        )
    }
}
