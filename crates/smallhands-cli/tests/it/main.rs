//! The program as a user meets it: the real binary on real repositories.
mod kit;
mod mistakes;
mod runs;
