use serde_json::json;
use smallhands_core::{
    AskId, AttemptReport, Failure, FailureClass, Halt, Outcome, Question, Ran, TaskSpec, Timestamp,
};
use smallhands_graph::{Event, GraphPatch, Picture, RunState, Style, TaskGraph};
use std::{collections::HashMap, sync::Arc};

/// When a run under test begins.
pub(crate) const START: u64 = 1_000_000;

pub(crate) fn task(id: &str) -> TaskSpec {
    TaskSpec::new(id, "w")
}

pub(crate) fn plain(p: &Picture) -> String {
    p.terminal(Timestamp(START), &Style::default())
}

pub(crate) fn graph(tasks: impl IntoIterator<Item = TaskSpec>) -> TaskGraph {
    TaskGraph::from_tasks(tasks).unwrap()
}

/// A run made of events, as if an engine had written them.
pub(crate) struct Run {
    pub(crate) state: RunState,
    now: u64,
    fences: HashMap<String, u64>,
}

impl Run {
    pub(crate) fn new(tasks: impl IntoIterator<Item = TaskSpec>) -> Self {
        let mut run = Self {
            state: RunState::default(),
            now: START,
            fences: HashMap::new(),
        };
        run.apply(&Event::Patched {
            patch: GraphPatch::adding(tasks),
            by: None,
        });
        run
    }
    pub(crate) fn apply(&mut self, e: &Event) -> &mut Self {
        let seq = self.state.seq + 1;
        self.state.apply(seq, Timestamp(self.now), e).unwrap();
        self
    }
    pub(crate) fn after(&mut self, ms: u64) -> &mut Self {
        self.now += ms;
        self
    }
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }
    pub(crate) fn begin(&mut self, id: &str) -> &mut Self {
        self.attempt(id, 1)
    }
    pub(crate) fn attempt(&mut self, id: &str, attempt: u32) -> &mut Self {
        let task = id.into();
        self.apply(&Event::Dispatched { task, attempt });
        self.fences.insert(id.into(), self.state.seq);
        self
    }
    /// A map or sub-graph becomes tasks, or a failed task is to be undone.
    pub(crate) fn expand(
        &mut self,
        id: &str,
        children: impl IntoIterator<Item = TaskSpec>,
    ) -> &mut Self {
        self.apply(&Event::Expanded {
            task: id.into(),
            children: children.into_iter().map(Arc::new).collect(),
        })
    }
    pub(crate) fn done(&mut self, id: &str) -> &mut Self {
        self.end(id, Outcome::Done(json!(1).into()))
    }
    pub(crate) fn fail(&mut self, id: &str, why: &str) -> &mut Self {
        let f = Failure::new("test.fail", FailureClass::Task, why);
        self.end(id, Outcome::Halted(Halt::Failed(f)))
    }
    pub(crate) fn ask(&mut self, id: &str) -> &mut Self {
        let ask = AskId::from("q");
        self.apply(&Event::Asked {
            task: id.into(),
            id: ask.clone(),
            question: Question::new("go on?"),
        });
        self.end(id, Outcome::Halted(Halt::Suspended(ask)))
    }
    /// Of the placement that runs.
    pub(crate) fn end(&mut self, id: &str, outcome: Outcome) -> &mut Self {
        let fence = self.fences[id];
        self.apply(&Event::Ended {
            task: id.into(),
            fence,
            report: AttemptReport {
                outcome,
                ran: Ran::Yes,
            },
            retry_after_ms: None,
            repeat: false,
        })
    }
}
