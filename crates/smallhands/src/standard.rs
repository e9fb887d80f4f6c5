//! The standard layers from a configuration: the composition root of the command line and of its
//! worker processes. The configuration is journaled with the run and holds no secret.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_agents::{
    Delivered, Delivery, IndexFiles, PlanMode, RepairParts, RepairSpec, Workers,
};
use smallhands_core::{
    Ambient, BlobRef, CallCx, Failure, FailureClass, RunId, Secrets, WorkerSource, async_trait,
};
use smallhands_graph::{DirBlobs, SqliteStore, StateStore, StoreError};
use smallhands_llm::{ChatModel, ModelManager};
use smallhands_sandbox::{
    CommitMeta, RepoStore, SandboxBackend, Snapshot,
    linux::{NativeBackend, NativeOptions},
};
use smallhands_tools::developer_tools;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Which model, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum ModelSpec {
    /// A GGUF file in this process.
    Local {
        /// The file.
        path: PathBuf,
        /// Its name in the journal.
        name: String,
        /// Threads that compute.
        threads: u32,
    },
    /// OpenAI's own service.
    OpenAi {
        /// The model.
        name: String,
    },
    /// Anthropic's own service.
    Anthropic {
        /// The model.
        name: String,
    },
    /// Any server that speaks OpenAI's Chat Completions.
    Compatible {
        /// `http://127.0.0.1:8080/v1`.
        base_url: String,
        /// The model.
        name: String,
    },
    /// Answers from a file, for demonstrations without a model: a JSON list of texts, given in
    /// turn to whoever asks; the choice is made by a hash of the question, not by its time.
    Recorded {
        /// The file.
        path: PathBuf,
    },
}

/// Where the result goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// A new branch in the user's repository; its working tree is not touched.
    Branch {
        /// The repository.
        repo: PathBuf,
        /// The branch.
        branch: String,
    },
    /// A patch file.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// A repair with everything that it needs, but secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairConfig {
    /// What to do.
    pub spec: RepairSpec,
    /// The models, the smallest first.
    pub models: Vec<ModelSpec>,
    /// Where journals, clean copies and blobs are.
    pub state_dir: PathBuf,
    /// The git program.
    pub git: PathBuf,
    /// Where the result goes.
    pub target: Target,
    /// The first line of the commit message.
    pub title: String,
    /// How the graph is made.
    pub plan: PlanMode,
    /// Worker processes; 0 runs tasks in the engine's own.
    pub processes: usize,
}

/// The journal in a state directory.
///
/// # Errors
/// The directory cannot be used.
pub fn store(state_dir: &Path) -> Result<Arc<dyn StateStore>, StoreError> {
    Ok(Arc::new(sqlite(state_dir)?))
}

fn sqlite(state_dir: &Path) -> Result<SqliteStore, StoreError> {
    let blobs = DirBlobs::open(state_dir.join("blobs"))
        .map_err(|e| StoreError::Io(format!("{}: {e}", state_dir.display())))?;
    SqliteStore::open(state_dir, Arc::new(blobs))
}

/// Takes a run from the process that drives it, for one that hangs and cannot be ended:
/// [`SqliteStore::take_from_holder`].
///
/// # Errors
/// The directory cannot be used.
pub fn take_over(state_dir: &Path, run: &RunId) -> Result<(), StoreError> {
    sqlite(state_dir)?.take_from_holder(run)
}

/// The store of clean copies in a state directory.
///
/// # Errors
/// The directory cannot be used, or git cannot be run.
pub fn repos(state_dir: &Path, git: &Path) -> Result<Arc<RepoStore>, Failure> {
    Ok(Arc::new(RepoStore::open(state_dir.join("repos"), git)?))
}

/// The native sandbox in a state directory.
///
/// # Errors
/// The directory cannot be used.
pub fn sandbox(
    state_dir: &Path,
    repos: Arc<RepoStore>,
) -> Result<Arc<dyn SandboxBackend>, Failure> {
    let options = NativeOptions::new(repos, state_dir.join("sandboxes"));
    Ok(Arc::new(NativeBackend::new(options)?))
}

