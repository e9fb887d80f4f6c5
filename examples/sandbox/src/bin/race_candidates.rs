//! A race: candidate patches for one bug, each in its own fork of a prepared workspace, against the
//! tests and a deadline. The first that passes wins and is applied to the real repository.
//!
//! `cargo run -p sandbox-examples --bin race_candidates`. One candidate is wrong, one hangs, one
//! attacks everything that it can reach, one is right but slow. No model is needed: patches stand here.

use sandbox_examples::{ambient, git};
use smallhands_core::{CallCx, CancelToken};
use smallhands_sandbox::{
    Ended, Invocation, Limits, RepoSource, RepoStore, Sandbox, SandboxBackend, SandboxError,
    SandboxSpec, Uncommitted,
    linux::{self, NativeBackend, NativeOptions},
};
use std::{
    error::Error,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const DEADLINE: Duration = Duration::from_secs(4);

const SLUG: &str = r#"def slug(title):
    words = title.lower().split(" ")
    return "-".join(words)
"#;
/// Each run leaves a mark, in its workspace and in /tmp, by which others could see it.
const TEST: &str = r#"import pathlib, time, unittest, uuid
mark = "mark-" + uuid.uuid4().hex
for place in (".", "/tmp"): pathlib.Path(place, mark).touch()
from slug import slug

class Slugs(unittest.TestCase):
    def test_words(self): self.assertEqual(slug("Hello big World"), "hello-big-world")
    def test_spaces(self): self.assertEqual(slug("  two   words "), "two-words")
    def test_prepared(self): self.assertEqual(len(open("build/table").readlines()), 50000)
    def test_alone(self):
        # Long enough for all others to have left their marks.
        time.sleep(0.3)
        marks = [p.name for place in (".", "/tmp") for p in pathlib.Path(place).glob("mark-*")]
        self.assertEqual(marks, [mark, mark])

unittest.main()
"#;
/// What all candidates need and nobody wants to wait for once each.
const PREPARE: &str = r#"import os, time
os.mkdir("build"); time.sleep(0.5)
open("build/table", "w").writelines(f"{i}\n" for i in range(50000))
"#;
/// Kills, overwrites and removes whatever lets it.
const ATTACK: &str = r#"import os, shutil
try: os.kill(-1, 9)
except OSError: pass
for top in ("/workspace", "/tmp", "/dev/shm", "/proc/1/root", "/proc/1/cwd", "/", "/workspace/.."):
    names = os.listdir(top) if os.access(top, os.R_OK) else []
    for path in [os.path.join(top, n) for n in names] + [os.path.join(top, "mark-of-mine")]:
        try: open(path, "w").write("mine now\n")
        except OSError: pass
shutil.rmtree("/workspace", ignore_errors=True)
raise SystemExit("nothing is left")
"#;

/// Names of candidates, and what each makes of the file.
fn candidates() -> [(&'static str, String); 5] {
    let with = |from, to| SLUG.replace(from, to);
    let right = with("split(\" \")", "split()");
    [
        ("wrong", with("split(\" \")", "strip().split(\" \")")),
        (
            "hangs",
            with("    words", "    while True: pass\n    words"),
        ),
        ("attacks", ATTACK.into()),
        ("slow", format!("import time; time.sleep(2)\n{right}")),
        ("right", right),
    ]
}

/// How a candidate did.
struct Runner {
    name: &'static str,
    fork: Box<dyn Sandbox>,
    forked: Duration,
    ended: std::result::Result<Ended, SandboxError>,
    tested: Duration,
    last_line: String,
}

fn main() -> Result {
    // First in main: sandboxes start this program again as their helper.
    linux::init();
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result {
    let dir = tempfile::tempdir()?;
    let repo = dir.path().join("repo");
    make_repository(&repo)?;
    let store = Arc::new(RepoStore::open(dir.path().join("store"), git()?)?);
    let backend = NativeBackend::new(NativeOptions::new(store.clone(), dir.path().join("state")))?;
    let cx = CallCx::detached(ambient(), CancelToken::new());

    let spec = |commit| SandboxSpec {
        source: Some(RepoSource { commit }),
        limits: Limits {
            memory_bytes: Some(512 << 20),
            processes: Some(32),
            ..Limits::default()
        },
        ..SandboxSpec::default()
    };
    let base = store.import(&repo, None, Uncommitted::Exclude)?;
    let prepared = backend.open(&spec(base.commit), &cx).await?;
    let begun = Instant::now();
    python(&*prepared, PREPARE, &cx).await?;
    println!("prepared once, in {} ms", begun.elapsed().as_millis());

    let mut runners = race(&*prepared, &cx).await?;
    let winner = runners
        .iter()
        .position(|r| matches!(r.ended, Ok(Ended::Exited(0))));
    table(&runners, winner);
    let seen = prepared.list("").await?;
    if seen.iter().any(|e| e.path.contains("mark-")) {
        return Err("a fork was seen where it came from".into());
    }

    let winner = runners.swap_remove(winner.ok_or("no candidate passes")?);
    for loser in runners {
        loser.fork.close().await?;
    }
    let patch = winner.fork.diff().await?;
    winner.fork.close().await?;
    prepared.close().await?;
    apply(&repo, &patch)?;
    println!("\napplied to the repository:\n{patch}");

    // What is there now, in a sandbox again: a winner is still code that nobody has read.
    let now = store.import(&repo, None, Uncommitted::Include)?;
    let check = backend.open(&spec(now.commit), &cx).await?;
    python(&*check, PREPARE, &cx).await?;
    let done = check.exec(&tests(), &mut |_, _| {}, &cx).await?;
    check.close().await?;
    if !done.ok() {
        return Err(format!("its tests fail: {}", done.text()).into());
    }
    println!("its tests pass");
    Ok(())
}

/// All at once, in the order in which they end; when one passes, the others are stopped.
async fn race(prepared: &dyn Sandbox, cx: &CallCx) -> Result<Vec<Runner>> {
    let race = CancelToken::new();
    let mut forks = Vec::new();
    for _ in candidates() {
        let begun = Instant::now();
        forks.push((prepared.fork().await?, begun.elapsed()));
    }
    let mut running = JoinSet::new();
    for ((name, text), (fork, forked)) in candidates().into_iter().zip(forks) {
        let cx = CallCx::detached(cx.ambient().clone(), race.child());
        running.spawn(async move {
            let begun = Instant::now();
            let ended = match fork.write("slug.py", text.as_bytes()).await {
                Ok(()) => fork.exec(&tests(), &mut |_, _| {}, &cx).await,
                Err(e) => Err(e),
            };
            let said = ended.as_ref().map(|d| d.text()).unwrap_or_default();
            Runner {
                name,
                fork,
                forked,
                ended: ended.map(|d| d.ended),
                tested: begun.elapsed(),
                last_line: said.trim_end().lines().last().unwrap_or("").into(),
            }
        });
    }
    let mut runners = Vec::new();
    while let Some(r) = running.join_next().await {
        let r = r?;
        if matches!(r.ended, Ok(Ended::Exited(0))) {
            race.cancel();
        }
        runners.push(r);
    }
    Ok(runners)
}

fn tests() -> Invocation {
    Invocation::new(["python3", "test_slug.py"]).deadline(DEADLINE)
}

async fn python(sandbox: &dyn Sandbox, script: &str, cx: &CallCx) -> Result {
    let what = Invocation::new(["python3", "-c", script]);
    let done = sandbox.exec(&what, &mut |_, _| {}, cx).await?;
    match done.ok() {
        true => Ok(()),
        false => Err(done.text().into()),
    }
}

fn table(runners: &[Runner], winner: Option<usize>) {
    println!(
        "\n{:<10} {:>8} {:>9}  what happened",
        "candidate", "fork ms", "tests ms"
    );
    for (i, r) in runners.iter().enumerate() {
        let what = match &r.ended {
            Ok(Ended::Exited(0)) if winner == Some(i) => "passes first: the winner".into(),
            Ok(Ended::Exited(0)) => "passes too, too late".into(),
            Ok(Ended::Exited(_)) => format!("fails: {}", r.last_line),
            Ok(Ended::TimedOut) => "still running at the deadline: killed".into(),
            Ok(other) => format!("{other:?}"),
            Err(SandboxError::Cancelled) => "still running when another won: destroyed".into(),
            Err(e) => e.to_string(),
        };
        let (forked, tested) = (r.forked.as_millis(), r.tested.as_millis());
        println!("{:<10} {forked:>8} {tested:>9}  {what}", r.name);
    }
}

fn make_repository(repo: &Path) -> Result {
    fs::create_dir(repo)?;
    for (file, text) in [
        ("slug.py", SLUG),
        ("test_slug.py", TEST),
        (".gitignore", "build/\nmark-*\n__pycache__/\n"),
    ] {
        fs::write(repo.join(file), text)?;
    }
    host_git(repo, &["init", "-q"], "")?;
    host_git(repo, &["add", "-A"], "")?;
    host_git(repo, &["commit", "-qm", "slugs"], "")
}

fn apply(repo: &Path, patch: &str) -> Result {
    host_git(repo, &["apply", "-"], patch)
}

fn host_git(repo: &Path, args: &[&str], input: &str) -> Result {
    let me = ["-c", "user.name=me", "-c", "user.email=me@localhost"];
    let mut child = Command::new(git()?)
        .current_dir(repo)
        .args(me)
        .args(args)
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(format!("git {} failed", args.join(" ")).into()),
    }
}
