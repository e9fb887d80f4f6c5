use crate::median;
use serde::Serialize;
use std::{fs, thread};

/// One figure, as every benchmark of the project prints it: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// `suite/figure`.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// `higher` or `lower`.
    pub better: String,
    /// What it is compared with.
    pub anchor: String,
    /// The anchor's figure, of the same run where there is one.
    pub anchor_value: f64,
    /// `value / anchor_value`.
    pub ratio: f64,
    /// How many measurements.
    pub n: usize,
    /// Distance from least to greatest.
    pub spread: f64,
    /// The commit that was measured.
    pub commit: String,
    /// The machine.
    pub machine: String,
}

impl Record {
    /// The median of some measurements beside its anchor, lower being better; of this commit, on
    /// this machine.
    pub fn new(name: &str, unit: &str, values: &[f64], anchor: &str, anchor_value: f64) -> Self {
        let value = median(values).unwrap_or(0.0);
        let least = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let most = values.iter().copied().reduce(f64::max).unwrap_or(0.0);
        Self {
            name: name.into(),
            value,
            unit: unit.into(),
            better: "lower".into(),
            anchor: anchor.into(),
            anchor_value,
            ratio: value / anchor_value,
            n: values.len(),
            spread: most - least,
            commit: env!("SMALLHANDS_COMMIT").into(),
            machine: machine(),
        }
    }
    /// Higher is better.
    #[must_use]
    pub fn higher(mut self) -> Self {
        self.better = "higher".into();
        self
    }
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name"));
    let model = model.map_or("unknown", |m| m.trim_start_matches(['\t', ' ', ':']));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!("{model} x{cores}")
}

/// Records for machines: one JSON object a line.
pub fn lines(records: &[Record]) -> String {
    let lines = records.iter().filter_map(|r| serde_json::to_string(r).ok());
    lines.map(|l| l + "\n").collect()
}

/// Records for people.
pub fn table(records: &[Record]) -> String {
    let width = records
        .iter()
        .map(|r| r.name.len())
        .max()
        .unwrap_or(6)
        .max(6);
    let mut text = format!(
        "{:<width$} {:>9} {:<7} {:>9} {:>7}  anchor\n",
        "figure", "value", "", "anchor", "ratio"
    );
    for r in records {
        text += &format!(
            "{:<width$} {:>9.3} {:<7} {:>9.3} {:>7.2}  {} (n={}, spread {:.3})\n",
            r.name, r.value, r.unit, r.anchor_value, r.ratio, r.anchor, r.n, r.spread
        );
    }
    text
}
