use serde_json::Value;
use smallhands_core::{CallCx, Guardrail, SecretName, Subject, Verdict, async_trait};
use std::fmt;

/// Keeps secrets that it was told of out of prompts, patches and records.
///
/// A prompt or a patch that holds one is denied; in the result of a step it becomes the named token
/// `«secret:NAME»`. Tool calls are never rewritten: one that holds a secret is denied.
#[derive(Clone, Default)]
pub struct SecretGuard {
    known: Vec<(SecretName, String)>,
}

impl fmt::Debug for SecretGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.known.iter().map(|k| &k.0))
            .finish()
    }
}

impl SecretGuard {
    /// With these; values shorter than six bytes are left out.
    pub fn new(known: impl IntoIterator<Item = (SecretName, String)>) -> Self {
        let known = known.into_iter().filter(|(_, v)| v.len() >= 6);
        Self {
            known: known.collect(),
        }
    }

    fn found(&self, text: &str) -> Option<&SecretName> {
        self.known
            .iter()
            .find(|(_, v)| text.contains(v.as_str()))
            .map(|(n, _)| n)
    }

    fn any(&self, v: &Value) -> Option<&SecretName> {
        match v {
            Value::String(s) => self.found(s),
            Value::Array(a) => a.iter().find_map(|x| self.any(x)),
            Value::Object(m) => m
                .iter()
                .find_map(|(k, x)| self.found(k).or_else(|| self.any(x))),
            _ => None,
        }
    }

    fn masked(&self, v: &Value) -> Value {
        match v {
            Value::String(s) => {
                let mask = |s: String, (name, value): &(SecretName, String)| {
                    s.replace(value.as_str(), &format!("«secret:{name}»"))
                };
                Value::String(self.known.iter().fold(s.clone(), mask))
            }
            Value::Array(a) => a.iter().map(|x| self.masked(x)).collect(),
            Value::Object(m) => m
                .iter()
                .map(|(k, x)| (k.clone(), self.masked(x)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }
}

#[async_trait]
impl Guardrail for SecretGuard {
    fn name(&self) -> &'static str {
        "secrets"
    }
    async fn check(&self, s: &Subject, _: &CallCx) -> Verdict {
        let rule = || "secrets.known".to_owned();
        let found = match s {
            Subject::Prompt(v) | Subject::ModelAnswer(v) | Subject::StepResult(v) => self.any(v),
            Subject::ToolCall { args, .. } => self.any(args),
            Subject::Patch(p) => self.found(p),
            _ => None,
        };
        match (found, s) {
            (None, _) => Verdict::Allow,
            (Some(_), Subject::StepResult(v) | Subject::ModelAnswer(v)) => Verdict::Redact {
                with: self.masked(v),
                rule: rule(),
            },
            (Some(name), _) => Verdict::Deny {
                rule: rule(),
                reason: format!("it holds the secret `{name}`"),
            },
        }
    }
}
