//! What is done to runs from outside.
use crate::{
    kit::{Bed, TEST, path},
    made,
};
use serde_json::json;

fn made() -> Bed {
    let b = Bed::new();
    made::runs(&b);
    b
}

#[test]
fn answers_are_json_or_text_and_must_fit() {
    let b = made();
    let shown = b.smallhands(&["show", "asks"]);
    assert!(
        shown.out.contains("number asks (q): which number?"),
        "{shown:?}"
    );
    b.smallhands(&["answer", "asks", "number", "q", "seven"])
        .refused(2, "does not fit");
    b.smallhands(&["answer", "asks", "number", "other", "7"])
        .refused(7, "has no open question `other`");
    b.smallhands(&["answer", "nope", "number", "q", "7"])
        .refused(7, "there is no run `nope`");
    let said = b.smallhands(&["answer", "asks", "number", "q", "-7"]);
    assert_eq!(
        (said.code, &*said.out),
        (Some(0), "answered; smallhands resume asks\n"),
        "{said:?}"
    );
    // It would be a number, but a text was asked for.
    let said = b.smallhands(&["answer", "asks", "text", "q", "7", "--json"]);
    assert_eq!(said.json()["ok"], true, "{said:?}");
    let state = b.smallhands(&["show", "asks", "--state", "--json"]).json();
    assert_eq!(state["format"], "smallhands.run-state");
    let answers: Vec<_> = (1..3).map(|i| &state["tasks"][i]["answers"]["q"]).collect();
    assert_eq!(answers, [&json!(-7), &json!("7")]);
}

#[test]
fn a_step_in_doubt_is_settled_once() {
    let b = made();
    let doubt = b.smallhands(&["show", "doubt", "--state", "--json"]).json();
    let step = &doubt["tasks"][0]["steps"][0];
    assert_eq!(
        (&step["key"], &step["state"]),
        (&json!("charge"), &json!("in_doubt"))
    );
    let settle = |more: &[&str]| {
        let args = [&["settle", "doubt", "pay"], more].concat();
        b.smallhands(&args)
    };
    settle(&["charge"]).refused(2, "--done");
    settle(&["charge", "--done", "so"]).refused(2, "is not JSON");
    settle(&["other", "--done", "1"]).refused(7, "is not in doubt");
    let said = settle(&["charge", "--done", "null"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    settle(&["charge", "--failed", "no"]).refused(7, "is not in doubt");
    let state = b.smallhands(&["show", "doubt", "--json"]).json();
    assert_eq!(state["status"], "paused");
}

#[test]
fn a_run_that_waits_is_cancelled_once() {
    let b = made();
    let said = b.smallhands(&["cancel", "asks"]);
    assert_eq!((said.code, &*said.out), (Some(0), "asks is cancelled\n"));
    b.smallhands(&["cancel", "asks"])
        .refused(1, "cancelled already");
    b.smallhands(&["cancel", "nope"])
        .refused(7, "no run `nope`");
    let listed = b
        .smallhands(&["runs", "--status", "cancelled", "--json"])
        .json();
    assert_eq!(listed["runs"][0]["run"], "asks");
}

#[test]
fn forks_go_their_own_way() {
    let b = Bed::new();
    let model = b.model();
    assert_eq!(b.smallhands(&b.run_args(&model, TEST)).code, Some(0));
    let run = b.newest().unwrap();
    b.smallhands(&["fork", &run, "--at", "9999"])
        .refused(2, "and no 9999");
    b.smallhands(&["fork", "nope"]).refused(7, "no run `nope`");
    b.smallhands(&["fork", &run, "--as", &run])
        .refused(18, "already");
    b.smallhands(&["rerun", &run, "nope"])
        .refused(7, "has no task `nope`");
    let said = b.smallhands(&["rerun", &run, "reproduce", "--as", "again"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    b.git(&["branch", "-D", &format!("smallhands/{run}")]);
    let resumed = b.smallhands(&["resume", "again"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.err.contains("reproduce"), "{resumed:?}");
    let said = b.smallhands(&["fork", &run, "--at", "3", "--as", "early", "--json"]);
    assert_eq!(said.json()["at"], 3, "{said:?}");
    let table = b.smallhands(&["runs"]).out;
    assert!(table.contains(&format!("(fork of {run} at 3)")), "{table}");
    // What a fork shares stays when its origin goes.
    assert_eq!(b.smallhands(&["delete", &run]).code, Some(0));
    assert_eq!(b.smallhands(&["show", "early"]).code, Some(0));
    b.smallhands(&["show", &run]).refused(7, "no run");
    let file = b.dir.path().join("fork.jsonl");
    assert_eq!(
        b.smallhands(&["export", "again", path(&file)]).code,
        Some(0)
    );
}
