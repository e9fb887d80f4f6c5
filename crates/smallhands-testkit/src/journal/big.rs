use super::{LEVEL, append, head, lease, rec, text};
use crate::expect;
use smallhands_core::Timestamp;
use smallhands_graph::{Record, StateStore, Stored};
use std::sync::Arc;

const MIB: usize = 1024 * 1024;

fn large(n: u64, bytes: usize) -> Record {
    let body = serde_json::json!({ "n": n, "text": "ü\n".repeat(bytes / 3) });
    Record::new("kit", 1, Timestamp(n), body.to_string())
}

async fn all(s: &dyn StateStore, run: &str) -> Result<Vec<Record>, String> {
    let all: Vec<Stored> = s.read(&run.into(), 0, 99).await.map_err(text)?;
    Ok(all.into_iter().map(|s| s.record).collect())
}

/// Without a megabyte in the message.
fn same(seen: &[Record], promised: &[Record]) -> Result<(), String> {
    expect("how many records", &seen.len(), &promised.len())?;
    let differs = seen.iter().zip(promised).position(|(a, b)| a != b);
    expect("the record that differs", &differs, &None)
}

pub(super) async fn record(s: Arc<dyn StateStore>) -> Result<(), String> {
    let l = lease(&*s, "r", "ann").await?;
    let one = large(1, MIB);
    let bytes = one.body().len() as u64;
    s.append(&l, 0, vec![one.clone()], None, LEVEL)
        .await
        .map_err(text)?;
    append(&*s, &l, 1, 1).await.map_err(text)?;
    same(&all(&*s, "r").await?, &[one, rec(2)])?;
    let listed = s.runs(None, 9).await.map_err(text)?;
    // The last append came without a head.
    let all = bytes + rec(2).body().len() as u64;
    let seen: u64 = listed.iter().map(|r| r.bytes).sum();
    expect("bytes", &(bytes..=all).contains(&seen), &true)
}

pub(super) async fn among_small(s: Arc<dyn StateStore>) -> Result<(), String> {
    let l = lease(&*s, "r", "ann").await?;
    let records = vec![rec(1), large(2, MIB), large(3, 4 * MIB), rec(4)];
    s.append(&l, 0, records.clone(), None, LEVEL)
        .await
        .map_err(text)?;
    same(&all(&*s, "r").await?, &records)?;
    s.fork(&"r".into(), 3, &"f".into(), head("f"))
        .await
        .map_err(text)?;
    s.delete(&l).await.map_err(text)?;
    same(&all(&*s, "f").await?, records.get(..3).unwrap_or_default())
}

pub(super) async fn blob(s: Arc<dyn StateStore>) -> Result<(), String> {
    let bytes: Vec<u8> = (0..16 * MIB).map(|i| (i % 251) as u8).collect();
    let store = s.blobs();
    let put = store.put(bytes.clone()).await.map_err(|f| f.to_string())?;
    expect("length", &put.len, &(bytes.len() as u64))?;
    let got = store.get(&put).await.map_err(|f| f.to_string())?;
    expect("the same bytes", &(got == bytes), &true)
}
