//! What can still be read of a damaged journal goes into a new one.
use super::{
    SqliteStore,
    check::{self, RunRow},
    read::{COLUMNS, Raw, RawBody},
    tables::{self, id, parts, sql},
};
use crate::{RunHead, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::IgnoredAny};
use smallhands_core::RunId;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What [`SqliteStore::salvage`] saved and what is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Each run that was found.
    pub runs: Vec<Salvaged>,
    /// What cannot be told run by run.
    pub notes: Vec<String>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Salvaged {
    /// Which; one whose name is lost has a new one.
    pub id: RunId,
    /// Its records are saved up to this one, those included that it shares.
    pub kept: u64,
    /// Its last record before, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<u64>,
    /// Why not all are saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl SalvageReport {
    /// Whether all was saved.
    pub fn is_whole(&self) -> bool {
        self.notes.is_empty() && self.runs.iter().all(|r| r.why.is_none())
    }
}

impl SqliteStore {
    /// Copies each run's records, from the first up to the damage, into a new journal in the
    /// directory `to`. The old one is only read. Blobs stay where they are: use the same blob store
    /// with the new journal, or copy it.
    ///
    /// # Errors
    /// The old file cannot be opened at all, there is a journal in `to` already, or `to` cannot be
    /// written.
    pub fn salvage(dir: &Path, to: &Path) -> Result<SalvageReport, StoreError> {
        let old = check::open(dir)?;
        tables::refuse_newer(&old, &dir.join(tables::FILE))?;
        let new = to.join(tables::FILE);
        if new.exists() {
            let why = format!("{} exists already; name a new directory", new.display());
            return Err(StoreError::Io(why));
        }
        fs::create_dir_all(to).map_err(|e| tables::io_error(&e))?;
        let mut s = Salvage {
            old,
            new: tables::create(&new)?,
            found: BTreeMap::new(),
            done: BTreeMap::new(),
            report: SalvageReport::default(),
        };
        s.find();
        for n in s.found.keys().copied().collect::<Vec<_>>() {
            s.run(n)?;
        }
        s.epochs()?;
        // Durable before anybody deletes the old one.
        s.new.pragma_update(None, "synchronous", "FULL")?;
        s.new
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        super::sync_names(to);
        Ok(s.report)
    }
}

struct Salvage {
    old: Connection,
    new: Connection,
    found: BTreeMap<i64, Found>,
    /// How far each run is saved.
    done: BTreeMap<i64, u64>,
    report: SalvageReport,
}

/// A run, as far as its row can be read.
struct Found {
    row: Option<RunRow>,
    owner: (i64, String, Option<String>),
}

impl Salvage {
    /// Runs by their rows, and where those are damaged by their records.
    fn find(&mut self) {
        let mut all = BTreeSet::new();
        match check::runs(&self.old) {
            Ok(rows) => {
                for row in rows {
                    match row {
                        Ok(row) => drop(all.insert(row.n)),
                        Err(e) => self.note("The table of runs cannot be read on", &e),
                    }
                }
            }
            Err(e) => self.note("The table of runs cannot be read", &e),
        }
        match check::owners(&self.old) {
            Ok(more) => all.extend(more),
            Err(e) => self.note("Not every run can be found by its records", &e),
        }
        for n in all {
            let found = self.row(n);
            self.found.insert(n, found);
        }
    }

    fn note(&mut self, what: &str, e: &rusqlite::Error) {
        self.report.notes.push(format!("{what}: {e}"));
    }

    fn row(&self, n: i64) -> Found {
        let columns = RunRow::COLUMNS;
        let row = self.old.query_row(
            &format!("SELECT {columns} FROM runs WHERE n = ?1"),
            params![n],
            RunRow::of,
        );
        let owner = self.old.query_row(
            "SELECT epoch, owner, forked FROM runs WHERE n = ?1",
            params![n],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        );
        Found {
            row: row.ok(),
            owner: owner.unwrap_or_default(),
        }
    }

