//! Runs as files, and what becomes of old and of damaged ones.
use crate::{
    args_runs::{DeleteArgs, ExportArgs, FsckArgs, ImportArgs, PruneArgs},
    control::{done, engine},
    error::CliError,
    list,
    progress::Out,
    run::absolute,
    state::Dirs,
    units::{bytes, count},
};
use serde_json::json;
use smallhands::{
    core::RunId,
    graph::{DirBlobs, Engine, Exported, Prune, SqliteStore, Swept},
    standard,
};
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    path::Path,
    time::Duration,
};

/// A blob is put before the record that names it; no append takes so long.
const SWEEP_AGE: Duration = Duration::from_secs(24 * 3600);

fn open(dirs: &Dirs) -> Result<Engine, CliError> {
    Ok(engine(&standard::store(&dirs.state)?))
}

fn file_error(path: &Path, e: &io::Error) -> CliError {
    let why = format!("{}: {e}", path.display());
    match e.kind() {
        io::ErrorKind::NotFound => CliError::new(2, "usage", why),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            CliError::new(11, "store.disk_full", why)
        }
        _ => CliError::other(why),
    }
}

/// `smallhands export`.
pub(crate) async fn export(dirs: &Dirs, out: Out, a: &ExportArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let to = absolute(&a.file)?;
    if to.exists() {
        let why = format!("{} exists already", to.display());
        return Err(CliError::new(2, "usage", why).hint("name a new file"));
    }
    let mut part = to.clone().into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let (part, run) = (Path::new(&part), RunId::from(&a.run));
    let written = tokio::select! {
        w = write(&e, &run, part) => w,
        _ = tokio::signal::ctrl_c() => {
            Err(CliError::new(130, "stopped", "stopped; nothing was written"))
        }
    };
    let renamed = written.and_then(|told| {
        fs::rename(part, &to).map_err(|e| file_error(&to, &e))?;
        Ok(told)
    });
    if renamed.is_err() {
        // The first error is the one that matters.
        drop(fs::remove_file(part));
    }
    let told = renamed?;
    let said = format!("{} holds {}", a.file.display(), held(&told));
    Ok(done(
        out,
        &said,
        &json!({ "file": a.file, "exported": told }),
    ))
}

async fn write(e: &Engine, run: &RunId, part: &Path) -> Result<Exported, CliError> {
    // Before a file is made: the run may not exist.
    e.info(run).await?;
    let file = File::create_new(part).map_err(|e| file_error(part, &e))?;
    let mut file = BufWriter::new(file);
    let told = e.export(run, &mut file).await?;
    file.get_ref()
        .sync_all()
        .map_err(|e| file_error(part, &e))?;
    Ok(told)
}

fn held(t: &Exported) -> String {
    let Exported {
        run,
        records,
        blobs,
        bytes: n,
        ..
    } = t;
    format!("run {run}: {records} records, {blobs} blobs, {}", bytes(*n))
}

/// `smallhands import`.
pub(crate) async fn import(dirs: &Dirs, out: Out, a: &ImportArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let file = File::open(&a.file).map_err(|e| file_error(&a.file, &e))?;
    let id = a.as_id.as_ref().map(RunId::from);
    let told = e.import(BufReader::new(file), id).await.map_err(|f| {
        let known = f.code();
        let file = CliError::from(f);
        match known {
            "run.exists" => file.hint("--as ID gives it another name"),
            _ => file,
        }
    })?;
    Ok(done(
        out,
        &format!("imported {}", held(&told)),
        &json!({ "imported": told }),
    ))
}

/// `smallhands delete`.
pub(crate) async fn delete(dirs: &Dirs, out: Out, a: &DeleteArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let ids: Vec<_> = a.runs.iter().map(RunId::from).collect();
    // A name that is misspelt is told before anything is gone.
    for id in &ids {
        e.info(id).await?;
    }
    for id in &ids {
        e.delete(id).await?;
        forget_log(dirs, id);
        out.say(&format!("deleted {id}"));
    }
    let said = format!(
        "{} deleted; smallhands prune frees their blobs",
        count(ids.len(), "run")
    );
    Ok(done(out, &said, &json!({ "deleted": ids })))
}

