//! Looking at a journal that may be damaged, and saving what is left of it.
use rusqlite::Connection;
use smallhands_core::{RunId, Timestamp};
use smallhands_graph::{
    CheckReport, DirBlobs, Durability, Event, FindingKind, Record, RunHead, SqliteStore, StateStore,
};
use std::{fs, path::Path, sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(30);
const PAGE: usize = 4096;

fn event(n: u64, len: usize) -> Record {
    let owner = format!("{n:06}{}", "x".repeat(len));
    Record::of(Arc::new(Event::Opened { owner, epoch: n }), Timestamp(n))
}

fn blobs(dir: &Path) -> Arc<DirBlobs> {
    Arc::new(DirBlobs::open(dir.join("blobs")).unwrap())
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, blobs(dir))
        .unwrap()
        .inline_up_to(20_000)
}

async fn grown(s: &SqliteStore, run: &str, after: u64, last: u64) {
    let l = s.lease(&run.into(), "me", TTL).await.unwrap();
    for n in after..last {
        let head = RunHead {
            settled: n + 1,
            ..RunHead::default()
        };
        // Each tenth lies apart.
        let records = vec![event(n + 1, if n % 10 == 9 { 30_000 } else { 700 })];
        let level = Durability::ProcessCrash;
        s.append(&l, n, records, Some(head), level).await.unwrap();
    }
    s.release(&l).await.unwrap();
}

async fn fork(s: &SqliteStore, from: &str, at: u64, to: &str) {
    let head = RunHead::default();
    s.fork(&from.into(), at, &to.into(), head).await.unwrap();
}

/// Runs, forks, and a deleted run that a fork needs; all of it in the one file.
async fn journal(dir: &Path) {
    let s = open(dir);
    grown(&s, "a", 0, 60).await;
    grown(&s, "gone", 0, 30).await;
    fork(&s, "a", 25, "fork").await;
    fork(&s, "gone", 12, "heir").await;
    grown(&s, "fork", 25, 40).await;
    grown(&s, "heir", 12, 20).await;
    let l = s.lease(&"gone".into(), "me", TTL).await.unwrap();
    s.delete(&l).await.unwrap();
    drop(s);
    raw(dir)
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
}

fn raw(dir: &Path) -> Connection {
    let conn = Connection::open(dir.join("journal.db")).unwrap();
    conn.busy_timeout(TTL).unwrap();
    conn
}

const WHOLE: [(&str, u64); 3] = [("a", 60), ("fork", 40), ("heir", 20)];

async fn check(dir: &Path) -> CheckReport {
    SqliteStore::check(dir, &*blobs(dir)).await.unwrap()
}

#[tokio::test]
async fn a_sound_journal_is_found_sound_while_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path()).await;
    let s = open(dir.path());
    grown(&s, "live", 0, 3).await;
    let report = check(dir.path()).await;
    assert!(report.is_sound(), "{:#?}", report.findings);
    assert_eq!((report.runs, report.records), (4, 60 + 12 + 15 + 8 + 3));
    assert_eq!(report.blobs, 6 + 1 + 2 + 1);
    assert!(report.wal.is_some());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["runs"], 4);
    let none = SqliteStore::check(&dir.path().join("none"), &*s.blobs()).await;
    assert!(none.unwrap_err().to_string().contains("there is no "));
}

