//! Runs from a seed: everything that the world does to one is decided by it.

use crate::{graphs, snapshots};
use serde_json::json;
use smallhands_core::{
    Clock, Failure, FailureClass, GroupLimit, Question, Resources, TaskEnvelope, Timestamp,
};
use smallhands_graph::{
    Engine, GraphError, MemoryStore, NewRun, ResumeFailed, RunHandle, RunState, RunStatus,
    StateStore, Stored,
};
use smallhands_testkit::{SimAct, SimClock, SimEnd, SimExecutor, SimRng};
use std::{sync::Arc, time::Duration};

fn script(task: &TaskEnvelope, rng: &mut SimRng, wall: &SimClock) -> SimAct {
    let list: Vec<_> = (0..rng.below(4)).map(|_| rng.below(3)).collect();
    let end = match rng.below(100) {
        0..12 => {
            let class = [FailureClass::Task, FailureClass::Unavailable];
            let f = Failure::new(
                "sim.failed",
                class[usize::try_from(rng.below(2)).unwrap()],
                "",
            );
            SimEnd::Fails(if rng.percent(70) { f.retryable() } else { f })
        }
        12..17 => SimEnd::Lost,
        17..27 => {
            let mut q = Question::new("?").schema(json!({"type": "object"}));
            if rng.percent(50) {
                q.default = Some(json!({"n": 60, "list": [1]}));
            }
            if rng.percent(50) {
                q.deadline = Some(Timestamp(wall.now().0 + rng.below(100)));
            }
            SimEnd::Asks("q".into(), q)
        }
        n => SimEnd::Done(json!({"n": n, "list": list, "of": task.input}).into()),
    };
    SimAct {
        takes: Duration::from_millis(rng.below(40)),
        steps: u32::try_from(rng.below(3)).unwrap(),
        end,
    }
}

pub(crate) fn records(seed: u64) -> Vec<Stored> {
    world(seed, u64::MAX)
}

/// The same, with a snapshot after so many records each: whenever the run is read, it is compared
/// with the fold of all of them.
pub(crate) fn world(seed: u64, every: u64) -> Vec<Stored> {
    let clock = SimClock::default();
    let runtime = clock.runtime().unwrap();
    let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
    let wall = clock.clone();
    let executor = SimExecutor::scripted(clock.clone(), seed, move |t, rng| script(t, rng, &wall));
    let engine = Engine::new(store.clone(), Arc::new(executor), Arc::new(clock.clone()))
        .max_parallel(5)
        .snapshot_every(every)
        .capacity(Resources {
            cpu_milli: 1500,
            ..Resources::default()
        });
    let mut rng = SimRng::of(seed, "world");
    runtime.block_on(async {
        let fold = |s: RunState| {
            let store = store.clone();
            async move {
                if every < u64::MAX {
                    let all = store.read(&"r".into(), 0, 1_000_000).await.unwrap();
                    snapshots::is_the_fold(&s, &all).unwrap();
                }
                s
            }
        };
        live(&engine, &clock, &mut rng, fold).await;
        store.read(&"r".into(), 0, 1_000_000).await.unwrap()
    })
}

async fn live<F: Future<Output = RunState>>(
    e: &Engine,
    clock: &SimClock,
    rng: &mut SimRng,
    looked_at: impl Fn(RunState) -> F,
) {
    let mut new = NewRun::new("r", graphs::graph(rng));
    new.limits.insert("few".into(), GroupLimit::parallel(1));
    let rate = GroupLimit::rate(2, Duration::from_millis(30));
    new.limits.insert("slow".into(), rate);
    let id = "r".into();
    let mut h = e.start(new).await.unwrap();
    let mut retried = false;
    for n in 0.. {
        clock.sleep(Duration::from_millis(rng.below(40))).await;
        let s = looked_at(e.load(&id).await.unwrap()).await;
        if s.status != RunStatus::Running {
            h.wait().await.unwrap();
            if n > 200 || s.status == RunStatus::Succeeded {
                return;
            }
            if s.status.is_final() && (retried || rng.percent(40)) {
                return;
            }
            answer(e, &s, rng).await;
            retried |= s.status.is_final();
            let failed = match s.status.is_final() {
                true => ResumeFailed::Retry,
                false => ResumeFailed::No,
            };
            h = e.resume(&id, failed).await.unwrap();
            continue;
        }
        if n < 30 {
            match act(e, h, &s, rng, n).await {
                Some(driven) => h = driven,
                None => return,
            }
        }
    }
}

/// Something that the world does to a run that is driven; none if that is over meanwhile.
async fn act(
    e: &Engine,
    h: RunHandle,
    s: &RunState,
    rng: &mut SimRng,
    n: u64,
) -> Option<RunHandle> {
    match rng.below(12) {
        0..4 => {
            // It may well not fit.
            drop(h.patch(graphs::patch(rng, s, n)).await);
        }
        4 => {
            drop(h);
            return match e.resume(&"r".into(), ResumeFailed::No).await {
                Err(GraphError::Ended { .. }) => None,
                driven => Some(driven.unwrap()),
            };
        }
        5 => h.pause(),
        6 => h.stop(),
        7 if rng.percent(10) => h.cancel(),
        8..10 => {
            for (task, ask) in open(s) {
                // Somebody may have been faster.
                drop(h.answer(&task, &ask, json!({"n": rng.below(100)})).await);
            }
        }
        _ => {}
    }
    Some(h)
}

fn open(s: &RunState) -> Vec<(smallhands_core::TaskId, smallhands_core::AskId)> {
    let of = |(id, n): (&smallhands_core::TaskId, &smallhands_graph::Node)| {
        let asks = n.questions.keys().cloned();
        asks.map(|a| (id.clone(), a)).collect::<Vec<_>>()
    };
    s.nodes.iter().flat_map(of).collect()
}

async fn answer(e: &Engine, s: &RunState, rng: &mut SimRng) {
    for (task, ask) in open(s) {
        let value = json!({"n": rng.below(100), "list": [1, 2]});
        e.answer(&"r".into(), &task, &ask, value).await.unwrap();
    }
}
