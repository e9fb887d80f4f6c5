use crate::{
    args::{ResumeArgs, RunArgs, UncommittedArg},
    error::CliError,
    models,
    progress::{Out, follow},
    show,
    state::{Dirs, Environment, key_variables, secrets},
    toolchain,
};
use smallhands::{
    SmallHands,
    agents::{PlanMode, RepairSpec},
    core::{BlobStore, Budget, Failure, RunId},
    exec::{PoolOptions, ProcessPool},
    graph::{
        GraphError, ResumeFailed, RunHandle, RunResult, RunState, RunStatus, StateStore,
        StoreError, SystemClock,
    },
    obs::{SecretGuard, SecretRedactor, json_logs},
    sandbox::{Egress, RepoSource, SandboxSpec, Uncommitted},
    standard::{self, ModelSpec, RepairConfig, Target},
    tools::TestCommand,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tracing_subscriber::util::SubscriberInitExt;

/// `smallhands run`.
pub(crate) async fn run(dirs: &Dirs, out: Out, a: RunArgs) -> Result<u8, CliError> {
    let id = new_id();
    let config = configure(dirs, out, &a, &id).await?;
    let budget = Budget {
        micro_usd: a.max_cost.map(|usd| (usd.max(0.0) * 1e6) as u64),
        tokens: a.max_tokens,
        ..Budget::default()
    };
    logs(dirs, &id);
    let json = serde_json::to_value(&config).map_err(|e| CliError::other(e.to_string()))?;
    let store = standard::store(&dirs.state)?;
    out.say(&format!("run {id}: {}", config.spec.goal));
    let hands = assemble(&config, store.clone())?;
    let handle = hands
        .repair(id.as_str(), config.spec.clone(), json, budget)
        .await?;
    drive(out, handle).await
}

/// `smallhands resume`.
pub(crate) async fn resume(dirs: &Dirs, out: Out, a: ResumeArgs) -> Result<u8, CliError> {
    let store = standard::store(&dirs.state)?;
    let id = RunId::from(&a.run);
    let state = RunState::load(&*store, &id).await?;
    let config = config_of(&*store.blobs(), &state).await?;
    let failed = if a.retry_failed {
        ResumeFailed::Retry
    } else {
        ResumeFailed::No
    };
    if state.status == RunStatus::Succeeded {
        // It may have been killed between its last record and its exit.
        out.say(&format!("run {id} has succeeded already"));
        return Ok(succeeded(out, &id, &state));
    }
    if state.status.is_final() && !a.retry_failed {
        return Err(CliError::new(
            1,
            "run.ended",
            format!("run {id} has {} already", state.status),
        )
        .hint(format!(
            "smallhands show {id}, or resume with --retry-failed"
        )));
    }
    logs(dirs, &id);
    let hands = assemble(&config, store)?;
    let resume = || hands.resume_repair(&id, config.spec.clone(), failed);
    let handle = match resume().await {
        Err(GraphError::Store(StoreError::Held { owner, .. })) => {
            if !a.take_over {
                return Err(held(&id, &owner));
            }
            standard::take_over(&dirs.state, &id)?;
            out.say(&format!(
                "run {id} is taken from {owner}: it can write no more to the run, but what it has \
                 started may still be at work"
            ));
            resume().await?
        }
        other => other?,
    };
    out.say(&format!("run {id}, resumed: {}", state.goal));
    drive(out, handle).await
}

/// What to do about a run that another process drives.
fn held(id: &RunId, owner: &str) -> CliError {
    let pid = owner.strip_prefix("process ");
    let stopped = pid.is_some_and(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|l| l.starts_with("State:\tT"))
    });
    let what = if stopped { ", which is stopped" } else { "" };
    let why = format!("run {id} is being driven by {owner}{what}");
    let hint = match (pid, stopped) {
        (Some(pid), true) => format!(
            "kill -CONT {pid} lets it go on, kill -KILL {pid} frees the run; only if it cannot be \
             ended: smallhands resume {id} --take-over"
        ),
        _ => format!(
            "stop it with Ctrl-C where it was started; only if it hangs and cannot be ended: \
             smallhands resume {id} --take-over"
        ),
    };
    CliError::new(13, "store.held", why).hint(hint)
}

pub(crate) async fn config_of(
    blobs: &dyn BlobStore,
    state: &RunState,
) -> Result<RepairConfig, CliError> {
    let Some(blob) = &state.config else {
        return Err(CliError::other("the run has no configuration"));
    };
    let bytes = blobs.get(blob).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| CliError::other(format!("the run's configuration cannot be read: {e}")))
}

async fn drive(out: Out, mut handle: RunHandle) -> Result<u8, CliError> {
    let watching = tokio::spawn(follow(out, handle.updates()));
    let stop = handle.stopper();
    let id = handle.id().clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop();
            // The second one means it.
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    let result = handle.wait().await?;
    drop(watching.await);
    finish(out, &id, &result)
}

