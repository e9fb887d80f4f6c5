//! A run as one file: exported whole, imported whole or not at all.
//!
//! JSON lines: a header, each record, each blob that they refer to, and a last line that counts
//! them and holds the BLAKE3 hash of all bytes before it.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use crate::{Engine, Event, GraphError, Record, RunHead, RunState, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_core::{BlobRef, BlobStore, Digest, RunId};
use std::{
    collections::{BTreeMap, HashSet},
    io::{self, BufRead, Seek, Write},
};

const FORMAT: &str = "smallhands.run";
const VERSION: u32 = 1;

/// What an exported or imported file holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Exported {
    /// The run; after an import the id that it has now.
    pub run: RunId,
    /// Its records, those of the run that it was forked from included.
    pub records: u64,
    /// Its blobs.
    pub blobs: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header {
        format: String,
        version: u32,
        run: RunId,
        head: RunHead,
    },
    Record(Stored),
    Blob {
        #[serde(flatten)]
        blob: BlobRef,
        #[serde(flatten)]
        bytes: Bytes,
    },
    End {
        records: u64,
        blobs: u64,
        digest: String,
    },
}

/// Text stays readable.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bytes {
    Text(String),
    Hex(String),
}

impl Bytes {
    fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(e) => Self::Hex(hex(&e.into_bytes())),
        }
    }
    fn decode(self) -> Result<Vec<u8>, GraphError> {
        match self {
            Self::Text(t) => Ok(t.into_bytes()),
            Self::Hex(t) => unhex(t.as_bytes()).ok_or_else(|| torn("a blob is not hexadecimal")),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    let both = |b: &u8| [digit(b >> 4), digit(b & 15)];
    bytes.iter().flat_map(both).collect()
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pair = |p: &[u8]| match p {
        [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
        _ => None,
    };
    text.chunks(2).map(pair).collect()
}

fn torn(why: impl Into<String>) -> GraphError {
    GraphError::Import(why.into())
}

/// Writes lines, and hashes what it writes.
struct Sink<'a, W> {
    to: &'a mut W,
    hash: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Sink<'_, W> {
    fn line(&mut self, l: &Line) -> Result<(), GraphError> {
        // A body may hold line ends between its tokens; within text JSON has none.
        let mut text = serde_json::to_string(l)
            .map_err(|e| torn(e.to_string()))?
            .replace(['\n', '\r'], " ");
        text.push('\n');
        self.hash.update(text.as_bytes());
        self.bytes += text.len() as u64;
        self.to
            .write_all(text.as_bytes())
            .map_err(|e| io_failed(&e))
    }
}

fn io_failed(e: &io::Error) -> GraphError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            crate::StoreError::DiskFull(e.to_string()).into()
        }
        _ => crate::StoreError::Io(e.to_string()).into(),
    }
}

impl Engine {
    /// Writes a run to one file: records, blobs, nothing else is needed to go on elsewhere. The run
    /// may be driven meanwhile; the file then ends at some record. A fork is written whole.
    ///
    /// # Errors
    /// No such run; a record or blob that cannot be read; the file cannot be written.
    pub async fn export(
        &self,
        run: &RunId,
        to: &mut (impl Write + Send),
    ) -> Result<Exported, GraphError> {
        let info = self.info(run).await?;
        let mut sink = Sink {
            to,
            hash: blake3::Hasher::new(),
            bytes: 0,
        };
        sink.line(&Line::Header {
            format: FORMAT.into(),
            version: VERSION,
            run: run.clone(),
            // The store that it goes to makes its own.
            head: RunHead {
                snapshot: None,
                ..info.head
            },
        })?;
        let mut refs = Refs::default();
        let mut records = 0;
        while records < info.last {
            let page = self.store.read(run, records, 256).await?;
            if page.is_empty() {
                break;
            }
            for s in page {
                records = s.seq;
                refs.scan(s.record.body().as_bytes());
                sink.line(&Line::Record(s))?;
            }
        }
        let blobs = self.store.blobs();
        let mut count = 0;
        while let Some(blob) = refs.pop() {
            let bytes = blobs.get(&blob).await?;
            refs.scan(&bytes);
            let bytes = Bytes::of(bytes);
            sink.line(&Line::Blob { blob, bytes })?;
            count += 1;
        }
        let digest = Digest::from_hash("b3", sink.hash.finalize().as_bytes());
        sink.line(&Line::End {
            records,
            blobs: count,
            digest: digest.to_string(),
        })?;
        sink.to.flush().map_err(|e| io_failed(&e))?;
        Ok(Exported {
            run: run.clone(),
            records,
            blobs: count,
            bytes: sink.bytes,
        })
    }

