//! Bodies of older versions, brought to the present one step at a time. Journals are never
//! rewritten: this happens whenever one is read.

use crate::Event;
use serde_json::Value;

/// What a kind's body became in the version after the one given.
struct Step {
    kind: &'static str,
    from: u16,
    change: fn(&mut Value) -> Result<(), String>,
}

/// Every change that a released version of a body went through. None has, so far.
const STEPS: &[Step] = &[];

/// Brings a body of that version to the one that this program writes.
///
/// # Errors
/// A version that never was, or a body that is not what its version says.
pub(crate) fn upcast(kind: &str, version: u16, body: &mut Value) -> Result<(), String> {
    through(STEPS, Event::VERSION, kind, version, body)
}

/// A kind without a step from a version did not change in it.
fn through(
    steps: &[Step],
    to: u16,
    kind: &str,
    version: u16,
    body: &mut Value,
) -> Result<(), String> {
    if version == 0 {
        return Err(format!("`{kind}` version 0 never was; versions begin at 1"));
    }
    for from in version..to {
        if let Some(s) = steps.iter().find(|s| s.kind == kind && s.from == from) {
            (s.change)(body).map_err(|e| format!("`{kind}` version {from}: {e}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn renamed(body: &mut Value) -> Result<(), String> {
        let fields = body.as_object_mut().ok_or("it is no object")?;
        let name = fields.remove("old").ok_or("it has no `old`")?;
        fields.insert("new".into(), name);
        Ok(())
    }
    fn wrapped(body: &mut Value) -> Result<(), String> {
        *body = json!({ "in": body.take() });
        Ok(())
    }
    const TEST: &[Step] = &[
        Step {
            kind: "said",
            from: 3,
            change: wrapped,
        },
        Step {
            kind: "said",
            from: 1,
            change: renamed,
        },
    ];

    #[test]
    fn a_body_goes_through_every_version_after_its_own() {
        let of = |kind: &str, version, mut body: Value| {
            through(TEST, 4, kind, version, &mut body).map(|()| body)
        };
        let old = json!({"old": 1});
        assert_eq!(of("said", 1, old.clone()), Ok(json!({"in": {"new": 1}})));
        let new = json!({"new": 1});
        assert_eq!(of("said", 2, new.clone()), Ok(json!({"in": {"new": 1}})));
        assert_eq!(of("said", 4, new.clone()), Ok(new));
        assert_eq!(of("other", 1, old.clone()), Ok(old));
        let e = of("said", 1, json!([])).unwrap_err();
        assert_eq!(e, "`said` version 1: it is no object");
        assert!(of("said", 0, json!({})).is_err());
    }
}
