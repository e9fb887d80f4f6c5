//! Kills, restarts, judges, sums up.

use crate::{
    Result,
    plan::{Plan, Random, Shape},
    store::{Broken, Point},
    text,
    verdict::{self, Verdict},
};
use serde_json::{Value, json};
use std::{
    fmt, fs,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How a life ends before its time.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The whole process group gets SIGKILL after so long.
    Kill(Duration),
    /// The process dies by itself at a point in the code.
    At(Point),
}

/// No life takes longer; a run that does is stuck.
const BOUND: Duration = Duration::from_secs(60);
/// So many kills one run suffers at most.
const KILLS_PER_RUN: usize = 12;

/// A program, and how its store is broken if it is.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The `torture` binary.
    pub program: PathBuf,
    /// How many kills.
    pub kills: usize,
    /// Everything but the timing follows from it.
    pub seed: u64,
    /// For the proof that a fault is found.
    pub broken: Option<Broken>,
}

/// What one run suffered.
#[derive(Clone, Debug, Default)]
pub struct Suffered {
    /// Lives that were cut short.
    pub kills: usize,
    /// Lives.
    pub starts: usize,
    /// Appends of the last life.
    pub appends: u64,
    /// Why it never ended.
    pub stuck: Option<String>,
}

/// The sum.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    seed: u64,
    /// Runs.
    pub runs: usize,
    /// Kills.
    pub kills: usize,
    /// Of these, at the commits of one small run, and how many commits it has.
    pub boundaries: (usize, u64),
    starts: usize,
    /// The sum of the verdicts.
    pub sum: Verdict,
    /// Each fault, with the run that shows it.
    pub notes: Vec<String>,
    seconds: f64,
}

impl Campaign {
    /// One run under these faults, to its end, and what the judge says.
    ///
    /// # Errors
    /// The machine does not play along; never what the engine did.
    pub fn torture(
        &self,
        dir: &Path,
        shape: Shape,
        faults: impl IntoIterator<Item = Fault>,
    ) -> Result<(Suffered, Verdict)> {
        fs::create_dir_all(dir).map_err(text)?;
        let suffered = self.suffer(dir, shape, faults)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let judged = runtime.map_err(text)?.block_on(verdict::judge(dir, shape));
        let mut v = judged.unwrap_or_else(|e| Verdict {
            lost: 1,
            notes: vec![format!("the journal cannot be judged: {e}")],
            ..Verdict::default()
        });
        if let Some(why) = &suffered.stuck {
            v.stuck = 1;
            v.notes.push(format!("stuck: {why}"));
        }
        Ok((suffered, v))
    }

    fn suffer(
        &self,
        dir: &Path,
        shape: Shape,
        faults: impl IntoIterator<Item = Fault>,
    ) -> Result<Suffered> {
        let (mut s, mut faults) = (Suffered::default(), faults.into_iter());
        loop {
            let fault = faults.next();
            let life = self.life(dir, shape, fault)?;
            s.starts += 1;
            match life {
                End::Killed => s.kills += 1,
                End::Exited(status, said) if status.success() => {
                    s.appends = said.trim().parse().unwrap_or(0);
                    return Ok(s);
                }
                // It died where nobody asked it to.
                End::Exited(status, said) => {
                    s.stuck = Some(format!("{status}: {said}"));
                    return Ok(s);
                }
                End::TooLong => {
                    s.stuck = Some(format!("a life of {BOUND:?} was not enough"));
                    return Ok(s);
                }
            }
        }
    }

    fn life(&self, dir: &Path, shape: Shape, fault: Option<Fault>) -> Result<End> {
        let mut c = Command::new(&self.program);
        c.arg("live")
            .arg("--dir")
            .arg(dir)
            .args(["--shape", &shape.to_string()]);
        if let Some(b) = self.broken {
            c.args(["--broken", &b.to_string()]);
        }
        let mut limit = BOUND;
        match fault {
            Some(Fault::Kill(after)) => limit = after,
            Some(Fault::At(point)) => drop(c.args(["--crash", &point.to_string()])),
            None => {}
        }
        c.process_group(0).stdin(Stdio::null());
        let mut child = c
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let ended = ended_within(&mut child, limit)?;
        // Without a pool, one that ended was alone in its group.
        if ended.is_none() || Plan::of(shape).pool {
            kill_group(child.id());
        }
        let status = child.wait().map_err(text)?;
        let mut said = String::new();
        let pipes: [Option<Box<dyn Read>>; 2] = [
            child.stdout.take().map(|p| Box::new(p) as Box<dyn Read>),
            child.stderr.take().map(|p| Box::new(p) as Box<dyn Read>),
        ];
        for mut p in pipes.into_iter().flatten() {
            p.read_to_string(&mut said).map_err(text)?;
        }
        Ok(match (ended, fault) {
            (None, Some(Fault::Kill(_))) => End::Killed,
            (None, _) => End::TooLong,
            (Some(_), Some(Fault::At(_))) if status.signal().is_some() => End::Killed,
            _ => End::Exited(status, said),
        })
    }
}

enum End {
    Killed,
    Exited(ExitStatus, String),
    TooLong,
}

fn ended_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(s) = child.try_wait().map_err(text)? {
            return Ok(Some(s));
        }
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        thread::sleep(left.min(Duration::from_millis(2)));
    }
}

