use crate::kit::{Bed, Said, TEST, signal, slow};
use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_bug_is_repaired_on_a_branch_and_the_tree_is_not_touched() {
    let b = Bed::new();
    let model = b.model();
    let said = b.smallhands(&b.run_args(&model, TEST));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("+    return a + b"), "{said:?}");
    assert_eq!(b.git(&["status", "--porcelain"]), "");
    assert_eq!(
        b.git(&["show", "main:calc.py"]),
        "def add(a, b):\n    return a - b\n"
    );
    let run = b.newest().unwrap();
    let branch = format!("smallhands/{run}");
    assert_eq!(
        b.git(&["show", &format!("{branch}:calc.py")]),
        "def add(a, b):\n    return a + b\n"
    );

    let shown = b.smallhands(&["show", &run, "--json"]).json();
    assert_eq!(
        (&shown["status"], &shown["result"]["after"]["ok"]),
        (&"succeeded".into(), &true.into())
    );
    assert!(shown["spent"]["calls"].as_u64() >= Some(1));
    assert!(b.smallhands(&["show", &run]).out.contains("finish"));
    assert!(
        b.smallhands(&["graph", &run])
            .out
            .starts_with("flowchart TD")
    );
    assert!(b.smallhands(&["runs"]).out.contains("succeeded"));
    let again = b.smallhands(&["resume", &run]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.err.contains("has succeeded already"), "{again:?}");

    // The log tells how long each model call and tool call took, in which task of which run.
    let log = b.dir.path().join(format!("state/logs/{run}.jsonl"));
    let log = std::fs::read_to_string(log).unwrap();
    let closed = |name: &str| {
        let line = |l: &&str| {
            let v: serde_json::Value = serde_json::from_str(l).unwrap();
            let outer = v["spans"].get(0).unwrap_or(&v["span"]);
            v["fields"]["message"] == "close" && v["span"]["name"] == name && outer["run"] == *run
        };
        log.lines().find(line).is_some()
    };
    for span in ["run", "task", "chat", "tool"] {
        assert!(closed(span), "{span}: {log}");
    }
}

#[test]
fn a_patch_file_instead_of_a_branch_and_a_pool_of_processes() {
    let b = Bed::new();
    let (model, patch) = (b.model(), b.dir.path().join("x.patch"));
    let mut args = b.run_args(&model, TEST);
    args.extend([
        "--patch",
        patch.to_str().unwrap(),
        "--processes",
        "2",
        "--json",
    ]);
    let said = b.smallhands(&args);
    assert_eq!(
        (said.code, &said.json()["ok"]),
        (Some(0), &true.into()),
        "{said:?}"
    );
    assert_eq!(b.git(&["branch", "--list"]).lines().count(), 1);
    b.git(&["apply", "--check", patch.to_str().unwrap()]);
}

#[test]
fn uncommitted_changes_are_told_and_chosen() {
    let b = Bed::new();
    let model = b.model();
    b.write("calc.py", "def add(a, b):\n    return b - a\n");
    let said = b.smallhands(&b.run_args(&model, TEST));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.err
            .contains("1 uncommitted changes are included (calc.py)"),
        "{said:?}"
    );
    assert!(said.out.contains("-    return b - a"), "{said:?}");
    let mut args = b.run_args(&model, TEST);
    args.extend(["--uncommitted", "none"]);
    let said = b.smallhands(&args);
    assert!(
        said.err.contains("are left out") && said.out.contains("-    return a - b"),
        "{said:?}"
    );
}

#[test]
fn what_cannot_be_repaired_fails_and_says_what_to_do() {
    let b = Bed::new();
    b.write(
        "calc.py",
        "def add(a, b):\n    return 7\n\n\ndef zero():\n    return 1\n",
    );
    b.write(
        "test_calc.py",
        "from calc import zero\nassert zero() == 0\n",
    );
    b.commit();
    let model = b.model();
    let mut args = b.run_args(&model, TEST);
    args.extend(["--rounds", "2"]);
    let said = b.smallhands(&args);
    said.refused(1, "no change made the tests pass in 2 rounds");
    let run = b.newest().unwrap();
    assert!(b.smallhands(&["show", &run]).out.contains("failed"));
}

#[test]
fn ctrl_c_stops_soon_and_the_run_can_be_resumed() {
    let b = Bed::new();
    let child = slow(&b);
    let begin = Instant::now();
    signal(&child, "-INT");
    let said = Said::of(child.wait_with_output().unwrap());
    // Generous, for a machine that is busy; the promise is two seconds.
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    said.refused(130, "was stopped; nothing that was done is lost");
    assert!(said.err.contains("smallhands resume "), "{said:?}");
    let run = b.newest().unwrap();
    assert!(b.smallhands(&["runs"]).out.contains("paused"));
    assert_eq!(
        b.smallhands(&["show", &run, "--json"]).json()["status"],
        "paused"
    );
}

#[test]
fn a_second_driver_is_refused_until_the_first_is_dead() {
    let b = Bed::new();
    let mut child = slow(&b);
    let run = b.newest().unwrap();
    b.smallhands(&["resume", &run])
        .refused(13, "is being driven by process");
    for verb in ["cancel", "delete"] {
        b.smallhands(&[verb, &run]).refused(13, "Ctrl-C");
    }
    signal(&child, "-KILL");
    child.wait().unwrap();
    let mut c = b.command(&["resume", &run]);
    let mut again = c
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while b.smallhands(&["show", &run, "--json"]).json()["records"].as_u64() < Some(10) {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "the resumed run does not go on"
        );
        thread::sleep(Duration::from_millis(50));
    }
    signal(&again, "-KILL");
    again.wait().unwrap();
}

#[test]
fn a_virtual_environment_comes_before_the_python_that_it_stands_on() {
    let Some(pytest) = std::env::var("SMALLHANDS_TEST_PYTEST").ok() else {
        println!("SKIPPED: SMALLHANDS_TEST_PYTEST is not set; cargo xtask test sets it");
        return;
    };
    let b = Bed::new();
    b.write(
        "test_calc.py",
        "from calc import add\n\ndef test_add():\n    assert add(2, 3) == 5\n",
    );
    b.commit();
    let venv = b.dir.path().join("zz-venv");
    let made = Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(&venv)
        .status();
    assert!(made.unwrap().success());
    let libs = std::fs::read_dir(venv.join("lib")).unwrap();
    let lib = libs.flatten().next().unwrap().path();
    std::fs::write(lib.join("site-packages/tests.pth"), &pytest).unwrap();
    let model = b.model();
    let mut args = b.run_args(&model, "python3 -m pytest -q");
    args.extend(["--read-only", &pytest]);
    let old = std::env::var("PATH").unwrap();
    let path = format!("{}:{old}", venv.join("bin").display());
    let said = Said::of(b.command(&args).env("PATH", path).output().unwrap());
    assert_eq!(said.code, Some(0), "{said:?}");
}
