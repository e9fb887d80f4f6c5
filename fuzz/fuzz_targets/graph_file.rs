#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smallhands_graph::fuzzing::graph_file(bytes));
