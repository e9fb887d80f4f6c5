#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| smallhands_sandbox::fuzzing::hello(bytes));
