//! The native backend: namespaces, Landlock, seccomp and overlayfs, with no outside program and no
//! privilege.
//!
//! A helper process, this very program started again, forks for each sandbox PID 1 of its own
//! namespaces, which serves the host over one socket. When the host dies, however, the socket ends,
//! PID 1 ends, and the kernel ends everything below it.
//!
//! ```no_run
//! use smallhands_sandbox::{RepoStore, Uncommitted, linux};
//! use std::sync::Arc;
//!
//! fn main() -> Result<(), smallhands_sandbox::SandboxError> {
//!     linux::init(); // First: this program is also the helper.
//!     let store = Arc::new(RepoStore::open("/var/lib/app/store", "/usr/bin/git")?);
//!     let base = store.import("/home/me/project".as_ref(), None, Uncommitted::Include)?;
//!     let options = linux::NativeOptions::new(store, "/var/lib/app/state");
//!     let backend = linux::NativeBackend::new(options)?;
//!     // Then `backend.open(&spec, &cx)` with `base.commit` as the source.
//!     # let _ = (base, backend);
//!     Ok(())
//! }
//! ```

mod agent;
mod answer;
mod at;
mod cgroup;
mod changes;
mod child;
mod conn;
mod den;
mod files;
mod forks;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod helper;
mod landlock;
mod layer;
mod limits;
mod mounts;
mod output;
mod piped;
mod probe;
mod proto;
mod running;
mod sandbox;
mod seccomp;
mod sys;
mod sys_fds;
mod sys_mem;
mod sys_mount;
pub(crate) mod sys_net;
mod sys_priv;
mod upper;
mod zygote;

pub(crate) use at::sync_disk;

use crate::{
    CacheView, Capabilities, EgressLog, RepoStore, Resolver, Sandbox, SandboxBackend, SandboxError,
    SandboxSpec, Snapshot, SystemResolver, Wall, egress::proxy::Outlet, or_cancelled,
};
use conn::Conn;
use den::Den;
use proto::Policy;
use sandbox::NativeSandbox;
use smallhands_core::{CallCx, async_trait};
use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use zygote::Nursery;

/// The argument that turns the program into the helper.
const HOOK: &str = "__smallhands_sandbox_v1";
/// Who agents are where we are root: `nobody`, which owns nothing.
const NOBODY: u32 = 65534;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// The hook: must be the first thing in `main`, before any thread is started.
///
/// In a sandbox's helper process it never returns. Elsewhere it returns at once, and allows
/// [`NativeBackend`] to start this program again as a helper.
pub fn init() {
    if std::env::args_os().nth(1).is_some_and(|a| a == HOOK) {
        helper::main();
    }
    INITIALISED.store(true, Ordering::SeqCst);
}

/// What agents run as, and their files belong to, where that is not who we are.
pub(crate) fn agent_ids() -> Option<(u32, u32)> {
    let mapped = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|map| {
            map.lines().any(|line| {
                let mut n = line.split_whitespace().map(|n| n.parse::<u64>().ok());
                match (n.next().flatten(), n.next().flatten(), n.next().flatten()) {
                    (Some(first), Some(_), Some(len)) => {
                        (first..first + len).contains(&u64::from(NOBODY))
                    }
                    _ => false,
                }
            })
        })
    };
    // Root of a container without that user stays who it is.
    let other =
        sys_priv::uid() == 0 && mapped("/proc/self/uid_map") && mapped("/proc/self/gid_map");
    other.then_some((NOBODY, NOBODY))
}

/// The mode of a directory above those of agents: closed, unless a root without its rights has to
/// pass through as an agent.
pub(crate) fn outer_mode() -> u32 {
    if agent_ids().is_some() && !sys_priv::can_administer() {
        0o711
    } else {
        0o700
    }
}

/// What a [`NativeBackend`] works with.
#[derive(Clone, Debug)]
pub struct NativeOptions {
    /// Where clean copies come from.
    pub store: Arc<RepoStore>,
    /// Where sandboxes keep their changed files while they are open; a disk with room.
    pub state_dir: PathBuf,
    /// The program to start as helper; none is this program, which must have called [`init`].
    pub helper: Option<PathBuf>,
    /// Copy the base into each sandbox even where an overlay would work.
    pub always_copy: bool,
    /// Who hears of each connection out of a sandbox; their results list them too.
    pub egress_log: Option<Arc<dyn EgressLog>>,
    /// Who looks names up for them; usually [`SystemResolver`].
    pub resolver: Arc<dyn Resolver>,
}

/// Sandboxes from what the Linux kernel offers to everyone.
#[derive(Clone, Debug)]
pub struct NativeBackend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: NativeOptions,
    den: Arc<Den>,
    nursery: Arc<Nursery>,
}

impl NativeOptions {
    /// With this program as its own helper.
    pub fn new(store: Arc<RepoStore>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            store,
            state_dir: state_dir.into(),
            helper: None,
            always_copy: false,
            egress_log: None,
            resolver: Arc::new(SystemResolver),
        }
    }
}

impl NativeBackend {
    /// Prepares the state directory, and removes there what dead processes left. Blocks shortly.
    ///
    /// # Errors
    /// The state directory cannot be used.
    pub fn new(options: NativeOptions) -> Result<Self, SandboxError> {
        let den = Arc::new(Den::open(&options.state_dir)?);
        let helper = options.helper.clone();
        let helper = helper.unwrap_or_else(|| "/proc/self/exe".into());
        Ok(Self(Arc::new(Inner {
            options,
            den,
            nursery: Arc::new(Nursery::new(helper)),
        })))
    }

