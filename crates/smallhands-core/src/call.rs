use crate::{
    Ambient, CancelToken, Digest, Failure, FailureClass, HostCall, HostReply, Notice, StepKey,
    TaskContext, Usage, lock,
};
use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What every call through a port carries: model, embedder, retriever, tool, sandbox, guardrail.
///
/// A worker gets one that may spend only inside a step, so that an unjournaled cost cannot happen
/// by accident.
#[derive(Clone)]
pub struct CallCx(Arc<Inner>);

struct Inner {
    ambient: Ambient,
    cancel: CancelToken,
    deadline: Option<Duration>,
    key: Option<Digest>,
    scope: Scope,
}

enum Scope {
    /// Outside any run: no journal, no budget.
    Detached,
    /// Of a task, outside a step: cannot spend.
    Local(TaskContext),
    Step {
        task: TaskContext,
        step: StepKey,
        meter: Mutex<Meter>,
    },
}

/// What a step reserved when it began, and what it has used of it.
#[derive(Debug, Default)]
struct Meter {
    reserved: Usage,
    open: Usage,
    spent: Usage,
    next_id: u64,
}

impl fmt::Debug for CallCx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match &self.0.scope {
            Scope::Detached => "detached",
            Scope::Local(_) => "local",
            Scope::Step { step, .. } => step.as_str(),
        };
        f.debug_struct("CallCx")
            .field("scope", &scope)
            .finish_non_exhaustive()
    }
}

impl CallCx {
    /// Outside any run: no journal and no budget; for tools of the trade and tests.
    pub fn detached(ambient: Ambient, cancel: CancelToken) -> Self {
        Self::new(ambient, cancel, None, Scope::Detached)
    }

    fn new(ambient: Ambient, cancel: CancelToken, key: Option<Digest>, scope: Scope) -> Self {
        Self(Arc::new(Inner {
            ambient,
            cancel,
            deadline: None,
            key,
            scope,
        }))
    }

    pub(crate) fn local(cx: &TaskContext) -> Self {
        let scope = Scope::Local(cx.clone());
        Self::new(cx.ambient().clone(), cx.cancel().child(), None, scope)
    }

    pub(crate) fn of_step(
        cx: &TaskContext,
        step: &StepKey,
        key: Digest,
        reserved: Option<Usage>,
    ) -> Self {
        let meter = Mutex::new(Meter {
            reserved: reserved.unwrap_or_default(),
            ..Meter::default()
        });
        let scope = Scope::Step {
            task: cx.clone(),
            step: step.clone(),
            meter,
        };
        Self::new(cx.ambient().clone(), cx.cancel().child(), Some(key), scope)
    }

    /// The same call with a deadline, on the monotonic clock.
    #[must_use]
    pub fn with_deadline(&self, at: Duration) -> Self {
        let Inner {
            ambient,
            cancel,
            key,
            ..
        } = &*self.0;
        let at = self.0.deadline.map_or(at, |d| d.min(at));
        let scope = match &self.0.scope {
            Scope::Detached => Scope::Detached,
            Scope::Local(t) => Scope::Local(t.clone()),
            // Spending goes on against the engine; the step's own meter stays with the parent.
            Scope::Step { task, step, .. } => Scope::Step {
                task: task.clone(),
                step: format!("{step}~").into(),
                meter: Mutex::default(),
            },
        };
        Self(Arc::new(Inner {
            ambient: ambient.clone(),
            cancel: cancel.child(),
            deadline: Some(at),
            key: key.clone(),
            scope,
        }))
    }

