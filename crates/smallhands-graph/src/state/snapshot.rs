//! A state as bytes and back. What follows from the tasks (queues, counts) is not written.

use super::{Ix, Node, NodeState, RunState, RunStatus, nodes::Flow, nodes::Nodes, ready::Ready};
use crate::Durability;
use serde::{Deserialize, de::Error as _};
use serde_json::{Deserializer, Error, Value};
use smallhands_core::{
    AskId, BlobRef, Budget, GroupLimit, PriorStep, Question, SecretName, TaskId, TaskOutput,
    TaskSpec, Timestamp, Usage,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// To be raised whenever an event comes to mean something else, or a state is written otherwise. A
/// release has snapshots of its own in any case: to fold once more is cheaper than to be wrong.
const FORMAT: &str = concat!("smallhands.snapshot 1 of ", env!("CARGO_PKG_VERSION"));

// As tuples: the names of fields would be a good part of each task.
type Run = (
    u64,
    u64,
    RunStatus,
    String,
    Option<BlobRef>,
    Budget,
    Durability,
    String,
    Value,
    Vec<SecretName>,
    BTreeMap<String, GroupLimit>,
    Timestamp,
    Timestamp,
    Usage,
);
type Rest = (
    bool,
    bool,
    bool,
    BTreeSet<Ix>,
    BTreeMap<TaskId, Vec<Ix>>,
    Vec<((Ix, u64, String), Usage)>,
    Vec<(Arc<str>, VecDeque<Timestamp>)>,
    usize,
);
type Task = (
    Arc<TaskSpec>,
    NodeState,
    u32,
    u32,
    Option<Box<TaskOutput>>,
    Vec<PriorStep>,
    BTreeMap<AskId, Question>,
    BTreeMap<AskId, Value>,
    Option<Usage>,
    Option<Timestamp>,
    Option<Timestamp>,
    Flow,
);

impl RunState {
    /// All that a fold of what follows needs: JSON, a task a line.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        // Without `..`: a new field is either written or follows from what is.
        let Self {
            seq,
            revision,
            status,
            goal,
            config,
            budget,
            durability,
            executor,
            environment,
            secrets,
            limits,
            created,
            updated,
            nodes,
            spent,
            failing,
            cancelling,
            ready,
            undecided: _,
            asleep: _,
            owed,
            orphans,
            held,
            used: _,
            running: _,
            once_only,
            about: _,
            displaced: _,
            settled: _,
            snapshot: _,
        } = self;
        let run = (
            seq,
            revision,
            status,
            goal,
            config,
            budget,
            durability,
            executor,
            environment,
            secrets,
            limits,
            created,
            updated,
            spent,
        );
        let held: Vec<_> = held.iter().collect();
        let (recent, count) = (ready.recent(), nodes.all().len());
        let rest = (
            failing, cancelling, once_only, owed, orphans, held, recent, count,
        );
        let mut out = Vec::new();
        serde_json::to_writer(&mut out, &(FORMAT, run, rest))?;
        for n in nodes.all() {
            out.push(b'\n');
            serde_json::to_writer(&mut out, &n.as_ref().map(task))?;
        }
        Ok(out)
    }

    /// What [`encode`](Self::encode) wrote, if it was this very program.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if !bytes.starts_with(format!("[\"{FORMAT}\"").as_bytes()) {
            return Err(Error::custom("of another program"));
        }
        let mut from = Deserializer::from_slice(bytes);
        let (_, run, rest) = <(String, Run, Rest)>::deserialize(&mut from)?;
        let (seq, revision, status, goal, config, budget, durability, ..) = run;
        let (.., executor, environment, secrets, limits, created, updated, spent) = run;
        let (failing, cancelling, once_only, owed, orphans, held, recent, count) = rest;
        let mut nodes = Nodes::default();
        nodes.reserve(count);
        for _ in 0..count {
            match <Option<Task>>::deserialize(&mut from)? {
                Some(t) => drop(nodes.add(node(t))),
                None => nodes.leave_out(),
            }
        }
        from.end()?;
        let mut state = Self {
            seq,
            revision,
            status,
            goal,
            config,
            budget,
            durability,
            executor,
            environment,
            secrets,
            limits,
            created,
            updated,
            nodes,
            spent,
            failing,
            cancelling,
            owed,
            orphans,
            held: held.into_iter().collect(),
            once_only,
            ready: Ready::of_recent(recent),
            ..Self::default()
        };
        state.count_anew();
        Ok(state)
    }

    /// Queues and counts, from what the tasks say.
    fn count_anew(&mut self) {
        for ix in self.nodes.numbers() {
            let Some(n) = self.nodes.find(ix) else {
                continue;
            };
            let group = n.spec.group.as_ref();
            match n.state {
                NodeState::Ready if !n.flow.waits() => {
                    (self.ready).insert(ix, n.flow.priority, group, n.flow.undo);
                }
                NodeState::Undecided => drop(self.undecided.insert(ix)),
                NodeState::Suspended => drop(self.asleep.insert(ix)),
                NodeState::Running { .. } => {
                    self.running += 1;
                    self.used.more(n.spec.resources);
                    if let Some(g) = group {
                        self.ready.started(g, self.updated, None);
                    }
                }
                _ => self.settled += usize::from(n.state.is_settled()),
            }
        }
    }

    /// Put aside and taken up again.
    ///
    /// # Errors
    /// What cannot be written or read.
    #[doc(hidden)]
    pub fn through_snapshot(&self) -> Result<Self, String> {
        let bytes = self.encode().map_err(|e| e.to_string())?;
        Self::decode(&bytes).map_err(|e| e.to_string())
    }
}

fn task(n: &Node) -> impl serde::Serialize + use<'_> {
    let Node {
        spec,
        state,
        attempt,
        iteration,
        output,
        steps,
        questions,
        answers,
        spent,
        started,
        ended,
        flow,
    } = n;
    let spent = Some(spent).filter(|s| **s != Usage::default());
    (
        spec, state, attempt, iteration, output, steps, questions, answers, spent, started, ended,
        flow,
    )
}

fn node(t: Task) -> Node {
    let (spec, state, attempt, iteration, output, steps, ..) = t;
    let (.., questions, answers, spent, started, ended, mut flow) = t;
    flow.follow(&spec);
    Node {
        spec,
        state,
        attempt,
        iteration,
        output,
        steps,
        questions,
        answers,
        spent: spent.unwrap_or_default(),
        started,
        ended,
        flow,
    }
}
