use crate::lock;
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Cancellation for any async runtime: a flag and a future. Children fall with their parent.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<State>);

#[derive(Default)]
struct State {
    done: AtomicBool,
    next: AtomicU64,
    wakers: Mutex<HashMap<u64, Waker>>,
    children: Mutex<Vec<Weak<State>>>,
    /// Keeps the way from the root to a grandchild whose parent handle is gone.
    _parent: Option<Arc<State>>,
}

impl State {
    fn fire(&self) {
        self.done.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_values().for_each(Waker::wake);
        let children = std::mem::take(&mut *lock(&self.children));
        for c in children.iter().filter_map(Weak::upgrade) {
            c.fire();
        }
    }
}

impl CancelToken {
    /// A token that nothing else can cancel.
    pub fn new() -> Self {
        Self::default()
    }
    /// Cancels this token and its children, at once and for good.
    pub fn cancel(&self) {
        self.0.fire();
    }
    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.done.load(Ordering::SeqCst)
    }
    /// A token that is cancelled with this one, and can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let c = Self(Arc::new(State {
            _parent: Some(self.0.clone()),
            ..State::default()
        }));
        {
            let mut kids = lock(&self.0.children);
            kids.retain(|w| w.strong_count() > 0);
            kids.push(Arc::downgrade(&c.0));
        }
        // Looked at after the push: a cancel between the two is seen by one or the other.
        if self.is_cancelled() {
            c.cancel();
        }
        c
    }
    /// A future that ends when the token is cancelled.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled {
            id: self.0.next.fetch_add(1, Ordering::Relaxed),
            state: self.0.clone(),
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelToken(cancelled: {})", self.is_cancelled())
    }
}

/// Ends when its [`CancelToken`] is cancelled.
#[must_use = "futures do nothing unless awaited"]
pub struct Cancelled {
    id: u64,
    state: Arc<State>,
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cancelled")
    }
}

impl Future for Cancelled {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        lock(&self.state.wakers).insert(self.id, cx.waker().clone());
        if self.state.done.load(Ordering::SeqCst) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        lock(&self.state.wakers).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_fall_with_their_parent_and_not_the_other_way() {
        let parent = CancelToken::new();
        let (a, b) = (parent.child(), parent.child().child());
        a.cancel();
        assert!(!parent.is_cancelled() && !b.is_cancelled());
        parent.cancel();
        assert!(b.is_cancelled() && parent.child().is_cancelled());
    }
}
