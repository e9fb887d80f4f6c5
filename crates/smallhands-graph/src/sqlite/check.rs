//! Is a journal whole? Looks at everything, changes nothing.
use super::{
    SqliteStore, big,
    read::{COLUMNS, Raw, RawBody},
    tables::{self, id, parts},
};
use crate::{Event, Record, RunHead, Snapshot, StoreError};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::{Serialize, de::IgnoredAny};
use smallhands_core::{BlobStore, RunId};
use std::{fmt, path::Path};

/// What [`SqliteStore::check`] saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Runs, those not counted that only forks still need.
    pub runs: u64,
    /// Records of all of them.
    pub records: u64,
    /// Bodies that lie in the blob store.
    pub blobs: u64,
    /// Bytes of the log of latest writes, if there is one; it is a part of the journal.
    pub wal: Option<u64>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
    fn add(&mut self, kind: FindingKind, at: Option<(&RunId, Option<u64>)>, what: String) {
        self.findings.push(Finding {
            kind,
            run: at.map(|(run, _)| run.clone()),
            seq: at.and_then(|(_, seq)| seq),
            what,
            to_do: kind.to_do().into(),
        });
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Which kind of thing.
    pub kind: FindingKind,
    /// The run, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The record, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What, in a sentence.
    pub what: String,
    /// What to do, in a sentence.
    pub to_do: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.run, self.seq) {
            (Some(run), Some(seq)) => write!(f, "run `{run}`, record {seq}: ")?,
            (Some(run), None) => write!(f, "run `{run}`: ")?,
            _ => {}
        }
        write!(f, "{}. {}", self.what, self.to_do)
    }
}

/// Kinds of things that can be wrong with a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// The file itself: SQLite cannot read a part of it.
    File,
    /// A newer program wrote it.
    Newer,
    /// Records are missing in a run, or its last one is not the one it should be.
    Gap,
    /// A body that is not what its kind says.
    Body,
    /// A summary that cannot be read.
    Head,
    /// A blob that is not there.
    BlobMissing,
    /// A blob that has changed.
    BlobDamaged,
    /// A fork whose origin has not what it shares.
    Fork,
    /// Records of no run.
    Orphans,
    /// A state that was put aside and cannot be read. Harmless: the records say all that it said.
    Snapshot,
}

impl FindingKind {
    fn to_do(self) -> &'static str {
        match self {
            Self::File => {
                "Copy the directory, find out about the disk, then salvage into a new one."
            }
            Self::Newer => "Use the program that wrote it, or a newer one.",
            Self::Gap | Self::Body | Self::Fork => {
                "Salvage into a new journal: it keeps each run up to the damage."
            }
            Self::Head => "Resume the run: its summary is written again.",
            Self::BlobMissing | Self::BlobDamaged => {
                "Put the blob back from a copy of the blob directory; no other record is touched."
            }
            Self::Snapshot => {
                "It does no harm: the run is read from its records, which takes longer."
            }
            Self::Orphans => {
                "They take up space and do no harm; salvage into a new journal to be rid of them."
            }
        }
    }
}

/// A body that lies apart, to be looked at once the file is closed.
struct Apart {
    run: RunId,
    raw: Raw,
    reference: Vec<u8>,
}

/// What lies in the blob store.
#[derive(Default)]
struct Later {
    bodies: Vec<Apart>,
    snapshots: Vec<(RunId, Snapshot)>,
}

/// A run that is damaged is told of so often; one bad disk makes thousands.
const FINDINGS_A_RUN: usize = 10;

impl SqliteStore {
    /// Looks at a whole journal without changing it; it may be in use.
    ///
    /// # Errors
    /// There is no journal, or it cannot be opened at all. Damage is not an error but a finding.
    pub async fn check(dir: &Path, blobs: &dyn BlobStore) -> Result<CheckReport, StoreError> {
        let mut report = CheckReport::default();
        let apart = {
            let conn = open(dir)?;
            let wal = dir.join(format!("{}-wal", tables::FILE)).metadata();
            report.wal = wal.ok().map(|m| m.len()).filter(|n| *n > 0);
            let mut apart = Later::default();
            if let Err(e) = file(&conn, dir, &mut report, &mut apart) {
                report.add(
                    FindingKind::File,
                    None,
                    format!("The file cannot be read on: {e}"),
                );
            }
            apart
        };
        for a in apart.bodies {
            report.blobs += 1;
            blob(a, blobs, &mut report).await;
        }
        for (run, s) in apart.snapshots {
            if let Err(f) = blobs.get(&s.blob).await {
                let what = format!(
                    "The state put aside at record {} cannot be read: {f}",
                    s.seq
                );
                report.add(FindingKind::Snapshot, Some((&run, None)), what);
            }
        }
        Ok(report)
    }
}

