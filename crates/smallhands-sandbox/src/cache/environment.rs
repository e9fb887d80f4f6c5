//! What a project needs before work on it can begin, set up once for all who need the same.

use super::{
    Cache, Origin, Promotion, Pruned,
    store::{Generations, failed, hold},
};
use crate::{
    CacheView, EntryKind, Execution, Generation, Invocation, Sandbox, SandboxBackend, SandboxError,
    SandboxSpec, blocking, or_cancelled,
};
use serde_json::json;
use smallhands_core::{CallCx, Digest};
use std::{
    fs::{self, File},
    path::{Component, Path, PathBuf},
};

/// How an environment is set up.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Lockfiles, manifests and whatever else of the repository set-up may see: it sees nothing
    /// else, so that nothing else can change what comes of it. A path that ends in `/` is a
    /// directory with all that is below it. They come as plain files, none executable.
    pub inputs: Vec<String>,
    /// Run one after the other; each must exit with 0.
    pub setup: Vec<Invocation>,
    /// Directories that they make, relative to the workspace, and that are kept: `.venv`,
    /// `node_modules`.
    pub makes: Vec<String>,
    /// Caches that they may use, each at its place, under the variable of its kind.
    pub caches: Vec<(Cache, PathBuf)>,
    /// Promote what they leave there, unchecked ([`Origin::Setup`]). Only for inputs that no agent
    /// wrote: a commit of its own would put what it likes into the caches of everybody.
    pub promote: bool,
    /// The commit with the inputs, and what set-up is granted: toolchains, limits, hosts. Other parts
    /// of it are not used.
    pub spec: SandboxSpec,
    /// What else it depends on, such as the version of a toolchain in
    /// [`SandboxSpec::read_only`].
    pub also: Vec<String>,
}

/// Environments of a host, kept in one directory that processes may share.
///
/// ```no_run
/// # async fn f(
/// #     backend: &dyn smallhands_sandbox::SandboxBackend, cx: &smallhands_core::CallCx,
/// #     source: smallhands_sandbox::RepoSource,
/// # ) -> Result<(), smallhands_sandbox::SandboxError> {
/// use smallhands_sandbox::{Environment, Environments, Invocation, SandboxSpec};
///
/// let spec = SandboxSpec { source: Some(source), ..SandboxSpec::default() };
/// let what = Environment {
///     inputs: vec!["package.json".into(), "package-lock.json".into()],
///     setup: vec![Invocation::new(["npm", "ci", "--offline"])],
///     makes: vec!["node_modules".into()],
///     spec: spec.clone(),
///     ..Environment::default()
/// };
/// let ready = Environments::open("/var/lib/app/environments")?.get(backend, &what, cx).await?;
/// let spec = SandboxSpec { environment: Some(ready.generation.clone()), ..spec };
/// # let _ = backend.open(&spec, cx).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Environments {
    all: Generations,
    /// The most that one may hold.
    pub max_bytes: u64,
}

/// An environment that is there; not pruned as long as this lives, or a sandbox that shows it.
#[derive(Debug)]
pub struct Prepared {
    /// For [`SandboxSpec::environment`].
    pub generation: Generation,
    /// Of everything that it was made from.
    pub key: Digest,
    /// What its commands did, if it was this call that ran them.
    pub setup: Vec<Execution>,
    /// What became of the caches then.
    pub promotions: Vec<Promotion>,
    _held: Option<File>,
}

