//! `smallhands bench`: suites, each row gated and graded by its own tests.

use crate::{args::BenchArgs, error::CliError, progress::Out, run, state::Dirs, toolchain};
use serde_json::json;
use smallhands::{
    SmallHands,
    agents::RepairSpec,
    core::{Ambient, Budget, CallCx, CancelToken, NoGuard, NoSecrets},
    graph::{RunStatus, StateStore, SystemClock},
    llm::ChatModel,
    sandbox::{Invocation, RepoSource, RepoStore, SandboxBackend, SandboxSpec, Uncommitted},
    standard::{self, Target},
    tools::TestCommand,
};
use smallhands_benchmarks::{Program, Record, SuiteError, median, quixbugs, table, wilson};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// What came of one program.
struct Row {
    name: String,
    /// The reference passes and the buggy program fails, twice.
    valid: bool,
    why: String,
    fixed: bool,
    seconds: f64,
    /// What its tests alone take, on the reference.
    tests: f64,
    tokens: u64,
    run: String,
}

struct Bench<'a> {
    work: PathBuf,
    git: PathBuf,
    repos: Arc<RepoStore>,
    sandboxes: Arc<dyn SandboxBackend>,
    store: Arc<dyn StateStore>,
    models: Vec<Arc<dyn ChatModel>>,
    args: &'a BenchArgs,
    /// Whether pytest-timeout is there: it ends one test where we can end only the whole run.
    timeouts: OnceLock<bool>,
}

/// `smallhands bench quixbugs`.
pub(crate) async fn bench(dirs: &Dirs, out: Out, a: BenchArgs) -> Result<u8, CliError> {
    let input = |e: SuiteError| CliError::new(1, e.code(), e.to_string());
    let mut programs = quixbugs(&a.dir).map_err(input)?;
    if !a.only.is_empty() {
        for o in &a.only {
            if !programs.iter().any(|p| p.name == *o) {
                return Err(input(SuiteError::Unknown(o.clone())));
            }
        }
        programs.retain(|p| a.only.contains(&p.name));
    }
    programs.truncate(a.limit.unwrap_or(usize::MAX));
    let git = toolchain::find("git").ok_or_else(|| CliError::other("git is not on the PATH"))?;
    let mut models = Vec::new();
    for m in &a.model {
        let spec = run::model(dirs, out, m, a.offline).await?;
        models.push(standard::model(&spec, &crate::state::Environment)?);
    }
    let repos = standard::repos(&dirs.state, &git)?;
    let work = dirs.state.join(format!("bench-{}", std::process::id()));
    let b = Bench {
        work: work.clone(),
        git,
        sandboxes: standard::sandbox(&dirs.state, repos.clone())?,
        repos,
        store: standard::store(&dirs.state)?,
        models,
        args: &a,
        timeouts: OnceLock::new(),
    };
    let mut rows = Vec::new();
    for p in &programs {
        out.status(&format!("  {} ..", p.name));
        let row = b.program(p).await;
        drop(fs::remove_dir_all(&work));
        let row = row?;
        let verdict = match (row.valid, row.fixed) {
            (false, _) => format!("invalid: {}", row.why),
            (true, true) => "fixed".into(),
            (true, false) => "not fixed".into(),
        };
        out.say(&format!(
            "  {:<28} {:>7.1} s  {:>7} tokens  {verdict}",
            row.name, row.seconds, row.tokens
        ));
        rows.push(row);
    }
    report(out, &rows);
    Ok(0)
}

