//! The engine on both stores, with real workers.
mod graphs;
mod journal;
mod kit;
mod runs;
