//! The program as a user meets it: the real binary on real repositories.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod control;
mod doctor;
mod egress;
mod hung;
mod keep;
mod kit;
mod made;
mod mistakes;
mod runs;
