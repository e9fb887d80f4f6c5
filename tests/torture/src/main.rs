//! `torture graph` and, of itself, `torture live`.

use smallhands_torture::{
    harness::{self, Campaign},
    live::{self, Life},
};
use std::{env, process::ExitCode, str::FromStr};

const HELP: &str = "\
torture graph [--kills N] [--seed S] [--json] [--broken acks-early|forgets:N]
torture live --dir D --shape SHAPE:N [--crash before|during|after|finished:N] [--broken ..]
";

fn value<T: FromStr>(args: &[String], flag: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    let Some(at) = args.iter().position(|a| a == flag) else {
        return Ok(None);
    };
    let v = args
        .get(at + 1)
        .ok_or_else(|| format!("{flag} needs a value"))?;
    v.parse().map(Some).map_err(|e| format!("{flag}: {e}"))
}

fn needed<T: FromStr>(args: &[String], flag: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    value(args, flag)?.ok_or_else(|| format!("{flag} is needed"))
}

fn run(args: &[String]) -> Result<(), String> {
    match args.first().map(String::as_str) {
        Some("graph") => {
            let figures = harness::run(&Campaign {
                program: env::current_exe().map_err(|e| e.to_string())?,
                kills: value(args, "--kills")?.unwrap_or(300),
                seed: value(args, "--seed")?.unwrap_or(1),
                broken: value(args, "--broken")?,
            })?;
            match args.iter().any(|a| a == "--json") {
                true => println!("{}", figures.to_json()),
                false => println!("{figures}"),
            }
            match figures.faults() {
                0 => Ok(()),
                n => Err(format!("{n} faults\n{}", figures.notes.join("\n"))),
            }
        }
        Some("live") => {
            let life = Life {
                dir: needed(args, "--dir")?,
                shape: needed(args, "--shape")?,
                point: value(args, "--crash")?,
                broken: value(args, "--broken")?,
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(|e| e.to_string())?;
            let appends = runtime.block_on(live::live(&life))?;
            println!("{appends}");
            // A worker that was cancelled may still sleep; nothing waits for it.
            runtime.shutdown_background();
            Ok(())
        }
        _ => Err(HELP.into()),
    }
}

fn main() -> ExitCode {
    smallhands_exec::init(|blobs| Ok(live::parts(blobs)));
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("torture: {e}");
            ExitCode::FAILURE
        }
    }
}