/// A model from its specification; keys come from the secrets of the process.
///
/// # Errors
/// The model cannot be loaded, its key is missing, or this program was built without it.
#[cfg_attr(
    not(feature = "http"),
    expect(unused_variables, reason = "only models over the network have keys")
)]
pub fn model(spec: &ModelSpec, secrets: &dyn Secrets) -> Result<Arc<dyn ChatModel>, Failure> {
    match spec {
        #[cfg(feature = "local-model")]
        ModelSpec::Local {
            path,
            name,
            threads,
        } => {
            let options = smallhands_llm::LocalOptions {
                threads: *threads,
                ..smallhands_llm::LocalOptions::default()
            };
            Ok(Arc::new(smallhands_llm::LocalModel::open(
                path, name, options,
            )?))
        }
        #[cfg(not(feature = "local-model"))]
        ModelSpec::Local { .. } => Err(without("local-model")),
        #[cfg(feature = "http")]
        ModelSpec::OpenAi { name } => {
            let key = key(secrets, "OPENAI_API_KEY")?;
            let endpoint = smallhands_llm::Endpoint::openai(name, key);
            Ok(Arc::new(smallhands_llm::OpenAi::new(endpoint)?))
        }
        #[cfg(feature = "http")]
        ModelSpec::Anthropic { name } => {
            let key = key(secrets, "ANTHROPIC_API_KEY")?;
            let endpoint = smallhands_llm::Endpoint::anthropic(name, key);
            Ok(Arc::new(smallhands_llm::Anthropic::new(endpoint)?))
        }
        #[cfg(feature = "http")]
        ModelSpec::Compatible { base_url, name } => {
            let key = secrets.get(&"OPENAI_API_KEY".into());
            let endpoint =
                smallhands_llm::Endpoint::compatible(base_url, name, key.map(Into::into));
            Ok(Arc::new(smallhands_llm::OpenAi::new(endpoint)?))
        }
        #[cfg(not(feature = "http"))]
        ModelSpec::OpenAi { .. } | ModelSpec::Anthropic { .. } | ModelSpec::Compatible { .. } => {
            Err(without("http"))
        }
        ModelSpec::Recorded { path } => recorded(path),
    }
}

#[cfg(feature = "http")]
fn key(secrets: &dyn Secrets, name: &str) -> Result<String, Failure> {
    secrets.get(&name.into()).ok_or_else(|| {
        let why = format!("the model needs a key, and {name} is not set");
        Failure::new("llm.auth", FailureClass::Input, why)
            .hint(format!("export {name}=.., or use --model local"))
    })
}

#[cfg(not(all(feature = "http", feature = "local-model")))]
fn without(feature: &str) -> Failure {
    let why = format!("this program was built without the feature `{feature}`");
    Failure::new("llm.feature", FailureClass::Input, why)
        .hint(format!("build it with --features {feature}"))
}

fn recorded(path: &Path) -> Result<Arc<dyn ChatModel>, Failure> {
    let bad = |why: String| {
        let why = format!(
            "the recorded answers {} cannot be used: {why}",
            path.display()
        );
        Failure::new("llm.recorded", FailureClass::Input, why)
    };
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let answers: Vec<String> = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    if answers.is_empty() {
        return Err(bad("the list is empty".into()));
    }
    Ok(Arc::new(smallhands_llm::Scripted::new(
        "recorded",
        move |r, sample| {
            // The answer whose code has most lines in common with the question comes first.
            let asked = r.messages.last().map_or("", |m| &m.text);
            let common = |a: &&String| {
                a.lines()
                    .filter(|l| l.len() > 8 && asked.contains(l.trim()))
                    .count()
            };
            let mut by_fit: Vec<_> = answers.iter().collect();
            by_fit.sort_by_key(|a| std::cmp::Reverse(common(a)));
            by_fit[sample as usize % by_fit.len()].clone()
        },
    )))
}