/// For reading only, even where nothing can be written.
pub(super) fn open(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(tables::FILE);
    if !path.exists() {
        return Err(StoreError::Io(format!("there is no {}", path.display())));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&path, flags)?;
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(conn)
}

type Sql<T> = rusqlite::Result<T>;

fn file(
    conn: &Connection,
    dir: &Path,
    report: &mut CheckReport,
    apart: &mut Later,
) -> Result<(), StoreError> {
    if let Err(e) = tables::refuse_newer(conn, &dir.join(tables::FILE)) {
        let kind = match &e {
            StoreError::Damaged(why) if why.contains("layout") => FindingKind::Newer,
            _ => FindingKind::File,
        };
        report.add(kind, None, e.to_string());
        return Ok(());
    }
    let mut q = conn.prepare("PRAGMA integrity_check(20)")?;
    for line in q.query_map([], |r| r.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            report.add(FindingKind::File, None, format!("SQLite says: {line}"));
        }
    }
    for run in runs(conn)? {
        let run = run?;
        if let Err(e) = whole(conn, &run, report, apart) {
            let what = format!("Its records cannot be read on: {e}");
            report.add(FindingKind::File, Some((&run.id, None)), what);
        }
    }
    orphans(conn, report)?;
    Ok(())
}

/// A row of `runs` as it is; one without a name has one made up.
pub(super) struct RunRow {
    pub(super) n: i64,
    pub(super) id: RunId,
    pub(super) named: bool,
    pub(super) last: u64,
    pub(super) head: Option<String>,
    pub(super) parent: Option<i64>,
    pub(super) shared: u64,
}

impl RunRow {
    pub(super) const COLUMNS: &str = "n, run, last, head, parent, parent_seq";
    pub(super) fn of(r: &rusqlite::Row<'_>) -> Sql<Self> {
        let (n, name): (i64, Option<String>) = (r.get(0)?, r.get(1)?);
        Ok(Self {
            n,
            named: name.is_some(),
            id: name.unwrap_or_else(|| format!("(deleted run {n})")).into(),
            last: r.get::<_, i64>(2)?.unsigned_abs(),
            head: r.get(3)?,
            parent: r.get(4)?,
            shared: r.get::<_, i64>(5)?.unsigned_abs(),
        })
    }
}

pub(super) fn runs(conn: &Connection) -> Sql<Vec<Sql<RunRow>>> {
    // By its numbers: an index may be damaged where the table is not.
    let columns = RunRow::COLUMNS;
    let mut q = conn.prepare(&format!(
        "SELECT {columns} FROM runs NOT INDEXED ORDER BY n"
    ))?;
    let rows = q.query_map([], RunRow::of)?;
    Ok(rows.collect())
}

/// One run: its records, its last, its head, its origin.
fn whole(conn: &Connection, run: &RunRow, report: &mut CheckReport, apart: &mut Later) -> Sql<()> {
    report.runs += u64::from(run.named);
    let known = report.findings.len();
    let mut q = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM records WHERE id > ?1 AND id < ?2 ORDER BY id"
    ))?;
    let mut rows = q.query(params![id(run.n, 0), id(run.n + 1, 0)])?;
    let mut last = run.shared;
    while let Some(row) = rows.next()? {
        report.records += 1;
        let seq = parts(row.get(0)?).1;
        let quiet = report.findings.len() >= known + FINDINGS_A_RUN;
        if seq != last + 1 && !quiet {
            let what = format!("Record {} is missing: {seq} follows {last}", last + 1);
            report.add(FindingKind::Gap, Some((&run.id, Some(seq))), what);
        }
        last = seq;
        match Raw::of(row) {
            _ if quiet => {}
            Err(e) => {
                let what = format!("It cannot be read: {e}");
                report.add(FindingKind::Body, Some((&run.id, Some(seq))), what);
            }
            Ok(raw) => match &raw.body {
                RawBody::Text(t) => event(&run.id, &raw, t, report),
                RawBody::Reference(r) => apart.bodies.push(Apart {
                    run: run.id.clone(),
                    reference: r.clone(),
                    raw,
                }),
            },
        }
    }
    if last < run.last {
        let what = format!("It should end at record {} and ends at {last}", run.last);
        report.add(FindingKind::Gap, Some((&run.id, None)), what);
    }
    match run.head.as_deref().map(serde_json::from_str::<RunHead>) {
        Some(Ok(head)) => {
            let snapshot = head.snapshot.map(|s| (run.id.clone(), s));
            apart.snapshots.extend(snapshot);
        }
        Some(Err(e)) => {
            let what = format!("Its summary cannot be read: {e}");
            report.add(FindingKind::Head, Some((&run.id, None)), what);
        }
        None => {}
    }
    origin(conn, run, report)
}

