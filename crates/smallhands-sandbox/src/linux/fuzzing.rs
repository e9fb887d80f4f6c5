//! What either end of a sandbox's stream reads, and changes on their way through directories.

use super::{
    answer::{Answer, Pending, Stream},
    at, changes, files, layer,
    output::Ring,
    proto::{self, Ask, Policy, Reply, Request},
};
use crate::{Change, Content, DirEntry, Snapshot};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::oneshot;

/// Gives one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(1);
        self.0.read(&mut buf[..most])
    }
}

fn frame<T: Serialize>(head: &T, bytes: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    proto::send(&mut wire, head, bytes).expect("what was read can be sent");
    wire
}

/// Reads frames until one is bad; whole and byte by byte must be the same, and each must survive
/// another journey.
fn frames<T: Serialize + DeserializeOwned>(bytes: &[u8], mut each: impl FnMut(T, Vec<u8>)) {
    let (mut whole, mut slow) = (bytes, Trickle(bytes));
    loop {
        let both = (
            proto::receive::<T>(&mut whole),
            proto::receive::<T>(&mut slow),
        );
        let (a, b) = match both {
            (Ok(Some(a)), Ok(Some(b))) => (a, b),
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => return,
            _ => panic!("a frame depends on how it is cut"),
        };
        let wire = frame(&a.0, &a.1);
        assert_eq!(wire, frame(&b.0, &b.1));
        let again = proto::receive::<T>(&mut &wire[..]).expect("what was sent can be read");
        let (head, bytes) = again.expect("there is one");
        assert_eq!(wire, frame(&head, &bytes));
        each(a.0, a.1);
    }
}

/// The memory that an answer is made of.
fn held(a: &Answer) -> u64 {
    let change = |c: &Change<Vec<u8>>| {
        let more = match &c.now {
            Content::File { bytes, .. } => bytes.len(),
            Content::Symlink { target } => target.len(),
            Content::Gone | Content::Dir => 0,
        };
        size_of::<Change<Vec<u8>>>() + c.path.len() + more
    };
    let entry = |e: &DirEntry| size_of::<DirEntry>() + e.path.len();
    let changes: usize = a.changes.iter().map(change).sum();
    let entries: usize = a.entries.iter().map(entry).sum();
    (a.data.len() + changes + entries) as u64
}

/// An agent that says anything: what it says is kept under a bound that counts all of it.
pub fn agent_frames(bytes: &[u8]) {
    let fresh = || {
        let (live, stream) = Stream::new();
        let answer = Answer {
            kept: [Ring::new(100), Ring::new(100)],
            ..Answer::default()
        };
        let (done, _) = oneshot::channel();
        (Pending { answer, live, done }, stream)
    };
    let (mut pending, mut stream) = fresh();
    frames::<Reply>(bytes, |reply, bytes| {
        let over = pending.take(reply.say, bytes).is_some();
        let a = &pending.answer;
        assert!(
            held(a) <= a.size,
            "{} are held, {} counted",
            held(a),
            a.size
        );
        assert!(stream.is_counted(), "output waits that nobody counts");
        if over {
            (pending, stream) = fresh();
        }
    });
}

/// A host that says anything: paths that the agent takes stay in the workspace.
pub fn host_frames(bytes: &[u8]) {
    frames::<Policy>(bytes, |policy, _| {
        let json = serde_json::to_string(&policy).expect("it was JSON");
        let back: Policy = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(serde_json::to_string(&back).ok(), Some(json));
    });
    frames::<Request>(bytes, |request, _| {
        let path = match request.ask {
            Ask::Exec(command) => command.cwd.into_bytes(),
            Ask::Read { path } | Ask::Write { path, .. } | Ask::Remove { path } => path.into(),
            Ask::List { dir } => dir.into(),
            Ask::Apply(change) => change.path,
            _ => return,
        };
        if let Ok(taken) = files::checked(&path) {
            let taken = taken.as_bytes();
            assert!(!taken.is_empty() && !taken.starts_with(b"/"));
            assert!(taken.split(|b| *b == b'/').all(|name| name != b".."));
        }
    });
}

