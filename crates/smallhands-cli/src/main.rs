//! The `smallhands` program.

mod args;
mod args_runs;
mod bench;
mod control;
mod doctor;
mod error;
mod events;
mod keep;
mod list;
mod models;
mod picture;
mod progress;
mod reached;
mod run;
mod show;
mod state;
mod toolchain;
mod units;

use args::{Cli, Command};
use clap::Parser;
use error::CliError;
use smallhands::{
    core::{Ambient, Failure},
    exec::WorkerParts,
    graph::SystemClock,
    obs::SecretGuard,
};
use std::{io::Write, process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    smallhands::init(|blobs| {
        Ok::<_, Failure>(WorkerParts {
            source: Arc::new(smallhands::standard::StandardWorkers),
            ambient: Ambient {
                clock: Arc::new(SystemClock),
                blobs,
                guard: Arc::new(SecretGuard::new(state::secrets())),
                secrets: Arc::new(state::Environment),
            },
        })
    });
    let cli = Cli::parse();
    let json = cli.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(r) => r,
        Err(e) => {
            return fail(
                &CliError::other(format!("the runtime cannot start: {e}")),
                json,
            );
        }
    };
    let done = runtime.block_on(dispatch(cli));
    // What a stopped run left behind must not keep the program alive.
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(e) => fail(&e, json),
    }
}

async fn dispatch(cli: Cli) -> Result<u8, CliError> {
    let dirs = state::Dirs::new(cli.state_dir.clone(), cli.cache_dir.clone())?;
    let out = progress::Out::new(cli.json);
    match cli.command {
        Command::Run(a) => run::run(&dirs, out, *a).await,
        Command::Resume(a) => run::resume(&dirs, out, a).await,
        Command::Runs(a) => list::runs(&dirs, out, &a).await,
        Command::Show(a) => show::show(&dirs, out, &a).await,
        Command::Graph(a) => picture::graph(&dirs, out, &a).await,
        Command::Events(a) => events::events(&dirs, out, &a).await,
        Command::Answer(a) => control::answer(&dirs, out, &a).await,
        Command::Settle(a) => control::settle(&dirs, out, &a).await,
        Command::Fork(a) => control::fork(&dirs, out, &a).await,
        Command::Rerun(a) => control::rerun(&dirs, out, &a).await,
        Command::Cancel(a) => control::cancel(&dirs, out, &a.run).await,
        Command::Export(a) => keep::export(&dirs, out, &a).await,
        Command::Import(a) => keep::import(&dirs, out, &a).await,
        Command::Delete(a) => keep::delete(&dirs, out, &a).await,
        Command::Prune(a) => keep::prune(&dirs, out, &a).await,
        Command::Fsck(a) => keep::fsck(&dirs, out, &a).await,
        Command::Bench(a) => bench::bench(&dirs, out, *a).await,
        Command::Doctor(a) => doctor::doctor(&dirs, out, a.sandbox).await,
        Command::Model(a) => models::command(&dirs, out, &a).await,
    }
}

fn fail(e: &CliError, json: bool) -> ExitCode {
    let text = if json {
        format!("{}\n", e.json())
    } else {
        format!("{e}\n")
    };
    // With nobody to read it, the exit code still tells.
    let _ = if json {
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::io::stderr().write_all(text.as_bytes())
    };
    ExitCode::from(e.exit)
}
