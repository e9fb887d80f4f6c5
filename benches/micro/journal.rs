use crate::{Bed, Result};
use rusqlite::{Connection, params};
use smallhands::{
    core::Timestamp,
    graph::{Durability, Record as Event},
    standard,
};
use smallhands_benchmarks::{Record, beside};
use std::time::Duration;

/// Appends in one round, each durable before the next.
const APPENDS: u64 = 100;

/// An append beside an insert of the same bytes that is committed with the same `synchronous`.
pub(crate) fn bench(bed: &Bed) -> Result<Vec<Record>> {
    let body = serde_json::json!({ "task": "propose/1", "output": "x".repeat(400) }).to_string();
    let mut records = Vec::new();
    for (name, level, synchronous) in [
        ("process_crash", Durability::ProcessCrash, "NORMAL"),
        ("power_loss", Durability::PowerLoss, "FULL"),
    ] {
        let store = standard::store(&bed.dir.join(name))?;
        let run = "run".into();
        let lease = (bed.rt).block_on(store.lease(&run, "bench", Duration::from_secs(60)))?;
        let mut last = 0;
        let ours = || -> Result {
            for _ in 0..APPENDS {
                let event = Event::new("ended", 1, Timestamp(last), body.clone());
                last = (bed.rt).block_on(store.append(&lease, last, vec![event], None, level))?;
            }
            Ok(())
        };
        let raw = Connection::open(bed.dir.join(format!("{name}.db")))?;
        raw.pragma_update(None, "journal_mode", "WAL")?;
        raw.pragma_update(None, "synchronous", synchronous)?;
        raw.execute_batch("CREATE TABLE records(id INTEGER PRIMARY KEY, at INTEGER, kind TEXT, version INTEGER, body TEXT)")?;
        let mut insert = raw.prepare("INSERT INTO records VALUES(?1, ?2, ?3, ?4, ?5)")?;
        let mut seq = 0;
        let anchor = || -> Result {
            for _ in 0..APPENDS {
                seq += 1;
                insert.execute(params![(1_i64 << 40) + seq, seq, "ended", 1, body])?;
            }
            Ok(())
        };
        let timing = beside(bed.rounds, ours, anchor)?;
        let anchor = format!("raw SQLite commit, synchronous={synchronous}");
        let name = format!("journal/append_{name}");
        records.push(timing.record(&name, "us", 1e6 / APPENDS as f64, &anchor));
    }
    Ok(records)
}
