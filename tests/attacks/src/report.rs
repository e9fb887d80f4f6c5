//! What came of it.

use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Got {
    /// The attack got what it wanted.
    Succeeded,
    /// And why.
    Refused(String),
    /// It did not get as far as trying.
    Broken(String),
}

/// The control of an attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    Good,
    Bad(String),
    /// Only root can show it: the pass as root did, or nobody.
    ByRoot,
}

/// One attack of one user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) user: String,
    pub(crate) class: String,
    pub(crate) name: String,
    pub(crate) control: Control,
    /// Missing: the limit or wall it is about cannot be had by this user, and is not promised.
    pub(crate) inside: Option<Got>,
    /// What it came to with walls taken away, by what was taken away.
    pub(crate) without: Vec<(String, Got)>,
}

pub(crate) struct Report {
    rows: Vec<Row>,
    leaked: usize,
    proven: BTreeMap<String, bool>,
}

impl Report {
    pub(crate) fn new(rows: Vec<Row>, leaked: usize) -> Self {
        let mut proven = BTreeMap::new();
        for r in &rows {
            *proven.entry(r.name.clone()).or_insert(false) |= r.control == Control::Good;
        }
        Self {
            rows,
            leaked,
            proven,
        }
    }

    fn count(&self, which: impl Fn(&Row) -> bool) -> usize {
        self.rows.iter().filter(|r| which(r)).count()
    }

    fn skipped(&self, r: &Row) -> bool {
        r.inside.is_none() || r.control == Control::ByRoot && !self.proven[&r.name]
    }

    fn control_failed(&self, r: &Row) -> bool {
        matches!(r.control, Control::Bad(_)) || matches!(r.inside, Some(Got::Broken(_)))
    }

    fn figures(&self) -> [(&'static str, usize); 6] {
        let refused = |r: &Row| matches!(r.inside, Some(Got::Refused(_)));
        [
            ("probes", self.rows.len()),
            ("blocked", self.count(refused)),
            ("escaped", self.count(|r| r.inside == Some(Got::Succeeded))),
            ("controls_failed", self.count(|r| self.control_failed(r))),
            ("leaked", self.leaked),
            ("skipped", self.count(|r| self.skipped(r))),
        ]
    }

    pub(crate) fn good(&self) -> bool {
        let bad = ["escaped", "controls_failed", "leaked"];
        let figures = self.figures();
        !figures.iter().any(|(name, n)| bad.contains(name) && *n > 0)
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            for r in &self.rows {
                println!("{}", json!(r));
            }
            for (name, value) in self.figures() {
                let better = if name == "probes" || name == "blocked" {
                    "higher"
                } else {
                    "lower"
                };
                println!(
                    "{}",
                    json!({ "name": format!("torture/sandbox/{name}"), "value": value, "unit": "probes", "better": better })
                );
            }
            return;
        }
        self.matrix();
        self.wrong();
        let figures = self.figures().map(|(name, n)| format!("{name}={n}"));
        println!("{}", figures.join(" "));
    }

    /// Each attack in a line: what stops it, and what lets it through when taken away.
    fn matrix(&self) {
        for r in &self.rows {
            let how = match &r.inside {
                None => "not promised to this user",
                Some(Got::Succeeded) => "SUCCEEDED",
                Some(Got::Refused(why)) => why,
                Some(Got::Broken(_)) => "broken",
            };
            let through: Vec<&str> = r
                .without
                .iter()
                .filter(|w| w.1 == Got::Succeeded)
                .map(|w| w.0.as_str())
                .collect();
            let through = match through.is_empty() {
                true => String::new(),
                false => format!("; gets through without: {}", through.join(", ")),
            };
            let how: String = how.lines().next().unwrap_or("").chars().take(60).collect();
            println!(
                "{:<12} {:<11} {:<30} {how}{through}",
                r.user, r.class, r.name
            );
        }
    }

    fn wrong(&self) {
        for r in &self.rows {
            if let Control::Bad(why) = &r.control {
                println!("CONTROL FAILED: {} as {}: {why}", r.name, r.user);
            }
            if let Some(Got::Broken(why)) = &r.inside {
                println!("BROKEN: {} as {}: {why}", r.name, r.user);
            }
            for (name, got) in &r.without {
                if let Got::Broken(why) = got {
                    println!("broken without {name}: {} as {}: {why}", r.name, r.user);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(user: &str, control: Control, inside: Option<Got>) -> Row {
        Row {
            user: user.into(),
            class: "c".into(),
            name: "n".into(),
            control,
            inside,
            without: vec![("a wall".into(), Got::Succeeded)],
        }
    }

    #[test]
    fn only_what_was_refused_and_proven_is_good() {
        let no = || Some(Got::Refused("no".into()));
        let good = vec![
            row("root", Control::Good, no()),
            row("user", Control::ByRoot, no()),
        ];
        let report = Report::new(good.clone(), 0);
        assert!(report.good());
        assert_eq!(report.figures().map(|f| f.1), [2, 2, 0, 0, 0, 0]);
        assert!(!Report::new(good, 1).good());
        for bad in [
            row("root", Control::Good, Some(Got::Succeeded)),
            row("root", Control::Good, Some(Got::Broken("b".into()))),
            row("root", Control::Bad("b".into()), no()),
        ] {
            assert!(!Report::new(vec![bad], 0).good());
        }
        // Nobody showed that it works outside.
        let alone = Report::new(vec![row("user", Control::ByRoot, no())], 0);
        assert_eq!(alone.figures()[5], ("skipped", 1));
    }
}
