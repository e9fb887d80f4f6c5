//! A run that is killed with SIGKILL in the middle of a task and then resumed: what was done is
//! not done again, not even the steps of the task that died.
//!
//! `cargo run -p smallhands-examples --bin resume_after_kill`

use smallhands::{
    SmallHands,
    core::{Effect, Step, TaskContext, TaskSpec, worker},
    graph::{NewRun, ResumeFailed, TaskGraph},
    standard,
};
use std::{
    env,
    error::Error,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match env::args_os().nth(1) {
        // The process that will be killed.
        Some(dir) => drive(Path::new(&dir), true).await,
        None => watch().await,
    }
}

async fn watch() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut child = Command::new(env::current_exe()?).arg(dir.path()).spawn()?;
    // The fifth begins only once the end of the fourth is durable.
    while !dir.path().join("hangs").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.kill()?; // SIGKILL: no chance to tidy up
    child.wait()?;
    println!(
        "killed after: {:?}",
        ledger(dir.path()).lines().collect::<Vec<_>>()
    );
    drive(dir.path(), false).await?;
    let all = ledger(dir.path());
    println!("in the end:   {:?}", all.lines().collect::<Vec<_>>());
    let mut unique: Vec<_> = all.lines().collect();
    unique.dedup();
    assert_eq!(unique.len(), all.lines().count(), "nothing was done twice");
    Ok(())
}

/// Each page is fetched in a step of its own; the fourth hangs in the first life.
async fn drive(dir: &Path, hang: bool) -> Result<(), Box<dyn Error>> {
    let path: PathBuf = dir.into();
    let fetch = worker("fetch", move |pages: Vec<u32>, cx: TaskContext| {
        let path = path.clone();
        async move {
            for page in pages {
                let path = &path;
                let step = Step::new(format!("page/{page}"))
                    .effect(Effect::Idempotent)
                    .input(&page);
                cx.step(step, |_| async move {
                    if hang && page == 5 {
                        fs::write(path.join("hangs"), "").expect("the marker can be written");
                        tokio::time::sleep(Duration::from_secs(3600)).await;
                    }
                    note(path, page);
                    Ok(page)
                })
                .await?;
            }
            Ok(())
        }
    });
    let hands = SmallHands::builder()
        .store(standard::store(dir)?)
        .worker(fetch as Arc<_>)
        .build()?;
    let run = if hang {
        let graph = TaskGraph::new()
            .task(TaskSpec::new("first", "fetch").input(vec![1, 2]))
            .task(
                TaskSpec::new("second", "fetch")
                    .input(vec![3, 4, 5, 6])
                    .needs("first"),
            )
            .build()?;
        hands.run(NewRun::new("pages", graph)).await?
    } else {
        hands
            .engine()
            .resume(&"pages".into(), ResumeFailed::No)
            .await?
    };
    println!("{}", run.wait().await?.status);
    Ok(())
}

fn note(dir: &Path, page: u32) {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("ledger"));
    file.and_then(|mut f| writeln!(f, "page {page}"))
        .expect("the ledger can be written");
}

fn ledger(dir: &Path) -> String {
    fs::read_to_string(dir.join("ledger")).unwrap_or_default()
}
