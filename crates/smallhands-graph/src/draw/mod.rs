//! Pictures of runs and graphs: Mermaid, Graphviz DOT, and text for a terminal.

mod dot;
mod fold;
mod mermaid;
mod terminal;
mod text;

pub use terminal::Style;

use crate::{NodeState, RunState, TaskGraph};
use smallhands_core::{Join, OnFailure, TaskId, TaskSpec, Timestamp};
use std::{collections::HashMap, sync::Arc};

/// What can be drawn: a run as it stands, or a graph of which nothing has run yet.
///
/// ```
/// use smallhands_core::{TaskSpec, Timestamp};
/// use smallhands_graph::{Picture, Style, TaskGraph};
///
/// let graph = TaskGraph::new()
///     .task(TaskSpec::new("fetch", "http"))
///     .task(TaskSpec::new("parse", "json").bind("text", "fetch", "/body"))
///     .task(TaskSpec::new("count", "json").needs("fetch"))
///     .build()?;
/// let text = Picture::from(&graph).terminal(Timestamp(0), &Style::default());
/// assert_eq!(text, "fetch\n├─ parse\n└─ count\n3 tasks\n");
/// # Ok::<(), smallhands_graph::GraphError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Picture {
    rows: Vec<Row>,
}

/// One task, all that a picture needs of it.
#[derive(Clone, Debug)]
struct Row {
    id: TaskId,
    spec: Arc<TaskSpec>,
    /// What happened to it, in a run.
    seen: Option<Seen>,
    /// Places of the rows that it needs.
    needs: Vec<usize>,
    /// The row of the map, sub-graph or failed task that it stands for.
    owner: Option<usize>,
    /// The longest way to it from a row that needs nothing.
    layer: usize,
}

/// What a run knows of a task.
#[derive(Clone, Debug)]
struct Seen {
    state: &'static str,
    settled: bool,
    attempt: u32,
    iteration: Option<u32>,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    failure: Option<String>,
}

impl From<&RunState> for Picture {
    /// The only place where a picture reads the state of a run.
    fn from(state: &RunState) -> Self {
        let nodes = state.in_order().into_iter();
        Self::of(nodes.map(|(id, n)| {
            let seen = Seen {
                state: n.state.as_str(),
                settled: n.state.is_settled(),
                attempt: n.attempt,
                iteration: (n.iteration > 0).then_some(n.iteration),
                started: n.started,
                ended: n.ended,
                failure: match &n.state {
                    NodeState::Failed(f) => Some(f.to_string()),
                    _ => None,
                },
            };
            (id.clone(), n.spec.clone(), Some(seen))
        }))
    }
}

impl From<&TaskGraph> for Picture {
    fn from(graph: &TaskGraph) -> Self {
        let tasks = graph.tasks().iter();
        Self::of(tasks.map(|t| (t.id.clone(), t.clone(), None)))
    }
}

impl Picture {
    fn of(tasks: impl Iterator<Item = (TaskId, Arc<TaskSpec>, Option<Seen>)>) -> Self {
        let row = |(id, spec, seen)| Row {
            id,
            spec,
            seen,
            needs: Vec::new(),
            owner: None,
            layer: 0,
        };
        let mut rows: Vec<Row> = tasks.map(row).collect();
        link(&mut rows);
        Self { rows }
    }
}

impl Row {
    /// Whether it becomes other tasks.
    fn expands(&self) -> bool {
        self.spec.map.is_some() || self.spec.graph.is_some()
    }
    fn settled(&self) -> bool {
        self.seen.as_ref().is_some_and(|s| s.settled)
    }
    fn state(&self) -> Option<&'static str> {
        self.seen.as_ref().map(|s| s.state)
    }
    /// What it becomes, and how often it runs.
    fn kind(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(m) = &self.spec.map {
            all.push(format!("map over {}{}", m.from, m.pointer));
        }
        if let Some(g) = &self.spec.graph {
            all.push(format!("graph of {}", g.tasks.len()));
        }
        match (
            &self.spec.repeat,
            self.seen.as_ref().and_then(|s| s.iteration),
        ) {
            (Some(r), Some(i)) => all.push(format!("iteration {i} of {}", r.max)),
            (None, Some(i)) if i > 1 => all.push(format!("iteration {i}")),
            (Some(r), None) => all.push(format!("up to {} times", r.max)),
            (None, _) => {}
        }
        all
    }
    /// How many of its needs it waits for, if not for all.
    fn join(&self) -> Option<String> {
        let of = self.needs.len();
        match self.spec.join {
            Join::Any => Some(format!("any of {of}")),
            Join::AtLeast(n) => Some(format!("{n} of {of}")),
            _ => None,
        }
    }
    /// The lines of its box, the id first, in a form that says how to escape them.
    fn label(&self, escape: impl Fn(&str) -> String, newline: &str) -> String {
        let mut all = vec![self.id.to_string()];
        all.extend(self.kind());
        all.extend(self.join());
        all.extend(self.state().map(String::from));
        let all: Vec<_> = all.iter().map(|l| escape(&text::clean(l))).collect();
        all.join(newline)
    }
}