/// A directory for one input, gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("smallhands-fuzz-{}-{n}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        fs::create_dir(&place.0).expect("a directory");
        fs::write(place.0.join("outside"), "untouched").expect("a file");
        for dir in ["base", "work", "copy"] {
            fs::create_dir(place.0.join(dir)).expect("a directory");
        }
        place
    }

    fn open(&self, dir: &str) -> File {
        File::open(self.0.join(dir)).expect("it is there")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let parent = File::open(self.0.parent().unwrap_or(Path::new("/")));
        let name = self.0.file_name().map(|n| n.as_bytes());
        let name = name.and_then(|n| std::ffi::CString::new(n).ok());
        if let (Ok(parent), Some(name)) = (parent, name) {
            at::remove_tree(parent.as_fd(), &name, 2 * files::MAX_DEPTH).expect("it can go");
        }
    }
}

/// Changes out of any bytes: kind, length of the path, path, length of the content, content.
fn decode(mut bytes: &[u8]) -> Vec<Change<Vec<u8>>> {
    fn take<'a>(from: &mut &'a [u8], most: u8) -> Option<&'a [u8]> {
        let (len, rest) = from.split_first()?;
        let (taken, rest) = rest.split_at_checked(usize::from(*len % most))?;
        *from = rest;
        Some(taken)
    }
    let mut all = Vec::new();
    while let Some((kind, rest)) = bytes.split_first()
        && all.len() < 32
    {
        bytes = rest;
        let Some(path) = take(&mut bytes, 24) else {
            break;
        };
        let more = take(&mut bytes, 24).unwrap_or_default().to_vec();
        let now = match kind % 5 {
            0 => Content::Gone,
            1 => Content::Dir,
            2 => Content::Symlink { target: more },
            exec => Content::File {
                exec: exec == 3,
                bytes: more,
            },
        };
        all.push(Change {
            path: path.to_vec(),
            now,
        });
    }
    all
}

fn apply(to: &File, change: &Change<Vec<u8>>) -> bool {
    let (now, bytes) = super::answer::announce(change.now.clone());
    let path = change.path.clone();
    match files::apply(to.as_fd(), &Change { path, now }) {
        Ok(file) => file.is_none_or(|mut f| f.write_all(&bytes).is_ok()),
        Err(_) => false,
    }
}

fn walk(dir: &File, lower: Option<&File>) -> Vec<Change<Vec<u8>>> {
    let mut all = Vec::new();
    let lowers: Vec<_> = lower.iter().map(|l| l.as_fd()).collect();
    let done = changes::walk(dir.as_fd(), &lowers, false, &mut |change, file| {
        let json = serde_json::to_string(&change)?;
        let back: Change<u64> = serde_json::from_str(&json)?;
        assert_eq!(back, change, "{json}");
        let mut content = Vec::new();
        if let Some(mut file) = file {
            file.read_to_end(&mut content)?;
        }
        let now = match change.now {
            Content::Gone => Content::Gone,
            Content::Dir => Content::Dir,
            Content::Symlink { target } => Content::Symlink { target },
            Content::File { exec, .. } => Content::File {
                exec,
                bytes: content,
            },
        };
        all.push(Change {
            path: change.path,
            now,
        });
        Ok(())
    });
    done.expect("what was made can be walked");
    all
}

/// Any changes, applied as a restore does: nothing outside is touched, and what differs from the
/// base makes the same of another copy of it. Or, of JSON, a snapshot that survives.
pub fn changes(bytes: &[u8]) {
    if bytes.starts_with(b"{") {
        if let Ok(snapshot) = serde_json::from_slice::<Snapshot>(bytes) {
            let json = serde_json::to_vec(&snapshot).expect("it can be written");
            let back: Snapshot = serde_json::from_slice(&json).expect("and read");
            assert_eq!(snapshot, back);
        }
        return;
    }
    let place = Place::new();
    let (base, work, copy) = (place.open("base"), place.open("work"), place.open("copy"));
    let all = decode(bytes);
    let (first, second) = all.split_at(all.len() / 2);
    for change in first {
        apply(&base, change);
    }
    for to in [&work, &copy] {
        layer::tree(base.as_fd(), to.as_fd()).expect("it can be copied");
    }
    for change in second {
        apply(&work, change);
    }
    for change in walk(&work, Some(&base)) {
        assert!(apply(&copy, &change), "{change:?}");
    }
    assert_eq!(walk(&copy, None), walk(&work, None));
    assert!(walk(&copy, Some(&work)).is_empty());
    let outside = fs::read(place.0.join("outside"));
    assert_eq!(outside.ok().as_deref(), Some(&b"untouched"[..]));
    assert_eq!(fs::read_dir(&place.0).map_or(0, Iterator::count), 4);
}