fn kill_group(leader: u32) {
    let group = format!("-{leader}");
    let mut c = Command::new("kill");
    c.args(["-9", "--", &group]).stderr(Stdio::null());
    // A group that is empty already cannot be killed, and need not be.
    drop(c.status());
}

// ---- many runs

type Run = (Shape, Vec<Fault>);

/// A third or so of the kills at each commit of one small run, the rest wherever they fall in
/// larger ones.
///
/// # Errors
/// The machine does not play along; never what the engine did.
pub fn run(c: &Campaign) -> Result<Figures> {
    let begin = Instant::now();
    let root = std::env::temp_dir().join(format!("smallhands-torture-{}", std::process::id()));
    drop(fs::remove_dir_all(&root));
    let sum = Mutex::new(Figures {
        seed: c.seed,
        ..Figures::default()
    });
    let small = Shape::Small(c.seed);
    let commits = one(c, &root, &sum, 0, (small, Vec::new()))?.appends;
    let mut runs = boundaries(small, commits, c.kills * 2 / 3).into_iter();
    side_by_side(c, &root, &sum, &mut |_, n| runs.next().map(|r| (n, r)))?;
    let mut f = lock(&sum);
    f.boundaries = (f.kills, commits);
    drop(f);
    let mut random = Random(c.seed);
    side_by_side(c, &root, &sum, &mut |killed, n| {
        let left = c.kills.saturating_sub(killed);
        (left > 0).then(|| (n, anywhere(&mut random, left)))
    })?;
    let mut figures = lock(&sum).clone();
    figures.seconds = begin.elapsed().as_secs_f64();
    if figures.faults() == 0 {
        drop(fs::remove_dir_all(&root));
    }
    Ok(figures)
}

/// Each commit: before, during and after it; fewer of them, evenly, if there are too many.
fn boundaries(small: Shape, commits: u64, most: usize) -> Vec<Run> {
    let points = (1..=commits).flat_map(|n| [Point::Before(n), Point::During(n), Point::After(n)]);
    let all: Vec<_> = points.map(|p| (small, vec![Fault::At(p)])).collect();
    let every = all.len().div_ceil(most.max(1)).max(1);
    all.into_iter().step_by(every).collect()
}

fn anywhere(random: &mut Random, most: usize) -> Run {
    let shape = match random.range(0, 8) {
        0 => Shape::Fan(40),
        1 => Shape::Chain(20),
        _ => Shape::Random(random.number() >> 16),
    };
    let fault = |_| match random.range(0, 5) {
        0 => Fault::At(Point::Before(random.range(3, 20))),
        1 => Fault::At(Point::During(random.range(2, 20))),
        2 => Fault::At(Point::After(random.range(1, 20))),
        _ => Fault::Kill(Duration::from_millis(random.range(8, 120))),
    };
    (shape, (0..most.min(KILLS_PER_RUN)).map(fault).collect())
}

/// Two at a time: most of a life is waiting for the disk.
fn side_by_side(
    c: &Campaign,
    root: &Path,
    sum: &Mutex<Figures>,
    next: &mut (dyn FnMut(usize, usize) -> Option<(usize, Run)> + Send),
) -> Result {
    let next = Mutex::new(next);
    let work = || -> Result {
        loop {
            let run = {
                let mut f = lock(sum);
                f.runs += 1;
                let (killed, n) = (f.kills, f.runs);
                drop(f);
                (lock(&next))(killed, n)
            };
            let Some((n, run)) = run else {
                lock(sum).runs -= 1;
                return Ok(());
            };
            one(c, root, sum, n, run)?;
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

fn one(c: &Campaign, root: &Path, sum: &Mutex<Figures>, n: usize, run: Run) -> Result<Suffered> {
    let dir = root.join(n.to_string());
    let (shape, faults) = run;
    let (suffered, v) = c.torture(&dir, shape, faults)?;
    let mut f = lock(sum);
    f.kills += suffered.kills;
    f.starts += suffered.starts;
    for note in &v.notes {
        let note = format!("{shape}, {}: {note}", dir.display());
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
        let (s, (at_commits, commits)) = (&self.sum, self.boundaries);
        json!({
            "name": "torture/graph/faults", "value": self.faults(), "unit": "faults", "better": "lower",
            "kills": self.kills, "finished_rerun": s.finished_rerun, "steps_rerun": s.steps_rerun,
            "lost": s.lost, "duplicated_once_effects": s.duplicated_once, "early": s.early,
            "stuck": s.stuck, "unfinished_rerun": s.unfinished_rerun, "runs": self.runs,
            "starts": self.starts, "kills_at_commits": at_commits, "commits": commits,
            "seed": self.seed, "seconds": self.seconds,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, (at_commits, commits)) = (&self.sum, self.boundaries);
        write!(
            f,
            "kills={} finished_rerun={} lost={} duplicated_once_effects={} stuck={} steps_rerun={} early={}",
            self.kills,
            s.finished_rerun,
            s.lost,
            s.duplicated_once,
            s.stuck,
            s.steps_rerun,
            s.early
        )?;
        write!(
            f,
            "\n{} runs, {} starts in {:.0} s, seed {}; {at_commits} kills around the {commits} commits of one run; {} unfinished tasks ran again, as they should",
            self.runs, self.starts, self.seconds, self.seed, s.unfinished_rerun
        )
    }
}
