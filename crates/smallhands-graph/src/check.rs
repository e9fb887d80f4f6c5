//! Whether tasks make a graph: what can be told before anything runs.

use crate::{Conditions, GraphError, TaskFault, edges, schema, state::inside};
use petgraph::{algo::tarjan_scc, graph::DiGraph};
use smallhands_core::{Condition, Join, OnFailure, TaskId, TaskSpec};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
};

/// One part of the path to a place in a list of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seg {
    Key(String),
    Index(usize),
}

/// A path, shown as `tasks[3].needs[1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<Seg>);

impl Path {
    pub(crate) fn key(mut self, k: &str) -> Self {
        self.0.push(Seg::Key(k.into()));
        self
    }
    pub(crate) fn index(mut self, i: usize) -> Self {
        self.0.push(Seg::Index(i));
        self
    }
    /// The path `inner` seen from here.
    pub(crate) fn join(mut self, inner: Self) -> Self {
        self.0.extend(inner.0);
        self
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, s) in self.0.iter().enumerate() {
            match s {
                Seg::Index(i) => write!(f, "[{i}]")?,
                Seg::Key(k) if n == 0 => write!(f, "{k}")?,
                Seg::Key(k) => write!(f, ".{k}")?,
            }
        }
        Ok(())
    }
}

pub(crate) fn key(k: &str) -> Path {
    Path::default().key(k)
}
pub(crate) fn index(i: usize) -> Path {
    Path::default().index(i)
}

/// What is wrong, and where in the list of tasks.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) at: Path,
    pub(crate) error: GraphError,
}

impl Located {
    pub(crate) fn new(at: Path, error: GraphError) -> Box<Self> {
        Box::new(Self { at, error })
    }
    pub(crate) fn under(mut self: Box<Self>, outer: Path) -> Box<Self> {
        self.at = outer.join(std::mem::take(&mut self.at));
        self
    }
}

/// A task that exists already, by its id.
pub(crate) type Known<'a> = &'a dyn Fn(&TaskId) -> Option<Arc<TaskSpec>>;

/// Checks new tasks against each other and those that exist already.
pub(crate) fn check(new: &[Arc<TaskSpec>], existing: Known<'_>) -> Result<(), GraphError> {
    check_at(new, existing).map_err(|l| l.error)
}

/// As [`check`], with the place of the error.
pub(crate) fn check_at(new: &[Arc<TaskSpec>], existing: Known<'_>) -> Result<(), Box<Located>> {
    check_list(new, existing, None)?;
    check_expanded(new, existing)?;
    edges::check_edges(new, existing)
}

/// Checks all tasks of a run as they would be after a patch, among them instances, tasks of
/// sub-graphs and compensations, which no author may name.
pub(crate) fn check_whole(tasks: &[Arc<TaskSpec>]) -> Result<(), GraphError> {
    let all: HashMap<&TaskId, &Arc<TaskSpec>> = tasks.iter().map(|t| (&t.id, t)).collect();
    let find = |id: &TaskId| all.get(id).map(|t| Arc::clone(t));
    let derived = |id: &TaskId| reserved(id).is_some() || inside_of(id, &find);
    let authored: Vec<_> = tasks.iter().filter(|t| !derived(&t.id)).cloned().collect();
    let made = |id: &TaskId| find(id).filter(|t| derived(&t.id));
    check_list(&authored, &made, None)
        .and_then(|()| check_expanded(&authored, &|_| None))
        .and_then(|()| edges::check_edges(&authored, &made))
        .map_err(|l| l.error)
}

/// Whether the id is that of a task of a sub-graph.
fn inside_of(id: &TaskId, known: Known<'_>) -> bool {
    fn holds(tasks: &[Arc<TaskSpec>], rest: &str) -> bool {
        tasks.iter().any(|t| {
            rest.strip_prefix(t.id.as_str()).is_some_and(|r| {
                let inner = t.graph.as_ref().zip(r.strip_prefix('/'));
                r.is_empty() || inner.is_some_and(|(g, r)| holds(&g.tasks, r))
            })
        })
    }
    let id = id.as_str();
    id.match_indices('/').any(|(i, _)| {
        let holder = known(&TaskId::from(&id[..i]));
        let graph = holder.as_ref().and_then(|h| h.graph.as_ref());
        graph.is_some_and(|g| holds(&g.tasks, &id[i + 1..]))
    })
}

/// A character that only names of derived tasks have.
fn reserved(id: &TaskId) -> Option<char> {
    id.as_str().chars().find(|c| matches!(c, '[' | ']' | '~'))
}

