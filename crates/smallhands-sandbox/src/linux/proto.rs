//! What host and agent say to each other over one byte stream.
//!
//! A frame is two little-endian `u32` lengths, a JSON head and raw bytes. After set-up nothing but
//! this stream connects the two, so an agent in a virtual machine can speak the same.

use crate::{Change, DirEntry, Ended, Limits, SandboxError, Wall};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

/// Of everything below; said in [`Policy`] and [`Say::Hello`].
pub(super) const VERSION: u32 = 3;
/// Most raw bytes in a frame.
pub(super) const CHUNK: usize = 1 << 20;
/// Most JSON in a frame.
const MAX_HEAD: usize = 16 << 20;

/// The first frame: what the helper is to build.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Policy {
    pub(super) version: u32,
    /// The private directory, which the host makes meanwhile, as `Den::private` does; beside it are the
    /// mount points.
    pub(super) private: Vec<u8>,
    /// The base, not to be changed.
    pub(super) lower: Option<Vec<u8>>,
    /// What a set-up made: lies over the base, and is not to be changed either.
    pub(super) environment: Option<Vec<u8>>,
    /// Of each cache the files, not to be changed, and the place.
    pub(super) caches: Vec<(Vec<u8>, Vec<u8>)>,
    /// Copy the base even where an overlay would work: for tests and odd file systems.
    pub(super) copy: bool,
    pub(super) read_only: Vec<Vec<u8>>,
    pub(super) limits: Limits,
    pub(super) without: Vec<Wall>,
    /// Carry so many connections at once to the host, over the stream that came with the request.
    pub(super) egress: Option<u32>,
    /// The private directory of another sandbox of the same base, to begin with a copy of what it
    /// changed.
    pub(super) changed: Option<Vec<u8>>,
}

impl Policy {
    /// The parts of the base, the upper one first.
    pub(super) fn lowers(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.environment.iter().chain(&self.lower)
    }

    /// What was published by one and may be pruned by another: the generations that are shown.
    pub(super) fn generations(&self) -> impl Iterator<Item = &Vec<u8>> {
        let caches = self.caches.iter().map(|(files, _)| files);
        self.environment.iter().chain(caches)
    }

    /// Whether a wall is wanted.
    pub(super) fn has(&self, wall: Wall) -> bool {
        !self.without.contains(&wall)
    }
}

/// The second frame: all that the first names is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Placed {
    /// Control groups that the helper is to enter.
    pub(super) groups: Vec<PathBuf>,
}

/// What the host asks; several requests may be under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Run a command; one at a time.
    Exec(Command),
    /// More of the standard input of the command with this id.
    Stdin,
    /// There is no more of it.
    CloseStdin,
    /// Kill the command with this id.
    Cancel,
    Read {
        path: String,
    },
    /// Part of a file; the first part empties it.
    Write {
        path: String,
        first: bool,
    },
    Remove {
        path: String,
    },
    List {
        dir: String,
    },
    /// What all commands used.
    Usage,
    /// What differs from the base.
    Changes,
    /// One change of many under the same id, unanswered; so many bytes of it follow as
    /// [`Ask::Fill`].
    Apply(Change<u64>),
    Fill,
    /// The last of the changes under this id was sent.
    Applied,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) deadline_ms: u64,
    /// Comes in [`Ask::Stdin`] frames.
    pub(super) stdin_len: u64,
    /// More input comes until [`Ask::CloseStdin`], each frame answered by [`Say::Taken`].
    pub(super) duplex: bool,
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) id: u64,
    pub(super) say: Say,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Say {
    /// The sandbox stands; unasked, with id 0.
    Hello {
        version: u32,
        /// Layers and limits in force.
        enforced: Vec<String>,
    },
    /// The request, or with id 0 the set-up, failed.
    Fault(Fault),
    /// The command wrote this.
    Output {
        stderr: bool,
    },
    /// The last input was written.
    Taken,
    Usage {
        cpu_us: u64,
        peak_process_bytes: u64,
    },
    /// The command is over and all that it started is dead.
    Ended {
        how: How,
        wall_us: u64,
    },
    /// Part of a file.
    Data,
    /// A change; so many bytes of it follow as [`Say::Data`].
    Item(Change<u64>),
    Entries(Vec<DirEntry>),
    Done,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    Ended(Ended),
    Cancelled,
}

