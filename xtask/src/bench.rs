use crate::{
    Result,
    tools::{
        self, Temp, cargo, demo_repository, langgraph, output, pytest, repair_args, root,
        smallhands,
    },
};
use serde_json::Value;
use smallhands_benchmarks::{Record, lines, median, table};
use std::{process::Command, time::Instant};

/// What is asked of a bench.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    /// One object a line.
    pub(crate) json: bool,
    /// With what takes minutes.
    pub(crate) full: bool,
    /// Beside LangGraph, which pip gets.
    pub(crate) anchors: bool,
    /// Few rounds of an unoptimised build, to see that all of them work.
    pub(crate) quick: bool,
}

pub(crate) fn run(name: &str, flags: Flags) -> Result {
    match name {
        "spine" => spine(flags.json),
        "micro" => micro(flags),
        "graph" => graph(flags),
        "sandbox" => sandbox(flags),
        _ => Err("there are: bench spine | micro | graph | sandbox".into()),
    }
}

/// `graph`: the engine beside what its journal alone would cost, and beside LangGraph if asked.
pub(crate) fn graph(flags: Flags) -> Result {
    let python = flags.anchors.then(langgraph).transpose()?;
    let mut c = layer("smallhands-bench-graph", flags);
    c.args(flags.full.then_some("--full"));
    if let Some(python) = python {
        c.arg("--anchors").arg(python);
    }
    tools::run(&mut c)
}

/// `sandbox`: sandboxes beside bubblewrap, which is looked for and else got.
pub(crate) fn sandbox(flags: Flags) -> Result {
    // For figures, before whatever else the machine does; not everybody may ask for that.
    let first = ["--config", "target.'cfg(all())'.runner=['chrt', '-r', '5']"];
    let may = !flags.quick && tools::works("chrt", &["-r", "5", "true"]);
    let options = if may { &first[..] } else { &[] };
    let mut c = layer_with(options, "smallhands-bench-sandbox", flags);
    match tools::bubblewrap(!flags.quick) {
        Ok(program) => drop(c.arg("--bwrap").arg(program)),
        Err(why) => eprintln!("without bubblewrap: {why}"),
    }
    tools::run(&mut c)
}

/// `micro`: each layer beside its raw limit.
pub(crate) fn micro(flags: Flags) -> Result {
    tools::run(&mut layer("smallhands-benches", flags))
}

fn layer(package: &str, flags: Flags) -> Command {
    layer_with(&[], package, flags)
}

fn layer_with(options: &[&str], package: &str, flags: Flags) -> Command {
    let mut c = cargo(options);
    c.args(["bench", "--quiet", "-p", package]);
    if flags.quick {
        c.args(["--profile", "dev"]);
    }
    c.arg("--").args(flags.quick.then_some("--quick"));
    c.args(flags.json.then_some("--json"));
    c
}

/// `spine`: how long our own machinery takes around a repair whose model answers at once, beside
/// the raw limit: the same test runs without us.
fn spine(json: bool) -> Result {
    let (pytest, program) = (pytest()?, smallhands(false)?);
    let tmp = Temp::new("bench")?;
    let repo = tmp.0.join("textkit");
    demo_repository(&repo)?;
    let answers = format!(
        "recorded:{}",
        root().join("examples/demo-recorded.json").display()
    );
    let (mut first, mut green, mut peak, mut raw) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for i in 0..5 {
        let begin = Instant::now();
        let mut tests = Command::new("python3");
        tests
            .current_dir(&repo)
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
            .env("PYTHONPATH", &pytest);
        // They fail: that is what the repository is for.
        tests
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .map_err(|e| e.to_string())?;
        raw.push(begin.elapsed().as_secs_f64());
        let mut c = Command::new("python3");
        c.args(["-c", PEAK])
            .arg(&program)
            .args(repair_args(&repo, &pytest));
        c.args([
            "--model",
            &answers,
            "--json",
            "--branch",
            &format!("repaired-{i}"),
        ]);
        c.arg("--state-dir").arg(tmp.0.join(format!("state-{i}")));
        let text = output(&mut c)?;
        let (report, figures) = text.trim().rsplit_once('\n').ok_or("no report")?;
        let report: Value = serde_json::from_str(report).map_err(|e| e.to_string())?;
        let figures: Value = serde_json::from_str(figures).map_err(|e| e.to_string())?;
        let created = report["created"].as_f64().unwrap_or(0.0);
        let propose = report["tasks"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|t| t["id"] == "propose/1");
        first
            .push(propose.map_or(0.0, |t| t["started"].as_f64().unwrap_or(0.0) - created) / 1000.0);
        green.push(figures["wall"].as_f64().unwrap_or(0.0));
        peak.push(figures["peak_mb"].as_f64().unwrap_or(0.0));
    }
    let raw = median(&raw).unwrap_or(0.0);
    // A repair of two bugs runs the tests four times: before, each candidate, after.
    let (one, four) = ("one bare run of the tests", "four bare runs of the tests");
    let aim = "25 MB, the aim for the engine";
    print(
        &[
            Record::new("spine/first_model_call", "s", &first, one, raw),
            Record::new("spine/green", "s", &green, four, raw * 4.0),
            Record::new("spine/peak_memory", "MB", &peak, aim, 25.0),
        ],
        json,
    )
}

fn print(records: &[Record], json: bool) -> Result {
    print!("{}", if json { lines(records) } else { table(records) });
    Ok(())
}

/// Runs a command and prints its wall time and the peak memory of its largest process.
const PEAK: &str = "\
import json,resource,subprocess,sys,time
t=time.time(); p=subprocess.run(sys.argv[1:],stdout=subprocess.PIPE,stderr=subprocess.PIPE); w=time.time()-t
if p.returncode: sys.stderr.write(p.stderr.decode()); sys.exit(p.returncode)
print(p.stdout.decode().strip()); print(json.dumps({'wall':w,'peak_mb':resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1024}))
";
