//! What must hold between the counts and queues of a state and the tasks that they are of. For
//! tests; too slow for anything else.

use super::{Ix, Node, NodeState, RunState, flow::gives};
use std::collections::{BTreeMap, BTreeSet};

fn same<T: PartialEq + std::fmt::Debug>(what: &str, kept: &T, counted: &T) -> Result<(), String> {
    match kept == counted {
        true => Ok(()),
        false => Err(format!("{what}: kept {kept:?}, counted {counted:?}")),
    }
}

impl RunState {
    /// Counts everything anew and compares.
    ///
    /// # Errors
    /// What differs.
    #[doc(hidden)]
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_counts()?;
        self.check_queues()?;
        for ix in self.nodes.numbers() {
            if let Some(n) = self.nodes.find(ix) {
                let named = |e| format!("task `{}`: {e}", n.spec.id);
                self.check_node(ix, n).map_err(named)?;
            }
        }
        for (id, who) in &self.orphans {
            if self.nodes.contains_key(id) && !who.is_empty() {
                return Err(format!("`{id}` exists, and others wait for it to come"));
            }
        }
        Ok(())
    }

    /// Compares with another state of the same record, all but what only a driver knows.
    ///
    /// # Errors
    /// What differs.
    #[doc(hidden)]
    pub fn check_same(&self, o: &Self) -> Result<(), String> {
        let text = |s: &Self| s.encode().map(|b| String::from_utf8_lossy(&b).into_owned());
        let (a, b) = (text(self), text(o));
        same("all that is written", &a.ok(), &b.ok())?;
        same("tasks", &self.nodes, &o.nodes)?;
        same("ready", &self.ready, &o.ready)?;
        same("undecided", &self.undecided, &o.undecided)?;
        same("asleep", &self.asleep, &o.asleep)?;
        same("used", &self.used, &o.used)?;
        same("running", &self.running, &o.running)?;
        same("settled", &self.settled, &o.settled)
    }

    fn all(&self) -> impl Iterator<Item = (Ix, &Node)> {
        let of = |ix| Some((ix, self.nodes.find(ix)?));
        self.nodes.numbers().filter_map(of)
    }

    fn numbers_of(&self, is: impl Fn(&Node) -> bool) -> BTreeSet<Ix> {
        let those = self.all().filter(|(_, n)| is(n));
        those.map(|(ix, _)| ix).collect()
    }

    fn check_counts(&self) -> Result<(), String> {
        same("tasks", &self.nodes.len(), &self.all().count())?;
        let settled = self.numbers_of(|n| n.state.is_settled()).len();
        same("settled", &self.settled, &settled)?;
        let placed = self.numbers_of(is_running);
        same("running", &self.running, &placed.len())?;
        let mut used = super::ready::Used::default();
        let mut groups = BTreeMap::<&str, u32>::new();
        let mut fences = BTreeSet::new();
        for ix in placed {
            let n = self.nodes.at(ix);
            used.more(n.spec.resources);
            if let Some(g) = &n.spec.group {
                *groups.entry(g).or_default() += 1;
            }
            if let NodeState::Running { fence } = n.state
                && !fences.insert(fence)
            {
                return Err(format!("two placements have the fence {fence}"));
            }
        }
        same("resources", &self.used, &used)?;
        let kept: BTreeMap<_, _> = self.ready.running().collect();
        same("placed in groups", &kept, &groups)
    }

    fn check_queues(&self) -> Result<(), String> {
        let can = |n: &Node| n.state == NodeState::Ready && !n.flow.waits();
        let ready: Vec<_> = self.ready.iter().collect();
        let set: BTreeSet<_> = ready.iter().copied().collect();
        same("queued once", &ready.len(), &set.len())?;
        same("ready", &set, &self.numbers_of(can))?;
        let undecided = self.numbers_of(|n| n.state == NodeState::Undecided);
        same("undecided", &self.undecided, &undecided)?;
        let asleep = self.numbers_of(|n| n.state == NodeState::Suspended);
        same("asleep", &self.asleep, &asleep)?;
        for ix in &self.owed {
            match self.nodes.find(*ix).map(|n| &n.state) {
                Some(NodeState::Failed(_)) => {}
                other => return Err(format!("a compensation is owed for {other:?}")),
            }
        }
        Ok(())
    }

    fn check_node(&self, ix: Ix, n: &Node) -> Result<(), String> {
        same("its number", &self.nodes.ix(&n.spec.id), &Some(ix))?;
        if n.state == NodeState::Waiting {
            let needs = n.spec.needs.iter();
            let given: Vec<_> = needs.map(|d| self.nodes.get(d).and_then(gives)).collect();
            let count = |w| u32::try_from(given.iter().filter(|g| **g == w).count()).unwrap_or(0);
            same("open needs", &n.flow.open, &count(None))?;
            same("good needs", &n.flow.good, &count(Some(true)))?;
        }
        for need in n.spec.needs.iter().filter_map(|d| self.nodes.get(d)) {
            let times = need.flow.dependents.iter().filter(|d| **d == ix).count();
            same("its place among what needs its need", &times, &1)?;
        }
        let children: Vec<_> = n
            .flow
            .children
            .iter()
            .map(|c| self.nodes.find(*c))
            .collect();
        let count = |is: &dyn Fn(&Node) -> bool| {
            let those = children.iter().flatten().filter(|c| is(c));
            u32::try_from(those.count()).unwrap_or(u32::MAX)
        };
        same("children", &(children.len()), &(count(&|_| true) as usize))?;
        same(
            "placed children",
            &n.flow.placed_children,
            &count(&is_running),
        )?;
        if n.state == NodeState::Expanded {
            let open = count(&|c| !c.state.is_settled());
            same("open children", &n.flow.open_children, &open)?;
        }
        let mine = |c: &&Node| c.flow.parent == Some(ix);
        same(
            "theirs",
            &children.iter().flatten().filter(|c| mine(c)).count(),
            &children.len(),
        )?;
        let quiet = !n.state.is_settled() || n.questions.is_empty();
        same("no question of what is settled", &quiet, &true)?;
        same("when it ended", &n.ended.is_some(), &n.state.is_settled())
    }
}

fn is_running(n: &Node) -> bool {
    matches!(n.state, NodeState::Running { .. })
}