fn forget_log(dirs: &Dirs, id: &RunId) {
    let log = format!("{id}.jsonl");
    // An id that came from elsewhere is no way out of the directory.
    if !log.contains(['/', '\\']) {
        drop(fs::remove_file(dirs.state.join("logs").join(log)));
    }
}

/// `smallhands prune`.
pub(crate) async fn prune(dirs: &Dirs, out: Out, a: &PruneArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let policy = Prune {
        older_than: a.older_than,
        max_bytes: a.max_size,
        unfinished: a.unfinished,
        dry_run: a.dry_run,
    };
    let gone = e.prune(&policy).await?;
    let swept = match a.dry_run {
        true => Swept::default(),
        false => {
            for r in &gone {
                forget_log(dirs, &r.id);
            }
            // What is gone is told though the rest failed.
            let told = list::table(out, &gone);
            let swept = sweep(dirs, &e).await;
            swept.inspect_err(|_| out.say(&format!("{told}deleted")))?
        }
    };
    let n: u64 = gone.iter().map(|r| r.bytes).sum();
    let verb = if a.dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    let mut said = list::table(out, &gone);
    said += &format!(
        "{} {verb}, {} of records",
        count(gone.len(), "run"),
        bytes(n)
    );
    if !a.dry_run {
        let blobs = count(usize::try_from(swept.count).unwrap_or_default(), "blob");
        said += &format!("; {blobs} without use deleted, {}", bytes(swept.bytes));
    }
    let runs: Vec<_> = gone.iter().map(list::json).collect();
    let v = json!({
        "dry_run": a.dry_run, "deleted": runs, "bytes": n,
        "blobs": { "count": swept.count, "bytes": swept.bytes },
    });
    Ok(done(out, &said, &v))
}

async fn sweep(dirs: &Dirs, e: &Engine) -> Result<Swept, CliError> {
    let used = e.used_blobs().await.map_err(|f| {
        CliError::from(f).hint("no blob was deleted, since a run cannot be read; smallhands fsck")
    })?;
    let dir = dirs.state.join("blobs");
    let blobs = DirBlobs::open(&dir).map_err(|e| file_error(&dir, &e))?;
    let swept = blobs.sweep(&|d| used.contains(d), SWEEP_AGE);
    swept.map_err(|e| file_error(&dir, &e))
}

/// `smallhands fsck`; 1 if something is wrong.
pub(crate) async fn fsck(dirs: &Dirs, out: Out, a: &FsckArgs) -> Result<u8, CliError> {
    let journal = dirs.state.join("journal.db");
    if !journal.exists() {
        let why = format!("there is no journal {}", journal.display());
        return Err(CliError::other(why).hint("name the directory with --state-dir"));
    }
    let dir = dirs.state.join("blobs");
    let blobs = DirBlobs::open(&dir).map_err(|e| file_error(&dir, &e))?;
    let report = SqliteStore::check(&dirs.state, &blobs).await?;
    let mut text = String::new();
    for f in &report.findings {
        text += &format!("{} {f}\n", out.paint("wrong:", "31"));
    }
    text += &format!(
        "{} runs, {} records, {} of them in blobs: ",
        report.runs, report.records, report.blobs
    );
    text += &match report.findings.len() {
        0 => out.paint("nothing is wrong", "32"),
        n => out.paint(&count(n, "finding"), "31"),
    };
    text.push('\n');
    let saved = match &a.salvage {
        Some(to) => Some(SqliteStore::salvage(&dirs.state, &absolute(to)?)?),
        None => None,
    };
    if let (Some(s), Some(to)) = (&saved, &a.salvage) {
        for r in &s.runs {
            let of = r.was.map(|n| format!(" of {n}")).unwrap_or_default();
            let why = r.why.as_ref().map(|w| format!(": {w}")).unwrap_or_default();
            text += &format!("saved {}: {}{of} records{why}\n", r.id, r.kept);
        }
        for note in &s.notes {
            text += &format!("note: {note}\n");
        }
        text += &format!(
            "the new journal is in {}; copy or move {} there to use it\n",
            to.display(),
            dir.display()
        );
    }
    let sound = report.is_sound();
    match out.json {
        true => {
            let v = json!({ "ok": sound, "check": report, "salvage": saved });
            out.print(&format!("{v}\n"));
        }
        false => out.print(&text),
    }
    Ok(u8::from(!sound))
}
