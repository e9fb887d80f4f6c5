//! Arguments of the commands that look at runs, and of those that change them from outside.
use crate::units::{self, When};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(Args)]
pub(crate) struct RunsArgs {
    /// Show at most so many, the newest first.
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,
    /// Only runs of this status; may be given several times.
    #[arg(long, value_name = "STATUS", value_parser = STATUS)]
    pub(crate) status: Vec<String>,
    /// Only runs created since then: a date in UTC, or an age such as 12h or 30d.
    #[arg(long, value_name = "DATE|AGE", value_parser = units::when)]
    pub(crate) since: Option<When>,
    /// Only runs created until then; a date counts as the whole day.
    #[arg(long, value_name = "DATE|AGE", value_parser = units::when)]
    pub(crate) until: Option<When>,
    /// Only runs whose goal contains this, in upper or lower case.
    #[arg(long, value_name = "TEXT")]
    pub(crate) goal: Option<String>,
}

const STATUS: [&str; 6] = [
    "running",
    "paused",
    "waiting",
    "succeeded",
    "failed",
    "cancelled",
];

#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The run.
    pub(crate) run: String,
    /// Print the whole state as versioned JSON (smallhands.run-state).
    #[arg(long)]
    pub(crate) state: bool,
}

#[derive(Args)]
pub(crate) struct GraphArgs {
    /// The run; or a graph in a .yaml, .yml or .json file, which is checked.
    #[arg(value_name = "RUN|FILE")]
    pub(crate) of: String,
    /// How it is drawn [default: terminal on a terminal, else mermaid].
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One line a task, with colours on a terminal.
    Terminal,
    /// A Mermaid flowchart.
    Mermaid,
    /// The DOT language of Graphviz.
    Dot,
}

#[derive(Args)]
pub(crate) struct EventsArgs {
    /// The run.
    pub(crate) run: String,
    /// Only what follows this record.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    /// Go on until the run is over, whoever drives it.
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Args)]
pub(crate) struct AnswerArgs {
    /// The run.
    pub(crate) run: String,
    /// The task that asks.
    pub(crate) task: String,
    /// The question; smallhands show RUN names it.
    pub(crate) question: String,
    /// JSON, or else plain text.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// Take the value as text though it could be JSON.
    #[arg(long)]
    pub(crate) text: bool,
}

#[derive(Args)]
pub(crate) struct SettleArgs {
    /// The run.
    pub(crate) run: String,
    /// The task that failed with `outcome.unknown`.
    pub(crate) task: String,
    /// The step in doubt; smallhands show RUN --state names it.
    pub(crate) step: String,
    #[command(flatten)]
    pub(crate) outcome: OutcomeArgs,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OutcomeArgs {
    /// It happened, and gave this.
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) done: Option<String>,
    /// It did not happen, for this reason.
    #[arg(long, value_name = "TEXT")]
    pub(crate) failed: Option<String>,
}

#[derive(Args)]
pub(crate) struct ForkArgs {
    /// The run.
    pub(crate) run: String,
    /// Share its past up to this record [default: its last].
    #[arg(long, value_name = "N")]
    pub(crate) at: Option<u64>,
    /// Name of the new run [default: a new one].
    #[arg(long = "as", value_name = "ID")]
    pub(crate) as_id: Option<String>,
}

#[derive(Args)]
pub(crate) struct RerunArgs {
    /// The run.
    pub(crate) run: String,
    /// The first task to be done again; all that follows from it is as well.
    pub(crate) task: String,
    /// Name of the new run [default: a new one].
    #[arg(long = "as", value_name = "ID")]
    pub(crate) as_id: Option<String>,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The run.
    pub(crate) run: String,
    /// A file that does not exist yet.
    pub(crate) file: PathBuf,
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// An exported run.
    pub(crate) file: PathBuf,
    /// Name it so [default: as it was].
    #[arg(long = "as", value_name = "ID")]
    pub(crate) as_id: Option<String>,
}

#[derive(Args)]
pub(crate) struct DeleteArgs {
    /// The runs.
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<String>,
}

#[derive(Args)]
pub(crate) struct PruneArgs {
    /// Runs whose last record is older, such as 30d.
    #[arg(long, value_name = "AGE", value_parser = units::age, required_unless_present = "max_size")]
    pub(crate) older_than: Option<Duration>,
    /// The oldest runs, until the records of the rest take no more, such as 2G.
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(crate) max_size: Option<u64>,
    /// Also runs that could be resumed.
    #[arg(long)]
    pub(crate) unfinished: bool,
    /// Only tell what would go.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args)]
pub(crate) struct FsckArgs {
    /// Copy what can be read into a new journal in this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) salvage: Option<PathBuf>,
}
