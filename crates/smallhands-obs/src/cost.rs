use serde::Serialize;
use smallhands_core::Usage;
use std::{collections::BTreeMap, fmt};

/// What was spent, by whatever name the caller groups it (task, model), and in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CostSummary {
    /// By name.
    pub rows: BTreeMap<String, Usage>,
    /// In all.
    pub total: Usage,
}

impl CostSummary {
    /// Adds a charge.
    pub fn add(&mut self, name: &str, usage: Usage) {
        let row = self.rows.entry(name.into()).or_default();
        *row = row.plus(usage);
        self.total = self.total.plus(usage);
    }
}

impl fmt::Display for CostSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .rows
            .keys()
            .map(|k| k.chars().count())
            .max()
            .unwrap_or(0)
            .max(5);
        let mut line = |name: &str, u: &Usage| {
            let cost = match u.micro_usd {
                Some(m) => format!("${}.{:06}", m / 1_000_000, m % 1_000_000),
                None => "unknown".into(),
            };
            writeln!(
                f,
                "{name:<width$}  {:>5} calls  {:>8} in  {:>8} out  {:>8.1} s  {cost:>12}",
                u.calls,
                u.input_tokens,
                u.output_tokens,
                u.millis as f64 / 1000.0
            )
        };
        for (name, u) in &self.rows {
            line(name, u)?;
        }
        line("total", &self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_price_shows_in_the_sum() {
        let mut s = CostSummary::default();
        let u = |m| Usage {
            micro_usd: m,
            calls: 1,
            ..Usage::default()
        };
        s.add("a", u(Some(5)));
        s.add("a", u(Some(7)));
        assert_eq!(s.rows["a"].micro_usd, Some(12));
        s.add("b", u(None));
        assert_eq!((s.total.micro_usd, s.total.calls), (None, 3));
        let text = s.to_string();
        assert!(
            text.contains("$0.000012") && text.lines().last().unwrap().ends_with("unknown"),
            "{text}"
        );
    }
}
