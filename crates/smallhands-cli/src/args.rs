use crate::args_runs::{
    AnswerArgs, DeleteArgs, EventsArgs, ExportArgs, ForkArgs, FsckArgs, GraphArgs, ImportArgs,
    PruneArgs, RerunArgs, RunsArgs, SettleArgs, ShowArgs,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Repairs code with small models: planned, sandboxed, judged by tests, resumable.
#[derive(Parser)]
#[command(name = "smallhands", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Print JSON for machines.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where runs are kept [default: $SMALLHANDS_STATE, else the user's state directory].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where models are kept [default: $SMALLHANDS_CACHE, else the user's cache directory].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 no change made the tests pass, or another failure; 2 wrong usage;
3 not a repository; 4 no tests found; 5 tests green already; 6 test command missing;
7 unknown run, task, question or step; 8 unknown model; 9 no model and no network;
10 checksum mismatch; 11 disk full; 12 no sandbox here; 13 driven by another process;
14 budget exhausted; 15 key missing or refused; 16 a graph that is not valid;
17 not a whole exported run; 18 the name is taken; 130 stopped by Ctrl-C (resume it).";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make the failing tests of a repository pass; the result is a new branch or a patch file.
    Run(Box<RunArgs>),
    /// Take a run up where it was stopped or killed.
    Resume(ResumeArgs),
    /// List runs.
    Runs(RunsArgs),
    /// Show a run: tasks, times, costs, result.
    Show(ShowArgs),
    /// Draw the graph of a run, or check and draw one in a file.
    Graph(GraphArgs),
    /// Print what happened in a run, one line an event.
    Events(EventsArgs),
    /// Answer a question of a run.
    Answer(AnswerArgs),
    /// Say what became of a step that nobody knows the outcome of.
    Settle(SettleArgs),
    /// Make a new run that shares the past of another.
    Fork(ForkArgs),
    /// Make a new run in which a task, and all that follows from it, is done again.
    Rerun(RerunArgs),
    /// End a run for good.
    ///
    /// A run that is being driven cannot be reached from here: Ctrl-C stops it where it was
    /// started, then it can be cancelled or resumed.
    Cancel(OneRun),
    /// Write a run to one file.
    Export(ExportArgs),
    /// Read a run from such a file; it can be resumed.
    Import(ImportArgs),
    /// Delete runs.
    Delete(DeleteArgs),
    /// Delete runs that are over, by age or size, and blobs that no run needs.
    Prune(PruneArgs),
    /// Look for damage in the journal of runs; changes nothing.
    Fsck(FsckArgs),
    /// Measure how much a suite's programs are repaired.
    Bench(Box<BenchArgs>),
    /// Tell what works on this machine, and why not.
    Doctor(DoctorArgs),
    /// Get a local model into the cache, or tell where it is.
    Model(ModelArgs),
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// What to do, in your words.
    #[arg(default_value = "make the tests pass")]
    pub(crate) goal: String,
    /// The repository.
    #[arg(long, default_value = ".")]
    pub(crate) repo: PathBuf,
    /// The command that runs the tests. There is no shell; quotes group words.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) test: String,
    /// `local`, `local-small`, `local:FILE.gguf`, `openai:NAME`, `anthropic:NAME`, `URL=NAME` of
    /// an OpenAI-compatible server, or `recorded:FILE`. Several form a cascade, the weakest first.
    #[arg(long, value_name = "MODEL", default_value = "local")]
    pub(crate) model: Vec<String>,
    /// What of the working tree that is not committed belongs to the base.
    #[arg(long, value_enum, default_value = "tracked")]
    pub(crate) uncommitted: UncommittedArg,
    /// Start from this commit instead of the one that is checked out.
    #[arg(long, value_name = "COMMIT")]
    pub(crate) rev: Option<String>,
    /// Name of the new branch [default: smallhands/RUN].
    #[arg(long, conflicts_with = "patch")]
    pub(crate) branch: Option<String>,
    /// Write a patch file instead of a branch.
    #[arg(long, value_name = "FILE")]
    pub(crate) patch: Option<PathBuf>,
    /// Candidates that the model draws in each round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) candidates: u32,
    /// Rounds before it gives up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds that one run of the tests may take.
    #[arg(long, default_value_t = 300)]
    pub(crate) test_timeout: u64,
    /// Makes the model's sampling repeatable.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Most tokens to spend.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u64>,
    /// Most US dollars to spend; refuses models of unknown price.
    #[arg(long, value_name = "USD")]
    pub(crate) max_cost: Option<f64>,
    /// Show this directory of the host in the sandbox, read-only; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) read_only: Vec<PathBuf>,
    /// Set a variable for the tests, as NAME=VALUE; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Let the tests reach this host over the network, as HOST:PORT or *.SUFFIX:PORT; may be given
    /// several times. Without it they reach nothing.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) allow_host: Vec<String>,
    /// Do not use the network to get a model.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Let the model plan freely instead of filling in the recipe.
    #[arg(long)]
    pub(crate) free_plan: bool,
    /// Run tasks in so many worker processes; 0 is this process.
    #[arg(long, default_value_t = 0)]
    pub(crate) processes: usize,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum UncommittedArg {
    /// Changes of files that git tracks.
    Tracked,
    /// These, and files that git neither tracks nor ignores.
    All,
    /// Nothing: the commit as it is.
    None,
}

#[derive(Args)]
pub(crate) struct ResumeArgs {
    /// The run.
    pub(crate) run: String,
    /// Give each failed task one more attempt.
    #[arg(long)]
    pub(crate) retry_failed: bool,
    /// Take the run from a process that drives it, hangs and cannot be ended.
    ///
    /// That process can write nothing more to the run, but what it has started may still be at work:
    /// end it instead where you can, which frees the run at once. Of a run that nobody drives nothing
    /// is taken.
    #[arg(long)]
    pub(crate) take_over: bool,
}

#[derive(Args)]
pub(crate) struct OneRun {
    /// The run.
    pub(crate) run: String,
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Only the sandbox.
    #[arg(long)]
    pub(crate) sandbox: bool,
}

#[derive(Args)]
pub(crate) struct ModelArgs {
    /// `local` or `local-small`.
    #[arg(default_value = "local")]
    pub(crate) model: String,
    /// Do not use the network.
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// The suite.
    #[arg(value_parser = ["quixbugs"])]
    pub(crate) suite: String,
    /// A checkout of the suite.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Only these programs, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only the first so many, in alphabetical order.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// As for `run`.
    #[arg(long, value_name = "MODEL", default_value = "local")]
    pub(crate) model: Vec<String>,
    /// How pytest is run; with pytest-timeout, a limit holds for each test, else for all.
    #[arg(long, value_name = "COMMAND", default_value = "python3 -m pytest -q")]
    pub(crate) test: String,
    /// Candidates that the model draws in each round.
    #[arg(long, default_value_t = 4)]
    pub(crate) candidates: u32,
    /// Rounds before it gives up on a program.
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: u32,
    /// Makes the model's sampling repeatable.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// As for `run`.
    #[arg(long, value_name = "DIR")]
    pub(crate) read_only: Vec<PathBuf>,
    /// As for `run`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Do not use the network to get a model.
    #[arg(long)]
    pub(crate) offline: bool,
}