fn succeeded(out: Out, id: &RunId, state: &RunState) -> u8 {
    match out.json {
        true => out.print(&format!("{}\n", show::json(id, state))),
        false => out.print(&show::report(out, id, state)),
    }
    0
}

fn finish(out: Out, id: &RunId, r: &RunResult) -> Result<u8, CliError> {
    match r.status {
        RunStatus::Succeeded => Ok(succeeded(out, id, &r.state)),
        RunStatus::Failed => {
            let first = show::first_failure(&r.state);
            let f = first.unwrap_or_else(|| {
                Failure::new(
                    "run.failed",
                    smallhands::core::FailureClass::Task,
                    "the run failed",
                )
            });
            out.say(&format!("look at it: smallhands show {id}"));
            Err(f.into())
        }
        RunStatus::Paused => {
            let e = CliError::new(
                130,
                "run.stopped",
                format!("run {id} was stopped; nothing that was done is lost"),
            );
            Err(e.hint(format!("smallhands resume {id}")))
        }
        RunStatus::Waiting => {
            let e = CliError::new(1, "run.waiting", format!("run {id} waits for an answer"));
            Err(e.hint(format!("smallhands show {id}")))
        }
        other => Err(CliError::new(
            1,
            "run.ended",
            format!("run {id} is {other}"),
        )),
    }
}

fn assemble(c: &RepairConfig, store: Arc<dyn StateStore>) -> Result<SmallHands, CliError> {
    let owner = format!("process {}", std::process::id());
    let builder = SmallHands::builder().store(store.clone()).owner(owner);
    if c.processes > 0 {
        let mut env = key_variables();
        env.extend(std::env::var("PATH").ok().map(|p| ("PATH".into(), p)));
        let options = PoolOptions {
            slots: c.processes,
            env,
            ..PoolOptions::default()
        };
        let pool = ProcessPool::new(options, store.blobs(), Arc::new(SystemClock))?;
        return Ok(builder.executor(Arc::new(pool)).build()?);
    }
    let ambient = smallhands::core::Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(SecretGuard::new(secrets())),
        secrets: Arc::new(Environment),
    };
    let parts = standard::parts(c, &ambient)?;
    let mut builder = builder
        .sandbox(parts.sandboxes)
        .memory(parts.memory)
        .tools(parts.tools)
        .delivery(parts.delivery)
        .guardrail(ambient.guard)
        .secrets(ambient.secrets)
        .plan(parts.plan);
    for tier in 0..parts.models.tiers() {
        builder = builder.model(parts.models.tier(tier).clone());
    }
    Ok(builder.build()?)
}

async fn configure(
    dirs: &Dirs,
    out: Out,
    a: &RunArgs,
    id: &RunId,
) -> Result<RepairConfig, CliError> {
    let git = toolchain::find("git")
        .ok_or_else(|| CliError::other("git is not on the PATH").hint("apt-get install git"))?;
    let egress = match &a.allow_host[..] {
        [] => None,
        hosts => Some(Egress::new(hosts.iter().map(String::as_str))?),
    };
    let tests = TestCommand::parse(&a.test)
        .map_err(|e| CliError::new(2, "usage", e.to_string()))?
        .timeout(Duration::from_secs(a.test_timeout));
    let commit = import(dirs, out, a, &git)?;
    let mut models = Vec::new();
    for m in &a.model {
        models.push(model(dirs, out, m, a.offline).await?);
    }
    let tools = toolchain::of(&tests.argv, egress.is_none());
    let mut read_only = tools.read_only;
    for p in &a.read_only {
        read_only.push(absolute(p)?);
    }
    let mut env = tools.env;
    env.extend(variables(&a.env)?);
    let sandbox = SandboxSpec {
        source: Some(RepoSource { commit }),
        read_only,
        env,
        egress,
        ..SandboxSpec::default()
    };
    let mut spec = RepairSpec::new(&a.goal, sandbox, tests);
    spec.candidates = a.candidates;
    spec.rounds = a.rounds;
    spec.seed = a.seed;
    let target = match &a.patch {
        Some(p) => Target::File { path: absolute(p)? },
        None => Target::Branch {
            repo: absolute(&a.repo)?,
            branch: a
                .branch
                .clone()
                .unwrap_or_else(|| format!("smallhands/{id}")),
        },
    };
    Ok(RepairConfig {
        title: a
            .goal
            .lines()
            .next()
            .unwrap_or("repair")
            .chars()
            .take(72)
            .collect(),
        spec,
        models,
        state_dir: dirs.state.clone(),
        git,
        target,
        plan: if a.free_plan {
            PlanMode::Free
        } else {
            PlanMode::Recipe
        },
        processes: a.processes,
    })
}

