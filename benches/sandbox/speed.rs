use crate::{
    anchors::{finish, plain},
    bed::{Bed, Result, ms, run_true},
};
use smallhands_benchmarks::{Record, beside, median};
use smallhands_sandbox::SandboxSpec;
use std::{
    thread,
    time::{Duration, Instant},
};

/// A sandbox with all its walls, `true` in it, nothing left; the aim is 6 ms, and not slower than
/// bubblewrap.
pub(crate) fn start_to_finish(bed: &Bed) -> Result<Record> {
    let (name, mut anchor) = bed.anchor();
    let spec = SandboxSpec::default();
    let timing = beside(bed.rounds, || bed.whole(&spec), || finish(&mut anchor))?;
    Ok(timing.record("sandbox/true_ms", "ms", 1e3, name))
}

/// What `true` takes longer in a live sandbox than without one; the aim is 2 ms.
pub(crate) fn exec(bed: &Bed) -> Result<Record> {
    let sandbox = bed.open(&SandboxSpec::default())?;
    let (mut over, mut anchor) = (Vec::new(), Vec::new());
    for round in 0..=bed.rounds {
        let inside = ms(|| bed.rt.block_on(run_true(&*sandbox)))?;
        let outside = ms(|| finish(&mut plain()))?;
        if round > 0 {
            over.push(inside - outside);
            anchor.push(outside);
        }
    }
    bed.close(sandbox)?;
    let plain = median(&anchor).unwrap_or(0.0);
    let name = "sandbox/exec_overhead_ms";
    Ok(Record::new(
        name,
        "ms",
        &over,
        "plain spawn and wait",
        plain,
    ))
}

/// Sandboxes that are opened, run `true` and are closed, by as many threads as there are processors;
/// the aim is 100.
pub(crate) fn sustained(bed: &Bed) -> Result<Record> {
    let stretch = Duration::from_millis(if bed.shrink > 1 { 100 } else { 2000 });
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bed.rounds.div_ceil(10) {
        ours.push(rate(stretch, &|| bed.whole(&SandboxSpec::default()))?);
        theirs.push(rate(stretch, &|| finish(&mut bed.anchor().1))?);
    }
    let (name, rate) = (bed.anchor().0, median(&theirs).unwrap_or(0.0));
    Ok(Record::new("sandbox/sandboxes_per_second", "1/s", &ours, name, rate).higher())
}

fn rate(stretch: Duration, once: &(dyn Fn() -> Result + Sync)) -> Result<f64> {
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let begin = Instant::now();
    let work = || -> std::result::Result<u32, String> {
        let mut done = 0;
        while begin.elapsed() < stretch {
            once().map_err(|e| e.to_string())?;
            done += 1;
        }
        Ok(done)
    };
    let counts: std::result::Result<Vec<u32>, String> = thread::scope(|s| {
        let all: Vec<_> = (0..workers).map(|_| s.spawn(work)).collect();
        let joined = all.into_iter().map(|t| t.join());
        joined
            .map(|r| r.unwrap_or_else(|_| Err("a thread panicked".into())))
            .collect()
    });
    Ok(f64::from(counts?.iter().sum::<u32>()) / begin.elapsed().as_secs_f64())
}
