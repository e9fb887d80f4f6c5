use super::{TTL, append, lease, lost, text};
use crate::{Check, expect};
use smallhands_graph::{StateStore, StoreError};
use std::{sync::Arc, time::Duration};

pub(super) async fn one(s: Arc<dyn StateStore>) -> Result<(), String> {
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

pub(super) async fn old(s: Arc<dyn StateStore>) -> Result<(), String> {
    let old = lease(&*s, "r", "ann").await?;
    append(&*s, &old, 0, 1).await.map_err(text)?;
    s.release(&old).await.map_err(text)?;
    let new = lease(&*s, "r", "bob").await?;
    lost("renew", s.renew(&old, TTL).await)?;
    lost("release", s.release(&old).await)?;
    lost("delete", s.delete(&old).await)?;
    match s.lease(&"r".into(), "eve", TTL).await {
        Err(StoreError::Held { owner, .. }) => expect("owner", &owner, &"bob".to_owned())?,
        other => return Err(format!("promised Held, seen {other:?}")),
    }
    append(&*s, &new, 1, 1).await.map_err(text)?;
    s.release(&new).await.map_err(text)
}

/// For a store whose leases end by a clock that a test can turn; `make` gives a new store and what
/// turns its clock on.
pub fn journal_expiry<F, Turn>(make: F) -> Vec<Check>
where
    F: Fn() -> (Arc<dyn StateStore>, Turn) + Send + Sync + 'static,
    Turn: Fn(Duration) + Send + Sync + 'static,
{
    let make = Arc::new(make);
    let other = make.clone();
    vec![
        Check::new("a lease that is not renewed can be taken over", move || {
            let (store, turn) = make();
            expires(store, turn)
        }),
        Check::new("a lease that is renewed stays", move || {
            let (store, turn) = other();
            renewed(store, turn)
        }),
    ]
}

async fn expires(s: Arc<dyn StateStore>, turn: impl Fn(Duration)) -> Result<(), String> {
    let first = lease(&*s, "r", "ann").await?;
    append(&*s, &first, 0, 1).await.map_err(text)?;
    turn(TTL + Duration::from_secs(1));
    let second = lease(&*s, "r", "bob").await?;
    expect("a higher epoch", &(second.epoch > first.epoch), &true)?;
    lost("append", append(&*s, &first, 1, 1).await)?;
    lost("renew", s.renew(&first, TTL).await)?;
    append(&*s, &second, 1, 1).await.map_err(text).map(drop)
}

async fn renewed(s: Arc<dyn StateStore>, turn: impl Fn(Duration)) -> Result<(), String> {
    let first = lease(&*s, "r", "ann").await?;
    for _ in 0..3 {
        turn(TTL / 2);
        s.renew(&first, TTL).await.map_err(text)?;
    }
    match s.lease(&"r".into(), "bob", TTL).await {
        Err(StoreError::Held { .. }) => Ok(()),
        other => Err(format!("promised Held, seen {other:?}")),
    }
}
