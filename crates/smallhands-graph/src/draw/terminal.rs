use super::{
    Picture, Row,
    fold::{self, Line},
    text,
};
use smallhands_core::Timestamp;
use std::collections::{BTreeMap, HashSet};

/// How a picture looks on a terminal. Nothing else is looked at, neither the terminal nor the
/// environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With ANSI colours.
    pub color: bool,
    /// The columns of a line; at least 20 are used.
    pub width: usize,
}

impl Default for Style {
    /// Plain, 80 columns.
    fn default() -> Self {
        Self {
            color: false,
            width: 80,
        }
    }
}

/// Word, symbol and ANSI colour of each state, in the order in which they are counted.
const LOOKS: [(&str, &str, &str); 10] = [
    ("done", "✓", "32"),
    ("failed", "✗", "31"),
    ("running", "▶", "34"),
    ("expanded", "▷", "34"),
    ("suspended", "?", "33"),
    ("ready", "○", "36"),
    ("undecided", "·", ""),
    ("waiting", "·", ""),
    ("skipped", "-", "2"),
    ("cancelled", "⊘", "2"),
];
/// Of several states on one line the first of these gives the symbol; else the first in sight.
const LOUD: [&str; 5] = ["failed", "suspended", "running", "ready", "waiting"];

/// The place in [`LOOKS`], with a symbol for what a later state may be.
fn look(state: &str) -> (usize, &'static str, &'static str) {
    let at = LOOKS.iter().position(|(word, ..)| *word == state);
    at.map_or((LOOKS.len(), "·", ""), |i| (i, LOOKS[i].1, LOOKS[i].2))
}

impl Picture {
    /// As text, one line a task and each below what it needs: state, time, attempt, what it waits
    /// for. A task with one successor has it right below; several branch off. In a graph of more
    /// than 40 tasks the instances of a map, and neighbours in one state, share a line where they
    /// are many; the whole never has more than 200 lines. `now` ends the time of what still runs.
    pub fn terminal(&self, now: Timestamp, style: &Style) -> String {
        let width = style.width.max(20);
        let kids = self.open_kids();
        let cells: Vec<_> = fold::lines(&self.rows)
            .iter()
            .map(|l| self.cells(l, now, width, &kids))
            .collect();
        let widest = |of: fn(&Cells) -> usize| cells.iter().map(of).max().unwrap_or(0);
        let end = |from: usize, column: usize| from + if column > 0 { column + 2 } else { 0 };
        let state = end(
            0,
            widest(|c| text::width(&c.lane) + c.symbol.chars().count() + text::width(&c.name)),
        );
        let time = end(state, widest(|c| c.state.len()));
        let note = end(time, widest(|c| c.time.len()));
        let mut out = String::new();
        for c in &cells {
            let mut pen = Pen::new(&mut out, width, style.color);
            pen.put(&c.lane, "");
            pen.put(c.symbol, c.color);
            pen.put(&c.name, "");
            pen.to(state);
            // What several have to say is too long for a column.
            if c.counts.is_empty() {
                pen.put(c.state, c.color);
                pen.to(note.saturating_sub(2 + c.time.len()));
                pen.put(&c.time, "");
                pen.to(note);
            } else {
                pen.put(&c.counts, c.color);
                pen.gap(2);
            }
            pen.put(&c.note, "");
            pen.end();
        }
        let mut pen = Pen::new(&mut out, width, false);
        pen.put(&counts(&self.rows.iter().collect::<Vec<_>>(), true), "");
        pen.end();
        out
    }

