use crate::code::last;
use serde::{Deserialize, Serialize};
use smallhands_memory::{ChunkKind, Hit};

/// So much of a file is shown before a function, and after it.
const AROUND: usize = 1500;

/// Code that may be to blame, and what stands around it in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// What is to be changed.
    pub hit: Hit,
    /// The lines above it.
    pub before: String,
    /// The lines below it.
    pub after: String,
}

impl Place {
    /// `None` if the file is not as the hit says.
    pub(crate) fn new(hit: Hit, file: &str) -> Option<Self> {
        let (before, rest) = file.split_at_checked(hit.bytes.0)?;
        let after = rest.strip_prefix(hit.text.as_str())?;
        let from = before.ceil_char_boundary(before.len().saturating_sub(AROUND));
        // Whole lines only.
        let from = match from {
            0 => 0,
            n => before[n..].find('\n').map_or(before.len(), |at| n + at + 1),
        };
        let to = after.floor_char_boundary(AROUND);
        let to = match to == after.len() {
            true => to,
            false => after[..to].rfind('\n').map_or(0, |at| at + 1),
        };
        Some(Self {
            before: before[from..].to_owned(),
            after: after[..to].to_owned(),
            hit,
        })
    }

    /// The last part of the symbol, for a function or method.
    pub(crate) fn function(&self) -> Option<&str> {
        let name = last(self.hit.symbol.as_deref()?);
        matches!(self.hit.kind, ChunkKind::Function | ChunkKind::Method).then_some(name)
    }

    /// As a person would call it.
    pub(crate) fn name(&self) -> &str {
        self.hit.symbol.as_deref().unwrap_or(&self.hit.path)
    }
}
