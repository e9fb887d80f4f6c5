//! The life of a run: pausing, dying, resuming, settling, pruning, watching.

use crate::kit::{
    Ledger, again, engine, engine_on, events, failure, graph, memory, note, run, seen, simulated,
    sqlite, start, state, states, stores, until, wait,
};
use serde_json::{Value, json};
use smallhands_core::{
    Clock, Effect, Halt, OnFailure, Question, Retry, Step, TaskContext, TaskSpec, Timestamp,
    Worker, worker,
};
use smallhands_graph::{Event, NewRun, Prune, ResumeFailed, RunStatus};
use std::{sync::Arc, time::Duration};

fn t(id: &str, worker: &str) -> TaskSpec {
    TaskSpec::new(id, worker)
}

/// Runs until the ledger says `go`.
fn gate(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("gate", move |v: Value, cx: TaskContext| {
        let l = l.clone();
        async move {
            l.add(format!("{} began", cx.key().task));
            seen(&l, "go").await;
            Ok(v)
        }
    })
}

#[tokio::test]
async fn a_pause_lets_what_runs_end_and_starts_nothing() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [gate(&l), note(&l)]);
        let tasks = [t("a", "gate"), t("b", "note").needs("a"), t("c", "gate")];
        let h = start(&e, tasks).await;
        seen(&l, "a began").await;
        seen(&l, "c began").await;
        h.pause();
        tokio::time::sleep(Duration::from_millis(5)).await;
        l.add("go");
        let r = h.wait().await.unwrap();
        assert_eq!(r.status, RunStatus::Paused);
        assert_eq!(states(&r.state, ["a", "b", "c"]), ["done", "ready", "done"]);
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!((r.status, l.count("b")), (RunStatus::Succeeded, 1));
    }
}

#[test]
fn a_pause_while_a_task_waits_for_its_next_attempt_is_a_pause() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let bad = worker("bad", |(): (), cx: TaskContext| async move {
            match cx.key().attempt {
                1 => Err(Halt::Failed(failure().retryable())),
                n => Ok(n),
            }
        });
        let e = engine_on(&store, Arc::new(clock.clone()), [bad]);
        let h = start(&e, [t("a", "bad").retry(Retry::attempts(2))]).await;
        until(&e, "r", |e| matches!(e, Event::Ended { .. })).await;
        h.pause();
        assert_eq!(h.wait().await.unwrap().status, RunStatus::Paused);
        assert_eq!(
            again(&e, ResumeFailed::No).await.status,
            RunStatus::Succeeded
        );
    });
}

#[tokio::test]
async fn a_run_whose_handle_is_dropped_is_free_at_once_and_its_workers_stop() {
    let (stores, _dir) = stores();
    for store in stores {
        struct Gone(Ledger);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.add("gone");
            }
        }
        let l = Ledger::default();
        let ledger = l.clone();
        let stuck = worker("stuck", move |_: Value, cx: TaskContext| {
            let l = ledger.clone();
            async move {
                l.add("began");
                if l.count("began") > 1 {
                    return Ok(cx.key().attempt);
                }
                let _gone = Gone(l);
                std::future::pending::<Result<u32, Halt>>().await
            }
        });
        let e = engine(&store, [stuck]);
        let h = start(&e, [t("a", "stuck")]).await;
        seen(&l, "began").await;
        drop(h);
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(
            (r.status, r.state.value("a")),
            (RunStatus::Succeeded, Some(&json!(1)))
        );
        seen(&l, "gone").await;
    }
}

#[tokio::test]
async fn a_run_is_driven_by_one_at_a_time() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [wait(&l)]);
        let h = start(&e, [t("a", "wait")]).await;
        let run = "r".into();
        let held = e.resume(&run, ResumeFailed::No).await.unwrap_err();
        assert_eq!((held.code(), held.is_retryable()), ("store.held", true));
        assert_eq!(e.delete(&run).await.unwrap_err().code(), "store.held");
        let new = NewRun::new("r", graph([t("a", "wait")]));
        assert_eq!(e.start(new).await.unwrap_err().code(), "store.held");
        h.cancel();
        h.wait().await.unwrap();
        let new = NewRun::new("r", graph([t("a", "wait")]));
        assert_eq!(e.start(new).await.unwrap_err().code(), "run.exists");
    }
}

