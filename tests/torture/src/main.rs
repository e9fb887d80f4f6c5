//! `torture graph`, `torture lease` and, of itself, `torture live` and `torture claim`.

use serde_json::Value;
use smallhands_graph::Durability;
use smallhands_torture::{
    harness::Campaign,
    lease,
    live::{self, Life},
    many,
    plan::Shape,
    verdict::{self, Fork},
};
use std::{env, path::PathBuf, process::ExitCode, str::FromStr};

type Done = Result<(), String>;

const HELP: &str = "\
torture graph [--kills N] [--seed S] [--durability process-crash|power-loss] [--json]
              [--broken acks-early|forgets:N]
torture lease [--tries N] [--json]
torture judge --dir D --shape SHAPE:N [--fork R --at SEQ]
torture live --dir D --shape SHAPE:N [--run R] [--durability ..] [--broken ..]
             [--crash before|during|within|after|blob|placing|finished:N]
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

fn durability(args: &[String]) -> Result<Durability, String> {
    match value::<String>(args, "--durability")?.as_deref() {
        None | Some("process-crash") => Ok(Durability::ProcessCrash),
        Some("power-loss") => Ok(Durability::PowerLoss),
        Some(other) => Err(format!("`{other}` is not process-crash or power-loss")),
    }
}

fn block_on<T>(f: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let done = runtime.block_on(f);
    // A worker that was cancelled may still sleep; nothing waits for it.
    runtime.shutdown_background();
    done
}

/// Prints the figures, and fails if one is not zero.
fn told(args: &[String], line: String, json: &Value, faults: usize, notes: &[String]) -> Done {
    match args.iter().any(|a| a == "--json") {
        true => println!("{json}"),
        false => println!("{line}"),
    }
    match faults {
        0 => Ok(()),
        n => Err(format!("{n} faults\n{}", notes.join("\n"))),
    }
}

fn graph(args: &[String]) -> Done {
    let f = many::run(&Campaign {
        program: env::current_exe().map_err(|e| e.to_string())?,
        kills: value(args, "--kills")?.unwrap_or(300),
        seed: value(args, "--seed")?.unwrap_or(1),
        durability: durability(args)?,
        broken: value(args, "--broken")?,
    })?;
    told(args, f.to_string(), &f.to_json(), f.faults(), &f.notes)
}

fn race(args: &[String]) -> Done {
    let program = env::current_exe().map_err(|e| e.to_string())?;
    let r = lease::race(&program, value(args, "--tries")?.unwrap_or(1000))?;
    told(args, r.to_string(), &r.to_json(), r.faults(), &r.notes)
}

fn live_once(args: &[String]) -> Done {
    let life = Life {
        dir: needed(args, "--dir")?,
        run: value::<String>(args, "--run")?.map_or(live::RUN.into(), Into::into),
        shape: needed(args, "--shape")?,
        durability: durability(args)?,
        point: value(args, "--crash")?,
        broken: value(args, "--broken")?,
    };
    let [appends, placed, blobs] = block_on(live::live(&life))?;
    println!("{appends} {placed} {blobs}");
    Ok(())
}

/// Once more, of a directory that a campaign kept because of what was found.
fn judge(args: &[String]) -> Done {
    let (dir, shape): (PathBuf, Shape) = (needed(args, "--dir")?, needed(args, "--shape")?);
    let v = match value::<String>(args, "--fork")? {
        Some(run) => {
            let at = needed(args, "--at")?;
            block_on(verdict::judge_fork(&dir, shape, &Fork { run, at }))?
        }
        None => block_on(verdict::judge(&dir, shape))?,
    };
    println!("{v:#?}");
    Ok(())
}

fn run(args: &[String]) -> Done {
    match args.first().map(String::as_str) {
        Some("graph") => graph(args),
        Some("lease") => race(args),
        Some("judge") => judge(args),
        Some("live") => live_once(args),
        Some("claim") => {
            let (dir, owner): (PathBuf, String) =
                (needed(args, "--dir")?, needed(args, "--owner")?);
            block_on(lease::claim(&dir, &owner))
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
