//! The wires against a scripted server on the loopback.
#![allow(clippy::unwrap_used)]

mod anthropic;
mod cuts;
mod cx;
mod failures;
mod kit;
mod manager;
mod openai;
mod waits;
