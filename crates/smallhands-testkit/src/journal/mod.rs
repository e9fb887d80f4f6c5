mod big;
mod forks;
mod leases;
mod listing;

pub use leases::journal_expiry;

use crate::{Check, expect};
use serde_json::json;
use smallhands_core::Timestamp;
use smallhands_graph::{Durability, Lease, Record, RunHead, StateStore, StoreError};
use std::{sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(30);
const LEVEL: Durability = Durability::PowerLoss;

/// What every [`StateStore`] promises; `make` gives a new, empty one.
pub fn journal(make: impl Fn() -> Arc<dyn StateStore> + Send + Sync + 'static) -> Vec<Check> {
    let make = Arc::new(make);
    let mut checks = Vec::new();
    macro_rules! check {
        ($name:literal, $f:path) => {{
            let make = make.clone();
            checks.push(Check::new($name, move || $f(make())));
        }};
    }
    check!(
        "one lease at a time, and the second is told who",
        leases::one
    );
    check!(
        "an old lease can neither renew, release nor delete",
        leases::old
    );
    check!("records come back in order and without a gap", order);
    check!("a wrong place changes nothing", conflict);
    check!("an old lease changes nothing", fencing);
    check!("heads are listed in order of id, in pages", listing::heads);
    check!(
        "a listed run has its last record and its bytes",
        listing::facts
    );
    check!("a run without a record is not listed", listing::unlisted);
    check!("a waiter is told of an append", listing::told);
    check!(
        "a waiter is told at once of what is there",
        listing::told_at_once
    );
    check!("a waiter's patience ends", listing::patience);
    check!(
        "a fork shares what came before, and nothing after",
        forks::shares
    );
    check!("a fork of a fork reads through both", forks::of_forks);
    check!(
        "a fork at what is not there changes nothing",
        forks::refused
    );
    check!(
        "a fork needs no lease of its origin, and is driven by its own",
        forks::driven
    );
    check!(
        "a deleted run is gone, and its lease given back",
        forks::deleted
    );
    check!("forks outlive what they were forked from", forks::outlive);
    check!("an id can be used again after deletion", forks::again);
    check!("a large record comes back whole", big::record);
    check!(
        "a large record is one of a batch, and can be forked",
        big::among_small
    );
    check!("a large blob comes back whole", big::blob);
    check!("a run that does not exist is empty", empty);
    check!("blobs come back whole, and an unknown one is named", blobs);
    checks
}

fn rec(n: u64) -> Record {
    let body = json!({ "n": n, "text": "ü\n\"" });
    Record::new("kit", 1, Timestamp(n), body.to_string())
}

fn text(e: StoreError) -> String {
    e.to_string()
}

fn head(goal: &str) -> RunHead {
    RunHead {
        goal: goal.into(),
        ..RunHead::default()
    }
}

async fn lease(s: &dyn StateStore, run: &str, who: &str) -> Result<Lease, String> {
    s.lease(&run.into(), who, TTL)
        .await
        .map_err(|e| e.to_string())
}

async fn append(s: &dyn StateStore, l: &Lease, after: u64, n: u64) -> Result<u64, StoreError> {
    let records = (after + 1..=after + n).map(rec).collect();
    s.append(l, after, records, None, LEVEL).await
}

fn lost<T: std::fmt::Debug>(what: &str, r: Result<T, StoreError>) -> Result<(), String> {
    match r {
        Err(StoreError::LeaseLost { .. }) => Ok(()),
        other => Err(format!("{what}: promised LeaseLost, seen {other:?}")),
    }
}

fn conflicts<T: std::fmt::Debug>(at: u64, r: Result<T, StoreError>) -> Result<(), String> {
    match r {
        Err(StoreError::Conflict { is, .. }) if is == at => Ok(()),
        other => Err(format!("promised Conflict at {at}, seen {other:?}")),
    }
}

async fn numbers(
    s: &dyn StateStore,
    run: &str,
    after: u64,
    limit: usize,
) -> Result<Vec<u64>, String> {
    let all = s
        .read(&run.into(), after, limit)
        .await
        .map_err(|e| e.to_string())?;
    for r in &all {
        expect("the record of a number", &r.record, &rec(r.seq))?;
    }
    Ok(all.into_iter().map(|r| r.seq).collect())
}

async fn order(s: Arc<dyn StateStore>) -> Result<(), String> {
    let l = lease(&*s, "r", "ann").await?;
    let ok = |e: StoreError| e.to_string();
    expect("last", &append(&*s, &l, 0, 3).await.map_err(ok)?, &3)?;
    expect("last", &append(&*s, &l, 3, 2).await.map_err(ok)?, &5)?;
    expect(
        "all",
        &numbers(&*s, "r", 0, 99).await?,
        &vec![1, 2, 3, 4, 5],
    )?;
    expect("a page", &numbers(&*s, "r", 1, 2).await?, &vec![2, 3])
}

async fn conflict(s: Arc<dyn StateStore>) -> Result<(), String> {
    let l = lease(&*s, "r", "ann").await?;
    append(&*s, &l, 0, 2).await.map_err(|e| e.to_string())?;
    for wrong in [1, 3] {
        let at_wrong = s.append(&l, wrong, vec![rec(9)], Some(head("wrong")), LEVEL);
        conflicts(2, at_wrong.await)?;
    }
    let listed = s.runs(None, 9).await.map_err(text)?;
    let wrong = listed.iter().any(|r| r.head.goal == "wrong");
    expect("the head of a refused append is kept", &wrong, &false)?;
    expect("records", &numbers(&*s, "r", 0, 99).await?, &vec![1, 2])
}

async fn fencing(s: Arc<dyn StateStore>) -> Result<(), String> {
    let old = lease(&*s, "r", "ann").await?;
    append(&*s, &old, 0, 1).await.map_err(|e| e.to_string())?;
    s.release(&old).await.map_err(|e| e.to_string())?;
    let new = lease(&*s, "r", "bob").await?;
    lost("append", append(&*s, &old, 1, 1).await)?;
    append(&*s, &new, 1, 1).await.map_err(|e| e.to_string())?;
    expect("records", &numbers(&*s, "r", 0, 99).await?, &vec![1, 2])
}

async fn empty(s: Arc<dyn StateStore>) -> Result<(), String> {
    expect("records", &numbers(&*s, "nobody", 0, 9).await?, &vec![])
}

async fn blobs(s: Arc<dyn StateStore>) -> Result<(), String> {
    let store = s.blobs();
    let bytes = vec![7; 100_000];
    let put = |b| store.put(b);
    let one = put(bytes.clone()).await.map_err(|e| e.to_string())?;
    expect(
        "twice",
        &put(bytes.clone()).await.map_err(|e| e.to_string())?,
        &one,
    )?;
    expect(
        "bytes",
        &store.get(&one).await.map_err(|e| e.to_string())?,
        &bytes,
    )?;
    let mut other = one;
    other.digest = smallhands_core::Digest::of_bytes(b"never stored");
    match store.get(&other).await {
        Err(f) => expect("code", &f.code.to_string(), &"blob.missing".to_owned()),
        Ok(_) => Err("an unknown blob was returned".into()),
    }
}
