//! The evaluation harness: suites as data, and the statistics of their results. It runs nothing
//! itself; a suite's tasks are materialised as files, and whoever runs them grades by their tests.
#![forbid(unsafe_code)]

mod quixbugs;
mod record;
mod stats;
mod timing;

pub use quixbugs::{Program, SuiteError, quixbugs};
pub use record::{Record, lines, table};
pub use stats::{median, wilson};
pub use timing::{Timing, beside};