    /// Reads an exported run into this store, under its own or another id; it can be resumed.
    ///
    /// The file is read twice: nothing is written before all of it was found whole, and then all
    /// records go in at once.
    ///
    /// # Errors
    /// [`GraphError::Import`] for a file that is torn, altered, foreign or of a newer program, and
    /// for blobs that are named by another hash than this store uses; the id is taken; the store
    /// failed. The store then has no new run.
    pub async fn import(
        &self,
        mut from: impl BufRead + Seek + Send,
        as_id: Option<RunId>,
    ) -> Result<Exported, GraphError> {
        let start = from.stream_position().map_err(|e| io_failed(&e))?;
        let whole = Whole::read(&mut from)?;
        let run = as_id.unwrap_or(whole.run);
        let lease = self.store.lease(&run, &self.owner, self.lease_ttl).await?;
        let done = async {
            if !self.store.read(&run, 0, 1).await?.is_empty() {
                return Err(GraphError::RunExists(run.clone()));
            }
            from.seek(io::SeekFrom::Start(start))
                .map_err(|e| io_failed(&e))?;
            put_blobs(&mut from, &*self.store.blobs()).await?;
            let (head, level) = (whole.state.head(), whole.state.durability);
            self.store
                .append(&lease, 0, whole.records, Some(head), level)
                .await?;
            Ok(())
        };
        let done = done.await;
        self.store.release(&lease).await?;
        done?;
        Ok(Exported {
            run,
            records: whole.state.seq,
            blobs: whole.blobs,
            bytes: whole.bytes,
        })
    }

    /// Every blob that a run of this store needs: for [`DirBlobs::sweep`](crate::DirBlobs::sweep),
    /// which may delete the others. Reads all runs.
    ///
    /// # Errors
    /// A record or blob that cannot be read: then nothing should be swept.
    pub async fn used_blobs(&self) -> Result<HashSet<Digest>, GraphError> {
        let mut refs = Refs::default();
        for r in self.runs(|_| true).await? {
            let mut after = 0;
            // What it refers to, its records do as well.
            refs.seen.extend(r.head.snapshot.map(|s| s.blob.digest));
            loop {
                let page = self.store.read(&r.id, after, 256).await?;
                let Some(last) = page.last() else { break };
                after = last.seq;
                for s in &page {
                    let body = s.record.body();
                    refs.scan(body.as_bytes());
                    // A store may keep a large body as a blob of its own.
                    let hash = blake3::hash(body.as_bytes());
                    refs.seen.insert(Digest::from_hash("b3", hash.as_bytes()));
                }
            }
        }
        let blobs = self.store.blobs();
        while let Some(blob) = refs.pop() {
            // One that is gone already needs no keeping.
            match blobs.get(&blob).await {
                Ok(bytes) => refs.scan(&bytes),
                Err(f) if &*f.code == "blob.missing" => {}
                Err(f) => return Err(f.into()),
            }
        }
        Ok(refs.seen)
    }
}

/// References to blobs, in records and in blobs that are JSON themselves.
#[derive(Default)]
struct Refs {
    seen: HashSet<Digest>,
    open: BTreeMap<Digest, u64>,
}

impl Refs {
    fn scan(&mut self, bytes: &[u8]) {
        let json = matches!(bytes.first(), Some(b'{' | b'['));
        if json && let Ok(v) = serde_json::from_slice(bytes) {
            self.walk(&v);
        }
    }

    fn walk(&mut self, v: &Value) {
        match v {
            Value::Array(all) => all.iter().for_each(|v| self.walk(v)),
            Value::Object(fields) => match reference(v) {
                Some(b) => self.add(b),
                None => fields.values().for_each(|v| self.walk(v)),
            },
            _ => {}
        }
    }

    fn add(&mut self, b: BlobRef) {
        if self.seen.insert(b.digest.clone()) {
            self.open.insert(b.digest, b.len);
        }
    }

    fn pop(&mut self) -> Option<BlobRef> {
        let (digest, len) = self.open.pop_first()?;
        Some(BlobRef { digest, len })
    }
}

/// An object of just these two fields, so that no other data is taken for one.
fn reference(v: &Value) -> Option<BlobRef> {
    let fields = v.as_object().filter(|f| f.len() == 2)?;
    Some(BlobRef {
        digest: fields.get("digest")?.as_str()?.parse().ok()?,
        len: fields.get("len")?.as_u64()?,
    })
}

/// A file that was found whole.
struct Whole {
    run: RunId,
    state: RunState,
    records: Vec<Record>,
    blobs: u64,
    bytes: u64,
}