    fn cells(&self, line: &Line, now: Timestamp, width: usize, kids: &[Kids]) -> Cells {
        let rows: Vec<&Row> = line.rows.iter().map(|i| &self.rows[*i]).collect();
        let states = || rows.iter().filter_map(|r| r.state());
        let loud = LOUD.iter().find(|l| states().any(|s| s == **l)).copied();
        let shown = loud.or_else(|| states().min_by_key(|s| look(s).0));
        let (_, symbol, color) = shown.map_or((0, "", ""), look);
        let lane = lane(&line.lane, width / 3);
        let symbol_width = if symbol.is_empty() { 0 } else { 2 };
        let room = (width / 2).saturating_sub(text::width(&lane) + symbol_width);
        let name = text::cut(&line.name, room);
        let mut cells = Cells {
            lane,
            symbol,
            color,
            name: if symbol.is_empty() {
                name
            } else {
                format!(" {name}")
            },
            ..Cells::default()
        };
        match rows.as_slice() {
            [one] => {
                cells.state = one.state().unwrap_or("");
                cells.time = spent(&rows, now);
                cells.note = self.note(line, one, kids);
            }
            _ => {
                cells.counts = counts(&rows, false);
                let failed = rows.iter().filter(|r| r.state() == Some("failed"));
                let failed = text::list(failed.map(|r| r.id.as_str()));
                let parts = [
                    spent(&rows, now),
                    match failed.is_empty() {
                        true => failed,
                        false => format!("failed: {failed}"),
                    },
                ];
                cells.note = join(parts);
            }
        }
        cells
    }

    /// What the columns do not say of a task.
    fn note(&self, line: &Line, r: &Row, kids: &[Kids]) -> String {
        let mut all = Vec::new();
        if let Some(s) = &r.seen {
            if s.attempt > 1 {
                all.push(format!("attempt {}", s.attempt));
            }
            all.extend(
                s.failure
                    .as_deref()
                    .map(|f| text::cut(&text::clean(f), 400)),
            );
        }
        let kids = line.rows.first().map_or(Kids::default(), |i| kids[*i]);
        let open = || r.needs.iter().filter(|n| !self.rows[**n].settled());
        let ids = |of: &mut dyn Iterator<Item = &usize>| {
            text::list(of.map(|n| self.rows[*n].id.as_str()))
        };
        match r.state() {
            Some("suspended") => all.push("waits for an answer".into()),
            Some("waiting") if open().next().is_some() => {
                all.push(format!("waits for {}", ids(&mut open())));
            }
            Some(_) if !r.settled() && kids.open > 0 => {
                all.push(format!("waits for {} of its {} tasks", kids.open, kids.all));
            }
            _ => {
                let owner = r.owner.map(|o| self.rows[o].needs.as_slice());
                let mut above: HashSet<usize> = owner.unwrap_or(&[]).iter().copied().collect();
                above.extend(line.below);
                if r.needs.iter().any(|n| !above.contains(n)) {
                    all.push(format!("needs {}", ids(&mut r.needs.iter())));
                }
            }
        }
        if !r.settled() {
            all.extend(r.join());
            all.extend(r.spec.when.as_ref().map(|_| match r.state() {
                Some("undecided") => "waits for its condition".into(),
                _ => "conditional".into(),
            }));
        }
        all.extend(r.kind().iter().map(|k| text::clean(k)));
        join(all)
    }

