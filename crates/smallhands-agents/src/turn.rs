use crate::{Place, code::Body};
use serde::{Deserialize, Serialize};

/// How candidates are drawn.
///
/// To write the next line of a function is what a code model was trained for, and it is far better
/// at it than at finding a fault: hence [`Draw::Continue`] and [`Draw::Fill`], which never ask it
/// where the fault is (cloze-style repair: Xia and Zhang, "Less Training, More Repairing Please",
/// ESEC/FSE 2022).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Draw {
    /// The whole place, with one line to blame; which is mostly so, and helps a small model.
    RewriteLine,
    /// The whole place.
    Rewrite,
    /// For each line: the function up to there is the beginning of the answer, and the model,
    /// which is not shown the rest, writes the next line. That replaces the line, or goes before.
    Continue {
        /// Which of the parts that the lines are cut into.
        part: usize,
    },
    /// For each line: the model is shown the function without it, and writes it.
    Fill {
        /// Which of the parts that the lines are cut into.
        part: usize,
    },
}

/// One round's attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which of the located places.
    pub place: usize,
    /// How.
    pub draw: Draw,
}

/// Places that are tried before the next model is.
const PLACES: usize = 2;
/// Lines that one round tries.
pub(crate) const LINES: usize = 6;
/// Parts of a long function that are tried line by line.
const PARTS: usize = 5;

/// What is tried with one model, in order: what is cheap and likely comes first. Line by line needs
/// a model that goes on from a given beginning.
pub(crate) fn turns(places: &[Place], prefill: bool) -> Vec<Turn> {
    let parts = |p: &Place| match Body::of(p) {
        Some(b) if prefill => b.statements().len().div_ceil(LINES).min(PARTS),
        _ => 0,
    };
    let places: Vec<_> = places.iter().take(PLACES).enumerate().collect();
    let each = |draws: &dyn Fn(&Place) -> Vec<Draw>| -> Vec<Turn> {
        let of = |(place, p): &(usize, &Place)| {
            let place = *place;
            draws(p).into_iter().map(move |draw| Turn { place, draw })
        };
        places.iter().flat_map(of).collect()
    };
    let mut all = each(&|p| {
        let lines = (0..parts(p)).map(|part| Draw::Continue { part });
        [Draw::RewriteLine].into_iter().chain(lines).collect()
    });
    all.extend(each(&|p| {
        (0..parts(p)).map(|part| Draw::Fill { part }).collect()
    }));
    all.extend(each(&|_| vec![Draw::Rewrite]));
    all
}
