//! Lists, pictures, events; runs as files; what is deleted, and what is damaged.
use crate::{
    kit::{Bed, Said, path},
    made,
};
use std::{fs, process::Stdio, thread, time::Duration};

fn made() -> Bed {
    let b = Bed::new();
    made::runs(&b);
    b
}

#[test]
fn lists_are_filtered() {
    let b = made();
    let ids = |args: &[&str]| -> Vec<String> {
        let all = b.smallhands(&[&["runs", "--json"], args].concat()).json();
        let all = all["runs"].as_array().unwrap();
        all.iter()
            .map(|r| r["run"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&[]), ["doubt", "asks"]);
    assert_eq!(ids(&["--limit", "1"]), ["doubt"]);
    assert_eq!(ids(&["--status", "waiting"]), ["asks"]);
    assert_eq!(ids(&["--status", "waiting", "--status", "failed"]).len(), 2);
    assert_eq!(ids(&["--goal", "ASK"]), ["asks"]);
    assert_eq!(ids(&["--since", "1h"]).len(), 2);
    assert_eq!(ids(&["--until", "1h"]).len(), 0);
    assert_eq!(ids(&["--until", "2020-01-31"]).len(), 0);
    assert_eq!(ids(&["--since", "2020-01-31"]).len(), 2);
    let none = b.smallhands(&["runs", "--goal", "zebra"]);
    assert!(none.out.contains("no run is like that"), "{none:?}");
    b.smallhands(&["runs", "--since", "yesterday"])
        .refused(2, "neither an age");
    b.smallhands(&["runs", "--status", "odd"])
        .refused(2, "possible values");
}

#[test]
fn graphs_of_runs_and_files() {
    let b = made();
    assert!(
        b.smallhands(&["graph", "asks"])
            .out
            .starts_with("flowchart TD")
    );
    let dot = b.smallhands(&["graph", "asks", "--format", "dot"]).out;
    assert!(dot.starts_with("digraph"), "{dot}");
    let text = b.smallhands(&["graph", "asks", "--format", "terminal"]).out;
    assert!(text.contains("first") && !text.contains('\x1b'), "{text}");
    let file = b.dir.path().join("g.yaml");
    fs::write(
        &file,
        "tasks:\n  - {id: a, worker: w}\n  - {id: b, worker: w, needs: [a]}\n",
    )
    .unwrap();
    let drawn = b.smallhands(&["graph", path(&file), "--format", "terminal"]);
    assert_eq!(drawn.code, Some(0), "{drawn:?}");
    fs::write(
        &file,
        "tasks:\n  - {id: a, worker: w}\n  - {id: b, worker: w, needs: [aa]}\n",
    )
    .unwrap();
    let said = b.smallhands(&["graph", path(&file)]);
    said.refused(16, "line 3, column 32, tasks[1].needs[0]");
    let said = b.smallhands(&["graph", path(&file), "--json"]).json();
    assert_eq!(said["error"]["code"], "graph.unknown_need");
    b.smallhands(&["graph", "none.json"])
        .refused(2, "there is no none.json");
}

#[test]
fn events_are_lines() {
    let b = made();
    let all = b.smallhands(&["events", "doubt", "--json"]);
    let lines: Vec<serde_json::Value> = all
        .out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["seq"], &lines[0]["kind"]),
        (&1.into(), &"created".into())
    );
    let text = b.smallhands(&["events", "doubt", "--after", "1"]).out;
    assert_eq!(text.lines().count(), lines.len() - 1);
    assert!(
        text.contains("step_began") && text.contains("charge"),
        "{text}"
    );
    // Of a run that is over, there is nothing to follow.
    let followed = b.smallhands(&["events", "doubt", "--follow", "--json"]);
    assert_eq!(followed.out, all.out);
    b.smallhands(&["events", "nope"])
        .refused(7, "no run `nope`");
}

#[test]
fn events_are_followed_from_another_process() {
    let b = made();
    let mut c = b.command(&["events", "asks", "--follow"]);
    let child = c
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(b.smallhands(&["cancel", "asks"]).code, Some(0));
    let said = Said::of(child.wait_with_output().unwrap());
    let last = said.out.lines().last().unwrap();
    assert!(
        last.contains("stopped") && last.ends_with("cancelled"),
        "{said:?}"
    );
    assert_eq!(said.code, Some(0));
}