/// The id that a task of a sub-graph has in the run.
pub(crate) fn full_id(holder: Option<&TaskId>, id: &TaskId) -> TaskId {
    match holder {
        None => id.clone(),
        Some(h) => inside(h, id),
    }
}

fn check_list(
    tasks: &[Arc<TaskSpec>],
    existing: Known<'_>,
    holder: Option<&TaskId>,
) -> Result<(), Box<Located>> {
    let mut ids = HashSet::with_capacity(tasks.len());
    for (i, t) in tasks.iter().enumerate() {
        if !ids.insert(&t.id) || existing(&t.id).is_some() {
            let e = GraphError::Duplicate(full_id(holder, &t.id));
            return Err(Located::new(index(i).key("id"), e));
        }
    }
    for (i, t) in tasks.iter().enumerate() {
        if let Some(n) = t
            .needs
            .iter()
            .position(|n| !ids.contains(n) && existing(n).is_none())
        {
            let e = GraphError::UnknownNeed {
                task: full_id(holder, &t.id),
                needs: t.needs[n].clone(),
                similar: nearest(&t.needs[n], &ids),
            };
            return Err(Located::new(index(i).key("needs").index(n), e));
        }
        check_task(t, holder.is_some()).map_err(|(at, fault)| {
            let task = full_id(holder, &t.id);
            Located::new(index(i).join(at), GraphError::Invalid { task, fault })
        })?;
        if let Some(g) = &t.graph {
            check_list(&g.tasks, &|_| None, Some(&full_id(holder, &t.id)))
                .map_err(|e| e.under(index(i).key("graph").key("tasks")))?;
        }
    }
    let Some(ring) = cycle(tasks) else {
        return Ok(());
    };
    let at = place_of_ring(tasks, &ring);
    let path = ring.iter().map(|id| full_id(holder, id)).collect();
    Err(Located::new(at, GraphError::Cycle { path }))
}

/// Tasks of sub-graphs become tasks of the run, so `a/b` may be taken.
fn check_expanded(tasks: &[Arc<TaskSpec>], existing: Known<'_>) -> Result<(), Box<Located>> {
    let taken = tasks.iter().position(|t| inside_of(&t.id, existing));
    if let Some(i) = taken {
        let e = GraphError::Duplicate(tasks[i].id.clone());
        return Err(Located::new(index(i).key("id"), e));
    }
    if tasks.iter().all(|t| t.graph.is_none()) {
        return Ok(());
    }
    let mut taken: HashSet<TaskId> = tasks.iter().map(|t| t.id.clone()).collect();
    expand_ids(tasks, None, &mut |id| {
        existing(&id).is_none() && taken.insert(id)
    })
}

fn expand_ids(
    tasks: &[Arc<TaskSpec>],
    holder: Option<&TaskId>,
    take: &mut dyn FnMut(TaskId) -> bool,
) -> Result<(), Box<Located>> {
    for (i, t) in tasks.iter().enumerate() {
        let id = full_id(holder, &t.id);
        if holder.is_some() && !take(id.clone()) {
            let e = GraphError::Duplicate(id);
            return Err(Located::new(index(i).key("id"), e));
        }
        if let Some(g) = &t.graph {
            expand_ids(&g.tasks, Some(&id), take)
                .map_err(|e| e.under(index(i).key("graph").key("tasks")))?;
        }
    }
    Ok(())
}

type Checked = Result<(), (Path, TaskFault)>;

/// What can be told of a task alone; `held` says that it is one of a sub-graph.
fn check_task(t: &TaskSpec, held: bool) -> Checked {
    check_name(t)?;
    check_bindings(t, held)?;
    check_join(t)?;
    check_forms(t, held)?;
    check_policies(t)?;
    if let Some(c) = &t.when {
        check_condition(c, "when")?;
    }
    schema::check(t)
}

fn check_name(t: &TaskSpec) -> Checked {
    if t.id.as_str().is_empty() {
        return Err((key("id"), TaskFault::EmptyId));
    }
    if let Some(c) = reserved(&t.id) {
        return Err((key("id"), TaskFault::IdCharacter(c)));
    }
    match (t.worker.as_str().is_empty(), t.graph.is_some()) {
        (true, false) => Err((key("worker"), TaskFault::NoWorker)),
        (false, true) => Err((key("worker"), TaskFault::WorkerAndGraph)),
        _ => Ok(()),
    }
}

