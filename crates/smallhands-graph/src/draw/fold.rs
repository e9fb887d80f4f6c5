//! Which rows share a line of text, and in what order and under which lanes the lines stand.

use super::{Row, text};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A graph of so many tasks is never folded.
const WHOLE: usize = 40;
/// More than so many that are alike make one line.
const ALIKE: usize = 8;
/// More lines than these are folded further.
const LINES: usize = 150;
/// So many that failed, ask or run keep lines of their own even then.
const NOTABLE: usize = 40;
/// So many parts of the graph are left when nothing else helps.
const BANDS: usize = 100;

/// One line: a task, or several that share it.
#[derive(Debug)]
pub(super) struct Line {
    /// What it shows; never empty.
    pub(super) rows: Vec<usize>,
    /// Its name, not cut yet.
    pub(super) name: String,
    /// What leads to it.
    pub(super) lane: String,
    /// The need that it stands below.
    pub(super) below: Option<usize>,
}

/// Rows that share a line. All lie in one layer, so that groups form no circle; only the groups of
/// the last resort do not, and stand without lanes.
struct Group {
    rows: Vec<usize>,
    pattern: Option<String>,
}

impl Group {
    fn one(row: usize) -> Self {
        Self {
            rows: vec![row],
            pattern: None,
        }
    }
    fn name(&self, rows: &[Row]) -> String {
        let name = |i: &usize| text::clean(rows[*i].id.as_str());
        match (self.rows.as_slice(), &self.pattern) {
            ([one], _) => name(one),
            (_, Some(p)) => text::clean(p),
            ([first, .., last], None) => {
                format!(
                    "{} … {}",
                    text::cut(&name(first), 24),
                    text::cut(&name(last), 24)
                )
            }
            ([], None) => String::new(),
        }
    }
}

/// The lines of a picture, each task below what it needs.
pub(super) fn lines(rows: &[Row]) -> Vec<Line> {
    let patterns = patterns(rows);
    let mut groups: Vec<_> = match rows.len() {
        0..=WHOLE => (0..rows.len()).map(Group::one).collect(),
        _ => alike(rows, &patterns),
    };
    if groups.len() > LINES {
        groups = banded(rows, &patterns, 1, 3);
    }
    if groups.len() <= LINES {
        groups.sort_by_key(|g| g.rows.first().copied());
        return below(rows, groups);
    }
    let layers = rows.iter().map(|r| r.layer + 1).max().unwrap_or(1);
    let groups = banded(rows, &patterns, layers.div_ceil(BANDS), 1);
    let flat = |g: Group| Line {
        name: g.name(rows),
        rows: g.rows,
        lane: String::new(),
        below: None,
    };
    groups.into_iter().map(flat).collect()
}

/// `map[...]` for the instances of a map, `map[...]/child` for the tasks of each, and so on.
fn patterns(rows: &[Row]) -> Vec<Option<String>> {
    let mut all: Vec<Option<String>> = vec![None; rows.len()];
    let mut short: Vec<usize> = (0..rows.len()).collect();
    // An owner's id is shorter than that of its own.
    short.sort_by_key(|i| rows[*i].id.as_str().len());
    for i in short {
        let Some(o) = rows[i].owner else { continue };
        let owner = rows[o].id.as_str();
        let rest = rows[i].id.as_str().get(owner.len()..).unwrap_or("");
        let base = all[o].as_deref();
        let pattern = match rest.starts_with('[') {
            true => Some(format!("{}[...]", base.unwrap_or(owner))),
            false => base.map(|b| format!("{b}{rest}")),
        };
        all[i] = pattern;
    }
    all
}

/// Instances of one map, and neighbours of one layer in the same state, if they are many.
fn alike(rows: &[Row], patterns: &[Option<String>]) -> Vec<Group> {
    let mut families: HashMap<(usize, &str), Vec<usize>> = HashMap::new();
    let mut layers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, r) in rows.iter().enumerate() {
        match &patterns[i] {
            Some(p) => families.entry((r.layer, p)).or_default().push(i),
            None => layers.entry(r.layer).or_default().push(i),
        }
    }
    let mut groups = Vec::new();
    for ((_, pattern), rows) in families {
        fold(&mut groups, &rows, Some(pattern), ALIKE);
    }
    for layer in layers.values() {
        let same = |a: &usize, b: &usize| {
            rows[*a].state() == rows[*b].state() && rows[*a].owner == rows[*b].owner
        };
        for run in layer.chunk_by(same) {
            fold(&mut groups, run, None, ALIKE);
        }
    }
    groups
}

