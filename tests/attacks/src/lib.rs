//! Attacks by name. Each is a real attempt that tells what it got; it is tried outside, where it must
//! succeed or prove nothing, and inside, where it must not.

mod baits;
pub mod host;
pub mod probes;
mod sys;

pub use baits::Baits;
pub use probes::{Place, Probe, all};

/// Exit code of an attack that was refused.
pub const REFUSED: i32 = 10;
