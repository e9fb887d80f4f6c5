//! The stores, and what can go wrong with a disk under them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod blobs;
mod child;
mod contend;
mod fsck;
mod full;
mod measure;
mod model;
mod power;
mod trouble;