fn report(out: Out, rows: &[Row]) {
    let fixed: Vec<_> = rows.iter().filter(|r| r.fixed).collect();
    let seconds: Vec<_> = fixed.iter().map(|r| r.seconds).collect();
    let (low, high) = wilson(fixed.len() as u64, rows.len() as u64);
    let records = records(rows, &fixed, &seconds);
    if out.json {
        let each: Vec<_> = rows
            .iter()
            .map(|r| {
                json!({ "program": r.name, "valid": r.valid, "why": r.why, "fixed": r.fixed,
                        "seconds": r.seconds, "tests_seconds": r.tests, "tokens": r.tokens,
                        "run": r.run })
            })
            .collect();
        let all = json!({ "suite": "quixbugs", "attempted": rows.len(), "fixed": fixed.len(),
            "median_seconds": median(&seconds), "wilson_95": [low, high], "records": records,
            "rows": each });
        out.print(&format!("{all}\n"));
        return;
    }
    out.print(&format!(
        "{}quixbugs: {} of {} fixed (95 %: {low:.2} to {high:.2})\n",
        table(&records),
        fixed.len(),
        rows.len()
    ));
}

fn records(rows: &[Row], fixed: &[&Row], seconds: &[f64]) -> Vec<Record> {
    let (n, tests) = (rows.len(), fixed.iter().map(|r| r.tests));
    let count = [fixed.len() as f64];
    let mut records = vec![Record {
        n,
        ..Record::new("quixbugs/fixed", "tasks", &count, "attempted", n as f64).higher()
    }];
    // Of nothing there is no median.
    if let Some(limit) = median(&tests.collect::<Vec<_>>()) {
        let anchor = "the tests of the same programs alone";
        records.push(Record::new("quixbugs/fix", "s", seconds, anchor, limit));
    }
    records
}

