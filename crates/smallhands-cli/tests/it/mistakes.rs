use crate::kit::{Bed, TEST, path};
use std::{fs, process::Command};

#[test]
fn not_a_repository() {
    let b = Bed::new();
    let model = b.model();
    let dir = b.dir.path().join("plain");
    fs::create_dir(&dir).unwrap();
    let said = b.smallhands(&[
        "run",
        "--repo",
        path(&dir),
        "--model",
        &model,
        "--test",
        TEST,
    ]);
    said.refused(3, "is not a git repository");
    let said = b.smallhands(&[
        "run", "--repo", "/nowhere", "--model", &model, "--test", TEST, "--json",
    ]);
    assert_eq!(
        (said.code, said.json()["error"]["exit"].as_i64()),
        (Some(3), Some(3)),
        "{said:?}"
    );
}

#[test]
fn tests_that_are_green_missing_or_none() {
    let b = Bed::new();
    let model = b.model();
    b.smallhands(&b.run_args(&model, "python3 -c pass"))
        .refused(5, "green already");
    b.smallhands(&b.run_args(&model, "no-such-program -q"))
        .refused(6, "cannot be started");
    let Some(pytest) = std::env::var_os("SMALLHANDS_TEST_PYTEST") else {
        return eprintln!(
            "SKIPPED the case without tests: SMALLHANDS_TEST_PYTEST is not set; cargo xtask test sets it"
        );
    };
    let pytest = pytest.into_string().unwrap();
    fs::remove_file(b.repo.join("test_calc.py")).unwrap();
    b.commit();
    let env = format!("PYTHONPATH={pytest}");
    let mut args = b.run_args(&model, "python3 -m pytest -q");
    args.extend(["--read-only", &pytest, "--env", &env]);
    b.smallhands(&args).refused(4, "found no tests");
}

#[test]
fn unknown_runs_and_models() {
    let b = Bed::new();
    for args in [
        &["show", "nope"][..],
        &["graph", "nope"],
        &["resume", "nope"],
    ] {
        b.smallhands(args).refused(7, "there is no run `nope`");
    }
    b.smallhands(&b.run_args("lokal", TEST))
        .refused(8, "there is no model `lokal`");
    b.smallhands(&b.run_args("local:/nowhere.gguf", TEST))
        .refused(8, "there is no model file");
    b.smallhands(&b.run_args("http://127.0.0.1:9/v1", TEST))
        .refused(8, "names no model");
    let mut c = b.command(&b.run_args("openai:gpt-4o-mini", TEST));
    let said = crate::kit::Said::of(c.env_remove("OPENAI_API_KEY").output().unwrap());
    said.refused(15, "OPENAI_API_KEY is not set");
}

#[test]
fn no_model_and_no_network() {
    let b = Bed::new();
    let said = b.smallhands(&["model", "local", "--offline"]);
    said.refused(9, "cannot be had without the network; tried: the cache");
    assert!(said.err.contains("try: "), "{said:?}");
}

#[test]
fn a_model_that_is_not_what_it_should_be() {
    let b = Bed::new();
    let models = b.dir.path().join("cache/models");
    fs::create_dir_all(&models).unwrap();
    let file = fs::File::create(models.join("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")).unwrap();
    file.set_len(491_400_064).unwrap(); // as long as the real one, and empty
    b.smallhands(&["model", "local-small", "--offline"])
        .refused(10, "expected 1d9614638d18");
}

#[test]
fn a_full_disk() {
    let b = Bed::new();
    let small = b.dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=300k", "none", path(&small)])
        .status();
    if !mounted.is_ok_and(|s| s.success()) {
        return eprintln!("SKIPPED: a small tmpfs needs root");
    }
    let model = b.model();
    let mut c = Command::new(env!("CARGO_BIN_EXE_smallhands"));
    let out = c
        .args(b.run_args(&model, TEST))
        .args(["--state-dir", path(&small)])
        .output()
        .unwrap();
    let said = crate::kit::Said::of(out);
    assert!(
        Command::new("umount")
            .arg(&small)
            .status()
            .unwrap()
            .success()
    );
    said.refused(11, "no space left");
}

#[test]
fn wrong_usage_and_help() {
    let b = Bed::new();
    assert_eq!(b.smallhands(&["run"]).code, Some(2));
    assert_eq!(b.smallhands(&["rum"]).code, Some(2));
    let help = b.smallhands(&["--help"]);
    assert_eq!(help.code, Some(0));
    assert!(
        help.out.contains("Exit codes") && help.out.contains("resume"),
        "{help:?}"
    );
    let model = b.model();
    b.smallhands(&b.run_args(&model, "'unfinished"))
        .refused(2, "cannot be read");
}