impl Environments {
    /// Opens a directory that belongs to them alone; makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, SandboxError> {
        let dir = dir.into();
        let all = Generations::open(dir.clone()).map_err(failed(&dir))?;
        Ok(Self {
            all,
            max_bytes: super::MAX_BYTES,
        })
    }

    /// The environment, set up if nobody did before. Of several callers, in any process, one sets it
    /// up and the others wait. One that failed or was killed leaves nothing, and the next tries
    /// again.
    ///
    /// # Errors
    /// [`SandboxError::Environment`] if a command fails or does not make what it was to make; those
    /// of the backend; an input that is not there.
    pub async fn get(
        &self,
        backend: &dyn SandboxBackend,
        what: &Environment,
        cx: &CallCx,
    ) -> Result<Prepared, SandboxError> {
        if let Some(bad) = what.makes.iter().find(|m| !is_below(m)) {
            return Err(SandboxError::Path {
                path: bad.clone(),
                reason: "what set-up makes lies below the workspace, and is not all of it".into(),
            });
        }
        let inputs = inputs(backend, what, cx).await?;
        let key = key(backend.name(), what, &inputs);
        let (all, name) = (self.all.clone(), key.hex().to_owned());
        let wait = move || {
            let path = all.path(&name);
            if path.is_dir()
                && let Ok(held) = hold(&path)
            {
                return Ok((None, Some(held)));
            }
            let making = all.lock(&name).map_err(failed(&all.dir))?;
            match path.is_dir() {
                true => Ok((None, Some(hold(&path)?))),
                false => Ok((Some(making), None)),
            }
        };
        let (making, held) = or_cancelled(blocking(wait), cx).await??;
        let mut ready = Prepared {
            generation: Generation {
                path: self.all.path(key.hex()),
            },
            key,
            setup: Vec::new(),
            promotions: Vec::new(),
            _held: held,
        };
        if making.is_some() {
            self.make(backend, what, &inputs, &mut ready, cx).await?;
        }
        Ok(ready)
    }

    /// Removes those that are not in use, the least recently used first, until the rest takes no
    /// more than that. Blocks.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn prune(&self, max_bytes: u64) -> Result<Pruned, SandboxError> {
        let pruned = self.all.prune(max_bytes, None);
        pruned.map_err(failed(&self.all.dir))
    }

    async fn make(
        &self,
        backend: &dyn SandboxBackend,
        what: &Environment,
        inputs: &[(String, Vec<u8>)],
        ready: &mut Prepared,
        cx: &CallCx,
    ) -> Result<(), SandboxError> {
        let mut spec = SandboxSpec {
            source: None,
            from: None,
            environment: None,
            caches: Vec::new(),
            ..what.spec.clone()
        };
        for (cache, at) in &what.caches {
            spec.caches.push(cache.view(at)?);
            spec.env.insert(0, cache.kind().environment(at));
        }
        let sandbox = backend.open(&spec, cx).await?;
        let made = self.run(&*sandbox, what, inputs, ready, cx).await;
        let made = match made {
            Ok(()) => promote(&*sandbox, what, &spec.caches, ready).await,
            Err(e) => Err(e),
        };
        // A sandbox that does not end well has done its work.
        drop(sandbox.close().await);
        let (all, name) = (self.all.clone(), ready.key.hex().to_owned());
        let publish = move || match made {
            Ok(()) => all.publish(&name).map_err(failed(&all.dir)),
            Err(e) => {
                // Why it failed is what matters; the next one removes it too.
                drop(all.abandon(&name));
                Err(e)
            }
        };
        ready._held = Some(blocking(publish).await?);
        Ok(())
    }

    /// Runs the commands, and takes out what they made.
    async fn run(
        &self,
        sandbox: &dyn Sandbox,
        what: &Environment,
        inputs: &[(String, Vec<u8>)],
        ready: &mut Prepared,
        cx: &CallCx,
    ) -> Result<(), SandboxError> {
        for (path, bytes) in inputs {
            sandbox.write(path, bytes).await?;
        }
        for command in &what.setup {
            let done = sandbox.exec(command, &mut |_, _| {}, cx).await?;
            if !done.ok() {
                return Err(SandboxError::Environment {
                    reason: format!("`{}`: {:?}", command.argv.join(" "), done.ended),
                    output: done.text(),
                });
            }
            ready.setup.push(done);
        }
        let (all, name) = (self.all.clone(), ready.key.hex().to_owned());
        let tmp = blocking(move || all.begin(&name).map_err(failed(&all.dir))).await?;
        for dir in &what.makes {
            let into = tmp.join(dir);
            fs::create_dir_all(&into).map_err(failed(&into))?;
            let refused = match sandbox.export(dir, &into, self.max_bytes).await {
                Err(SandboxError::NotFound(_)) => {
                    return Err(unmade(format!("no `{dir}` was made")));
                }
                other => other?,
            };
            if let Some(r) = refused.first() {
                let path = Path::new(dir).join(&r.path);
                return Err(unmade(format!("`{}`: {}", path.display(), r.why)));
            }
        }
        Ok(())
    }
}

fn unmade(reason: String) -> SandboxError {
    SandboxError::Environment {
        reason,
        output: String::new(),
    }
}

async fn promote(
    sandbox: &dyn Sandbox,
    what: &Environment,
    views: &[CacheView],
    ready: &mut Prepared,
) -> Result<(), SandboxError> {
    let caches = what.caches.iter().filter(|_| what.promote);
    for ((cache, _), view) in caches.zip(views) {
        let done = cache.promote(sandbox, view, Origin::Setup).await?;
        ready.promotions.push(done);
    }
    Ok(())
}

fn is_below(dir: &str) -> bool {
    let parts = Path::new(dir).components();
    !dir.is_empty() && parts.into_iter().all(|c| matches!(c, Component::Normal(_)))
}

/// The inputs with their bytes, in order of their paths.
async fn inputs(
    backend: &dyn SandboxBackend,
    what: &Environment,
    cx: &CallCx,
) -> Result<Vec<(String, Vec<u8>)>, SandboxError> {
    let spec = SandboxSpec {
        source: what.spec.source.clone(),
        without: what.spec.without.clone(),
        ..SandboxSpec::default()
    };
    let sandbox = backend.open(&spec, cx).await?;
    let mut paths = Vec::new();
    for input in &what.inputs {
        match input.strip_suffix('/') {
            None => paths.push(input.clone()),
            Some(dir) => {
                let all = sandbox.list(dir).await?;
                let files = all.into_iter().filter(|e| e.kind == EntryKind::File);
                paths.extend(files.map(|e| e.path));
            }
        }
    }
    paths.sort();
    paths.dedup();
    let mut inputs = Vec::new();
    for path in paths {
        let bytes = sandbox.read(&path).await?;
        inputs.push((path, bytes));
    }
    sandbox.close().await?;
    Ok(inputs)
}

/// Of everything that may change what comes of it.
fn key(backend: &str, what: &Environment, inputs: &[(String, Vec<u8>)]) -> Digest {
    let sum = |bytes: &[u8]| Digest::of_bytes(bytes).to_string();
    let inputs: Vec<_> = inputs.iter().map(|(p, b)| (p, sum(b))).collect();
    let commands = what.setup.iter();
    let setup: Vec<_> = commands
        .map(|c| json!([c.argv, c.env, c.cwd, sum(&c.stdin)]))
        .collect();
    let read_only: Vec<_> = what
        .spec
        .read_only
        .iter()
        .map(|p| p.to_string_lossy())
        .collect();
    // Programs of the system are shown to sandboxes as they are.
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    Digest::of_json(&json!({
        "version": 1,
        "platform": [std::env::consts::OS, std::env::consts::ARCH, system],
        "backend": backend,
        "inputs": inputs,
        "setup": setup,
        "makes": what.makes,
        "read_only": read_only,
        "env": what.spec.env,
        "also": what.also,
    }))
}
