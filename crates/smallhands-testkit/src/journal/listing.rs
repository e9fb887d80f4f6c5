use super::{LEVEL, append, head, lease, numbers, rec, text};
use crate::expect;
use smallhands_core::RunId;
use smallhands_graph::{RunInfo, StateStore};
use std::{sync::Arc, time::Duration};

/// Longer than any check may take.
const EVER: Duration = Duration::from_secs(3600);

pub(super) async fn heads(s: Arc<dyn StateStore>) -> Result<(), String> {
    for (run, goal) in [("b", "two"), ("a", "one"), ("c", "three")] {
        let l = lease(&*s, run, "ann").await?;
        let appended = s.append(&l, 0, vec![rec(1)], Some(head(goal)), LEVEL).await;
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

pub(super) async fn facts(s: Arc<dyn StateStore>) -> Result<(), String> {
    let l = lease(&*s, "r", "ann").await?;
    let bytes: usize = [1, 2, 3].map(|n| rec(n).body().len()).iter().sum();
    s.append(&l, 0, vec![rec(1), rec(2)], Some(head("one")), LEVEL)
        .await
        .map_err(text)?;
    s.append(&l, 2, vec![rec(3)], Some(head("one")), LEVEL)
        .await
        .map_err(text)?;
    let all = s.runs(None, 9).await.map_err(text)?;
    let promised = RunInfo {
        id: "r".into(),
        head: head("one"),
        last: 3,
        bytes: bytes as u64,
        forked: None,
    };
    expect("runs", &all, &vec![promised])
}

pub(super) async fn unlisted(s: Arc<dyn StateStore>) -> Result<(), String> {
    lease(&*s, "r", "ann").await?;
    expect("runs", &s.runs(None, 9).await.map_err(text)?, &vec![])
}

pub(super) async fn told(s: Arc<dyn StateStore>) -> Result<(), String> {
    let l = lease(&*s, "r", "ann").await?;
    let waiter = tokio::spawn({
        let s = s.clone();
        async move {
            let run = RunId::from("r");
            let mut seen = 0;
            // It may return early, so the waiter reads again.
            while seen < 3 {
                s.changed(&run, seen, EVER).await.map_err(text)?;
                seen += numbers(&*s, "r", seen, 9).await?.len() as u64;
            }
            Ok::<_, String>(())
        }
    });
    for after in 0..3 {
        append(&*s, &l, after, 1).await.map_err(text)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    waiter.await.map_err(|e| e.to_string())?
}

pub(super) async fn told_at_once(s: Arc<dyn StateStore>) -> Result<(), String> {
    let l = lease(&*s, "r", "ann").await?;
    append(&*s, &l, 0, 2).await.map_err(text)?;
    s.changed(&"r".into(), 1, EVER).await.map_err(text)
}

pub(super) async fn patience(s: Arc<dyn StateStore>) -> Result<(), String> {
    let short = Duration::from_millis(40);
    s.changed(&"nobody".into(), 0, short).await.map_err(text)?;
    s.changed(&"nobody".into(), 0, Duration::ZERO)
        .await
        .map_err(text)
}
