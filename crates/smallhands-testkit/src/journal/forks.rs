use super::{append, conflicts, head, lease, lost, numbers, text};
use crate::expect;
use smallhands_core::RunId;
use smallhands_graph::{RunInfo, StateStore, StoreError};
use std::sync::Arc;

async fn fork(s: &dyn StateStore, from: &str, at: u64, to: &str) -> Result<(), StoreError> {
    s.fork(&from.into(), at, &to.into(), head(to)).await
}

async fn grown(s: &dyn StateStore, run: &str, after: u64, n: u64) -> Result<(), String> {
    let l = lease(s, run, "ann").await?;
    append(s, &l, after, n).await.map_err(text)?;
    s.release(&l).await.map_err(text)
}

async fn seen(s: &dyn StateStore, run: &str, last: u64) -> Result<(), String> {
    let what = format!("records of {run}");
    expect(&what, &numbers(s, run, 0, 99).await?, &(1..=last).collect())
}

async fn info(s: &dyn StateStore, run: &str) -> Result<RunInfo, String> {
    let all = s.runs(None, 99).await.map_err(text)?;
    let mut all = all.into_iter().filter(|r| r.id.as_str() == run);
    all.next().ok_or_else(|| format!("{run} is not listed"))
}

pub(super) async fn shares(s: Arc<dyn StateStore>) -> Result<(), String> {
    grown(&*s, "a", 0, 5).await?;
    fork(&*s, "a", 3, "b").await.map_err(text)?;
    seen(&*s, "b", 3).await?;
    let listed = info(&*s, "b").await?;
    expect("forked", &listed.forked, &Some(("a".into(), 3)))?;
    expect("last", &listed.last, &3)?;
    expect("bytes of its own", &listed.bytes, &0)?;
    expect("head", &listed.head, &head("b"))?;
    grown(&*s, "b", 3, 4).await?;
    grown(&*s, "a", 5, 1).await?;
    seen(&*s, "a", 6).await?;
    seen(&*s, "b", 7).await?;
    expect("a page", &numbers(&*s, "b", 2, 3).await?, &vec![3, 4, 5])
}

pub(super) async fn of_forks(s: Arc<dyn StateStore>) -> Result<(), String> {
    grown(&*s, "a", 0, 4).await?;
    fork(&*s, "a", 3, "b").await.map_err(text)?;
    grown(&*s, "b", 3, 3).await?;
    fork(&*s, "b", 5, "c").await.map_err(text)?;
    grown(&*s, "c", 5, 2).await?;
    // At a record that its origin only shares.
    fork(&*s, "c", 2, "d").await.map_err(text)?;
    grown(&*s, "d", 2, 1).await?;
    fork(&*s, "c", 7, "e").await.map_err(text)?;
    for (run, last) in [("a", 4), ("b", 6), ("c", 7), ("d", 3), ("e", 7)] {
        seen(&*s, run, last).await?;
        for from in 0..=last {
            let page = numbers(&*s, run, from, 2).await?;
            let promised = (from + 1..=last).take(2).collect();
            expect(&format!("a page of {run}"), &page, &promised)?;
        }
    }
    let forked = info(&*s, "d").await?.forked;
    expect("forked", &forked, &Some(("c".into(), 2)))
}

pub(super) async fn refused(s: Arc<dyn StateStore>) -> Result<(), String> {
    grown(&*s, "a", 0, 2).await?;
    grown(&*s, "b", 0, 1).await?;
    conflicts(2, fork(&*s, "a", 3, "c").await)?;
    conflicts(2, fork(&*s, "a", 0, "c").await)?;
    conflicts(0, fork(&*s, "nobody", 1, "c").await)?;
    conflicts(1, fork(&*s, "a", 1, "b").await)?;
    conflicts(2, fork(&*s, "a", 1, "a").await)?;
    seen(&*s, "a", 2).await?;
    seen(&*s, "b", 1).await?;
    seen(&*s, "c", 0).await?;
    let listed = s.runs(None, 9).await.map_err(text)?;
    expect("runs", &listed.len(), &2)
}

pub(super) async fn driven(s: Arc<dyn StateStore>) -> Result<(), String> {
    let a = lease(&*s, "a", "ann").await?;
    append(&*s, &a, 0, 2).await.map_err(text)?;
    fork(&*s, "a", 2, "b").await.map_err(text)?;
    let b = lease(&*s, "b", "bob").await?;
    conflicts(2, append(&*s, &b, 0, 1).await)?;
    append(&*s, &b, 2, 1).await.map_err(text)?;
    append(&*s, &a, 2, 2).await.map_err(text)?;
    seen(&*s, "a", 4).await?;
    seen(&*s, "b", 3).await
}

pub(super) async fn deleted(s: Arc<dyn StateStore>) -> Result<(), String> {
    grown(&*s, "b", 0, 1).await?;
    let l = lease(&*s, "a", "ann").await?;
    append(&*s, &l, 0, 3).await.map_err(text)?;
    s.delete(&l).await.map_err(text)?;
    seen(&*s, "a", 0).await?;
    lost("append", append(&*s, &l, 3, 1).await)?;
    lost("append", append(&*s, &l, 0, 1).await)?;
    lost("renew", s.renew(&l, super::TTL).await)?;
    lost("delete", s.delete(&l).await)?;
    let listed = s.runs(None, 9).await.map_err(text)?;
    let ids: Vec<RunId> = listed.into_iter().map(|r| r.id).collect();
    expect("runs", &ids, &vec!["b".into()])
}

pub(super) async fn outlive(s: Arc<dyn StateStore>) -> Result<(), String> {
    grown(&*s, "a", 0, 6).await?;
    fork(&*s, "a", 4, "b").await.map_err(text)?;
    grown(&*s, "b", 4, 2).await?;
    fork(&*s, "b", 5, "c").await.map_err(text)?;
    fork(&*s, "a", 2, "d").await.map_err(text)?;
    for (gone, left) in [
        ("a", &[("b", 6), ("c", 5), ("d", 2)][..]),
        ("b", &[("c", 5), ("d", 2)]),
        ("c", &[("d", 2)]),
    ] {
        let l = lease(&*s, gone, "ann").await?;
        s.delete(&l).await.map_err(text)?;
        seen(&*s, gone, 0).await?;
        for (run, last) in left {
            seen(&*s, run, *last).await?;
        }
    }
    grown(&*s, "d", 2, 1).await?;
    seen(&*s, "d", 3).await?;
    let forked = info(&*s, "d").await?.forked;
    expect("forked", &forked, &Some(("a".into(), 2)))
}

pub(super) async fn again(s: Arc<dyn StateStore>) -> Result<(), String> {
    grown(&*s, "a", 0, 3).await?;
    fork(&*s, "a", 2, "b").await.map_err(text)?;
    let old = lease(&*s, "a", "ann").await?;
    s.delete(&old).await.map_err(text)?;
    let new = lease(&*s, "a", "bob").await?;
    expect("a higher epoch", &(new.epoch > old.epoch), &true)?;
    lost("append", append(&*s, &old, 0, 1).await)?;
    append(&*s, &new, 0, 1).await.map_err(text)?;
    seen(&*s, "a", 1).await?;
    seen(&*s, "b", 2).await?;
    // As a fork of what is its own former fork.
    s.delete(&new).await.map_err(text)?;
    fork(&*s, "b", 1, "a").await.map_err(text)?;
    let fork = lease(&*s, "a", "eve").await?;
    expect("a higher epoch", &(fork.epoch > new.epoch), &true)?;
    lost("append", append(&*s, &new, 1, 1).await)?;
    seen(&*s, "a", 1).await
}