impl Bench<'_> {
    fn command(&self, p: &Program, timeout: u64, more: &str) -> Result<TestCommand, CliError> {
        let each = self.timeouts.get() == Some(&true);
        let (limit, whole) = match each {
            true => (format!("--timeout={timeout}"), 600),
            false => (String::new(), timeout),
        };
        let line = format!("{} {limit} {more} {}", self.args.test, p.test());
        let c = TestCommand::parse(&line).map_err(|e| CliError::new(2, "usage", e.to_string()))?;
        Ok(c.timeout(Duration::from_secs(whole)))
    }

    /// Tries the option of pytest-timeout, once.
    async fn look_for_timeouts(&self, p: &Program, base: &str) -> Result<(), CliError> {
        if self.timeouts.get().is_some() {
            return Ok(());
        }
        let tests = self.command(p, 60, "")?;
        let call = self.call();
        let sandbox = self
            .sandboxes
            .open(&self.spec(base, &tests)?, &call)
            .await?;
        let more = ["--timeout=60", "--version"].map(str::to_owned);
        let argv = tests.argv.into_iter().chain(more);
        let tried = sandbox
            .exec(&Invocation::new(argv), &mut |_, _| {}, &call)
            .await?;
        sandbox.close().await?;
        self.timeouts.get_or_init(|| tried.ok());
        Ok(())
    }

    fn spec(&self, commit: &str, tests: &TestCommand) -> Result<SandboxSpec, CliError> {
        let tools = toolchain::of(&tests.argv, true);
        let mut read_only = tools.read_only;
        for p in &self.args.read_only {
            read_only.push(run::absolute(p)?);
        }
        let mut env = tools.env;
        env.extend(run::variables(&self.args.env)?);
        Ok(SandboxSpec {
            source: Some(RepoSource {
                commit: commit.into(),
            }),
            read_only,
            env,
            ..SandboxSpec::default()
        })
    }

    fn call(&self) -> CallCx {
        let ambient = Ambient {
            clock: Arc::new(SystemClock),
            blobs: self.store.blobs(),
            guard: Arc::new(NoGuard),
            secrets: Arc::new(NoSecrets),
        };
        CallCx::detached(ambient, CancelToken::new())
    }

    async fn program(&self, p: &Program) -> Result<Row, CliError> {
        let repo = self.work.join("task");
        let suite = |e: SuiteError| CliError::other(e.to_string());
        p.write(&repo).map_err(suite)?;
        run::commit_all(&self.git, &repo)?;
        let base = self.repos.import(&repo, None, Uncommitted::Exclude)?.commit;
        self.look_for_timeouts(p, &base).await?;
        let grade = self.command(p, 60, "--runslow")?;
        let mut row = Row {
            name: p.name.clone(),
            valid: true,
            why: String::new(),
            fixed: false,
            seconds: 0.0,
            tests: 0.0,
            tokens: 0,
            run: String::new(),
        };
        let reference = p.reference().map_err(suite)?;
        for _ in 0..2 {
            let begin = Instant::now();
            if !self.passes(&base, p, Some(&reference), &grade).await? {
                (row.valid, row.why) = (false, "the reference does not pass".into());
                return Ok(row);
            }
            row.tests = begin.elapsed().as_secs_f64();
        }
        let first = self.command(p, 60, "--runslow -x")?;
        for _ in 0..2 {
            if self.passes(&base, p, None, &first).await? {
                (row.valid, row.why) = (false, "the buggy program passes".into());
                return Ok(row);
            }
        }
        self.repair(p, &repo, &base, &mut row).await?;
        Ok(row)
    }

    /// Tests the base with another text of the program, if one is given.
    async fn passes(
        &self,
        base: &str,
        p: &Program,
        text: Option<&[u8]>,
        tests: &TestCommand,
    ) -> Result<bool, CliError> {
        let call = self.call();
        let sandbox = self.sandboxes.open(&self.spec(base, tests)?, &call).await?;
        if let Some(t) = text {
            sandbox.write(&p.source(), t).await?;
        }
        let r = tests
            .run(&*sandbox, &call)
            .await
            .map_err(|e| CliError::other(e.to_string()))?;
        sandbox.close().await?;
        if r.not_started || (!r.any() && !r.timed_out) {
            let why = format!(
                "the tests of {} cannot be run: {}",
                p.name,
                r.tail.lines().last().unwrap_or(&r.ended)
            );
            return Err(CliError::new(6, "tests.not_started", why).hint(
                "pytest must be visible in the sandbox: --test 'PYTHON -m pytest -q', or --read-only DIR --env PYTHONPATH=DIR",
            ));
        }
        Ok(r.ok)
    }

    async fn repair(
        &self,
        p: &Program,
        repo: &Path,
        base: &str,
        row: &mut Row,
    ) -> Result<(), CliError> {
        let tests = self.command(p, 5, "--maxfail=2")?;
        let branch = "repaired".to_owned();
        let target = Target::Branch {
            repo: repo.into(),
            branch: branch.clone(),
        };
        let mut builder = SmallHands::builder()
            .store(self.store.clone())
            .sandbox(self.sandboxes.clone())
            .delivery(standard::delivery(
                self.repos.clone(),
                base,
                target,
                "repair",
            ));
        for m in &self.models {
            builder = builder.model(m.clone());
        }
        let hands = builder.build()?;
        let mut spec = RepairSpec::new("make the tests pass", self.spec(base, &tests)?, tests);
        spec.rounds = self.args.rounds;
        spec.candidates = self.args.candidates;
        spec.seed = self.args.seed;
        let id = run::new_id();
        row.run = id.to_string();
        let begin = Instant::now();
        let handle = hands
            .repair(id, spec, json!(null), Budget::default())
            .await?;
        let done = handle.wait().await?;
        row.seconds = begin.elapsed().as_secs_f64();
        row.tokens = done.state.spent.tokens();
        if done.status != RunStatus::Succeeded {
            return Ok(());
        }
        // Nobody's word: the delivered file is graded on a copy of its own.
        let repaired = self
            .repos
            .import(repo, Some(&branch), Uncommitted::Exclude)?
            .commit;
        let text = self.repos.read_file(&repaired, &p.source())?;
        let grade = self.command(p, 60, "--runslow")?;
        row.fixed = self.passes(base, p, Some(&text), &grade).await?;
        Ok(())
    }
}