fn check_bindings(t: &TaskSpec, held: bool) -> Checked {
    for (i, b) in t.bind.iter().enumerate() {
        let at = || key("bind").index(i);
        if b.from.as_str().is_empty() {
            if !held {
                return Err((at().key("from"), TaskFault::NoHolder(b.field.clone())));
            }
        } else if !t.needs.contains(&b.from) {
            let (field, from) = (b.field.clone(), b.from.clone());
            return Err((at().key("from"), TaskFault::BindNotNeeded { field, from }));
        }
        check_pointer(&b.pointer).map_err(|f| (at().key("pointer"), f))?;
        if b.field.is_empty() && i > 0 {
            return Err((at().key("field"), TaskFault::WholeNotFirst));
        }
    }
    Ok(())
}

fn check_pointer(p: &str) -> Result<(), TaskFault> {
    let escaped = |rest: &str| rest.starts_with(['0', '1']);
    match (p.is_empty() || p.starts_with('/')) && p.split('~').skip(1).all(escaped) {
        true => Ok(()),
        false => Err(TaskFault::Pointer(p.into())),
    }
}

fn check_join(t: &TaskSpec) -> Checked {
    let needs = t.needs.iter().collect::<BTreeSet<_>>().len();
    match t.join {
        Join::Any if needs == 0 => Err((key("join"), TaskFault::JoinNothing)),
        Join::AtLeast(n) if n == 0 || n as usize > needs => {
            Err((key("join"), TaskFault::JoinCount { asked: n, needs }))
        }
        _ => Ok(()),
    }
}

/// Map, loop and sub-graph.
fn check_forms(t: &TaskSpec, held: bool) -> Checked {
    if let Some(m) = &t.map {
        let at = |k| key("map").key(k);
        if t.graph.is_some() {
            return Err((key("map"), TaskFault::MapAndGraph));
        }
        let from_holder = held && m.from.as_str().is_empty();
        if !from_holder && !t.needs.contains(&m.from) {
            return Err((at("from"), TaskFault::MapNotNeeded(m.from.clone())));
        }
        check_pointer(&m.pointer).map_err(|f| (at("pointer"), f))?;
        check_pointer(m.key.as_deref().unwrap_or_default()).map_err(|f| (at("key"), f))?;
        if m.max_parallel == Some(0) {
            return Err((at("max_parallel"), TaskFault::MapParallel));
        }
        if m.field.is_empty() && !t.bind.is_empty() {
            return Err((at("field"), TaskFault::MapWhole));
        }
    }
    if let Some(r) = &t.repeat {
        let others = [
            (t.map.is_some(), "map"),
            (t.graph.is_some(), "graph"),
            (t.expands, "expands"),
        ];
        if let Some((_, other)) = others.iter().find(|(has, _)| *has) {
            return Err((key("repeat"), TaskFault::RepeatWith(other)));
        }
        if r.max == 0 {
            return Err((key("repeat").key("max"), TaskFault::RepeatMax));
        }
        check_condition(&r.until, "until").map_err(|(at, f)| (key("repeat").join(at), f))?;
    }
    let Some(g) = &t.graph else { return Ok(()) };
    if g.tasks.is_empty() {
        return Err((key("graph").key("tasks"), TaskFault::EmptyGraph));
    }
    let ids: HashSet<_> = g.tasks.iter().map(|t| &t.id).collect();
    match &g.output {
        Some(o) if !ids.contains(o) => {
            let (output, similar) = (o.clone(), nearest(o, &ids));
            let fault = TaskFault::UnknownOutput { output, similar };
            Err((key("graph").key("output"), fault))
        }
        _ => Ok(()),
    }
}

fn check_condition(c: &Condition, field: &str) -> Checked {
    match c {
        Condition::Expr(e) => {
            Conditions::check_expr(e).map_err(|why| (key(field), TaskFault::Condition(why)))
        }
        _ => Ok(()),
    }
}

fn check_policies(t: &TaskSpec) -> Checked {
    let retry = |k| key("retry").key(k);
    if t.retry.max_attempts == 0 {
        return Err((retry("max_attempts"), TaskFault::NoAttempts));
    }
    if !t.retry.factor.is_finite() {
        return Err((retry("factor"), TaskFault::NotFinite("factor")));
    }
    if !t.retry.jitter.is_finite() {
        return Err((retry("jitter"), TaskFault::NotFinite("jitter")));
    }
    if t.group.as_deref() == Some("") {
        return Err((key("group"), TaskFault::EmptyGroup));
    }
    match &t.on_failure {
        OnFailure::Compensate(w) if w.as_str().is_empty() => {
            Err((key("on_failure"), TaskFault::NoCompensator))
        }
        _ => Ok(()),
    }
}

