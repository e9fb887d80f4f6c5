use crate::error::CliError;
use smallhands::core::{SecretName, Secrets};
use std::{env, path::PathBuf};

/// Where this program keeps things.
pub(crate) struct Dirs {
    pub(crate) state: PathBuf,
    pub(crate) cache: PathBuf,
}

impl Dirs {
    pub(crate) fn new(state: Option<PathBuf>, cache: Option<PathBuf>) -> Result<Self, CliError> {
        let dir = |given: Option<PathBuf>, own: &str, xdg: &str, home: &str| {
            given
                .or_else(|| set(own))
                .or_else(|| Some(set(xdg)?.join("smallhands")))
                .or_else(|| Some(set("HOME")?.join(home).join("smallhands")))
                .and_then(|p| std::path::absolute(p).ok())
                .ok_or_else(|| {
                    CliError::other(format!("neither HOME nor {own} is set"))
                        .hint("give --state-dir and --cache-dir")
                })
        };
        Ok(Self {
            state: dir(state, "SMALLHANDS_STATE", "XDG_STATE_HOME", ".local/state")?,
            cache: dir(cache, "SMALLHANDS_CACHE", "XDG_CACHE_HOME", ".cache")?,
        })
    }
}

fn set(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

const KEYS: [&str; 2] = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"];

/// Secrets from the environment of this program.
#[derive(Debug)]
pub(crate) struct Environment;
impl Secrets for Environment {
    fn get(&self, name: &SecretName) -> Option<String> {
        env::var(name.as_str()).ok().filter(|v| !v.is_empty())
    }
}

/// Those that are set, for guard and redactor.
pub(crate) fn secrets() -> Vec<(SecretName, String)> {
    KEYS.iter()
        .filter_map(|k| Some(((*k).into(), Environment.get(&(*k).into())?)))
        .collect()
}

/// The keys themselves, to pass on to worker processes.
pub(crate) fn key_variables() -> Vec<(String, String)> {
    secrets()
        .into_iter()
        .map(|(k, v)| (k.to_string(), v))
        .collect()
}