/// A file while it is read.
#[derive(Default)]
struct Reading {
    run: Option<RunId>,
    state: RunState,
    records: Vec<Record>,
    held: HashSet<Digest>,
    refs: Refs,
    end: Option<(u64, u64, String)>,
}

impl Whole {
    fn read(from: &mut impl BufRead) -> Result<Self, GraphError> {
        let mut r = Reading::default();
        let (mut hash, mut n, mut bytes) = (blake3::Hasher::new(), 0_u64, 0);
        while let Some(text) = next_line(from)? {
            n += 1;
            if r.end.is_some() {
                return Err(torn(format!("line {n} comes after the end")));
            }
            let line = serde_json::from_str(&text)
                .map_err(|e| torn(format!("line {n} cannot be read: {e}")))?;
            r.take(line)
                .map_err(|why| torn(format!("line {n}: {why}")))?;
            bytes += text.len() as u64;
            if r.end.is_none() {
                hash.update(text.as_bytes());
            }
        }
        r.check(&Digest::from_hash("b3", hash.finalize().as_bytes()))?;
        Ok(Self {
            run: r.run.ok_or_else(|| torn("it has no header"))?,
            state: r.state,
            records: r.records,
            blobs: r.held.len() as u64,
            bytes,
        })
    }
}

fn next_line(from: &mut impl BufRead) -> Result<Option<String>, GraphError> {
    let mut text = String::new();
    let n = from.read_line(&mut text).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => torn("it is not text"),
        _ => io_failed(&e),
    })?;
    Ok((n > 0).then_some(text))
}

impl Reading {
    fn take(&mut self, line: Line) -> Result<(), String> {
        if self.run.is_none() && !matches!(line, Line::Header { .. }) {
            return Err("it does not begin with a header".into());
        }
        match line {
            Line::Header { .. } if self.run.is_some() => return Err("a second header".into()),
            Line::Header {
                format,
                version,
                run,
                ..
            } => {
                if format != FORMAT {
                    return Err(format!("its format is `{format}`, not `{FORMAT}`"));
                }
                if version != VERSION {
                    let why = format!("version {version} is of another program than this one");
                    return Err(format!("{why}, which knows version {VERSION}"));
                }
                self.run = Some(run);
            }
            Line::Record(s) => self.record(s)?,
            Line::Blob { blob, bytes } => {
                let bytes = bytes.decode().map_err(|e| e.to_string())?;
                if bytes.len() as u64 != blob.len {
                    return Err(format!("blob {} has another length", blob.digest));
                }
                self.refs.scan(&bytes);
                self.held.insert(blob.digest);
            }
            Line::End {
                records,
                blobs,
                digest,
            } => self.end = Some((records, blobs, digest)),
        }
        Ok(())
    }

    fn record(&mut self, s: Stored) -> Result<(), String> {
        if s.seq != self.state.seq + 1 {
            return Err(format!("record {} follows {}", s.seq, self.state.seq));
        }
        let event = Event::from_record(&s.record)?;
        self.state.apply(s.seq, s.record.at, &event)?;
        self.refs.scan(s.record.body().as_bytes());
        self.records.push(s.record);
        Ok(())
    }

    fn check(&self, hash: &Digest) -> Result<(), GraphError> {
        let Some((records, blobs, digest)) = &self.end else {
            return Err(torn("its end is missing"));
        };
        if *digest != hash.to_string() {
            return Err(torn(
                "it was altered: its hash is not the one that it names",
            ));
        }
        if *records != self.state.seq || *blobs != self.held.len() as u64 {
            return Err(torn("it does not hold what its last line counts"));
        }
        if self.records.is_empty() {
            return Err(torn("it has no records"));
        }
        match self.refs.seen.difference(&self.held).next() {
            Some(d) => Err(torn(format!("blob {d} is missing"))),
            None => Ok(()),
        }
    }
}

async fn put_blobs(
    from: &mut (impl BufRead + Send),
    blobs: &dyn BlobStore,
) -> Result<(), GraphError> {
    while let Some(text) = next_line(from)? {
        // Records are read already.
        if !text.starts_with(r#"{"blob""#) {
            continue;
        }
        let line = serde_json::from_str(&text).map_err(|e| torn(e.to_string()))?;
        if let Line::Blob { blob, bytes } = line {
            let put = blobs.put(bytes.decode()?).await?;
            if put != blob {
                let of = blob.digest;
                return Err(torn(format!("blob {of} is {} in this store", put.digest)));
            }
        }
    }
    Ok(())
}