#[tokio::test]
async fn a_run_that_nobody_drives_is_cancelled_for_good() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let asks = worker("asks", |_: Value, cx: TaskContext| async move {
            let q = Question::new("?").deadline(Timestamp(u64::MAX / 4));
            cx.ask("q", q).await
        });
        let e = engine(&store, [wait(&l), asks]);
        let run = "r".into();
        assert_eq!(e.cancel(&run).await.unwrap_err().code(), "run.unknown");
        assert_eq!(e.runs(|_| true).await.unwrap(), []);
        let h = start(&e, [t("a", "wait"), t("b", "asks")]).await;
        until(&e, "r", |e| matches!(e, Event::Ended { .. })).await;
        assert_eq!(e.cancel(&run).await.unwrap_err().code(), "store.held");
        h.stop();
        h.wait().await.unwrap();
        assert!(e.info(&run).await.unwrap().head.wake_at.is_some());
        e.cancel(&run).await.unwrap();
        assert_eq!(e.load(&run).await.unwrap().status, RunStatus::Cancelled);
        let head = e.info(&run).await.unwrap().head;
        assert_eq!((&*head.status, head.wake_at), ("cancelled", None));
        assert_eq!(e.cancel(&run).await.unwrap_err().code(), "run.ended");
        let resumed = e.resume(&run, ResumeFailed::No).await;
        assert_eq!(resumed.unwrap_err().code(), "run.ended");
    }
}

/// Pays once and for all; the first placement dies between the act and its record.
fn pays(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("pay", move |_: Value, cx: TaskContext| {
        let l = l.clone();
        async move {
            let act = |_| async {
                l.add("paid");
                std::future::pending::<()>().await;
                Ok(0)
            };
            let step = Step::new("pay").effect(Effect::AtMostOnce);
            let n: u64 = cx.step(step, act).await?;
            Ok(n)
        }
    })
}

#[tokio::test]
async fn a_step_in_doubt_is_settled_and_never_acts_again() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [pays(&l), note(&l)]);
        let tasks = [t("a", "pay"), t("b", "note").bind("n", "a", "")];
        let h = start(&e, tasks).await;
        seen(&l, "paid").await;
        drop(h);
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(
            (r.status, crate::kit::code(&r.state, "a")),
            (RunStatus::Failed, "outcome.unknown".into())
        );
        let run = "r".into();
        let settle = async |task: &str, step: &str, v: u64| {
            let r = e
                .settle(&run, &task.into(), &step.into(), Ok(json!(v)))
                .await;
            r.map_err(|e| e.code())
        };
        assert_eq!(settle("zz", "pay", 1).await, Err("run.unknown_task"));
        assert_eq!(settle("a", "zz", 1).await, Err("run.not_in_doubt"));
        assert_eq!(settle("a", "pay", 42).await, Ok(()));
        assert_eq!(settle("a", "pay", 43).await, Err("run.not_in_doubt"));
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!((r.status, l.count("paid")), (RunStatus::Succeeded, 1));
        assert_eq!(r.state.value("b"), Some(&json!({"n": 42})));
    }
}

#[tokio::test]
async fn settling_one_task_does_not_forgive_another() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [pays(&l), crate::kit::fail()]);
        let undo = OnFailure::FailRun;
        let h = start(&e, [t("a", "pay"), t("b", "pay").on_failure(undo)]).await;
        while l.count("paid") < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(h);
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(states(&r.state, ["a", "b"]), ["failed", "failed"]);
        let run = "r".into();
        e.settle(&run, &"a".into(), &"pay".into(), Ok(json!(1)))
            .await
            .unwrap();
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(r.status, RunStatus::Failed, "b has failed as before");
        e.settle(&run, &"b".into(), &"pay".into(), Ok(json!(2)))
            .await
            .unwrap();
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!((r.status, l.count("paid")), (RunStatus::Succeeded, 2));
        assert_eq!(states(&r.state, ["a", "b"]), ["done", "done"]);
    }
}

