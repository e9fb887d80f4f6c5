//! Everything that a developer runs: `cargo xtask demo | test | bench | torture | fuzz | ci | help`.

mod bench;
mod checks;
mod ci;
mod demo;
mod fuzz;
mod tools;
mod torture;

use std::{env, process::ExitCode};

const HELP: &str = "\
cargo xtask demo             repair the example repository with the local model, end to end
cargo xtask test [--slow]    set up what tests need and run all of them; --slow with the real model
cargo xtask examples         run every example, and every bench a few times
cargo xtask bench NAME       figures: spine, micro, graph, sandbox (--json: one object a line; graph: --full: the slow too;
                             --anchors: LangGraph too, got with pip)
cargo xtask torture NAME     faults and attacks: kill9, graph, lease, sandbox  (--json; kill9, graph: --kills N;
                             graph: --seed S, --durability power-loss; lease: --tries N)
cargo xtask fuzz [TARGET]    all that reads what others wrote, 60 seconds a target (--seconds N); takes a nightly compiler
cargo xtask check            the rules of the house: layers, crate counts, tidiness
cargo xtask advisories       known faults of the dependencies; gets a database from the network
cargo xtask ci [PART]        all of it, as CI does, with a table; or the stages named like PART
";

pub(crate) type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let value = |flag: &str| {
        let at = args.iter().position(|a| a == flag)?;
        args.get(at + 1).cloned()
    };
    let name = args.get(1).map_or("", String::as_str);
    let done = match args.first().map(String::as_str) {
        Some("demo") => demo::demo(has("--recorded")),
        Some("test") => ci::tests(has("--slow")),
        Some("examples") => ci::examples(),
        Some("bench") => {
            let flags = bench::Flags {
                json: has("--json"),
                full: has("--full"),
                anchors: has("--anchors"),
                quick: false,
            };
            bench::run(name, flags)
        }
        Some("torture") => {
            let number = |flag| value(flag).and_then(|n| n.parse::<u64>().ok());
            let torture = torture::Torture {
                kills: number("--kills").and_then(|n| n.try_into().ok()),
                tries: number("--tries").and_then(|n| n.try_into().ok()),
                seed: number("--seed").unwrap_or(1),
                durability: value("--durability").unwrap_or_default(),
                json: has("--json"),
            };
            torture::run(name, &torture)
        }
        Some("fuzz") => {
            let seconds = value("--seconds").map_or(Ok(60), |n| n.parse());
            let target = if name.starts_with('-') { "" } else { name };
            seconds
                .map_err(|_| "--seconds wants a number".to_owned())
                .and_then(|n| fuzz::fuzz(target, n))
        }
        Some("check") => checks::all(),
        Some("advisories") => ci::deny(&["advisories"]),
        Some("ci") => ci::all(name),
        None | Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => Err(format!("there is no `{other}`\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}
