//! One run at a time: kills it, restarts it, forks it, has it judged.

use crate::{
    Result,
    fault::{Broken, Point},
    live,
    plan::{Plan, Random, Shape},
    text,
    verdict::{self, Fork, Verdict},
};
use smallhands_graph::{Durability, Node, NodeState};
use std::{
    fs,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
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

/// A program, and how its store is broken if it is.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The `torture` binary.
    pub program: PathBuf,
    /// How many kills.
    pub kills: usize,
    /// Everything but the timing follows from it.
    pub seed: u64,
    /// What the runs' appends survive.
    pub durability: Durability,
    /// For the proof that a fault is found.
    pub broken: Option<Broken>,
}

/// What is done to one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its graph.
    pub shape: Shape,
    /// How its lives end before their time, one after the other.
    pub faults: Vec<Fault>,
    /// Whether it is forked after some kills, and where follows from this.
    pub forks: Option<u64>,
}

/// What one run suffered.
#[derive(Clone, Debug, Default)]
pub struct Suffered {
    /// Lives that were cut short.
    pub kills: usize,
    /// Those that were cut short at a point in the code.
    pub hit: Vec<Point>,
    /// Lives.
    pub starts: usize,
    /// Of the last life: appends, placements, blobs.
    pub counts: [u64; 3],
    /// Forks, each of which came to its end.
    pub forks: Vec<Fork>,
    /// Why it never ended.
    pub stuck: Option<String>,
}

/// What a life is told on its command line.
struct Lived<'a> {
    dir: &'a Path,
    shape: Shape,
    run: &'a str,
}

impl Campaign {
    /// One run under these faults, to its end, and what the judge says.
    ///
    /// # Errors
    /// The machine does not play along; never what the engine did.
    pub fn torture(&self, dir: &Path, run: &Run) -> Result<(Suffered, Verdict)> {
        fs::create_dir_all(dir).map_err(text)?;
        let mut s = Suffered::default();
        self.suffer(dir, run, &mut s)?;
        let own = wait(verdict::judge(dir, run.shape))?;
        let mut v = own.unwrap_or_else(|e| unreadable(&e));
        for f in &s.forks {
            let fork = wait(verdict::judge_fork(dir, run.shape, f))?;
            let fork = fork.unwrap_or_else(|e| unreadable(&e));
            v.add(&fork);
            let notes = fork.notes.into_iter();
            v.notes
                .extend(notes.map(|n| format!("{}@{}: {n}", f.run, f.at)));
        }
        if let Some(why) = &s.stuck {
            v.stuck += 1;
            v.notes.push(format!("stuck: {why}"));
        }
        Ok((s, v))
    }

    fn suffer(&self, dir: &Path, run: &Run, s: &mut Suffered) -> Result {
        let lived = Lived {
            dir,
            shape: run.shape,
            run: live::RUN,
        };
        let mut random = run.forks.map(Random);
        let mut made = Vec::new();
        for fault in run.faults.iter().copied().map(Some).chain([None]) {
            let over = self.lived(&lived, fault, s)?;
            if let Some(r) = &mut random
                && s.stuck.is_none()
                && (over || r.one_in(5))
                && made.len() < 3
            {
                made.extend(fork(dir, made.len(), r)?);
            }
            if over {
                break;
            }
        }
        if let Some(r) = &mut random
            && s.stuck.is_none()
        {
            made.extend(again(dir, r)?);
        }
        // To their end, each killed once on its way.
        for f in made {
            let lived = Lived {
                run: &f.run,
                ..lived
            };
            let after = random.as_mut().map_or(30, |r| r.range(10, 90));
            let kill = Fault::Kill(Duration::from_millis(after));
            if s.stuck.is_none() && !self.lived(&lived, Some(kill), s)? {
                self.lived(&lived, None, s)?;
            }
            if let Some(why) = &mut s.stuck {
                why.insert_str(0, &format!("in {f:?}: "));
                break;
            }
            s.forks.push(f);
        }
        Ok(())
    }