/// Delivers what was made on top of a commit of the store; the title heads the commit message.
pub fn delivery(
    repos: Arc<RepoStore>,
    base: &str,
    target: Target,
    title: &str,
) -> Arc<dyn Delivery> {
    Arc::new(StandardDelivery {
        repos,
        base: Some(base.to_owned()).filter(|b| !b.is_empty()),
        target,
        title: title.into(),
    })
}

/// The parts of a repair, in the engine's process or a worker's.
///
/// # Errors
/// A part cannot be made.
pub fn parts(c: &RepairConfig, ambient: &Ambient) -> Result<RepairParts, Failure> {
    let repos = repos(&c.state_dir, &c.git)?;
    let base = c.spec.sandbox.source.as_ref().map_or("", |s| &s.commit);
    let models = c
        .models
        .iter()
        .map(|m| model(m, &*ambient.secrets))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RepairParts {
        models: ModelManager::new(models)?,
        sandboxes: sandbox(&c.state_dir, repos.clone())?,
        memory: Arc::new(IndexFiles),
        tools: developer_tools(c.spec.tests.clone()),
        delivery: delivery(repos, base, c.target.clone(), &c.title),
        plan: c.plan,
    })
}

/// Makes the standard workers out of a [`RepairConfig`], in whatever process.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardWorkers;

#[async_trait]
impl WorkerSource for StandardWorkers {
    async fn open(&self, config: &Value, ambient: &Ambient) -> Result<Workers, Failure> {
        let c: RepairConfig = serde_json::from_value(config.clone())
            .map_err(|e| Failure::new("config.unreadable", FailureClass::Input, e.to_string()))?;
        Ok(parts(&c, ambient)?.workers(c.spec))
    }
}

/// A branch in the user's repository, or a patch file.
#[derive(Debug)]
struct StandardDelivery {
    repos: Arc<RepoStore>,
    base: Option<String>,
    target: Target,
    title: String,
}

#[async_trait]
impl Delivery for StandardDelivery {
    async fn find(&self, run: &str, _: &CallCx) -> Result<Option<Delivered>, Failure> {
        match &self.target {
            Target::Branch { repo, branch } => {
                let found = self.repos.find_branch(repo, branch)?;
                // Only what carries the run's name is ours.
                let ours = found.filter(|(_, message)| message.contains(&marker(run)));
                Ok(ours.map(|(commit, _)| Delivered {
                    branch: Some(branch.clone()),
                    commit: Some(commit),
                    file: None,
                }))
            }
            // Writing the same file again changes nothing.
            Target::File { .. } => Ok(None),
        }
    }

    async fn deliver(
        &self,
        run: &str,
        snapshot: &BlobRef,
        patch: &str,
        cx: &CallCx,
    ) -> Result<Delivered, Failure> {
        match &self.target {
            Target::Branch { repo, branch } => {
                let blobs = &*cx.ambient().blobs;
                let changes = Snapshot::load(snapshot, blobs)
                    .await?
                    .changes(blobs)
                    .await?;
                let meta = CommitMeta {
                    message: format!("{}\n\n{}\n", self.title, marker(run)),
                    author_name: "SmallHands".into(),
                    author_email: "smallhands@localhost".into(),
                    time: cx.ambient().clock.now(),
                };
                let commit = self.repos.commit(self.base.as_deref(), &changes, &meta)?;
                self.repos.publish(&commit, repo, branch)?;
                Ok(Delivered {
                    branch: Some(branch.clone()),
                    commit: Some(commit),
                    file: None,
                })
            }
            Target::File { path } => {
                std::fs::write(path, patch).map_err(|e| {
                    let why = format!("the patch cannot be written to {}: {e}", path.display());
                    Failure::new("deliver.file", FailureClass::Unavailable, why)
                })?;
                Ok(Delivered {
                    branch: None,
                    commit: None,
                    file: Some(path.display().to_string()),
                })
            }
        }
    }
}

fn marker(run: &str) -> String {
    format!("Smallhands-Run: {run}")
}
