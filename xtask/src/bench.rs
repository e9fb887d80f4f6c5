use crate::{
    Result,
    tools::{Temp, demo_repository, output, pytest, repair_args, root, smallhands},
};
use serde_json::{Value, json};
use std::{process::Command, time::Instant};

/// One figure, as people and machines read it.
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    better: &'static str,
    anchor: &'static str,
    anchor_value: f64,
    n: usize,
    spread: f64,
}

/// `spine`: how long our own machinery takes around a repair whose model answers at once, beside
/// the raw limit: the same test runs without us.
pub(crate) fn run(name: &str, json: bool) -> Result {
    if name != "spine" {
        return Err("there is: bench spine".into());
    }
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
    let (raw_one, _) = middle(&mut raw);
    // A repair of two bugs runs the tests four times: before, each candidate, after.
    let anchors = [
        "one bare run of the tests",
        "four bare runs of the tests",
        "25 MB, the aim for the engine",
    ];
    let mut figures = Vec::new();
    for (name, unit, mut values, anchor, anchor_value) in [
        ("spine/first_model_call", "s", first, anchors[0], raw_one),
        ("spine/green", "s", green, anchors[1], raw_one * 4.0),
        ("spine/peak_memory", "MB", peak, anchors[2], 25.0),
    ] {
        let (value, spread) = middle(&mut values);
        figures.push(Figure {
            name,
            value,
            unit,
            better: "lower",
            anchor,
            anchor_value,
            n: values.len(),
            spread,
        });
    }
    print(&figures, json)
}

/// Runs a command and prints its wall time and the peak memory of its largest process.
const PEAK: &str = "\
import json,resource,subprocess,sys,time
t=time.time(); p=subprocess.run(sys.argv[1:],stdout=subprocess.PIPE,stderr=subprocess.PIPE); w=time.time()-t
if p.returncode: sys.stderr.write(p.stderr.decode()); sys.exit(p.returncode)
print(p.stdout.decode().strip()); print(json.dumps({'wall':w,'peak_mb':resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1024}))
";

/// Median, and the distance from least to greatest.
fn middle(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let spread = values
        .last()
        .zip(values.first())
        .map_or(0.0, |(b, a)| b - a);
    (values.get(values.len() / 2).copied().unwrap_or(0.0), spread)
}

fn print(figures: &[Figure], json: bool) -> Result {
    let commit =
        output(
            Command::new("git")
                .current_dir(root())
                .args(["rev-parse", "--short", "HEAD"]),
        )?;
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = machine
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let machine = format!("{} x{cores}", cpu.trim_start_matches(['\t', ' ', ':']));
    if !json {
        println!(
            "{:<26} {:>9} {:<3} {:>9} {:>7}  anchor",
            "figure", "value", "", "anchor", "ratio"
        );
    }
    for f in figures {
        let ratio = f.value / f.anchor_value;
        if json {
            let line = json!({
                "name": f.name, "value": f.value, "unit": f.unit, "better": f.better, "anchor": f.anchor,
                "anchor_value": f.anchor_value, "ratio": ratio, "n": f.n, "spread": f.spread,
                "commit": commit.trim(), "machine": machine,
            });
            println!("{line}");
        } else {
            println!(
                "{:<26} {:>9.3} {:<3} {:>9.3} {ratio:>7.2}  {} (n={}, spread {:.3})",
                f.name, f.value, f.unit, f.anchor_value, f.anchor, f.n, f.spread
            );
        }
    }
    Ok(())
}
