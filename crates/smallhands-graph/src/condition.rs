use serde_json::{Map, Value};
use smallhands_core::Condition;
use std::{collections::BTreeMap, fmt, sync::Arc};

type Judge = Arc<dyn Fn(&Map<String, Value>) -> bool + Send + Sync>;

/// The functions that [`Condition::Named`] refers to. The verdict of a condition is journaled, so
/// that a resumed run does not ask again.
#[derive(Clone, Default)]
pub struct Conditions(BTreeMap<String, Judge>);

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Conditions {
    /// Registers a function over the outputs of the needed tasks, by id.
    #[must_use]
    pub fn with(
        mut self,
        name: &str,
        f: impl Fn(&Map<String, Value>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(name.into(), Arc::new(f));
        self
    }

    pub(crate) fn holds(
        &self,
        c: &Condition,
        outputs: &Map<String, Value>,
    ) -> Result<bool, String> {
        match c {
            Condition::Named(n) => match self.0.get(n) {
                Some(f) => Ok(f(outputs)),
                None => Err(format!("no condition is registered under the name `{n}`")),
            },
            Condition::Expr(e) => Self::eval(e, outputs),
            other => Err(format!(
                "this program does not know the condition {other:?}"
            )),
        }
    }

    #[cfg(feature = "expr")]
    fn eval(e: &str, outputs: &Map<String, Value>) -> Result<bool, String> {
        let env = minijinja::Environment::new();
        let expr = env.compile_expression(e).map_err(|e| e.to_string())?;
        // Ids need not be identifiers: `out["fetch/1"].n` reads what `fetch.n` cannot.
        let mut scope = outputs.clone();
        scope.insert("out".into(), Value::Object(outputs.clone()));
        let v = expr
            .eval(minijinja::Value::from(minijinja::value::Serde(&scope)))
            .map_err(|x| format!("`{e}`: {x}"))?;
        Ok(v.is_true())
    }
    #[cfg(feature = "expr")]
    pub(crate) fn check_expr(e: &str) -> Result<(), String> {
        let env = minijinja::Environment::new();
        env.compile_expression(e)
            .map(drop)
            .map_err(|x| format!("the condition `{e}` is not an expression: {x}"))
    }

    #[cfg(not(feature = "expr"))]
    fn eval(e: &str, _: &Map<String, Value>) -> Result<bool, String> {
        Self::check_expr(e).map(|()| false)
    }
    #[cfg(not(feature = "expr"))]
    pub(crate) fn check_expr(_: &str) -> Result<(), String> {
        Err("a condition as expression needs the feature `expr` of smallhands-graph".into())
    }
}

#[cfg(all(test, feature = "expr"))]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_read_outputs_by_id() {
        let outputs = json!({"a": {"n": 3}, "b/1": {"ok": true}});
        let outputs = outputs.as_object().unwrap();
        let holds = |e: &str| Conditions::default().holds(&Condition::Expr(e.into()), outputs);
        assert_eq!(holds("a.n > 2"), Ok(true));
        assert_eq!(holds("a.n > 2 and not out['b/1'].ok"), Ok(false));
        assert!(holds("a.n >").is_err());
        let named = Conditions::default().with("big", |o| o["a"]["n"].as_u64() > Some(2));
        assert_eq!(
            named.holds(&Condition::Named("big".into()), outputs),
            Ok(true)
        );
        assert!(
            named
                .holds(&Condition::Named("small".into()), outputs)
                .is_err()
        );
    }
}
