use crate::{Tool, ToolCx, ToolError, parse};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallhands_core::{CallCx, Effect, async_trait};
use smallhands_sandbox::{EgressRecord, Ended, Invocation, Sandbox};
use std::time::Duration;

/// Who prints the results, and so how they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Runner {
    /// pytest.
    Pytest,
    /// `cargo test`.
    CargoTest,
    /// Anything else: only its exit code says something.
    Generic,
}

/// How the tests of a repository are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// How its output is read.
    pub runner: Runner,
    /// Wall time after which the tests count as failed.
    pub timeout: Duration,
}

impl TestCommand {
    /// From one line as a person writes it (`pytest -q`). Quotes group words; there is no shell.
    ///
    /// # Errors
    /// An empty line, or a quote that does not end.
    pub fn parse(line: &str) -> Result<Self, ToolError> {
        let argv = shell_words::split(line)
            .map_err(|e| ToolError::input(format!("the test command cannot be read: {e}")))?;
        if argv.is_empty() {
            return Err(ToolError::input(
                "the test command is empty; try --test 'pytest -q'",
            ));
        }
        let base = |s: &str| s.rsplit('/').next().unwrap_or(s).to_owned();
        let word = |s: &str| argv.iter().any(|a| base(a) == s);
        let runner = match base(&argv[0]).as_str() {
            "pytest" | "py.test" => Runner::Pytest,
            p if p.starts_with("python") && word("pytest") => Runner::Pytest,
            "cargo" if word("test") => Runner::CargoTest,
            _ => Runner::Generic,
        };
        Ok(Self {
            argv,
            runner,
            timeout: Duration::from_secs(600),
        })
    }
    /// Sets the time-out.
    #[must_use]
    pub fn timeout(mut self, d: Duration) -> Self {
        self.timeout = d;
        self
    }

    /// Runs them in a sandbox.
    ///
    /// # Errors
    /// The sandbox failed. Failing tests, a time-out and a missing program are reports.
    pub async fn run(&self, files: &dyn Sandbox, cx: &CallCx) -> Result<TestReport, ToolError> {
        let mut argv = self.argv.clone();
        if self.runner == Runner::Pytest {
            argv.extend(
                [
                    "-rA",
                    "--tb=short",
                    "-l",
                    "--color=no",
                    "-p",
                    "no:cacheprovider",
                ]
                .map(str::to_owned),
            );
        }
        let invocation = Invocation {
            max_output: 2 << 20,
            ..Invocation::new(argv).deadline(self.timeout)
        };
        let done = files.exec(&invocation, &mut |_, _| {}, cx).await?;
        Ok(parse::report(self, &done))
    }
}

/// One test that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestFailure {
    /// As its runner names it.
    pub id: String,
    /// In one line.
    pub message: String,
    /// Traceback or output.
    pub details: String,
}

/// What the tests said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TestReport {
    /// Who ran them.
    pub runner: Runner,
    /// At least one ran, none failed, and the runner was content.
    pub ok: bool,
    /// Tests that passed.
    pub passed: Vec<String>,
    /// Tests that failed or broke.
    pub failed: Vec<TestFailure>,
    /// Tests that were skipped.
    pub skipped: u64,
    /// How the runner ended: `exit 0`, `signal 9`, `timed out`, `not started: ..`.
    pub ended: String,
    /// Whether the program could not even be started.
    pub not_started: bool,
    /// Whether the time was up.
    pub timed_out: bool,
    /// Wall time in milliseconds.
    pub millis: u64,
    /// The end of what it printed.
    pub tail: String,
    /// Connections out of the sandbox that it asked for, the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub egress: Vec<EgressRecord>,
    /// How many more there were.
    #[serde(default, skip_serializing_if = "none")]
    pub egress_cut: u64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn none(n: &u64) -> bool {
    *n == 0
}

impl TestReport {
    /// Whether any test ran. A generic runner counts as one test.
    pub fn any(&self) -> bool {
        !self.passed.is_empty() || !self.failed.is_empty()
    }
    /// In one line.
    pub fn summary(&self) -> String {
        let mut s = format!("{} passed, {} failed", self.passed.len(), self.failed.len());
        if self.skipped > 0 {
            s.push_str(&format!(", {} skipped", self.skipped));
        }
        if self.timed_out || self.not_started {
            s.push_str(&format!(" ({})", self.ended));
        }
        s
    }
    /// The failures with their details, up to so many bytes.
    pub fn feedback(&self, most: usize) -> String {
        let mut text = String::new();
        for f in &self.failed {
            let part = format!("{}: {}\n{}\n", f.id, f.message, f.details.trim_end());
            if text.len() + part.len() > most {
                let room = most.saturating_sub(text.len());
                text.push_str(&part[..part.floor_char_boundary(room)]);
                text.push_str("\n.. (cut)\n");
                break;
            }
            text.push_str(&part);
        }
        if text.is_empty() {
            let from = self
                .tail
                .ceil_char_boundary(self.tail.len().saturating_sub(most));
            text.push_str(&self.tail[from..]);
        }
        text
    }
}

/// Runs the tests of the repository.
#[derive(Clone, Debug)]
pub struct RunTests(TestCommand);

impl RunTests {
    /// With this command.
    pub fn new(command: TestCommand) -> Self {
        Self(command)
    }
}

/// Arguments of `run_tests`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct RunTestsInput {
    /// More arguments for the runner, such as the name of a test.
    #[serde(default)]
    pub args: Vec<String>,
}

#[async_trait]
impl Tool for RunTests {
    type Input = RunTestsInput;
    type Output = TestReport;
    fn name(&self) -> &'static str {
        "run_tests"
    }
    fn about(&self) -> &'static str {
        "Runs the tests of the repository and tells which pass and which fail, and why."
    }
    fn effect(&self) -> Effect {
        Effect::Workspace
    }
    async fn call(&self, i: RunTestsInput, cx: ToolCx<'_>) -> Result<TestReport, ToolError> {
        let mut command = self.0.clone();
        command.argv.extend(i.args);
        command.run(cx.files()?, cx.call).await
    }
    fn is_ok(&self, r: &TestReport) -> bool {
        r.ok
    }
    fn model_view(&self, r: &TestReport) -> String {
        format!("{}\n{}", r.summary(), r.feedback(4000))
    }
}

pub(crate) fn ended(e: &Ended) -> String {
    match e {
        Ended::Exited(n) => format!("exit {n}"),
        Ended::Signaled(n) => format!("signal {n}"),
        Ended::TimedOut => "timed out".into(),
        Ended::NotStarted(why) => format!("not started: {why}"),
        other => format!("{other:?}"),
    }
}
