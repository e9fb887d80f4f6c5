//! The stores under what can go wrong with a disk.