fn fold(groups: &mut Vec<Group>, rows: &[usize], pattern: Option<&str>, limit: usize) {
    if rows.len() > limit {
        groups.push(Group {
            rows: rows.to_vec(),
            pattern: pattern.map(String::from),
        });
    } else {
        groups.extend(rows.iter().map(|i| Group::one(*i)));
    }
}

/// All of `per` layers in one line if they are more than `limit`, but for what is notable.
fn banded(rows: &[Row], patterns: &[Option<String>], per: usize, limit: usize) -> Vec<Group> {
    let mut bands: BTreeMap<usize, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    let mut notable = NOTABLE;
    for (i, r) in rows.iter().enumerate() {
        let (own, shared) = bands.entry(r.layer / per.max(1)).or_default();
        let stands_out = matches!(r.state(), Some("failed" | "suspended" | "running"));
        if stands_out && notable > 0 {
            notable -= 1;
            own.push(i);
        } else {
            shared.push(i);
        }
    }
    let mut groups = Vec::new();
    for (own, shared) in bands.values() {
        groups.extend(own.iter().map(|i| Group::one(*i)));
        let first = shared.first().and_then(|i| patterns[*i].as_deref());
        let pattern = first.filter(|p| shared.iter().all(|i| patterns[*i].as_deref() == Some(p)));
        fold(&mut groups, shared, pattern, limit);
    }
    groups
}

/// Puts each group below the last of the groups that it needs, so that all of them stand above it.
/// An only child continues the lane of its parent; several branch off.
fn below(rows: &[Row], groups: Vec<Group>) -> Vec<Line> {
    let mut of = vec![0; rows.len()];
    for (g, group) in groups.iter().enumerate() {
        group.rows.iter().for_each(|i| of[*i] = g);
    }
    let mut next = vec![Vec::new(); groups.len()];
    let mut open = vec![0_usize; groups.len()];
    let mut edges = HashSet::new();
    for (i, r) in rows.iter().enumerate() {
        for p in r.before() {
            if of[p] != of[i] && edges.insert((of[p], of[i])) {
                next[of[p]].push(of[i]);
                open[of[i]] += 1;
            }
        }
    }
    let owner = |g: usize| rows[groups[g].rows[0]].owner.map(|o| of[o]);
    let roots = (0..groups.len()).filter(|g| open[*g] == 0).collect();
    let mut stack = branch(roots, "", None);
    let (mut order, mut lanes) = (Vec::new(), Vec::new());
    while let Some((g, lane, inner, parent)) = stack.pop() {
        let mut children = Vec::new();
        for &n in &next[g] {
            open[n] -= 1;
            if open[n] == 0 {
                children.push(n);
            }
        }
        // What a map became comes before what needs the map.
        children.sort_by_key(|n| (owner(*n) != Some(g), *n));
        stack.extend(branch(children, &inner, Some(g)));
        order.push(g);
        lanes.push((lane, parent));
    }
    let first = |g: usize| groups[g].rows.first().copied();
    let below: Vec<_> = lanes
        .iter()
        .map(|(_, parent)| {
            parent
                .filter(|p| groups[*p].rows.len() == 1)
                .and_then(first)
        })
        .collect();
    let mut groups: Vec<_> = groups.into_iter().map(Some).collect();
    let taken = order.into_iter().filter_map(|g| groups[g].take());
    taken
        .zip(lanes)
        .zip(below)
        .map(|((g, (lane, _)), below)| Line {
            name: g.name(rows),
            rows: g.rows,
            lane,
            below,
        })
        .collect()
}

type Branch = (usize, String, String, Option<usize>);

/// Siblings with the lane of each and that of its children, the last one first.
fn branch(siblings: Vec<usize>, lane: &str, parent: Option<usize>) -> Vec<Branch> {
    let last = siblings.len().saturating_sub(1);
    let one = |(i, g): (usize, usize)| match i {
        _ if last == 0 => (g, lane.to_owned(), lane.to_owned(), parent),
        _ if i == last => (g, format!("{lane}└─ "), format!("{lane}   "), parent),
        0 if parent.is_none() => (g, "┌─ ".into(), "│  ".into(), parent),
        _ => (g, format!("{lane}├─ "), format!("{lane}│  "), parent),
    };
    siblings.into_iter().enumerate().map(one).rev().collect()
}