#[test]
fn what_is_old_or_too_much_is_pruned_and_what_can_go_on_is_kept() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let l = Ledger::default();
        let asks = worker("asks", |(): (), cx: TaskContext| async move {
            cx.ask("q", smallhands_core::Question::new("?")).await
        });
        let e = engine_on(&store, Arc::new(clock.clone()), [note(&l), asks, wait(&l)]);
        let go = async |id: &str, worker: &str| {
            let new = NewRun::new(id, graph([t("a", worker)]));
            let h = e.start(new).await.unwrap();
            h.wait().await.unwrap();
            clock.advance(Duration::from_secs(60));
        };
        go("old", "note").await;
        go("asking", "asks").await;
        go("new", "note").await;
        let driven = NewRun::new("driven", graph([t("a", "wait")]));
        let h = e.start(driven).await.unwrap();
        let ids = |r: Vec<smallhands_graph::RunInfo>| -> Vec<_> {
            r.into_iter().map(|r| r.id.to_string()).collect()
        };
        let left = async || ids(e.runs(|_| true).await.unwrap());
        let old = Prune {
            older_than: Some(Duration::from_secs(100)),
            dry_run: true,
            ..Prune::default()
        };
        assert_eq!(ids(e.prune(&old).await.unwrap()), ["old"]);
        assert_eq!(left().await, ["asking", "driven", "new", "old"]);
        let old = Prune {
            dry_run: false,
            ..old
        };
        assert_eq!(ids(e.prune(&old).await.unwrap()), ["old"]);
        let all = Prune {
            max_bytes: Some(0),
            unfinished: true,
            ..Prune::default()
        };
        assert_eq!(ids(e.prune(&all).await.unwrap()), ["asking", "new"]);
        assert_eq!(left().await, ["driven"]);
        assert_eq!(
            e.delete(&"old".into()).await.unwrap_err().code(),
            "run.unknown"
        );
        drop(h);
    });
}

#[tokio::test]
async fn events_come_from_any_place_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let one = memory();
    let pairs = [(one.clone(), one), (sqlite(dir.path()), sqlite(dir.path()))];
    for (writes, reads) in pairs {
        let l = Ledger::default();
        let (e, other) = (engine(&writes, [gate(&l)]), engine(&reads, [gate(&l)]));
        let watch = |after: u64| {
            let mut events = other.events(&"r".into(), after);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                loop {
                    let (seq, _, e) = events.next().await.unwrap();
                    let over = matches!(e, Event::Stopped { .. });
                    seen.push((seq, e));
                    if over {
                        return seen;
                    }
                }
            })
        };
        let before = watch(0);
        let h = start(&e, [t("a", "gate"), t("b", "gate").needs("a")]).await;
        seen(&l, "a began").await;
        let live = watch(3);
        l.add("go");
        h.wait().await.unwrap();
        let all = events(&writes, "r").await;
        let all: Vec<_> = (1..).zip(all).collect();
        assert_eq!(before.await.unwrap(), all);
        assert_eq!(live.await.unwrap(), all[3..]);
        for after in 0..all.len() - 1 {
            let seen = watch(after as u64).await.unwrap();
            assert_eq!(seen, all[after..]);
        }
    }
}

#[test]
fn nothing_ends_early_or_hangs_when_the_clock_jumps() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let c = clock.clone();
        let slow = worker("slow", move |_: Value, _| {
            let c = c.clone();
            async move {
                c.sleep(Duration::from_secs(3)).await;
                Ok(())
            }
        });
        let e = engine_on(&store, Arc::new(clock.clone()), [slow]);
        let task = |id| {
            t(id, "slow")
                .timeout(Duration::from_secs(5))
                .total_timeout(Duration::from_secs(9))
        };
        let h = start(&e, [task("a"), task("b").needs("a")]).await;
        let began = clock.monotonic();
        clock.sleep(Duration::from_secs(1)).await;
        clock.set_wall(smallhands_core::Timestamp(1));
        let r = h.wait().await.unwrap();
        assert_eq!(
            (r.status, state(&r.state, "b")),
            (RunStatus::Succeeded, "done")
        );
        assert_eq!(clock.monotonic() - began, Duration::from_secs(6));
    });
}

#[tokio::test]
async fn numbers_are_the_same_to_the_last_bit_after_a_resume() {
    let (stores, _dir) = stores();
    for store in stores {
        let halves = (1..2_000_u32).map(|n| f64::from(n).ln() * f64::from(n).sin().exp());
        let numbers = json!(halves.collect::<Vec<_>>());
        let given = numbers.clone();
        let many = worker("many", move |(): (), _| {
            let given = given.clone();
            async move { Ok(given) }
        });
        let e = engine(&store, [many]);
        let r = run(&e, [t("a", "many")]).await;
        assert_eq!(r.state.value("a"), Some(&numbers));
        let read = e.load(&"r".into()).await.unwrap();
        assert_eq!(read.value("a"), Some(&numbers));
    }
}
