//! What comes of one call, as a wire reads it.

use crate::Finish;
use serde_json::Value;

/// What one call asks for, beside what the request says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) samples: u32,
    pub(crate) temperature: f32,
    pub(crate) seed: Option<u64>,
}

/// Why an event is no part of an answer.
#[derive(Debug)]
pub(crate) enum Bad {
    /// The server reports an error.
    Said(Value),
    /// It cannot be understood.
    Read(String),
}

/// What came of one call so far.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) model: Option<String>,
    /// Tokens read and written.
    pub(crate) usage: Option<(u64, u64)>,
    pub(crate) done: bool,
    pub(super) drafts: Vec<Draft>,
    pub(super) wanted: usize,
    /// How each answer begins.
    prefix: String,
    pub(super) fresh: Vec<(usize, String)>,
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) finish: Option<Finish>,
    refused: bool,
    /// White space that ends the prefix and was not sent: the model may write it once more.
    owed: String,
}

impl Part {
    pub(super) fn new(wanted: usize, prefix: String) -> Self {
        Self {
            wanted,
            prefix,
            ..Self::default()
        }
    }
    /// Adds to the text of a sample.
    pub(crate) fn text(&mut self, index: u64, text: &str) {
        let Some((i, draft)) = self.draft(index).filter(|_| !text.is_empty()) else {
            return;
        };
        let same = draft.owed.chars().zip(text.chars());
        let n = same
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        if n == text.len() {
            draft.owed.drain(..n);
        } else {
            draft.owed.clear();
        }
        draft.text.push_str(&text[n..]);
        self.fresh.push((i, text[n..].to_owned()));
    }
    /// Says why a sample ended.
    pub(crate) fn finish(&mut self, index: u64, finish: Finish) {
        if let Some((_, draft)) = self.draft(index) {
            draft.finish = Some(if draft.refused {
                Finish::Filtered
            } else {
                finish
            });
        }
    }
    /// Says that the text of a sample is a refusal.
    pub(crate) fn refused(&mut self, index: u64) {
        if let Some((_, draft)) = self.draft(index) {
            draft.refused = true;
        }
    }

    /// Nobody asked for samples above the wanted ones.
    fn draft(&mut self, index: u64) -> Option<(usize, &mut Draft)> {
        let i = usize::try_from(index).ok().filter(|i| *i < self.wanted)?;
        while self.drafts.len() <= i {
            if !self.prefix.is_empty() {
                self.fresh.push((self.drafts.len(), self.prefix.clone()));
            }
            self.drafts.push(Draft {
                text: self.prefix.clone(),
                owed: self.prefix[self.prefix.trim_end().len()..].to_owned(),
                ..Draft::default()
            });
        }
        self.drafts.get_mut(i).map(|d| (i, d))
    }
    pub(super) fn finished(&self) -> bool {
        !self.drafts.is_empty() && self.drafts.iter().all(|d| d.finish.is_some())
    }
}
