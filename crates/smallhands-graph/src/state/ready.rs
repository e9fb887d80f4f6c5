//! Which of the tasks that can start are to start next.

use super::Ix;
use smallhands_core::{GroupLimit, Resources, Timestamp};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Higher priority first, then the order of adding.
type Queue = BTreeSet<(Reverse<i32>, Ix)>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ready {
    free: Queue,
    groups: BTreeMap<Arc<str>, Group>,
    /// Compensations: they run though the run fails.
    undo: Queue,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    queue: Queue,
    running: u32,
    /// Starts within the window of its limit.
    recent: VecDeque<Timestamp>,
}

impl Group {
    /// When it may start one more: at once, at a time, or once one of its tasks has ended.
    fn room(&self, limit: Option<&GroupLimit>, now: Timestamp) -> Room {
        let Some(l) = limit else { return Room::Now };
        if l.max_parallel.is_some_and(|n| self.running >= n) {
            return Room::Full;
        }
        let Some(starts) = l.starts else {
            return Room::Now;
        };
        // A clock that was set back must not stop the group for longer than its window.
        let within = |t: &&Timestamp| t.0 <= now.0 && now.0 - t.0 < l.per_ms;
        let mut recent = self.recent.iter().rev().filter(within);
        match recent.nth(starts.saturating_sub(1) as usize) {
            Some(t) => Room::In(l.per_ms - (now.0 - t.0)),
            None => Room::Now,
        }
    }
}

enum Room {
    Now,
    In(u64),
    Full,
}

/// What the placed tasks take, in a type that their sum cannot exceed: an engine without a capacity
/// places whatever is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used([u64; 3]);

impl Used {
    fn of(r: Resources) -> [u64; 3] {
        [r.cpu_milli, r.memory_mb, r.gpus].map(u64::from)
    }
    pub(super) fn more(&mut self, r: Resources) {
        self.0
            .iter_mut()
            .zip(Self::of(r))
            .for_each(|(u, r)| *u += r);
    }
    pub(super) fn less(&mut self, r: Resources) {
        self.0
            .iter_mut()
            .zip(Self::of(r))
            .for_each(|(u, r)| *u -= r);
    }
    pub(super) fn sum(self) -> Resources {
        let [cpu_milli, memory_mb, gpus] = self.0.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Resources {
            cpu_milli,
            memory_mb,
            gpus,
        }
    }
}

/// What may start.
pub(crate) enum Start {
    Task(Ix),
    /// Only after so many milliseconds, because of the rate of a group.
    Later(u64),
    Nothing,
}

impl Ready {
    fn queue(&mut self, group: Option<&Arc<str>>, undo: bool) -> &mut Queue {
        match group {
            _ if undo => &mut self.undo,
            None => &mut self.free,
            Some(g) => &mut self.groups.entry(g.clone()).or_default().queue,
        }
    }
    pub(super) fn insert(&mut self, ix: Ix, priority: i32, group: Option<&Arc<str>>, undo: bool) {
        self.queue(group, undo).insert((Reverse(priority), ix));
    }
    pub(super) fn remove(&mut self, ix: Ix, priority: i32, group: Option<&Arc<str>>, undo: bool) {
        self.queue(group, undo).remove(&(Reverse(priority), ix));
    }
    pub(super) fn started(&mut self, group: &Arc<str>, at: Timestamp, limit: Option<&GroupLimit>) {
        let g = self.groups.entry(group.clone()).or_default();
        g.running += 1;
        if let Some(starts) = limit.and_then(|l| l.starts) {
            g.recent.push_back(at);
            while g.recent.len() > starts as usize {
                g.recent.pop_front();
            }
        }
    }
    pub(super) fn stopped(&mut self, group: &Arc<str>) {
        if let Some(g) = self.groups.get_mut(group) {
            g.running = g.running.saturating_sub(1);
        }
    }
    /// When tasks of each group started, as far as its rate asks for it.
    pub(super) fn recent(&self) -> Vec<(&Arc<str>, &VecDeque<Timestamp>)> {
        self.groups.iter().map(|(g, of)| (g, &of.recent)).collect()
    }
    /// Groups of which nothing waits or runs.
    pub(super) fn of_recent(all: Vec<(Arc<str>, VecDeque<Timestamp>)>) -> Self {
        let group = |recent| Group {
            recent,
            ..Group::default()
        };
        Self {
            groups: all.into_iter().map(|(g, r)| (g, group(r))).collect(),
            ..Self::default()
        }
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = Ix> {
        let groups = self.groups.values().flat_map(|g| &g.queue);
        (self.undo.iter().chain(&self.free).chain(groups)).map(|(_, ix)| *ix)
    }
    /// How many of each group are placed.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, u32)> {
        let some = self.groups.iter().filter(|(_, g)| g.running > 0);
        some.map(|(name, g)| (name.as_ref(), g.running))
    }
    pub(super) fn undoing(&self) -> bool {
        !self.undo.is_empty()
    }

    /// The next one that `fits`, of compensations only if asked so.
    pub(super) fn next(
        &self,
        limits: &BTreeMap<String, GroupLimit>,
        now: Timestamp,
        only_undo: bool,
        fits: impl Fn(Ix) -> bool,
    ) -> Start {
        let first = |q: &Queue| q.iter().find(|(_, ix)| fits(*ix)).copied();
        if let Some((_, ix)) = first(&self.undo) {
            return Start::Task(ix);
        }
        if only_undo {
            return Start::Nothing;
        }
        let mut best = first(&self.free);
        let mut later = None::<u64>;
        for (name, g) in self.groups.iter().filter(|(_, g)| !g.queue.is_empty()) {
            match g.room(limits.get(name.as_ref()), now) {
                Room::Now => {
                    let head = first(&g.queue);
                    best = best.into_iter().chain(head).min();
                }
                Room::In(ms) => later = Some(later.map_or(ms, |l| l.min(ms))),
                Room::Full => {}
            }
        }
        match (best, later) {
            (Some((_, ix)), _) => Start::Task(ix),
            (None, Some(ms)) => Start::Later(ms.max(1)),
            (None, None) => Start::Nothing,
        }
    }
}
