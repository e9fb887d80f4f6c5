//! What is known of a placement without the state of its run.

use crate::Engine;
use smallhands_core::{
    AttemptReport, CancelMode, Failure, FailureClass, Outcome, Ran, TaskHandle, TaskSpec,
};
use std::time::Duration;

/// The report, or a timeout: first asked to stop, then killed.
pub(crate) async fn within(
    engine: &Engine,
    handle: &dyn TaskHandle,
    limit: Duration,
) -> AttemptReport {
    tokio::select! {
        r = handle.report() => return r,
        () = engine.clock.sleep(limit) => {}
    }
    handle.cancel(CancelMode::Soft).await;
    tokio::select! {
        _ = handle.report() => {}
        () = engine.clock.sleep(engine.grace) => handle.cancel(CancelMode::Hard).await,
    }
    let why = format!("the attempt took longer than {} ms", limit.as_millis());
    let f = Failure::new("task.timeout", FailureClass::Timeout, why).retryable();
    AttemptReport {
        outcome: Outcome::Halted(f.into()),
        ran: Ran::Yes,
    }
}

pub(crate) fn never_ran(f: Failure) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Halted(f.into()),
        ran: Ran::No,
    }
}

pub(crate) fn restarted() -> AttemptReport {
    let why = "the engine was restarted while it ran";
    let f = Failure::new("engine.restarted", FailureClass::WorkerLost, why);
    AttemptReport {
        outcome: Outcome::Halted(f.into()),
        ran: Ran::Maybe,
    }
}

#[cfg(feature = "schema")]
pub(crate) fn fits_schema(spec: &TaskSpec, value: &serde_json::Value) -> Result<(), Failure> {
    let Some(schema) = &spec.output_schema else {
        return Ok(());
    };
    let bad = |e: String| {
        let why = format!("the output does not fit its schema: {e}");
        Failure::new("output.schema", FailureClass::Task, why).retryable()
    };
    let v = jsonschema::validator_for(schema).map_err(|e| bad(e.to_string()))?;
    v.validate(value).map_err(|e| bad(e.to_string()))
}

#[cfg(not(feature = "schema"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same shape as with the feature"
)]
pub(crate) fn fits_schema(_: &TaskSpec, _: &serde_json::Value) -> Result<(), Failure> {
    Ok(())
}

#[cfg(feature = "schema")]
pub(crate) fn input_fits(spec: &TaskSpec, value: &serde_json::Value) -> Result<(), Failure> {
    let Some(schema) = &spec.input_schema else {
        return Ok(());
    };
    let bad = |e: String| {
        let why = format!("the input does not fit its schema: {e}");
        Failure::new("input.schema", FailureClass::Input, why)
    };
    let v = jsonschema::validator_for(schema).map_err(|e| bad(e.to_string()))?;
    v.validate(value).map_err(|e| bad(e.to_string()))
}

#[cfg(not(feature = "schema"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same shape as with the feature"
)]
pub(crate) fn input_fits(_: &TaskSpec, _: &serde_json::Value) -> Result<(), Failure> {
    Ok(())
}

#[cfg(feature = "schema")]
pub(crate) fn answer_fits(
    q: &smallhands_core::Question,
    v: &serde_json::Value,
) -> Result<(), String> {
    let schema = jsonschema::validator_for(&q.schema).map_err(|e| e.to_string())?;
    schema.validate(v).map_err(|e| e.to_string())
}

#[cfg(not(feature = "schema"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same shape as with the feature"
)]
pub(crate) fn answer_fits(
    _: &smallhands_core::Question,
    _: &serde_json::Value,
) -> Result<(), String> {
    Ok(())
}
