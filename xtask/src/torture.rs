use crate::{
    Result,
    tools::{Temp, cargo, demo_repository, pytest, repair_args, root, smallhands},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// How much of which torture.
pub(crate) struct Torture {
    pub(crate) kills: Option<u32>,
    pub(crate) tries: Option<u32>,
    pub(crate) seed: u64,
    /// What appends survive; empty: as the engine has it.
    pub(crate) durability: String,
    pub(crate) json: bool,
}

pub(crate) fn run(name: &str, t: &Torture) -> Result {
    match name {
        "kill9" => kill9(t.kills.unwrap_or(10), t.json),
        "graph" => graph(t),
        "lease" => lease(t),
        "sandbox" => sandbox(t.json),
        _ => Err("there are: torture kill9 | graph | lease | sandbox".into()),
    }
}

/// `graph`: the engine alone, in a program of its own (`tests/torture`), killed around every commit
/// and at random moments, patched, paused, answered and forked meanwhile; an outside ledger must
/// show that nothing ran twice or was lost.
fn graph(t: &Torture) -> Result {
    let mut c = cargo(&["run", "--quiet", "-p", "smallhands-torture", "--", "graph"]);
    c.args(["--kills", &t.kills.unwrap_or(300).to_string()]);
    c.args(["--seed", &t.seed.to_string()]);
    if !t.durability.is_empty() {
        c.args(["--durability", &t.durability]);
    }
    crate::tools::run(c.args(t.json.then_some("--json")))
}

/// `lease`: two processes want one run at the same moment; exactly one gets it, and when that is
/// killed the run is free.
fn lease(t: &Torture) -> Result {
    let mut c = cargo(&["run", "--quiet", "-p", "smallhands-torture", "--", "lease"]);
    c.args(["--tries", &t.tries.unwrap_or(1000).to_string()]);
    crate::tools::run(c.args(t.json.then_some("--json")))
}

/// `sandbox`: named attacks (`tests/attacks`), outside where they must succeed, inside where they must
/// not, and with walls taken away; and hosts and helpers killed, after which nothing may be left.
fn sandbox(json: bool) -> Result {
    // Its second program is what runs inside.
    crate::tools::run(&mut cargo(&[
        "build",
        "--quiet",
        "-p",
        "smallhands-attacks",
    ]))?;
    let mut c = cargo(&["run", "--quiet", "-p", "smallhands-attacks"]);
    crate::tools::run(c.args(json.then_some(["--", "--json"]).into_iter().flatten()))
}

/// `kill9`: the program's whole process group is killed at random moments, then the run resumed,
/// until it ends. The journal must show that no finished task ran twice.
fn kill9(kills: u32, json: bool) -> Result {
    let (pytest, program) = (pytest()?, smallhands(false)?);
    let tmp = Temp::new("torture")?;
    let repo = tmp.0.join("textkit");
    demo_repository(&repo)?;
    let state = tmp.0.join("state");
    let answers = format!(
        "recorded:{}",
        root().join("examples/demo-recorded.json").display()
    );
    let mut first = Command::new(&program);
    first
        .args(repair_args(&repo, &pytest))
        .args(["--model", &answers, "--branch", "repaired"])
        .arg("--state-dir")
        .arg(&state);
    let mut random = Random(u64::from(std::process::id()) << 20 | 12345);
    let mut landed = 0;
    let mut status = killed_after(&mut first, random.millis(20, 400))?;
    landed += u32::from(status.is_none());
    let mut tries = 1;
    while status.is_none() {
        let run = newest_run(&program, &state)?;
        let mut c = match &run {
            Some(run) => {
                let mut c = Command::new(&program);
                c.args(["resume", run]).arg("--state-dir").arg(&state);
                c
            }
            // Killed before the run existed: it starts again.
            None => {
                let mut c = Command::new(&program);
                c.args(repair_args(&repo, &pytest))
                    .args(["--model", &answers, "--branch", "repaired"])
                    .arg("--state-dir")
                    .arg(&state);
                c
            }
        };
        tries += 1;
        let limit = if landed < kills {
            random.millis(20, 400)
        } else {
            Duration::from_secs(300)
        };
        status = killed_after(&mut c, limit)?;
        landed += u32::from(status.is_none());
        if tries > kills * 4 + 8 {
            return Err(format!("it did not end after {tries} starts"));
        }
    }
    if status != Some(0) {
        return Err(format!("the last resume ended with {status:?}"));
    }
    let run = newest_run(&program, &state)?.ok_or("there is no run")?;
    let proof = prove(&state, &run)?;
    match json {
        true => println!(
            "{}",
            json!({ "name": "torture/kill9/finished_tasks_run_again", "value": proof.again, "unit": "tasks", "better": "lower", "kills": landed, "dispatched": proof.dispatched })
        ),
        false => println!(
            "{landed} kills, {tries} starts: the run succeeded; {} placements of {} tasks, finished tasks run again: {}; finished steps run again: {}",
            proof.dispatched, proof.tasks, proof.again, proof.steps_again
        ),
    }
    match proof.again + proof.steps_again {
        0 => Ok(()),
        _ => Err("finished work was run again".into()),
    }
}

/// Runs a command in a process group of its own; `None` if the group had to be killed.
fn killed_after(c: &mut Command, limit: Duration) -> Result<Option<i32>> {
    let mut child = c
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut waited = Duration::ZERO;
    while waited < limit {
        if let Some(s) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(s.code());
        }
        thread::sleep(Duration::from_millis(5));
        waited += Duration::from_millis(5);
    }
    let group = format!("-{}", child.id());
    crate::tools::run(Command::new("kill").args(["-9", "--", &group]))?;
    child.wait().map_err(|e| e.to_string())?;
    Ok(None)
}

