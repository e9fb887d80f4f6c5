use crate::SandboxError;
use serde::{Deserialize, Serialize};
use smallhands_core::{BlobRef, BlobStore, Failure, FailureClass};
use std::fmt::Write as _;

/// How a workspace differs from its base. Its blob form is JSON; file contents are blobs of their
/// own, so that a snapshot stores only what the store does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Format version; 1.
    pub v: u16,
    /// The commit that it differs from, with `+` and the name of its environment's generation where
    /// there is one; none is an empty directory.
    pub base: Option<String>,
    /// In order of path, parents before what they hold.
    pub changes: Vec<Change<BlobRef>>,
}

/// One path that differs from the base. `C` is how file bytes are held: a [`BlobRef`] at rest,
/// `Vec<u8>` in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change<C> {
    /// Relative to the workspace; bytes, because a name need not be UTF-8.
    #[serde(with = "path_text")]
    pub path: Vec<u8>,
    /// What is there now.
    pub now: Content<C>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content<C> {
    /// Nothing any more.
    Gone,
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Whether it is executable.
        exec: bool,
        /// Its bytes.
        bytes: C,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        #[serde(with = "path_text")]
        target: Vec<u8>,
    },
}

impl Snapshot {
    /// The version that this crate writes.
    pub const VERSION: u16 = 1;

    /// Stores changes with their bytes.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn save(
        base: Option<String>,
        changes: Vec<Change<Vec<u8>>>,
        into: &dyn BlobStore,
    ) -> Result<BlobRef, SandboxError> {
        let mut kept = Vec::with_capacity(changes.len());
        for Change { path, now } in changes {
            let now = match now {
                Content::Gone => Content::Gone,
                Content::Dir => Content::Dir,
                Content::Symlink { target } => Content::Symlink { target },
                Content::File { exec, bytes } => Content::File {
                    exec,
                    bytes: into.put(bytes).await?,
                },
            };
            kept.push(Change { path, now });
        }
        let snapshot = Self {
            v: Self::VERSION,
            base,
            changes: kept,
        };
        let json = serde_json::to_vec(&snapshot).map_err(|e| bad(&e))?;
        Ok(into.put(json).await?)
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// A missing blob, or one that is not a snapshot of a known version.
    pub async fn load(from: &BlobRef, blobs: &dyn BlobStore) -> Result<Self, SandboxError> {
        let s: Self = serde_json::from_slice(&blobs.get(from).await?).map_err(|e| bad(&e))?;
        if s.v != Self::VERSION {
            let why = format!("snapshot version {} is not known to this program", s.v);
            return Err(Failure::new("snapshot.version", FailureClass::Store, why).into());
        }
        Ok(s)
    }

    /// Its changes with their bytes.
    ///
    /// # Errors
    /// A missing blob.
    pub async fn changes(
        &self,
        blobs: &dyn BlobStore,
    ) -> Result<Vec<Change<Vec<u8>>>, SandboxError> {
        let mut out = Vec::with_capacity(self.changes.len());
        for Change { path, now } in &self.changes {
            let now = match now {
                Content::Gone => Content::Gone,
                Content::Dir => Content::Dir,
                Content::Symlink { target } => Content::Symlink {
                    target: target.clone(),
                },
                Content::File { exec, bytes } => Content::File {
                    exec: *exec,
                    bytes: blobs.get(bytes).await?,
                },
            };
            out.push(Change {
                path: path.clone(),
                now,
            });
        }
        Ok(out)
    }
}

fn bad(e: &serde_json::Error) -> Failure {
    Failure::new("snapshot.damaged", FailureClass::Store, e.to_string())
}

/// Paths as text: `%` and bytes that are not UTF-8 become `%xx`, so that ordinary names stay
/// readable.
mod path_text {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(p: &[u8], s: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(p.len());
        for chunk in p.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '%' => text.push_str("%25"),
                    c => text.push(c),
                }
            }
            for b in chunk.invalid() {
                let _ = write!(text, "%{b:02x}");
            }
        }
        s.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&b, tail)) = rest.split_first() {
            rest = tail;
            if b != b'%' {
                out.push(b);
                continue;
            }
            let hex = tail
                .get(..2)
                .and_then(|h| std::str::from_utf8(h).ok())
                .and_then(|h| u8::from_str_radix(h, 16).ok())
                .ok_or_else(|| D::Error::custom("a bad % escape in a path"))?;
            out.push(hex);
            rest = &tail[2..];
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_utf8_survive() {
        for path in [
            &b"a/b.py"[..],
            b"100%/x",
            b"\xff\xfe/%41",
            "gr\u{fc}n".as_bytes(),
        ] {
            let c = Change::<BlobRef> {
                path: path.to_vec(),
                now: Content::Gone,
            };
            let json = serde_json::to_string(&c).unwrap();
            assert_eq!(
                serde_json::from_str::<Change<BlobRef>>(&json).unwrap(),
                c,
                "{json}"
            );
        }
    }
}