#[test]
fn a_run_moves_to_another_state_directory() {
    let (b, there) = (made(), Bed::new());
    let file = b.dir.path().join("asks.jsonl");
    let said = b.smallhands(&["export", "asks", path(&file)]);
    assert!(
        said.out.contains("run asks: ") && said.out.contains("1 blobs"),
        "{said:?}"
    );
    b.smallhands(&["export", "asks", path(&file)])
        .refused(2, "exists already");
    b.smallhands(&["export", "nope", "x.jsonl"])
        .refused(7, "no run `nope`");
    there
        .smallhands(&["import", "none.jsonl"])
        .refused(2, "none.jsonl");
    let said = there.smallhands(&["import", path(&file), "--json"]).json();
    assert_eq!(said["imported"]["run"], "asks");
    let same = |b: &Bed| b.smallhands(&["show", "asks", "--state", "--json"]).json();
    assert_eq!(same(&b), same(&there));
    there
        .smallhands(&["import", path(&file)])
        .refused(18, "there is a run `asks` already");
    assert_eq!(
        there
            .smallhands(&["import", path(&file), "--as", "two"])
            .code,
        Some(0)
    );
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("which number", "which letter", 1)).unwrap();
    there
        .smallhands(&["import", path(&file), "--as", "three"])
        .refused(17, "it was altered");
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    there
        .smallhands(&["import", path(&file), "--as", "three"])
        .refused(17, "it is not a whole exported run");
    there.smallhands(&["show", "three"]).refused(7, "no run");
}

#[test]
fn runs_are_deleted_and_pruned() {
    let b = made();
    b.smallhands(&["delete", "asks", "nope"])
        .refused(7, "no run `nope`");
    assert_eq!(b.smallhands(&["show", "asks"]).code, Some(0));
    b.smallhands(&["prune"]).refused(2, "--older-than");
    b.smallhands(&["prune", "--dry-run"])
        .refused(2, "--older-than");
    b.smallhands(&["prune", "--older-than", "soon"])
        .refused(2, "not an age");
    let old = b
        .smallhands(&["prune", "--older-than", "1d", "--json"])
        .json();
    assert_eq!(old["deleted"].as_array().unwrap().len(), 0);
    let dry = ["prune", "--max-size", "0", "--dry-run"];
    assert!(b.smallhands(&dry).out.contains("1 run would be deleted"));
    let told = b.smallhands(&["prune", "--max-size", "0", "--json"]).json();
    assert_eq!(told["deleted"][0]["run"], "doubt");
    let rest = b.smallhands(&["prune", "--max-size", "0", "--unfinished"]);
    assert!(rest.out.contains("1 run deleted"), "{rest:?}");
    assert_eq!(b.newest(), None);
}

#[test]
fn damage_is_found_and_the_rest_saved() {
    let b = Bed::new();
    b.smallhands(&["fsck"]).refused(1, "there is no journal");
    made::runs(&b);
    // Two connections that close at once leave the log of writes behind; who comes next brings it in.
    let journal = b.dir.path().join("state/journal.db");
    let log = journal.with_extension("db-wal");
    for _ in 0..200 {
        if !log.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
        b.smallhands(&["prune", "--older-than", "1d"]);
    }
    assert!(!log.exists(), "the log of writes stays");
    let sound = b.smallhands(&["fsck"]);
    assert_eq!(sound.code, Some(0), "{sound:?}");
    assert!(sound.out.contains("nothing is wrong"), "{sound:?}");
    // Each page but the first few.
    let mut bytes = fs::read(&journal).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0xa5);
    fs::write(&journal, bytes).unwrap();
    let to = b.dir.path().join("saved");
    let said = b.smallhands(&["fsck", "--salvage", path(&to), "--json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let said = said.json();
    assert_eq!(said["ok"], false);
    assert!(!said["check"]["findings"].as_array().unwrap().is_empty());
    assert!(said["salvage"].is_object() && to.join("journal.db").exists());
}
