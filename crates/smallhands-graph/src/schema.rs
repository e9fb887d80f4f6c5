//! Values against the JSON schemas of their task. Without the feature `schema` a graph that
//! declares one is refused, and everything fits.

use crate::{
    TaskFault,
    check::{Path, key},
};
use serde_json::Value;
use smallhands_core::{Failure, FailureClass, Question, TaskSpec};
use std::sync::Arc;

/// Whether the schemas of a task can be used at all.
pub(crate) fn check(t: &TaskSpec) -> Result<(), (Path, TaskFault)> {
    let declared = [
        ("input_schema", &t.input_schema),
        ("output_schema", &t.output_schema),
    ];
    for (which, schema) in declared {
        if let Some(s) = schema {
            usable(which, s).map_err(|f| (key(which), f))?;
        }
    }
    Ok(())
}

#[cfg(feature = "schema")]
fn usable(which: &'static str, schema: &Arc<Value>) -> Result<(), TaskFault> {
    let bad = |why| TaskFault::Schema { which, why };
    cache::validator(schema).map(drop).map_err(bad)
}

#[cfg(not(feature = "schema"))]
fn usable(which: &'static str, _: &Arc<Value>) -> Result<(), TaskFault> {
    Err(TaskFault::SchemaFeature(which))
}

/// Whether a value fits a schema.
#[cfg(feature = "schema")]
pub(crate) fn fits(schema: &Arc<Value>, value: &Value) -> Result<(), String> {
    let v = cache::validator(schema)?;
    v.validate(value)
        .map_err(|e| match e.instance_path().to_string() {
            p if p.is_empty() => e.to_string(),
            p => format!("at `{p}`: {e}"),
        })
}

#[cfg(not(feature = "schema"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same shape as with the feature"
)]
pub(crate) fn fits(_: &Arc<Value>, _: &Value) -> Result<(), String> {
    Ok(())
}

/// Whether the resolved input is what the task declares.
pub(crate) fn input_fits(spec: &TaskSpec, value: &Value) -> Result<(), Failure> {
    let Some(schema) = &spec.input_schema else {
        return Ok(());
    };
    fits(schema, value).map_err(|e| {
        let why = format!("the input does not fit its schema: {e}");
        Failure::new("input.schema", FailureClass::Input, why)
    })
}

/// Whether the output is what the task declares.
pub(crate) fn output_fits(spec: &TaskSpec, value: &Value) -> Result<(), Failure> {
    let Some(schema) = &spec.output_schema else {
        return Ok(());
    };
    fits(schema, value).map_err(|e| {
        let why = format!("the output does not fit its schema: {e}");
        Failure::new("output.schema", FailureClass::Task, why).retryable()
    })
}

/// Whether an answer is what was asked for.
pub(crate) fn answer_fits(question: &Question, answer: &Value) -> Result<(), String> {
    match &question.schema {
        // A question from another program may leave its schema out.
        Value::Bool(true) | Value::Null => Ok(()),
        s => fits(&Arc::new(s.clone()), answer),
    }
}

/// Compiled schemas. Compiling costs far more than validating, and many tasks share a schema.
#[cfg(feature = "schema")]
mod cache {
    use jsonschema::Validator;
    use serde_json::Value;
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex, PoisonError, Weak},
    };

    /// More than this many are forgotten together.
    const CAPACITY: usize = 1024;

    #[derive(Default)]
    struct Cache {
        /// By address. The weak pointer keeps the address from being given to another schema.
        by_place: HashMap<usize, (Weak<Value>, Arc<Validator>)>,
        /// By text, for graphs that were read from text and share nothing.
        by_text: HashMap<String, Arc<Validator>>,
    }

    static CACHE: Mutex<Option<Cache>> = Mutex::new(None);

    pub(super) fn validator(schema: &Arc<Value>) -> Result<Arc<Validator>, String> {
        let place = Arc::as_ptr(schema) as usize;
        if let Some((_, v)) = with(|c| c.by_place.get(&place).cloned()) {
            return Ok(v);
        }
        let text = schema.to_string();
        let known = with(|c| c.by_text.get(&text).cloned());
        // Compiled outside the lock: a large schema must not hold up other runs.
        let v = match known {
            Some(v) => v,
            None => Arc::new(jsonschema::validator_for(schema).map_err(|e| e.to_string())?),
        };
        with(|c| {
            if c.by_place.len() >= CAPACITY {
                c.by_place.retain(|_, (s, _)| s.strong_count() > 0);
            }
            if c.by_place.len() >= CAPACITY {
                c.by_place.clear();
            }
            if c.by_text.len() >= CAPACITY {
                c.by_text.clear();
            }
            c.by_place
                .insert(place, (Arc::downgrade(schema), v.clone()));
            c.by_text.insert(text, v.clone());
        });
        Ok(v)
    }

    fn with<T>(f: impl FnOnce(&mut Cache) -> T) -> T {
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        f(cache.get_or_insert_default())
    }
}

#[cfg(all(test, feature = "schema"))]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inputs_and_outputs_are_checked_and_say_where_they_do_not_fit() {
        let s = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let t = TaskSpec::new("a", "w")
            .input_schema(s.clone())
            .output_schema(s);
        assert_eq!(input_fits(&t, &json!({"n": 1})), Ok(()));
        let f = input_fits(&t, &json!({"n": "x"})).unwrap_err();
        assert_eq!((&*f.code, f.class), ("input.schema", FailureClass::Input));
        assert!(f.message.contains("`/n`") && !f.retryable, "{}", f.message);
        let f = output_fits(&t, &json!([])).unwrap_err();
        assert_eq!((&*f.code, f.class), ("output.schema", FailureClass::Task));
        assert!(f.retryable);
        assert_eq!(input_fits(&TaskSpec::new("a", "w"), &json!(1)), Ok(()));
    }

    #[test]
    fn a_schema_is_compiled_once_however_often_it_is_met() {
        let s = Arc::new(json!({"type": "string", "title": "compiled once"}));
        let a = cache::validator(&s).unwrap();
        let b = cache::validator(&s).unwrap();
        let c = cache::validator(&Arc::new((*s).clone())).unwrap();
        assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a, &c));
    }

    #[test]
    fn an_address_that_is_used_again_does_not_bring_the_old_schema_back() {
        for i in 0..3000 {
            let want = if i % 2 == 0 { "string" } else { "integer" };
            let s = Arc::new(json!({"type": want, "title": i.to_string()}));
            assert_eq!(fits(&s, &json!("x")).is_ok(), i % 2 == 0);
        }
    }

    #[test]
    fn answers_are_checked() {
        let q = Question::new("how many?");
        assert_eq!(answer_fits(&q, &json!({"any": 1})), Ok(()));
        let q = q.schema(json!({"type": "integer"}));
        assert_eq!(answer_fits(&q, &json!(3)), Ok(()));
        assert!(answer_fits(&q, &json!("three")).is_err());
        let absent = Question::new("?").schema(Value::Null);
        assert_eq!(answer_fits(&absent, &json!(3)), Ok(()));
    }
}

#[cfg(all(test, not(feature = "schema")))]
mod tests_without {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_declared_schema_is_refused_rather_than_ignored() {
        let t = TaskSpec::new("a", "w").input_schema(json!(true));
        let (at, fault) = check(&t).unwrap_err();
        assert_eq!(at.to_string(), "input_schema");
        assert_eq!(fault, TaskFault::SchemaFeature("input_schema"));
    }
}
