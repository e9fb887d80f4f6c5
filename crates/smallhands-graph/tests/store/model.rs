//! Whatever is done with a store, SQLite and memory say the same.
use proptest::prelude::*;
use smallhands_core::{RunId, Timestamp};
use smallhands_graph::{
    DirBlobs, Durability, Lease, MemoryStore, Record, RunHead, SqliteStore, StateStore, StoreError,
    SystemClock,
};
use std::{path::Path, sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(3600);
const RUNS: u8 = 5;

#[derive(Clone, Debug)]
enum Act {
    Lease(u8),
    Release(u8),
    /// A run, how far beside its end, how many records, how long.
    Append(u8, i8, u8, bool),
    Fork(u8, u8, u8),
    Delete(u8),
    /// SQLite only: the process ends and another begins.
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let run = 0..RUNS;
    prop_oneof![
        3 => run.clone().prop_map(Act::Lease),
        1 => run.clone().prop_map(Act::Release),
        8 => (run.clone(), prop_oneof![9 => Just(0), 1 => -1..2_i8], 0..6_u8, any::<bool>())
            .prop_map(|(r, o, n, l)| Act::Append(r, o, n, l)),
        5 => (run.clone(), 0..8_u8, run.clone()).prop_map(|(f, at, t)| Act::Fork(f, at, t)),
        3 => run.prop_map(Act::Delete),
        1 => Just(Act::Reopen),
    ]
}

fn name(run: u8) -> RunId {
    format!("r{run}").into()
}

fn head(goal: String) -> RunHead {
    RunHead {
        goal,
        ..RunHead::default()
    }
}

/// What a caller sees of a result, without words.
fn seen<T: std::fmt::Debug>(r: Result<T, StoreError>) -> String {
    match r {
        Ok(t) => format!("{t:?}"),
        Err(StoreError::Conflict { is, .. }) => format!("conflict at {is}"),
        Err(e) => e.code().into(),
    }
}

/// A store and the last lease that it gave of each run, current or not.
struct Side {
    store: Arc<dyn StateStore>,
    leases: [Option<Lease>; RUNS as usize],
}

impl Side {
    fn new(store: Arc<dyn StateStore>) -> Self {
        Self {
            store,
            leases: Default::default(),
        }
    }

    async fn act(&mut self, n: usize, act: &Act) -> String {
        let s = &self.store;
        match act {
            Act::Lease(r) => {
                let lease = s.lease(&name(*r), "me", TTL).await;
                if let Ok(l) = &lease {
                    self.leases[usize::from(*r)] = Some(l.clone());
                }
                seen(lease)
            }
            Act::Release(r) => match &self.leases[usize::from(*r)] {
                Some(l) => seen(s.release(l).await),
                None => String::new(),
            },
            Act::Append(r, off, count, long) => {
                let Some(l) = &self.leases[usize::from(*r)] else {
                    return String::new();
                };
                let all = s.runs(None, 99).await.unwrap();
                let last = all.iter().find(|i| i.id == name(*r)).map_or(0, |i| i.last);
                let text = "x".repeat(if *long { 3_000 } else { 10 });
                let body = |i| format!("\"{n} {i} {text}\"");
                let records = (0..*count).map(|i| Record::new("k", 1, Timestamp(1), body(i)));
                let (records, head) = (records.collect(), Some(head(n.to_string())));
                let after = last.saturating_add_signed((*off).into());
                let level = Durability::ProcessCrash;
                seen(s.append(l, after, records, head, level).await)
            }
            Act::Fork(from, at, to) => {
                let head = head(format!("fork {n}"));
                seen(s.fork(&name(*from), (*at).into(), &name(*to), head).await)
            }
            Act::Delete(r) => match &self.leases[usize::from(*r)] {
                Some(l) => seen(s.delete(l).await),
                None => String::new(),
            },
            Act::Reopen => String::new(),
        }
    }

    async fn all(&self) -> String {
        let listed = self.store.runs(None, 99).await.unwrap();
        let mut all = format!("{listed:#?}");
        for r in 0..RUNS {
            let read = self.store.read(&name(r), 0, 999).await.unwrap();
            assert!(read.iter().map(|s| s.seq).eq(1..=read.len() as u64));
            let from_second = self.store.read(&name(r), 1, 3).await.unwrap();
            all += &format!("\n{read:?}\n{from_second:?}");
        }
        all
    }
}

fn sqlite(dir: &Path) -> Arc<dyn StateStore> {
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
    Arc::new(SqliteStore::open(dir, blobs).unwrap().inline_up_to(1_000))
}

/// Two runs with records, so that there is something to fork and to delete.
const BEGIN: [Act; 4] = [
    Act::Lease(0),
    Act::Append(0, 0, 5, false),
    Act::Lease(1),
    Act::Append(1, 0, 3, true),
];

async fn alike(acts: Vec<Act>) {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Side::new(Arc::new(MemoryStore::new(Arc::new(SystemClock))));
    let mut two = Side::new(sqlite(dir.path()));
    for (n, act) in BEGIN.iter().chain(&acts).enumerate() {
        if matches!(act, Act::Reopen) {
            // A process that ends gives its leases back.
            for l in one.leases.iter().flatten() {
                drop(one.store.release(l).await);
            }
            two.store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
            two.store = sqlite(dir.path());
        }
        let said = (one.act(n, act).await, two.act(n, act).await);
        assert_eq!(said.0, said.1, "act {n}: {act:?}");
        assert_eq!(one.all().await, two.all().await, "after act {n}: {act:?}");
    }
    drop(two);
    no_litter(dir.path());
}

/// What nobody can reach is gone from the file.
fn no_litter(dir: &Path) {
    let conn = rusqlite::Connection::open(dir.join("journal.db")).unwrap();
    let count = |sql: &str| conn.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
    let childless = "SELECT count(*) FROM runs g WHERE run IS NULL
        AND NOT EXISTS (SELECT 1 FROM runs WHERE parent = g.n)";
    assert_eq!(count(childless), 0, "deleted runs that no fork needs");
    let unneeded = "SELECT count(*) FROM runs g JOIN records ON id >> 40 = g.n WHERE run IS NULL
        AND id & 1099511627775 > (SELECT max(parent_seq) FROM runs WHERE parent = g.n)";
    assert_eq!(count(unneeded), 0, "records that no fork needs");
    let orphans = "SELECT count(*) FROM records WHERE id >> 40 NOT IN (SELECT n FROM runs)";
    assert_eq!(count(orphans), 0, "records of no run");
    let own = "SELECT count(*) FROM runs r WHERE last - parent_seq <>
        (SELECT count(*) FROM records WHERE id >> 40 = r.n)";
    assert_eq!(count(own), 0, "runs that have not what they say");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn sqlite_and_memory_are_alike(acts in prop::collection::vec(act(), 1..60)) {
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        rt.block_on(alike(acts));
    }
}
