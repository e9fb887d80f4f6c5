//! The worker protocol, version 1: one JSON object a line, both ways, over the worker's standard
//! input and output. Unknown fields are ignored, an unknown version is refused before any work.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use smallhands_core::{
    AttemptReport, BlobRef, CancelMode, DispatchKey, Failure, Halt, HostCall, HostReply, Notice,
    TaskEnvelope,
};
use std::io::{self, BufRead, Read};
use std::sync::Arc;

/// The version that both sides must speak.
pub(crate) const PROTOCOL: u32 = 1;
/// The longest line; a blob larger than about 90 MiB cannot be carried.
const MAX_LINE: u64 = 128 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToWorker {
    Hello {
        proto: u32,
    },
    Run {
        envelope: Arc<TaskEnvelope>,
        /// What the envelope's reference names.
        config: Value,
    },
    /// The reply to a call.
    Reply {
        id: u64,
        reply: Result<HostReply, Halt>,
    },
    /// The reply to a `blob_put`.
    Stored {
        id: u64,
        blob: Result<BlobRef, Failure>,
    },
    /// The reply to a `blob_get`.
    Blob {
        id: u64,
        data: Result<Bytes, Failure>,
    },
    Cancel {
        how: CancelMode,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromWorker {
    Hello {
        proto: u32,
        pid: u32,
    },
    Call {
        id: u64,
        call: HostCall,
    },
    BlobPut {
        id: u64,
        data: Bytes,
    },
    BlobGet {
        id: u64,
        blob: BlobRef,
    },
    Notice {
        notice: Notice,
    },
    Done {
        key: DispatchKey,
        report: AttemptReport,
    },
}

/// Bytes as base64.
#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);
impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}
impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

pub(crate) fn encode(m: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(m).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// The next message; `None` at the end of the stream.
pub(crate) fn read<T: for<'a> Deserialize<'a>>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a line was cut off or is too long",
        ));
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(io::Error::other)
}