/// The run as a Mermaid flowchart.
pub fn mermaid(state: &RunState) -> String {
    Picture::from(state).mermaid()
}

/// The run as a graph in the DOT language of Graphviz.
pub fn dot(state: &RunState) -> String {
    Picture::from(state).dot()
}

/// The run as text, one line a task; see [`Picture::terminal`].
pub fn terminal(state: &RunState, now: Timestamp, style: &Style) -> String {
    Picture::from(state).terminal(now, style)
}

/// Turns ids into places.
fn link(rows: &mut [Row]) {
    let index: HashMap<&str, usize> = rows
        .iter()
        .enumerate()
        .map(|(i, r)| (r.id.as_str(), i))
        .collect();
    let found: Vec<_> = rows
        .iter()
        .map(|r| {
            let needs = r.spec.needs.iter();
            let needs: Vec<_> = needs
                .filter_map(|n| index.get(n.as_str()).copied())
                .collect();
            (needs, owner(r.id.as_str(), &index, rows))
        })
        .collect();
    for (r, (needs, owner)) in rows.iter_mut().zip(found) {
        (r.needs, r.owner) = (needs, owner);
    }
    let mut layers = layers(rows);
    if layers.contains(&None) {
        // Whoever chose such ids made the owner need its own: the needs are what counts.
        for (r, _) in rows.iter_mut().zip(&layers).filter(|(_, l)| l.is_none()) {
            r.owner = None;
        }
        layers = self::layers(rows);
    }
    for (r, layer) in rows.iter_mut().zip(layers) {
        r.layer = layer.unwrap_or(0);
    }
}

/// Who stands behind `map[key]`, `graph/child` or `failed~undo`: the longest id that fits.
fn owner(id: &str, index: &HashMap<&str, usize>, rows: &[Row]) -> Option<usize> {
    if let Some(i) = id.strip_suffix("~undo").and_then(|of| index.get(of))
        && matches!(rows[*i].spec.on_failure, OnFailure::Compensate(_))
    {
        return Some(*i);
    }
    let ends = id.rmatch_indices(['[', '/']);
    ends.filter_map(|(at, sign)| index.get(&id[..at]).map(|i| (*i, sign)))
        .find(|(i, sign)| match *sign {
            "[" => rows[*i].spec.map.is_some() && id.ends_with(']'),
            _ => rows[*i].spec.graph.is_some(),
        })
        .map(|(i, _)| i)
}

/// The longest way to each row; none on a circle.
fn layers(rows: &[Row]) -> Vec<Option<usize>> {
    let mut open: Vec<usize> = rows.iter().map(|r| r.before().count()).collect();
    let mut next = vec![Vec::new(); rows.len()];
    for (i, r) in rows.iter().enumerate() {
        r.before().for_each(|p| next[p].push(i));
    }
    let mut todo: Vec<usize> = (0..rows.len()).filter(|i| open[*i] == 0).collect();
    let (mut layer, mut known) = (vec![0; rows.len()], vec![None; rows.len()]);
    while let Some(i) = todo.pop() {
        known[i] = Some(layer[i]);
        for &n in &next[i] {
            layer[n] = layer[n].max(layer[i] + 1);
            open[n] -= 1;
            if open[n] == 0 {
                todo.push(n);
            }
        }
    }
    known
}

impl Row {
    /// All that comes before it in a picture.
    fn before(&self) -> impl Iterator<Item = usize> {
        self.needs.iter().copied().chain(self.owner)
    }
}