    /// A run and, before it, those whose records it shares.
    fn run(&mut self, n: i64) -> Result<u64, StoreError> {
        if let Some(kept) = self.done.get(&n) {
            return Ok(*kept);
        }
        // Against circles in damaged rows.
        self.done.insert(n, 0);
        let Some(Found { row, owner }) = self.found.remove(&n) else {
            return Ok(0);
        };
        let (shared, parent) = row.as_ref().map_or((0, None), |r| (r.shared, r.parent));
        let have = match parent {
            Some(p) => self.run(p)?.min(shared),
            None => 0,
        };
        let tx = self.new.unchecked_transaction()?;
        let (kept, mut why) = match have < shared {
            true => (
                have,
                Some(format!("what it shares is lost after record {have}")),
            ),
            false => copy(&self.old, &tx, n, shared)?,
        };
        let was = row.as_ref().map(|r| r.last);
        if why.is_none() && was.is_some_and(|was| was > kept) {
            why = Some(format!("the records after {kept} are missing"));
        }
        let named = row.as_ref().is_none_or(|r| r.named);
        let id = match &row {
            Some(r) => r.id.clone(),
            None => format!("salvaged-{n}").into(),
        };
        if row.is_none() {
            why = why.or(Some("its row is lost, and with it its name".into()));
        }
        // A summary that cannot be read, or is lost, is written again when the run is resumed.
        let head = row
            .as_ref()
            .and_then(|r| r.head.as_ref())
            .filter(|h| serde_json::from_str::<RunHead>(h).is_ok());
        tx.execute(
            "INSERT INTO runs(n, run, epoch, owner, last, bytes, head, parent, parent_seq, forked)
             VALUES(?1, ?2, ?3, ?4, ?5,
               (SELECT COALESCE(sum(CASE typeof(body) WHEN 'blob' THEN json_extract(CAST(body AS TEXT), '$.len') ELSE length(CAST(body AS BLOB)) END), 0)
                FROM records WHERE id > ?9 AND id < ?10), ?6, ?7, ?8, ?11)",
            params![
                n, named.then_some(id.as_str()), owner.0, owner.1, sql(kept), head,
                parent.filter(|_| have > 0), sql(have), tables::id(n, 0), tables::id(n + 1, 0), owner.2
            ],
        )?;
        tx.commit()?;
        self.done.insert(n, kept);
        if named {
            self.report.runs.push(Salvaged { id, kept, was, why });
        }
        Ok(kept)
    }

    /// Old leases stay old.
    fn epochs(&self) -> Result<(), StoreError> {
        let epoch: Option<i64> = self
            .old
            .query_row("SELECT epoch FROM deleted", [], |r| r.get(0))
            .optional()
            .unwrap_or_default();
        if let Some(epoch) = epoch {
            self.new
                .execute("INSERT INTO deleted VALUES(1, ?1)", params![epoch])?;
        }
        Ok(())
    }
}

/// Copies a run's own records up to the first that is missing or cannot be read: how far it came,
/// and why no further. Errors are those of the new file.
fn copy(
    old: &Connection,
    new: &Connection,
    n: i64,
    shared: u64,
) -> Result<(u64, Option<String>), StoreError> {
    let mut kept = shared;
    let stopped = |kept: u64, e: &dyn std::fmt::Display| {
        Ok((
            kept,
            Some(format!("record {} cannot be read: {e}", kept + 1)),
        ))
    };
    let select = format!("SELECT {COLUMNS} FROM records WHERE id > ?1 AND id < ?2 ORDER BY id");
    let mut q = match old.prepare_cached(&select) {
        Ok(q) => q,
        Err(e) => return stopped(kept, &e),
    };
    let mut rows = match q.query(params![id(n, shared), id(n + 1, 0)]) {
        Ok(rows) => rows,
        Err(e) => return stopped(kept, &e),
    };
    let mut insert = new.prepare_cached("INSERT INTO records VALUES(?1, ?2, ?3, ?4, ?5)")?;
    loop {
        let raw = match rows.next() {
            Ok(Some(row)) => Raw::of(row),
            Ok(None) => return Ok((kept, None)),
            Err(e) => return stopped(kept, &e),
        };
        let raw = match raw {
            Ok(raw) => raw,
            Err(e) => return stopped(kept, &e),
        };
        if raw.seq != kept + 1 {
            return stopped(kept, &"it is missing");
        }
        let key = id(n, raw.seq);
        debug_assert_eq!(parts(key), (n, raw.seq));
        let at = sql(raw.at.0);
        match &raw.body {
            RawBody::Text(t) => {
                if let Err(e) = serde_json::from_str::<IgnoredAny>(t) {
                    return stopped(kept, &e);
                }
                insert.execute(params![key, at, raw.kind, raw.version, t])?;
            }
            RawBody::Reference(r) => {
                insert.execute(params![key, at, raw.kind, raw.version, r])?;
            }
        }
        kept = raw.seq;
    }
}
