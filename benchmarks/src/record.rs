use serde::Serialize;

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
