use crate::{Check, expect};
use serde_json::json;
use smallhands_core::{RunId, Timestamp};
use smallhands_graph::{Durability, Lease, Record, RunHead, RunInfo, StateStore, StoreError};
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
    check!("one lease at a time, and the second is told who", leases);
    check!("records come back in order and without a gap", order);
    check!("a wrong place changes nothing", conflict);
    check!("an old lease changes nothing", fencing);
    check!("heads are listed in order of id, in pages", heads);
    check!("a run that does not exist is empty", empty);
    check!("blobs come back whole, and an unknown one is named", blobs);
    checks
}

fn rec(n: u64) -> Record {
    let body = json!({ "n": n, "text": "ü\n\"" });
    Record::new("kit", 1, Timestamp(n), body.to_string())
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

async fn leases(s: Arc<dyn StateStore>) -> Result<(), String> {
    let first = lease(&*s, "r", "ann").await?;
    match s.lease(&"r".into(), "bob", TTL).await {
        Err(StoreError::Held { owner, .. }) => expect("owner", &owner, &"ann".to_owned())?,
        other => return Err(format!("promised Held, seen {other:?}")),
    }
    lease(&*s, "another", "bob").await?;
    s.renew(&first, TTL).await.map_err(|e| e.to_string())?;
    s.release(&first).await.map_err(|e| e.to_string())?;
    let second = lease(&*s, "r", "bob").await?;
    expect("a higher epoch", &(second.epoch > first.epoch), &true)
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
        match append(&*s, &l, wrong, 1).await {
            Err(StoreError::Conflict { is: 2, .. }) => {}
            other => return Err(format!("promised Conflict, seen {other:?}")),
        }
    }
    expect("records", &numbers(&*s, "r", 0, 99).await?, &vec![1, 2])
}

async fn fencing(s: Arc<dyn StateStore>) -> Result<(), String> {
    let old = lease(&*s, "r", "ann").await?;
    append(&*s, &old, 0, 1).await.map_err(|e| e.to_string())?;
    s.release(&old).await.map_err(|e| e.to_string())?;
    let new = lease(&*s, "r", "bob").await?;
    match append(&*s, &old, 1, 1).await {
        Err(StoreError::LeaseLost { .. }) => {}
        other => return Err(format!("promised LeaseLost, seen {other:?}")),
    }
    append(&*s, &new, 1, 1).await.map_err(|e| e.to_string())?;
    expect("records", &numbers(&*s, "r", 0, 99).await?, &vec![1, 2])
}

async fn heads(s: Arc<dyn StateStore>) -> Result<(), String> {
    for (run, goal) in [("b", "two"), ("a", "one"), ("c", "three")] {
        let l = lease(&*s, run, "ann").await?;
        let head = RunHead {
            goal: goal.into(),
            ..RunHead::default()
        };
        let appended = s.append(&l, 0, vec![rec(1)], Some(head), LEVEL).await;
        appended.map_err(|e| e.to_string())?;
    }
    let page = |from: Option<&str>| s.runs(from.map(RunId::from), 2);
    let names = |page: Vec<RunInfo>| -> Vec<String> {
        page.into_iter()
            .map(|r| format!("{} {}", r.id, r.head.goal))
            .collect()
    };
    let first = page(None).await.map_err(|e| e.to_string())?;
    expect(
        "first page",
        &names(first),
        &vec!["a one".into(), "b two".into()],
    )?;
    let second = page(Some("b")).await.map_err(|e| e.to_string())?;
    expect("second page", &names(second), &vec!["c three".into()])
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