/// One cycle, first task again at the end; deterministic.
pub(crate) fn cycle(tasks: &[Arc<TaskSpec>]) -> Option<Vec<TaskId>> {
    let number = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
    let index: HashMap<&TaskId, u32> = tasks
        .iter()
        .enumerate()
        .map(|(i, t)| (&t.id, number(i)))
        .collect();
    let mut g = DiGraph::<(), ()>::with_capacity(tasks.len(), tasks.len());
    for _ in tasks {
        g.add_node(());
    }
    for (i, t) in tasks.iter().enumerate() {
        for n in t.needs.iter().filter_map(|n| index.get(n)) {
            g.add_edge(number(i).into(), (*n).into(), ());
        }
    }
    let ring = tarjan_scc(&g)
        .into_iter()
        .filter(|c| c.len() > 1 || g.contains_edge(c[0], c[0]))
        .map(|c| c.into_iter().collect::<BTreeSet<_>>())
        .min()?;
    // Within a strongly connected component every walk along its edges meets itself again.
    let (mut walk, mut seen) = (Vec::new(), BTreeMap::new());
    let mut at = *ring.first()?;
    while !seen.contains_key(&at) {
        seen.insert(at, walk.len());
        walk.push(at);
        at = g.neighbors(at).filter(|n| ring.contains(n)).min()?;
    }
    let mut path: Vec<_> = walk[seen[&at]..]
        .iter()
        .map(|i| tasks[i.index()].id.clone())
        .collect();
    path.push(tasks[at.index()].id.clone());
    Some(path)
}

/// The first edge of the ring.
fn place_of_ring(tasks: &[Arc<TaskSpec>], ring: &[TaskId]) -> Path {
    let first = tasks.iter().position(|t| Some(&t.id) == ring.first());
    let Some(i) = first else {
        return Path::default();
    };
    let need = tasks[i].needs.iter().position(|n| Some(n) == ring.get(1));
    index(i).key("needs").index(need.unwrap_or_default())
}

/// The id with the smallest edit distance, if it is near enough to be a slip.
fn nearest(wanted: &TaskId, ids: &HashSet<&TaskId>) -> Option<TaskId> {
    similar(wanted.as_str(), ids.iter().map(|id| id.as_str())).map(TaskId::from)
}

/// The name with the smallest edit distance, if it is near enough to be a slip.
pub(crate) fn similar<'n>(
    wanted: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let limit = wanted.chars().count() / 3 + 1;
    names
        .into_iter()
        .map(|n| (distance(wanted, n), n))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, n)| n)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallhands_core::SubGraph;

    fn t(id: &str) -> Arc<TaskSpec> {
        Arc::new(TaskSpec::new(id, "w"))
    }
    fn holder() -> Arc<TaskSpec> {
        let inner = SubGraph {
            tasks: vec![t("y")],
            output: None,
        };
        let tasks = vec![t("x"), Arc::new(TaskSpec::sub_graph("i", inner))];
        let output = None;
        Arc::new(TaskSpec::sub_graph("h", SubGraph { tasks, output }))
    }

    #[test]
    fn a_new_task_may_not_take_the_place_of_one_inside_a_task_that_exists() {
        let h = holder();
        let existing = |id: &TaskId| (h.id == *id).then(|| h.clone());
        for id in ["h/x", "h/i", "h/i/y", "h"] {
            let e = check(&[t(id)], &existing).unwrap_err();
            assert!(matches!(e, GraphError::Duplicate(d) if d.as_str() == id));
        }
        for id in ["h/y", "h/xx", "h/x/y", "h/i/y/z", "i/y"] {
            assert!(check(&[t(id)], &existing).is_ok(), "{id}");
        }
        let there = |id: &TaskId| (id.as_str() == "h/i/y").then(|| t("h/i/y"));
        let e = check(&[holder()], &there).unwrap_err();
        assert!(matches!(e, GraphError::Duplicate(d) if d.as_str() == "h/i/y"));
    }

    #[test]
    fn the_whole_of_a_run_holds_what_no_author_may_name() {
        let mut x = TaskSpec::new("h/x", "w");
        x.bind.push(smallhands_core::Binding {
            field: "f".into(),
            from: "h".into(),
            pointer: String::new(),
        });
        let made = [x.into(), t("h/i"), t("h/i/y"), t("m[1]"), t("m~undo")];
        let with = |last: Arc<TaskSpec>| {
            let mut all = vec![holder(), t("m")];
            all.extend(made.iter().cloned());
            all.push(last);
            check_whole(&all)
        };
        let needs = |id: &str| Arc::new(TaskSpec::new("z", "w").needs(id));
        assert!(with(needs("h/x")).is_ok());
        assert!(matches!(
            with(needs("h/q")),
            Err(GraphError::UnknownNeed { .. })
        ));
        assert!(matches!(with(needs("z")), Err(GraphError::Cycle { .. })));
    }
}
