use crate::{Record, median};
use std::time::Instant;

/// Seconds of ours and of what it is measured against, taken in turn, so that whatever else the
/// machine does falls on both.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// Ours.
    pub ours: Vec<f64>,
    /// The anchor's.
    pub anchor: Vec<f64>,
}

/// Times `ours` beside `anchor`, `n` times each after one round that does not count.
///
/// # Errors
/// The first failure of either: what did not work is not a figure.
pub fn beside<E>(
    n: usize,
    mut ours: impl FnMut() -> Result<(), E>,
    mut anchor: impl FnMut() -> Result<(), E>,
) -> Result<Timing, E> {
    let mut t = Timing::default();
    for round in 0..=n {
        for (values, f) in [
            (&mut t.ours, &mut ours as &mut dyn FnMut() -> Result<(), E>),
            (&mut t.anchor, &mut anchor),
        ] {
            let begin = Instant::now();
            f()?;
            if round > 0 {
                values.push(begin.elapsed().as_secs_f64());
            }
        }
    }
    Ok(t)
}

impl Timing {
    /// As a record, in a unit that goes `scale` times into a second of one round.
    pub fn record(&self, name: &str, unit: &str, scale: f64, anchor: &str) -> Record {
        let scaled = |v: &[f64]| v.iter().map(|s| s * scale).collect::<Vec<_>>();
        let limit = median(&scaled(&self.anchor)).unwrap_or(0.0);
        Record::new(name, unit, &scaled(&self.ours), anchor, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_run_in_turn_and_the_first_round_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let put = |c| {
            order.borrow_mut().push(c);
            Ok::<_, ()>(())
        };
        let t = beside(2, || put('o'), || put('a')).unwrap();
        assert_eq!(order.borrow().as_str(), "oaoaoa");
        assert_eq!((t.ours.len(), t.anchor.len()), (2, 2));
        assert_eq!(beside(2, || Err(1), || Err(2)).unwrap_err(), 1);
        let t = Timing {
            ours: vec![0.004, 0.002, 0.009],
            anchor: vec![0.002],
        };
        let r = t.record("a/b", "ms", 1000.0, "half");
        assert_eq!((r.value, r.anchor_value, r.ratio, r.n), (4.0, 2.0, 2.0, 3));
        assert!((r.spread - 7.0).abs() < 1e-9);
    }
}