    /// The store that its clean copies come from.
    pub fn store(&self) -> &Arc<RepoStore> {
        &self.0.options.store
    }
}

impl Inner {
    /// Whether there is a program to be the helper.
    fn check_helper(&self) -> Result<(), SandboxError> {
        match self.options.helper.is_some() || INITIALISED.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(SandboxError::NotInitialised),
        }
    }

    /// A new agent on a clean copy.
    async fn start(&self, spec: &SandboxSpec) -> Result<Conn, SandboxError> {
        self.start_changed(spec, None).await
    }

    /// As [`start`](Self::start), on a copy of what another sandbox changed, which does nothing
    /// meanwhile.
    async fn start_changed(
        &self,
        spec: &SandboxSpec,
        changed: Option<PathBuf>,
    ) -> Result<Conn, SandboxError> {
        self.check_helper()?;
        let lower = match &spec.source {
            Some(source) => {
                let (store, commit) = (self.options.store.clone(), source.commit.clone());
                Some(crate::blocking(move || store.checkout(&commit)).await?)
            }
            None => None,
        };
        self.start_on(spec, lower.as_deref(), changed).await
    }

    async fn start_on(
        &self,
        spec: &SandboxSpec,
        lower: Option<&Path>,
        changed: Option<PathBuf>,
    ) -> Result<Conn, SandboxError> {
        let outlet = self.outlet(spec)?;
        let bytes = |p: &Path| p.as_os_str().as_bytes().to_vec();
        let absolute = |p: &Path| match std::path::absolute(p) {
            Ok(p) => Ok(bytes(&p)),
            Err(e) => Err(SandboxError::Setup {
                stage: format!("path {}", p.display()),
                reason: e.to_string(),
            }),
        };
        let cache = |c: &CacheView| Ok((absolute(&c.generation.path)?, bytes(&c.at)));
        let environment = spec.environment.as_ref().map(|g| absolute(&g.path));
        let policy = Policy {
            version: proto::VERSION,
            private: Vec::new(),
            lower: lower.map(absolute).transpose()?,
            environment: environment.transpose()?,
            caches: spec
                .caches
                .iter()
                .map(cache)
                .collect::<Result<_, SandboxError>>()?,
            copy: self.options.always_copy,
            read_only: spec.read_only.iter().map(|p| bytes(p)).collect(),
            limits: spec.limits.clone(),
            without: spec.without.clone(),
            egress: spec.egress.as_ref().map(|e| e.connections),
            changed: changed.map(|p| bytes(&p)),
        };
        let conn = Conn::open(self.nursery.clone(), policy, self.den.clone(), outlet).await?;
        // Dropped, it ends.
        match spec.require.iter().find(|r| !conn.has(r)) {
            Some(layer) => Err(missing(layer, &conn)),
            None => Ok(conn),
        }
    }
}

impl Inner {
    /// What the proxy of a sandbox needs, where one is wanted and can be enforced.
    fn outlet(&self, spec: &SandboxSpec) -> Result<Option<Outlet>, SandboxError> {
        let Some(egress) = &spec.egress else {
            return Ok(None);
        };
        if spec.without.contains(&Wall::NetworkNamespace) {
            return Err(SandboxError::Unavailable {
                layer: "egress allow-list".into(),
                reason: "without a network of its own a sandbox has other ways out".into(),
                fix: "take network_namespace out of `without`, or do without `egress`".into(),
            });
        }
        Ok(Some(Outlet {
            egress: egress.clone(),
            resolver: self.options.resolver.clone(),
            log: self.options.egress_log.clone(),
        }))
    }
}

/// Something that was asked for by name is not in force.
fn missing(layer: &str, conn: &Conn) -> SandboxError {
    let why = conn.missing.iter().find(|(name, _)| name == layer);
    let (reason, fix) = match why {
        Some((_, why)) => (why.clone(), cgroup::FIX.to_owned()),
        None => {
            let see = "see what is with `smallhands doctor --sandbox`, or do not require it";
            let fix = landlock::fix(layer).unwrap_or_else(|| see.into());
            let has = conn.enforced.iter().find(|e| e.starts_with("landlock"));
            let reason = match has.filter(|_| layer.starts_with("landlock")) {
                Some(has) => format!("this kernel has {has}"),
                None => "it is not in force".into(),
            };
            (reason, fix)
        }
    };
    SandboxError::Unavailable {
        layer: layer.into(),
        reason,
        fix,
    }
}

#[async_trait]
impl SandboxBackend for NativeBackend {
    fn name(&self) -> &'static str {
        "linux"
    }

    async fn probe(&self) -> Capabilities {
        probe::probe(&self.0).await
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        cx: &CallCx,
    ) -> Result<Box<dyn Sandbox>, SandboxError> {
        // Before the clean copy is made: without a helper there is no use for one.
        self.0.check_helper()?;
        let from = match &spec.from {
            Some(blob) => Some(Snapshot::load(blob, &*cx.ambient().blobs).await?),
            None => None,
        };
        let conn = or_cancelled(self.0.start(spec), cx).await??;
        let clock = cx.ambient().clock.clone();
        let sandbox = NativeSandbox::new(self.0.clone(), spec.clone(), clock, conn);
        if let Some(snapshot) = from {
            sandbox.put(&snapshot, &*cx.ambient().blobs).await?;
        }
        Ok(Box::new(sandbox))
    }
}