#[tokio::test]
async fn each_damage_is_told_with_what_to_do() {
    use FindingKind::{BlobDamaged, BlobMissing, Body, Fork, Gap, Head, Newer, Orphans};
    let whole = tempfile::tempdir().unwrap();
    journal(whole.path()).await;
    let n = "(SELECT n FROM runs WHERE run = 'a') * 1099511627776";
    for (sql, kind, says) in [
        (
            format!("DELETE FROM records WHERE id = {n} + 7"),
            Gap,
            "run `a`, record 8: Record 7 is missing",
        ),
        (
            format!("DELETE FROM records WHERE id = {n} + 60"),
            Gap,
            "run `a`: It should end at record 60 and ends at 59",
        ),
        (
            "UPDATE runs SET last = 61 WHERE run = 'a'".into(),
            Gap,
            "should end at record 61 and ends at 60",
        ),
        (
            format!("UPDATE records SET body = '{{\"own' WHERE id = {n} + 3"),
            Body,
            "record 3: Its body is not JSON",
        ),
        (
            format!("UPDATE records SET body = '{{}}' WHERE id = {n} + 3"),
            Body,
            "missing field `owner`",
        ),
        (
            format!("UPDATE records SET body = CAST(X'22FF22' AS TEXT) WHERE id = {n} + 3"),
            Body,
            "record 3: It cannot be read",
        ),
        (
            format!("UPDATE records SET body = X'22' WHERE id = {n} + 3"),
            Body,
            "reference of its body is damaged",
        ),
        (
            format!("UPDATE records SET kind = 'teleported' WHERE id = {n} + 3"),
            Newer,
            "unknown variant `teleported`",
        ),
        (
            format!("UPDATE records SET version = 9 WHERE id = {n} + 3"),
            Newer,
            "written by a newer program",
        ),
        (
            "UPDATE runs SET head = '{' WHERE run = 'a'".into(),
            Head,
            "Its summary cannot be read",
        ),
        (
            "UPDATE runs SET parent = 77 WHERE run = 'fork'".into(),
            Fork,
            "run `fork`: The run whose records it shares is not there",
        ),
        (
            format!(
                "UPDATE runs SET last = 24 WHERE run = 'a';
                 DELETE FROM records WHERE id > {n} + 24 AND id < {n} + 1099511627776"
            ),
            Fork,
            "shares 25 records of a run that has only 24",
        ),
        (
            "INSERT INTO records VALUES(99 * 1099511627776 + 1, 1, 'opened', 1, '1')".into(),
            Orphans,
            "run number 99",
        ),
        ("PRAGMA user_version = 3".into(), Newer, "has layout 3"),
        ("blob missing".into(), BlobMissing, "is not in the store"),
        ("blob damaged".into(), BlobDamaged, "is damaged"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        match sql.as_str() {
            "blob missing" => fs::remove_file(blob(dir.path())).unwrap(),
            "blob damaged" => fs::write(blob(dir.path()), "other").unwrap(),
            sql => raw(dir.path()).execute_batch(sql).unwrap(),
        }
        let report = check(dir.path()).await;
        let text: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        let found = report.findings.iter().zip(&text);
        let told = found
            .filter(|(f, t)| f.kind == kind && t.contains(says))
            .count();
        // Each blob may be of a fork as well.
        assert!(told == 1 || sql.starts_with("blob"), "{sql}: {text:#?}");
        assert!(told > 0, "{sql}: {text:#?}");
        assert!(report.findings.iter().all(|f| f.to_do.ends_with('.')));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for e in fs::read_dir(from).unwrap() {
        let e = e.unwrap();
        let to = to.join(e.file_name());
        match e.path().is_dir() {
            true => copy(&e.path(), &to),
            false => drop(fs::copy(e.path(), to).unwrap()),
        }
    }
}

/// Some blob.
fn blob(dir: &Path) -> std::path::PathBuf {
    let shards = fs::read_dir(dir.join("blobs")).unwrap();
    let files = shards.flat_map(|s| fs::read_dir(s.unwrap().path()).unwrap());
    files.map(|f| f.unwrap().path()).min().unwrap()
}

/// Saves what is left and looks at the new journal: how many records each run has, all of which
/// are the old ones.
async fn salvaged(dir: &Path) -> Option<Vec<(String, u64)>> {
    let to = tempfile::tempdir().unwrap();
    let new = to.path().join("new");
    let report = SqliteStore::salvage(dir, &new).ok()?;
    let checked = SqliteStore::check(&new, &*blobs(dir)).await.unwrap();
    let bad: Vec<_> = checked.findings.iter().map(ToString::to_string).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let s = SqliteStore::open(&new, blobs(dir)).unwrap();
    let mut all = Vec::new();
    for run in report.runs {
        let records = s.read(&run.id, 0, 999).await.unwrap();
        assert_eq!(records.len() as u64, run.kept, "{run:?}");
        for (n, r) in (1..).zip(&records) {
            assert_eq!(r.seq, n);
            let owner = format!("{n:06}x");
            assert!(r.record.body().contains(&owner), "{run:?} {n}");
        }
        assert!(run.why.is_some() || Some(run.kept) == run.was, "{run:?}");
        all.push((run.id.to_string(), run.kept));
    }
    all.sort();
    Some(all)
}

fn whole() -> Vec<(String, u64)> {
    WHOLE.map(|(run, n)| (run.to_owned(), n)).into()
}

#[tokio::test]
async fn salvage_of_a_sound_journal_keeps_all() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path()).await;
    assert_eq!(salvaged(dir.path()).await.unwrap(), whole());
    let to = tempfile::tempdir().unwrap();
    let report = SqliteStore::salvage(dir.path(), to.path()).unwrap();
    assert!(report.is_whole(), "{report:?}");
    let list = |d: &Path| SqliteStore::open(d, blobs(dir.path())).unwrap();
    let old = list(dir.path()).runs(None, 9).await.unwrap();
    assert_eq!(
        list(to.path()).runs(None, 9).await.unwrap(),
        old,
        "heads and bytes as well"
    );
    let e = SqliteStore::salvage(dir.path(), to.path()).unwrap_err();
    assert!(e.to_string().contains("exists already"), "{e}");
}

