//! Output under a cap: the first and the last part of it, and how much lay between.

use std::collections::VecDeque;

/// Keeps the first and the last half of a cap.
#[derive(Debug, Default)]
pub(super) struct Ring {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: u64,
}

impl Ring {
    pub(super) fn new(cap: u64) -> Self {
        // A caller's cap is a wish, memory is not.
        let half = (cap.min(64 << 20) / 2) as usize;
        Self {
            half,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = self.half - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend(first);
        // Only the end of it can stay.
        let skip = rest.len().saturating_sub(self.half);
        self.cut += skip as u64;
        self.tail.extend(&rest[skip..]);
        let over = self.tail.len().saturating_sub(self.half);
        self.cut += over as u64;
        self.tail.drain(..over);
    }

    /// What was kept, and how many bytes were cut out of the middle.
    pub(super) fn take(self) -> (Vec<u8>, u64) {
        let mut all = self.head;
        all.extend(self.tail);
        (all, self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_both_ends_and_counts_the_rest() {
        let text: Vec<u8> = (0..=255).collect();
        for step in [1, 3, 64, 256] {
            for cap in [0, 10, 255, 256, 1000] {
                let mut ring = Ring::new(cap);
                text.chunks(step).for_each(|c| ring.push(c));
                let (kept, cut) = ring.take();
                let half = (cap / 2) as usize;
                assert_eq!(kept.len() as u64 + cut, 256, "{step} {cap}");
                assert!(kept.len() <= cap as usize);
                if cut > 0 {
                    assert_eq!(kept[..half], text[..half]);
                    assert_eq!(kept[half..], text[256 - half..]);
                } else {
                    assert_eq!(kept, text);
                }
            }
        }
    }
}