    /// How many tasks each one stands for; what undoes it is none of them.
    fn open_kids(&self) -> Vec<Kids> {
        let mut all = vec![Kids::default(); self.rows.len()];
        for r in &self.rows {
            if let Some(o) = r.owner.filter(|o| self.rows[*o].expands()) {
                all[o].all += 1;
                all[o].open += usize::from(!r.settled());
            }
        }
        all
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Kids {
    all: usize,
    open: usize,
}

/// The parts of a line.
#[derive(Debug, Default)]
struct Cells {
    lane: String,
    symbol: &'static str,
    color: &'static str,
    name: String,
    state: &'static str,
    time: String,
    counts: String,
    note: String,
}

fn join(parts: impl IntoIterator<Item = String>) -> String {
    let parts = parts.into_iter().filter(|p| !p.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

/// Of a deep lane the end, which tells siblings apart.
fn lane(lane: &str, most: usize) -> String {
    match lane.chars().count() {
        n if n > most => {
            let tail = lane.chars().skip(n + 1 - most);
            std::iter::once('…').chain(tail).collect()
        }
        _ => lane.into(),
    }
}

/// From the first start to the last end, or to now while one of them, or what it stands for, runs.
fn spent(rows: &[&Row], now: Timestamp) -> String {
    let seen = || rows.iter().filter_map(|r| r.seen.as_ref());
    let start = seen().filter_map(|s| s.started).min();
    let end = match seen().any(|s| matches!(s.state, "running" | "expanded")) {
        true => Some(now),
        false => {
            let ran = seen().filter(|s| s.started.is_some());
            ran.filter_map(|s| s.ended).max()
        }
    };
    match (start, end) {
        (Some(a), Some(b)) => text::duration(b.0.saturating_sub(a.0)),
        _ => String::new(),
    }
}

/// `998 done, 2 failed`; without states, or in total: `1000 tasks`.
fn counts(rows: &[&Row], total: bool) -> String {
    let mut by: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for state in rows.iter().filter_map(|r| r.state()) {
        *by.entry((look(state).0, state)).or_default() += 1;
    }
    let each: Vec<_> = by.iter().map(|((_, s), n)| format!("{n} {s}")).collect();
    let each = each.join(", ");
    let plural = if rows.len() == 1 { "" } else { "s" };
    match (total, each.is_empty()) {
        (false, false) => each,
        (_, true) => format!("{} task{plural}", rows.len()),
        (true, false) => format!("{} task{plural}: {each}", rows.len()),
    }
}

/// Writes one line, never beyond its width and without blanks at its end.
struct Pen<'a> {
    out: &'a mut String,
    width: usize,
    color: bool,
    /// Where it stands, and where the next text is to stand.
    at: usize,
    next: usize,
}

impl<'a> Pen<'a> {
    fn new(out: &'a mut String, width: usize, color: bool) -> Self {
        Self {
            out,
            width,
            color,
            at: 0,
            next: 0,
        }
    }
    fn to(&mut self, column: usize) {
        self.next = self.next.max(column);
    }
    fn gap(&mut self, n: usize) {
        self.next += n;
    }
    fn put(&mut self, s: &str, color: &str) {
        let text = text::cut(s, self.width.saturating_sub(self.next));
        if text.is_empty() {
            return;
        }
        self.out
            .extend(std::iter::repeat_n(' ', self.next - self.at));
        self.next += text::width(&text);
        self.at = self.next;
        if self.color && !color.is_empty() {
            self.out.extend(["\u{1b}[", color, "m", &text, "\u{1b}[0m"]);
        } else {
            self.out.push_str(&text);
        }
    }
    fn end(self) {
        self.out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Seen;
    use smallhands_core::{Condition, Repeat, TaskSpec};
    use std::sync::Arc;

    #[test]
    fn a_loop_says_its_iteration() {
        let again = Repeat {
            until: Condition::Named("good".into()),
            max: 5,
            feed: None,
        };
        let seen = Seen {
            state: "running",
            settled: false,
            attempt: 3,
            iteration: Some(2),
            started: Some(Timestamp(1_000)),
            ended: None,
            failure: None,
        };
        let spec = Arc::new(TaskSpec::new("improve", "w").repeat(again));
        let picture = Picture::of([(spec.id.clone(), spec, Some(seen))].into_iter());
        let text = picture.terminal(Timestamp(2_500), &Style::default());
        assert_eq!(
            text,
            "▶ improve  running  1.5 s  attempt 3; iteration 2 of 5\n1 task: 1 running\n"
        );
        assert!(
            picture
                .mermaid()
                .contains("improve<br/>iteration 2 of 5<br/>running")
        );
    }

    #[test]
    fn states_that_are_not_known_yet_have_a_symbol() {
        assert_eq!(look("dreaming").1, "·");
        assert_eq!(lane("│  │  ├─ ", 6), "…  ├─ ");
    }
}
