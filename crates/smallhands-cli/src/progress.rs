use crate::reached;
use smallhands::{
    core::{Halt, Notice, Outcome, Timestamp},
    graph::{Event, Update, Updates},
};
use std::{
    collections::{HashMap, HashSet},
    io::{IsTerminal, Write},
};

/// Where output goes, and how it looks.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) json: bool,
    colour: bool,
    live: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some();
        Self {
            json,
            colour: std::io::stdout().is_terminal() && !json && !plain,
            live: std::io::stderr().is_terminal() && !json,
        }
    }
    /// Results.
    pub(crate) fn print(self, text: &str) {
        // A reader that went away has seen enough.
        let _ = self.try_print(text);
    }
    /// Whether somebody still reads.
    pub(crate) fn try_print(self, text: &str) -> bool {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .is_ok()
    }
    /// Whether results go to a terminal.
    pub(crate) fn terminal(self) -> bool {
        std::io::stdout().is_terminal() && !self.json
    }
    pub(crate) fn colour(self) -> bool {
        self.colour
    }
    /// The columns of the terminal, or 80.
    pub(crate) fn width(self) -> usize {
        terminal_size::terminal_size().map_or(80, |(w, _)| usize::from(w.0))
    }
    /// What happens meanwhile.
    pub(crate) fn say(self, line: &str) {
        if !self.json {
            let clear = if self.live { "\r\x1b[K" } else { "" };
            let _ = writeln!(std::io::stderr(), "{clear}{line}");
        }
    }
    /// A line that the next one replaces; only on a terminal.
    pub(crate) fn status(self, line: &str) {
        if self.live {
            let cut: String = plain(line).chars().take(78).collect();
            let mut err = std::io::stderr();
            let _ = write!(err, "\r\x1b[K{cut}").and_then(|()| err.flush());
        }
    }
    pub(crate) fn paint(self, text: &str, code: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
    /// A patch with its colours.
    pub(crate) fn patch(self, patch: &str) -> String {
        let line = |l: &str| match l.as_bytes().first() {
            Some(b'+') if !l.starts_with("+++") => self.paint(l, "32"),
            Some(b'-') if !l.starts_with("---") => self.paint(l, "31"),
            Some(b'@') => self.paint(l, "36"),
            _ => l.to_owned(),
        };
        patch.lines().map(|l| line(l) + "\n").collect()
    }
}

/// What a model writes must not steer the terminal.
pub(crate) fn plain(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(visible).collect()
}

/// Shows a run as it goes: a line for each task that ends, a status line for what runs.
pub(crate) async fn follow(out: Out, mut updates: Updates) {
    let mut begun = HashMap::<String, Timestamp>::new();
    // Hosts that were spoken of.
    let mut told = HashSet::new();
    while let Some(u) = updates.next().await {
        match u {
            Update::Event { at, event, .. } => match &*event {
                Event::Dispatched { task, .. } => {
                    begun.insert(task.to_string(), at);
                    out.status(&format!("  {task} .."));
                }
                Event::StepEnded { record, .. } => {
                    let found = record.result.as_ref().map(reached::by_step);
                    for r in found.unwrap_or_default() {
                        if let Some(why) = reached::trouble(&r)
                            && told.insert((r.host, r.port))
                        {
                            out.say(&format!("  network {why}"));
                        }
                    }
                }
                Event::Ended { task, report, .. } => {
                    let since = begun.remove(task.as_str()).unwrap_or(at);
                    let seconds = at.0.saturating_sub(since.0) as f64 / 1000.0;
                    let (mark, text) = ended(&report.outcome);
                    out.say(&format!("  {mark:<6} {task:<14} {seconds:>7.1} s  {text}"));
                }
                _ => {}
            },
            Update::Notice {
                from,
                notice: Notice::Progress { text, done },
            } => {
                let of = done.map(|(n, m)| format!(" {n}/{m}")).unwrap_or_default();
                out.status(&format!("  {} {text}{of}", from.task));
            }
            Update::Notice {
                from,
                notice: Notice::Delta { text },
            } => out.status(&format!("  {} {text}", from.task)),
            _ => {}
        }
    }
    out.status("");
}

fn ended(o: &Outcome) -> (&'static str, String) {
    match o {
        Outcome::Done(d) => ("done", summary(&d.value)),
        Outcome::Halted(Halt::Failed(f)) => ("failed", f.message.clone()),
        Outcome::Halted(Halt::Suspended(q)) => ("asks", q.to_string()),
        Outcome::Halted(h) => ("halted", format!("{h:?}")),
        _ => ("ended", String::new()),
    }
}

/// What is worth a line of a task's value.
fn summary(v: &serde_json::Value) -> String {
    let count = |p: &str| v.pointer(p).and_then(|x| x.as_array()).map(Vec::len);
    let report = |p: &str| {
        let passed = count(&format!("{p}/passed"))?;
        let failed = count(&format!("{p}/failed"))?;
        Some(format!("{passed} passed, {failed} failed"))
    };
    if let Some(places) = v["places"].as_array() {
        let names: Vec<_> = places
            .iter()
            .take(3)
            .map(|p| &p["hit"])
            .filter_map(|h| h["symbol"].as_str().or(h["path"].as_str()))
            .collect();
        return names.join(", ");
    }
    if let Some(n) = count("/candidates") {
        return format!("{n} candidates from {}", v["model"].as_str().unwrap_or("?"));
    }
    if let Some(tried) = v["tried"].as_u64() {
        return format!(
            "{tried} tried, best: {}",
            report("/report").unwrap_or_default()
        );
    }
    if let Some(by) = v["by"].as_str() {
        return format!("{} by {by}", v["plan"].as_str().unwrap_or("plan"));
    }
    report("/after")
        .or_else(|| report("/report"))
        .unwrap_or_default()
}