/// A [`SandboxError`] on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    Unavailable {
        layer: String,
        reason: String,
        fix: String,
    },
    Setup {
        stage: String,
        reason: String,
    },
    NotFound(String),
    Path {
        path: String,
        reason: String,
    },
    File {
        path: String,
        reason: String,
    },
    DiskFull(String),
    /// Not a fault of the sandbox: the command cannot be started.
    NotStarted(String),
}

impl Fault {
    pub(super) fn setup(stage: impl Into<String>, reason: impl ToString) -> Self {
        Self::Setup {
            stage: stage.into(),
            reason: reason.to_string(),
        }
    }

    /// What a file operation in the workspace ran into.
    pub(super) fn file(path: &[u8], e: &io::Error) -> Self {
        let path = String::from_utf8_lossy(path).into_owned();
        let reason = match e.raw_os_error() {
            Some(libc::ENOENT) => return Self::NotFound(path),
            Some(libc::ENOSPC | libc::EDQUOT) => return Self::DiskFull(format!("writing {path}")),
            Some(libc::EXDEV) => {
                let reason = "it leads out of the workspace".into();
                return Self::Path { path, reason };
            }
            Some(libc::ELOOP) => "too many symbolic links, or nested too deep".into(),
            Some(libc::EFBIG) => "too many files, or too large".into(),
            _ => e.to_string(),
        };
        Self::File { path, reason }
    }
}

impl From<Fault> for SandboxError {
    fn from(f: Fault) -> Self {
        match f {
            Fault::Unavailable { layer, reason, fix } => Self::Unavailable { layer, reason, fix },
            Fault::Setup { stage, reason } => Self::Setup { stage, reason },
            Fault::NotFound(path) => Self::NotFound(path),
            Fault::Path { path, reason } => Self::Path { path, reason },
            Fault::File { path, reason } => Self::File { path, reason },
            Fault::DiskFull(what) => Self::DiskFull(what),
            Fault::NotStarted(reason) => Self::Setup {
                stage: "command".into(),
                reason,
            },
        }
    }
}

pub(super) fn send<T: Serialize>(w: &mut impl Write, head: &T, bytes: &[u8]) -> io::Result<()> {
    w.write_all(&frame(head, bytes)?)
}

pub(super) fn frame<T: Serialize>(head: &T, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head)?;
    if head.len() > MAX_HEAD || bytes.len() > CHUNK {
        return Err(io::Error::other("a frame of the sandbox is too large"));
    }
    let mut frame = Vec::with_capacity(8 + head.len() + bytes.len());
    frame.extend((head.len() as u32).to_le_bytes());
    frame.extend((bytes.len() as u32).to_le_bytes());
    frame.extend(head);
    frame.extend(bytes);
    Ok(frame)
}

/// The next frame; `None` at the orderly end of the stream.
pub(super) fn receive<T: DeserializeOwned>(r: &mut impl Read) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut lens = [0; 8];
    if r.read(&mut lens[..1])? == 0 {
        return Ok(None);
    }
    r.read_exact(&mut lens[1..])?;
    let len = |i: usize| u32::from_le_bytes([lens[i], lens[i + 1], lens[i + 2], lens[i + 3]]);
    let (head, bytes) = (len(0) as usize, len(4) as usize);
    if head > MAX_HEAD || bytes > CHUNK {
        return Err(io::Error::other("a frame of the sandbox is too large"));
    }
    let mut buf = vec![0; head];
    r.read_exact(&mut buf)?;
    let head = serde_json::from_slice(&buf)?;
    let mut buf = vec![0; bytes];
    r.read_exact(&mut buf)?;
    Ok(Some((head, buf)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_and_lies_about_lengths_are_refused() {
        let mut wire = Vec::new();
        let ask = Request {
            id: 7,
            ask: Ask::Write {
                path: "a".into(),
                first: true,
            },
        };
        send(&mut wire, &ask, b"\0bytes").unwrap();
        let (back, bytes) = receive::<Request>(&mut &wire[..]).unwrap().unwrap();
        assert_eq!((back.id, &bytes[..]), (7, &b"\0bytes"[..]));
        assert!(receive::<Request>(&mut &wire[..0]).unwrap().is_none());
        for cut in 1..wire.len() {
            assert!(receive::<Request>(&mut &wire[..cut]).is_err(), "{cut}");
        }
        for lie in [[0xff; 8], [0, 0, 0, 0, 1, 0, 16, 0]] {
            assert!(receive::<Request>(&mut &lie[..]).is_err());
        }
        assert!(send(&mut wire, &ask, &vec![0; CHUNK + 1]).is_err());
    }
}
