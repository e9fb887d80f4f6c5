#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smallhands_exec::fuzzing::worker_lines(bytes));