fn newest_run(program: &Path, state: &Path) -> Result<Option<String>> {
    let mut c = Command::new(program);
    c.args(["runs", "--json", "--state-dir"]).arg(state);
    let all: Value =
        serde_json::from_str(&crate::tools::output(&mut c)?).map_err(|e| e.to_string())?;
    Ok(all["runs"][0]["run"].as_str().map(str::to_owned))
}

struct Proof {
    tasks: usize,
    dispatched: usize,
    again: usize,
    steps_again: usize,
}

/// Reads the journal itself, not what the program says of it.
fn prove(state: &Path, run: &str) -> Result<Proof> {
    const READ: &str = "\
import sqlite3,json,sys
for kind,body in sqlite3.connect(sys.argv[1]).execute('select kind,body from records where id>>40=(select n from runs where run=?) order by id',(sys.argv[2],)):
    print(json.dumps([kind,json.loads(body)]))
";
    let mut c = Command::new("python3");
    c.args(["-c", READ]).arg(state.join("journal.db")).arg(run);
    let text = crate::tools::output(&mut c)?;
    let (mut done, mut steps) = (
        BTreeMap::<String, bool>::new(),
        BTreeMap::<String, bool>::new(),
    );
    let mut p = Proof {
        tasks: 0,
        dispatched: 0,
        again: 0,
        steps_again: 0,
    };
    for line in text.lines() {
        let v: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let (kind, body) = (v[0].as_str().unwrap_or(""), &v[1]);
        let task = body["task"].as_str().unwrap_or("").to_owned();
        match kind {
            "dispatched" => {
                p.dispatched += 1;
                p.again += usize::from(done.get(&task) == Some(&true));
                done.entry(task).or_insert(false);
            }
            "ended" if body["report"]["outcome"].get("done").is_some() => {
                done.insert(task, true);
            }
            "step_began" => {
                let key = format!("{task}/{}", body["intent"]["key"]);
                p.steps_again += usize::from(steps.get(&key) == Some(&true));
                steps.entry(key).or_insert(false);
            }
            "step_ended" => {
                steps.insert(format!("{task}/{}", body["record"]["intent"]["key"]), true);
            }
            _ => {}
        }
    }
    p.tasks = done.len();
    Ok(p)
}

/// Good enough to scatter kills.
struct Random(u64);
impl Random {
    fn millis(&mut self, from: u64, to: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(from + self.0 % (to - from))
    }
}
