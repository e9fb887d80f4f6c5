//! A loss of power leaves of the last writes whatever it likes; what was synced is there.
use smallhands_core::Timestamp;
use smallhands_graph::{Durability, MemoryBlobs, Record, RunHead, SqliteStore, StateStore};
use std::{fs, path::Path, sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(30);
const HEADER: usize = 32;
const PAGE: usize = 4096;
const FRAME: usize = 24 + PAGE;

fn body(seq: u64, len: usize) -> String {
    format!("\"{seq:06}{}\"", "x".repeat(len))
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, Arc::new(MemoryBlobs::default())).unwrap()
}

/// The two files of a journal, as a disk holds them.
#[derive(Clone)]
struct Disk {
    db: Vec<u8>,
    wal: Vec<u8>,
}

impl Disk {
    fn of(dir: &Path) -> Self {
        Self {
            db: fs::read(dir.join("journal.db")).unwrap(),
            wal: fs::read(dir.join("journal.db-wal")).unwrap(),
        }
    }

    /// Where a machine comes up again with these files: how many records it has, which must be
    /// whole, without gap, and what the head says.
    async fn recover(&self, len: usize) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("journal.db"), &self.db).unwrap();
        fs::write(dir.path().join("journal.db-wal"), &self.wal).unwrap();
        let store = open(dir.path());
        let records = store.read(&"r".into(), 0, usize::MAX >> 1).await.unwrap();
        for (seq, r) in (1..).zip(&records) {
            assert_eq!(r.seq, seq);
            assert_eq!(r.record.body(), body(seq, len));
        }
        let last = records.len() as u64;
        let listed = store.runs(None, 9).await.unwrap();
        let heads: Vec<_> = listed.iter().map(|r| (r.last, r.head.settled)).collect();
        match last {
            0 => assert!(heads.is_empty(), "{heads:?}"),
            n => assert_eq!(heads, [(n, n)]),
        }
        // It goes on.
        let l = store.lease(&"r".into(), "next", TTL).await.unwrap();
        let more = vec![Record::new("k", 1, Timestamp(1), body(last + 1, len))];
        let level = Durability::ProcessCrash;
        let now = store.append(&l, last, more, None, level).await.unwrap();
        assert_eq!(now, last + 1);
        last
    }
}

/// Appends one by one; after each, what the disk holds is shown.
async fn record(n: u64, len: usize, mut after: impl FnMut(u64, Disk)) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let l = store.lease(&"r".into(), "me", TTL).await.unwrap();
    for seq in 1..=n {
        let record = vec![Record::new("k", 1, Timestamp(seq), body(seq, len))];
        let head = RunHead {
            settled: seq,
            ..RunHead::default()
        };
        let level = Durability::PowerLoss;
        let appended = store.append(&l, seq - 1, record, Some(head), level).await;
        assert_eq!(appended.unwrap(), seq);
        after(seq, Disk::of(dir.path()));
    }
}

/// Cheap, and the same each time.
struct Dice(u64);
impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Small appends, all of whose writes are in one log: the log as it is at the end, and how long it
/// was when each append was acknowledged.
async fn one_log(n: u64) -> (Disk, Vec<usize>) {
    let (mut ends, mut last) = (Vec::new(), None::<Disk>);
    record(n, 300, |_, disk| {
        if let Some(before) = &last {
            assert_eq!(before.db, disk.db, "no checkpoint");
            assert!(disk.wal.starts_with(&before.wal), "written at the end only");
        }
        ends.push(disk.wal.len());
        last = Some(disk);
    })
    .await;
    (last.unwrap(), ends)
}

/// How many appends were acknowledged when this much of the log was written.
fn acked(ends: &[usize], len: usize) -> u64 {
    ends.iter().filter(|end| **end <= len).count() as u64
}

#[tokio::test]
async fn a_log_cut_anywhere_is_an_earlier_state() {
    let (disk, ends) = one_log(120).await;
    let frames = (disk.wal.len() - HEADER) / FRAME;
    assert_eq!(disk.wal.len(), HEADER + frames * FRAME);
    let mut dice = Dice(1);
    let mut cuts = vec![0, 1, HEADER - 1];
    for f in 0..=frames {
        cuts.push(HEADER + f * FRAME);
        cuts.push(HEADER + f * FRAME + 1 + dice.below(FRAME - 1));
    }
    cuts.retain(|c| *c <= disk.wal.len());
    for cut in cuts {
        let torn = Disk {
            db: disk.db.clone(),
            wal: disk.wal[..cut].to_vec(),
        };
        assert_eq!(torn.recover(300).await, acked(&ends, cut), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_torn_last_page_is_an_earlier_state() {
    let (disk, ends) = one_log(60).await;
    let frames = (disk.wal.len() - HEADER) / FRAME;
    let mut dice = Dice(2);
    for f in 1..=frames {
        let end = HEADER + f * FRAME;
        let garbage = match f % 4 {
            0 => 1,
            1 => PAGE,
            2 => FRAME,
            _ => 1 + dice.below(PAGE),
        };
        let mut wal = disk.wal[..end].to_vec();
        for b in &mut wal[end - garbage..] {
            *b ^= 1 + dice.below(255) as u8;
        }
        let torn = Disk {
            db: disk.db.clone(),
            wal,
        };
        let promised = acked(&ends, end - FRAME);
        assert_eq!(
            torn.recover(300).await,
            promised,
            "frame {f}, {garbage} bytes"
        );
    }
}

#[tokio::test]
async fn a_checkpoint_cut_short_loses_nothing() {
    const LEN: usize = 60_000;
    let mut last = None::<Disk>;
    // Before a checkpoint, after it, and after the append that begins the log anew.
    let (mut checkpoints, mut renewed) = (Vec::new(), Vec::new());
    record(150, LEN, |seq, disk| {
        if let Some(before) = last.take() {
            if before.db != disk.db {
                checkpoints.push((seq, before, disk.clone()));
            } else if before.wal[..HEADER] != disk.wal[..HEADER] {
                renewed.push((seq, before, disk.clone()));
            }
        }
        last = Some(disk);
    })
    .await;
    assert!(!checkpoints.is_empty() && !renewed.is_empty());
    let mut dice = Dice(3);
    for (seq, before, after) in checkpoints {
        // Any of the pages came to the disk, and one half.
        for _ in 0..20 {
            let mut db = after.db.clone();
            for at in (0..db.len()).step_by(PAGE) {
                let old = before.db.get(at..at + PAGE).unwrap_or(&[0; PAGE]);
                match dice.below(5) {
                    0 | 1 => db[at..at + PAGE].copy_from_slice(old),
                    2 => db[at..at + 2048].copy_from_slice(&old[..2048]),
                    _ => {}
                }
            }
            let torn = Disk {
                db,
                wal: after.wal.clone(),
            };
            assert_eq!(torn.recover(LEN).await, seq);
        }
    }
    for (seq, before, after) in renewed {
        let changed = (0..after.wal.len())
            .rev()
            .find(|i| before.wal.get(*i) != after.wal.get(*i));
        let end = changed.unwrap() + 1;
        for i in 0..40 {
            let cut = match i {
                0 => 0,
                1 => 16,
                2 => HEADER,
                3 => end,
                _ => dice.below(end),
            };
            let mut wal = before.wal.clone();
            wal[..cut].copy_from_slice(&after.wal[..cut]);
            let torn = Disk {
                db: after.db.clone(),
                wal,
            };
            let promised = if cut == end { seq } else { seq - 1 };
            assert_eq!(torn.recover(LEN).await, promised, "cut at {cut} of {end}");
        }
    }
}
