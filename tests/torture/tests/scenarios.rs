//! What peers get wrong, by name; and that the judge finds what is wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use smallhands_graph::Durability;
use smallhands_torture::{
    fault::{Broken, Point},
    harness::{Campaign, Fault, Run, Suffered},
    lease, ledger, many,
    plan::Shape,
    verdict::Verdict,
};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

fn campaign(broken: Option<Broken>) -> Campaign {
    Campaign {
        program: env!("CARGO_BIN_EXE_torture").into(),
        kills: 24,
        seed: 5,
        durability: Durability::ProcessCrash,
        broken,
    }
}

/// A directory that is gone when this is dropped.
struct Dir(PathBuf);
impl Dir {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        drop(fs::remove_dir_all(&dir));
        Self(dir)
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn run(shape: Shape, faults: Vec<Fault>) -> Run {
    Run {
        shape,
        faults,
        forks: None,
    }
}

fn torture(name: &str, shape: Shape, faults: Vec<Fault>) -> (Dir, Suffered, Verdict) {
    let dir = Dir::new(name);
    let (s, v) = campaign(None).torture(&dir.0, &run(shape, faults)).unwrap();
    assert_eq!(v.faults(), 0, "{v:?}");
    let again = ran_again(&dir);
    println!(
        "{name}: {} kills, finished tasks run again: {}, lost: {}, effects twice: {}, tasks at work that ran again: {} {again:?}",
        s.kills,
        v.finished_rerun,
        v.lost,
        v.duplicated_once,
        again.len()
    );
    (dir, s, v)
}

/// Tasks that began in more than one life.
fn ran_again(dir: &Dir) -> BTreeSet<String> {
    let (mut seen, mut again) = (BTreeSet::new(), BTreeSet::new());
    for l in ledger::read(&dir.0).unwrap() {
        if l.step.is_none() && !seen.insert(l.task.clone()) {
            again.insert(l.task);
        }
    }
    again
}

#[test]
fn eight_parallel_branches_killed_after_six() {
    let kill = vec![Fault::At(Point::Finished(6))];
    let (dir, s, v) = torture("branches", Shape::Branches(8), kill);
    assert_eq!((s.kills, s.starts, v.finished_rerun), (1, 2, 0));
    let again = ran_again(&dir);
    assert!(again.len() <= 2, "six had finished: {again:?}");
}

#[test]
fn a_chain_of_eight_killed_after_six() {
    let kill = vec![Fault::At(Point::Finished(6))];
    let (dir, s, v) = torture("chain", Shape::Chain(8), kill);
    assert_eq!((s.kills, s.starts, v.finished_rerun), (1, 2, 0));
    // The seventh is not placed before the sixth is durable.
    assert_eq!(ran_again(&dir), BTreeSet::new());
}

#[test]
fn a_fan_of_sixty_killed_sixteen_times() {
    let kills = vec![Fault::At(Point::Finished(1)); 16];
    let (_, s, v) = torture("fan", Shape::Fan(60), kills);
    // One append may finish all eight that run at a time; then the run ends before the last kill.
    assert!((7..=16).contains(&s.kills), "{} kills", s.kills);
    assert_eq!(v.finished_rerun, 0);
    assert!(
        v.unfinished_rerun <= 16 * 8,
        "eight at a time: {}",
        v.unfinished_rerun
    );
}

#[test]
fn a_fan_of_sixty_killed_at_any_moment() {
    let kill = |n: u64| Fault::Kill(Duration::from_millis(20 + 7 * n));
    let (_, s, v) = torture("fan-any", Shape::Fan(60), (0..16).map(kill).collect());
    assert_eq!(v.finished_rerun, 0);
    assert!(s.starts > 1);
}

#[test]
fn a_short_campaign_finds_nothing() {
    let f = many::run(&campaign(None)).unwrap();
    assert_eq!(f.faults(), 0, "{f}\n{:?}", f.notes);
    assert!(f.kills >= 24, "{f}");
}

#[test]
fn every_fault_of_a_life_is_survived() {
    let points = [
        Point::Before(9),
        Point::During(9),
        Point::Within(9),
        Point::After(9),
        Point::Blob(2),
        Point::Placing(5),
    ];
    let faults = points.map(Fault::At).to_vec();
    let (_, s, _) = torture("points", Shape::Rich(3), faults);
    assert_eq!(s.hit, points);
}

#[test]
fn a_loss_of_power_is_prepared_for_as_well() {
    let c = Campaign {
        durability: Durability::PowerLoss,
        ..campaign(None)
    };
    let dir = Dir::new("power");
    let faults = (2..8).map(|n| Fault::At(Point::After(4 * n))).collect();
    let (s, v) = c.torture(&dir.0, &run(Shape::Rich(1), faults)).unwrap();
    assert_eq!((v.faults(), s.stuck), (0, None), "{v:?}");
    assert!(s.kills >= 3);
}

#[test]
fn forks_come_to_the_same_end() {
    let dir = Dir::new("forks");
    let faults = vec![Fault::At(Point::After(5)); 6];
    let forks = Run {
        forks: Some(7),
        ..run(Shape::Rich(3), faults)
    };
    let (s, v) = campaign(None).torture(&dir.0, &forks).unwrap();
    assert_eq!(v.faults(), 0, "{v:?}");
    assert!(!s.forks.is_empty());
}

#[test]
fn a_store_that_answers_early_is_found() {
    // What a kill finds unwritten is chance; ten tries leave none to it.
    let found = (0..10).any(|n| {
        let dir = Dir::new(&format!("early-{n}"));
        let kills = vec![Fault::At(Point::Finished(3)); 6];
        let (_, v) = campaign(Some(Broken::AcksEarly))
            .torture(&dir.0, &run(Shape::Fan(30), kills))
            .unwrap();
        v.lost > 0
    });
    assert!(found);
    let ran_again = (8..14).any(|n| {
        let dir = Dir::new(&format!("early-chain-{n}"));
        let kills = vec![Fault::At(Point::After(n))];
        let (_, v) = campaign(Some(Broken::AcksEarly))
            .torture(&dir.0, &run(Shape::Chain(8), kills))
            .unwrap();
        v.steps_rerun + v.finished_rerun > 0
    });
    assert!(ran_again);
}

#[test]
fn a_store_that_forgets_is_found() {
    let dir = Dir::new("forgets");
    let broken = campaign(Some(Broken::Forgets(6)));
    let (_, v) = broken
        .torture(&dir.0, &run(Shape::Chain(4), vec![]))
        .unwrap();
    assert!(v.lost > 0, "{v:?}");
}

#[test]
fn two_processes_want_one_run() {
    let races = lease::race(&campaign(None).program, 50).unwrap();
    println!("{races}");
    assert_eq!(races.faults(), 0, "{races}\n{:?}", races.notes);
}