    /// Cancelled when the call is no longer wanted.
    pub fn cancel(&self) -> &CancelToken {
        &self.0.cancel
    }
    /// What the process supplies.
    pub fn ambient(&self) -> &Ambient {
        &self.0.ambient
    }
    /// When the call must be over, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        self.0.deadline
    }
    /// Hash of run, task and step: the same for every attempt and placement, so that an outside
    /// service can recognise a repetition.
    pub fn idempotency_key(&self) -> Option<&Digest> {
        self.0.key.as_ref()
    }
    /// Something for eyes.
    pub fn notice(&self, n: Notice) {
        match &self.0.scope {
            Scope::Detached => {}
            Scope::Local(task) | Scope::Step { task, .. } => task.notice(n),
        }
    }

    /// Asks the budget, wherever it is kept, before something is spent.
    ///
    /// What fits into the step's own reservation is taken from it without another append.
    ///
    /// # Errors
    /// `budget.exhausted` names the cap; `budget.outside_step` means that a task tried to spend
    /// outside a step.
    pub async fn reserve(&self, most: Usage) -> Result<Reservation, Failure> {
        let (task, step, meter) = match &self.0.scope {
            Scope::Detached => return Ok(Reservation(Held::Free)),
            Scope::Local(_) => {
                return Err(Failure::new(
                    "budget.outside_step",
                    FailureClass::Budget,
                    "a task may spend only inside a step",
                )
                .hint("wrap the call in TaskContext::step"));
            }
            Scope::Step { task, step, meter } => (task, step, meter),
        };
        let id = {
            let mut m = lock(meter);
            let wanted = m.open.plus(m.spent).plus(most);
            if m.reserved != Usage::default() && m.reserved.covers(&wanted) {
                m.open = m.open.plus(most);
                return Ok(Reservation(Held::InStep(self.clone(), most)));
            }
            m.next_id += 1;
            format!("{step}/{}", m.next_id)
        };
        match task
            .host(HostCall::Reserve {
                id: id.clone(),
                most,
            })
            .await
        {
            Ok(HostReply::Proceed) => Ok(Reservation(Held::AtHost(task.clone(), id))),
            Ok(other) => Err(Failure::new(
                "host.reply",
                FailureClass::Protocol,
                format!("the engine answered a reservation with {other:?}"),
            )),
            Err(h) => Err(h.into()),
        }
    }

    /// What the step has used of its own reservation; `None` charges all of it.
    pub(crate) fn metered(&self) -> Option<Usage> {
        let Scope::Step { meter, .. } = &self.0.scope else {
            return None;
        };
        let m = lock(meter);
        Some(m.spent.plus(m.open))
    }
}

/// A held part of the budget. Dropped without [`settle`](Self::settle) it is charged in full when
/// its step ends: dropping never gives money back.
#[must_use = "settle it with what was really spent"]
#[derive(Debug)]
pub struct Reservation(Held);

#[derive(Debug)]
enum Held {
    Free,
    InStep(CallCx, Usage),
    AtHost(TaskContext, String),
}

impl Reservation {
    /// Charges what was spent and frees the rest.
    ///
    /// # Errors
    /// Those of the engine's journal.
    pub async fn settle(self, actual: Usage) -> Result<(), Failure> {
        match self.0 {
            Held::Free => Ok(()),
            Held::InStep(cx, most) => {
                if let Scope::Step { meter, .. } = &cx.0.scope {
                    let mut m = lock(meter);
                    m.open = minus(m.open, most);
                    m.spent = m.spent.plus(actual);
                }
                Ok(())
            }
            Held::AtHost(task, id) => task
                .host(HostCall::Settle { id, actual })
                .await
                .map(drop)
                .map_err(Failure::from),
        }
    }
}

fn minus(a: Usage, b: Usage) -> Usage {
    Usage {
        micro_usd: a
            .micro_usd
            .zip(b.micro_usd)
            .map(|(a, b)| a.saturating_sub(b))
            .or(a.micro_usd.is_none().then_some(0)),
        input_tokens: a.input_tokens.saturating_sub(b.input_tokens),
        output_tokens: a.output_tokens.saturating_sub(b.output_tokens),
        calls: a.calls.saturating_sub(b.calls),
        millis: a.millis.saturating_sub(b.millis),
    }
}