    /// One life; whether nothing follows it.
    fn lived(&self, l: &Lived<'_>, fault: Option<Fault>, s: &mut Suffered) -> Result<bool> {
        s.starts += 1;
        match self.life(l, fault)? {
            End::Killed => {
                s.kills += 1;
                if let Some(Fault::At(p)) = fault {
                    s.hit.push(p);
                }
                return Ok(false);
            }
            End::Exited(status, said) if status.success() => {
                let counts = said.split_whitespace().filter_map(|n| n.parse().ok());
                for (to, n) in s.counts.iter_mut().zip(counts) {
                    *to = n;
                }
            }
            // It died where nobody asked it to.
            End::Exited(status, said) => s.stuck = Some(format!("{status}: {said}")),
            End::TooLong => s.stuck = Some(format!("a life of {BOUND:?} was not enough")),
        }
        Ok(true)
    }

    fn life(&self, l: &Lived<'_>, fault: Option<Fault>) -> Result<End> {
        let mut c = Command::new(&self.program);
        c.args(["live", "--run", l.run, "--dir"]).arg(l.dir);
        c.args(["--shape", &l.shape.to_string()]);
        c.args(["--durability", durability_name(self.durability)]);
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
        if ended.is_none() || Plan::of(l.shape).pool {
            kill_group(child.id());
        }
        let status = child.wait().map_err(text)?;
        let said = said(&mut child)?;
        Ok(match (ended, fault) {
            (None, Some(Fault::Kill(_))) => End::Killed,
            (None, _) => End::TooLong,
            (Some(_), Some(Fault::At(_))) if status.signal().is_some() => End::Killed,
            _ => End::Exited(status, said),
        })
    }
}

/// The word for it on a command line.
pub fn durability_name(d: Durability) -> &'static str {
    match d {
        Durability::ProcessCrash => "process-crash",
        Durability::PowerLoss => "power-loss",
    }
}

fn unreadable(why: &str) -> Verdict {
    Verdict {
        lost: 1,
        notes: vec![format!("the journal cannot be judged: {why}")],
        ..Verdict::default()
    }
}

fn wait<T>(f: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    Ok(runtime.map_err(text)?.block_on(f))
}

/// Forks the run where it stands or before; none while there is no graph in it.
fn fork(dir: &Path, n: usize, r: &mut Random) -> Result<Option<Fork>> {
    // Created, opened and patched are one append.
    const FIRST: u64 = 3;
    let run = format!("fork{n}");
    wait(async {
        let engine = live::idle(dir)?;
        let last = match engine.info(&live::RUN.into()).await {
            Ok(info) => info.last,
            Err(_) => 0,
        };
        if last < FIRST {
            return Ok(None);
        }
        let at = r.range(FIRST, last + 1);
        let to = run.as_str().into();
        engine
            .fork(&live::RUN.into(), at, &to)
            .await
            .map_err(text)?;
        Ok(Some(Fork { run, at }))
    })?
}

enum End {
    Killed,
    Exited(ExitStatus, String),
    TooLong,
}

/// The run once more from one of its tasks on.
fn again(dir: &Path, r: &mut Random) -> Result<Option<Fork>> {
    let run = "rerun".to_owned();
    wait(async {
        let engine = live::idle(dir)?;
        let state = engine.load(&live::RUN.into()).await.map_err(text)?;
        let done = |n: &&Node| n.state == NodeState::Done && !n.spec.id.as_str().contains('~');
        let done: Vec<_> = state.nodes.values().filter(done).collect();
        if done.is_empty() {
            return Ok(None);
        }
        let task = &done[r.range(0, done.len() as u64) as usize].spec.id;
        let to = run.as_str().into();
        let made = engine.rerun(&live::RUN.into(), task, &to).await;
        made.map_err(text)?;
        let at = state.seq;
        Ok(Some(Fork { run, at }))
    })?
}

fn said(child: &mut Child) -> Result<String> {
    let pipes: [Option<Box<dyn Read>>; 2] = [
        child.stdout.take().map(|p| Box::new(p) as Box<dyn Read>),
        child.stderr.take().map(|p| Box::new(p) as Box<dyn Read>),
    ];
    let mut said = String::new();
    for mut p in pipes.into_iter().flatten() {
        p.read_to_string(&mut said).map_err(text)?;
    }
    Ok(said)
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