/// `NAME=VALUE` pairs.
pub(crate) fn variables(pairs: &[String]) -> Result<Vec<(String, String)>, CliError> {
    let split = |pair: &String| {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| CliError::new(2, "usage", format!("`{pair}` is not NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    pairs.iter().map(split).collect()
}

/// Makes a directory a repository of one commit.
pub(crate) fn commit_all(git: &Path, dir: &Path) -> Result<(), CliError> {
    let identity = [
        "-c",
        "user.name=bench",
        "-c",
        "user.email=bench@localhost",
        "-c",
        "commit.gpgsign=false",
    ];
    for args in [
        &["init", "-q"][..],
        &["add", "-A"],
        &["commit", "-qm", "the task"],
    ] {
        let status = std::process::Command::new(git)
            .current_dir(dir)
            .args(identity)
            .args(args)
            .status();
        if !status.is_ok_and(|s| s.success()) {
            return Err(CliError::other(format!(
                "git {} failed in {}",
                args[0],
                dir.display()
            )));
        }
    }
    Ok(())
}

pub(crate) fn absolute(p: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(p).map_err(|e| CliError::other(format!("{}: {e}", p.display())))
}

/// Makes the base commit, and says what of the working tree is in it.
fn import(dirs: &Dirs, out: Out, a: &RunArgs, git: &Path) -> Result<String, CliError> {
    let repos = standard::repos(&dirs.state, git)?;
    let uncommitted = match (a.uncommitted, &a.rev) {
        (_, Some(_)) | (UncommittedArg::None, _) => Uncommitted::Exclude,
        (UncommittedArg::Tracked, None) => Uncommitted::Include,
        (UncommittedArg::All, None) => Uncommitted::IncludeUntracked,
    };
    let base = repos.import(&absolute(&a.repo)?, a.rev.as_deref(), uncommitted)?;
    if !base.dirty.is_empty() {
        let n = base.dirty.len();
        let some = base
            .dirty
            .iter()
            .take(3)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let dots = if n > 3 { ", .." } else { "" };
        let what = if base.included {
            "are included"
        } else {
            "are left out"
        };
        out.say(&format!(
            "{n} uncommitted changes {what} ({some}{dots}); choose with --uncommitted tracked|all|none"
        ));
    }
    Ok(base.commit)
}

/// What `--model` means.
pub(crate) async fn model(
    dirs: &Dirs,
    out: Out,
    text: &str,
    offline: bool,
) -> Result<ModelSpec, CliError> {
    let threads = std::thread::available_parallelism()
        .map_or(2, |n| u32::try_from(n.get().min(8)).unwrap_or(8));
    if let Some(file) = text.strip_prefix("local:") {
        let path = absolute(Path::new(file))?;
        if !path.is_file() {
            let why = format!("there is no model file {}", path.display());
            return Err(CliError::new(8, "llm.unknown_model", why));
        }
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned());
        return Ok(ModelSpec::Local {
            path,
            name: name.unwrap_or_default(),
            threads,
        });
    }
    if let Some(name) = text.strip_prefix("openai:") {
        return Ok(ModelSpec::OpenAi { name: name.into() });
    }
    if let Some(name) = text.strip_prefix("anthropic:") {
        return Ok(ModelSpec::Anthropic { name: name.into() });
    }
    if let Some(path) = text.strip_prefix("recorded:") {
        return Ok(ModelSpec::Recorded {
            path: absolute(Path::new(path))?,
        });
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        let (base_url, name) = text.rsplit_once('=').ok_or_else(|| {
            CliError::new(8, "llm.unknown_model", format!("`{text}` names no model"))
                .hint(format!("--model {text}=NAME"))
        })?;
        return Ok(ModelSpec::Compatible {
            base_url: base_url.into(),
            name: name.into(),
        });
    }
    let known = models::by_alias(text)?;
    Ok(ModelSpec::Local {
        path: models::obtain(known, &dirs.cache, offline, out).await?,
        name: known.name.into(),
        threads,
    })
}

/// Sorts by time; readable, and short enough to type.
pub(crate) fn new_id() -> RunId {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (day, time) = show::date(now.as_millis() as u64);
    let mix = now.subsec_nanos() ^ std::process::id().rotate_left(16);
    format!(
        "{}-{}-{:04x}",
        day.replace('-', ""),
        time.replace(':', ""),
        mix & 0xffff
    )
    .into()
}

/// JSON logs of the run, beside its journal, secrets redacted.
fn logs(dirs: &Dirs, id: &RunId) {
    let dir = dirs.state.join("logs");
    let file =
        fs::create_dir_all(&dir).and_then(|()| File::create(dir.join(format!("{id}.jsonl"))));
    // A run without logs is still a run.
    if let Ok(f) = file {
        let redactor = SecretRedactor::new(secrets().into_iter().map(|(_, v)| v));
        let filter = std::env::var("SMALLHANDS_LOG").unwrap_or_else(|_| "info".into());
        drop(json_logs(Mutex::new(f), redactor, &filter).try_init());
    }
}