#[tokio::test]
async fn salvage_keeps_each_run_up_to_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    journal(dir.path()).await;
    raw(dir.path())
        .execute_batch("DELETE FROM records WHERE id = (SELECT n FROM runs WHERE run = 'a') * 1099511627776 + 21")
        .unwrap();
    // The fork shares 25 records, of which 20 are left.
    let kept = salvaged(dir.path()).await.unwrap();
    let promised = [("a", 20), ("fork", 20), ("heir", 20)];
    assert_eq!(kept, promised.map(|(r, n)| (r.to_owned(), n)));
    let to = tempfile::tempdir().unwrap();
    let report = SqliteStore::salvage(dir.path(), to.path()).unwrap();
    assert!(!report.is_whole());
    let fork = report
        .runs
        .iter()
        .find(|r| r.id == RunId::from("fork"))
        .unwrap();
    assert_eq!(
        fork.why.as_deref(),
        Some("what it shares is lost after record 20")
    );
}

#[tokio::test]
async fn any_page_of_the_file_may_be_damaged() {
    let whole_dir = tempfile::tempdir().unwrap();
    journal(whole_dir.path()).await;
    let db = fs::read(whole_dir.path().join("journal.db")).unwrap();
    let (mut unseen, mut refused, mut partly) = (0, 0, 0);
    for page in 0..db.len() / PAGE {
        for garbage in [0x00, 0xA5] {
            let mut bad = db.clone();
            bad[page * PAGE..(page + 1) * PAGE].fill(garbage);
            fs::write(whole_dir.path().join("journal.db"), &bad).unwrap();
            for more in ["journal.db-wal", "journal.db-shm"] {
                // Of the round before.
                drop(fs::remove_file(whole_dir.path().join(more)));
            }
            let report = SqliteStore::check(whole_dir.path(), &*blobs(whole_dir.path())).await;
            let sound = report.is_ok_and(|r| r.is_sound());
            match salvaged(whole_dir.path()).await {
                None => refused += 1,
                Some(kept) if kept == whole() => unseen += usize::from(sound),
                Some(_) => {
                    partly += 1;
                    assert!(
                        !sound,
                        "records are lost and nothing was found: page {page}"
                    );
                }
            }
        }
    }
    // Pages that are free; the first page, without which there is no database.
    assert!(
        unseen < db.len() / PAGE && refused <= 4,
        "{unseen} {refused}"
    );
    assert!(partly > 10, "{partly}");
}