fn event(run: &RunId, raw: &Raw, body: &str, report: &mut CheckReport) {
    let at = Some((run, Some(raw.seq)));
    if let Err(e) = serde_json::from_str::<IgnoredAny>(body) {
        let what = format!("Its body is not JSON: {e}");
        return report.add(FindingKind::Body, at, what);
    }
    let record = Record::new(raw.kind.clone(), raw.version, raw.at, body);
    if let Err(e) = Event::from_record(&record) {
        let kind = match raw.version > Event::VERSION || e.contains("unknown variant") {
            true => FindingKind::Newer,
            false => FindingKind::Body,
        };
        report.add(
            kind,
            at,
            format!("It is no event that this program knows: {e}"),
        );
    }
}

fn origin(conn: &Connection, run: &RunRow, report: &mut CheckReport) -> Sql<()> {
    let Some(parent) = run.parent else {
        return Ok(());
    };
    let last: Option<i64> = conn
        .prepare_cached("SELECT last FROM ends WHERE n = ?1")?
        .query_row(params![parent], |r| r.get(0))
        .optional()?;
    let what = match last.map(i64::unsigned_abs) {
        Some(last) if last >= run.shared => return Ok(()),
        Some(last) => format!(
            "It shares {} records of a run that has only {last}",
            run.shared
        ),
        None => "The run whose records it shares is not there".into(),
    };
    report.add(FindingKind::Fork, Some((&run.id, None)), what);
    Ok(())
}

fn orphans(conn: &Connection, report: &mut CheckReport) -> Sql<()> {
    for n in owners(conn)? {
        let known = conn
            .prepare_cached("SELECT 1 FROM runs WHERE n = ?1")?
            .exists(params![n])?;
        if !known {
            let what = format!("There are records of run number {n}, which does not exist");
            report.add(FindingKind::Orphans, None, what);
        }
    }
    Ok(())
}

/// The numbers of runs that have records, found by leaping from one to the next.
pub(super) fn owners(conn: &Connection) -> Sql<Vec<i64>> {
    let mut q = conn.prepare_cached("SELECT id FROM records WHERE id >= ?1 ORDER BY id LIMIT 1")?;
    let (mut all, mut from) = (Vec::new(), 0);
    while let Some(found) = q
        .query_row(params![from], |r| r.get::<_, i64>(0))
        .optional()?
    {
        let n = parts(found).0;
        all.push(n);
        from = id(n + 1, 0);
    }
    Ok(all)
}

async fn blob(a: Apart, blobs: &dyn BlobStore, report: &mut CheckReport) {
    let at = Some((&a.run, Some(a.raw.seq)));
    let blob = match big::reference(&a.reference) {
        Ok(b) => b,
        Err(e) => return report.add(FindingKind::Body, at, e),
    };
    match blobs.get(&blob).await {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(body) => event(&a.run, &a.raw, &body, report),
            Err(e) => report.add(FindingKind::Body, at, format!("Its body is no text: {e}")),
        },
        Err(f) => {
            let kind = match &*f.code {
                "blob.missing" => FindingKind::BlobMissing,
                _ => FindingKind::BlobDamaged,
            };
            report.add(kind, at, format!("Its body cannot be read: {}", f.message));
        }
    }
}
