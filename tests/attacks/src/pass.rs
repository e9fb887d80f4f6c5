//! All attacks of one user.

use crate::{
    Result, caches, egress, faults, git, outside,
    report::{Control, Got, Row},
};
use serde::{Deserialize, Serialize};
use smallhands_attacks::{Baits, Place, Probe, REFUSED, all, host};
use smallhands_core::{CallCx, CancelToken};
use smallhands_graph::MemoryBlobs;
use smallhands_sandbox::{
    Cache, CacheKind, Ended, Execution, Invocation, Limits, RepoStore, Sandbox, SandboxBackend,
    SandboxError, SandboxSpec, Wall,
    linux::{NativeBackend, NativeOptions},
};
use std::{
    env, fs,
    io::Read,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

pub(crate) type Boxed = Box<dyn Sandbox>;

/// What a pass says, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    Row(Row),
    /// A fault, and what it left behind.
    Fault(String, usize),
    /// At its end: what is left behind.
    Left(usize),
}

/// What is taken away, and its name in the report.
const MODES: &[(&str, &[Wall])] = &[
    ("landlock", &[Wall::Landlock]),
    ("seccomp", &[Wall::Seccomp]),
    ("capabilities", &[Wall::Capabilities]),
    ("mount flags", &[Wall::MountFlags]),
    ("network ns", &[Wall::NetworkNamespace]),
    ("ipc ns", &[Wall::IpcNamespace]),
    ("user change", &[Wall::UserChange]),
    ("landlock+mount flags", &[Wall::Landlock, Wall::MountFlags]),
    ("landlock+user change", &[Wall::Landlock, Wall::UserChange]),
    ("seccomp+capabilities", &[Wall::Seccomp, Wall::Capabilities]),
    (
        "landlock+network ns",
        &[Wall::Landlock, Wall::NetworkNamespace],
    ),
    ("landlock+seccomp", &[Wall::Landlock, Wall::Seccomp]),
    (
        "all but namespaces",
        &[
            Wall::Landlock,
            Wall::Seccomp,
            Wall::Capabilities,
            Wall::MountFlags,
            Wall::UserChange,
        ],
    ),
];

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// One user's world.
pub(crate) struct Pass {
    pub(crate) user: String,
    pub(crate) place: PathBuf,
    pub(crate) host: host::Host,
    pub(crate) store: Arc<RepoStore>,
    pub(crate) backend: NativeBackend,
    /// Shown in every sandbox of a pass with baits.
    pub(crate) cache: Option<Cache>,
    pub(crate) cx: CallCx,
    runtime: tokio::runtime::Runtime,
}

/// The whole pass, told on standard output.
pub(crate) fn pass(place: &Path, user: &str) -> Result {
    // The end of the input: everything stands.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    host::adopt()?;
    let p = Pass::new(place, user)?;
    let brief = env::args().any(|a| a == "--brief");
    let mut rows = p.probes()?;
    if !brief {
        for mode in MODES
            .iter()
            .filter(|m| user == "root" || !m.1.contains(&Wall::UserChange))
        {
            p.weaker(mode, &mut rows)?;
        }
    }
    rows.extend(outside::probes(&p)?);
    rows.extend(caches::probes(&p)?);
    rows.extend(egress::probes(&p)?);
    rows.extend(git::probes(&p)?);
    for row in rows {
        println!("{}", serde_json::to_string(&Said::Row(row))?);
    }
    for (name, left) in faults::faults(&p)? {
        println!("{}", serde_json::to_string(&Said::Fault(name, left))?);
    }
    println!("{}", serde_json::to_string(&Said::Left(p.end()?))?);
    Ok(())
}

impl Pass {
    fn new(place: &Path, user: &str) -> Result<Self> {
        let mut p = Self::with(place, user, "state", host::Host::new(place)?)?;
        let cache = Cache::open(place.join("cache"), CacheKind::CargoTarget)?;
        let (_, generation) = caches::promote(&p, &cache, "echo true > known")?;
        p.host.baits.set("generation", generation.display());
        p.cache = Some(cache);
        Ok(p)
    }

    /// Without baits, in another state directory.
    pub(crate) fn plain(place: &Path, user: &str, state: &str) -> Result<Self> {
        Self::with(place, user, state, host::Host::none(place)?)
    }

    /// Whether a process is one of the pass itself, not of a sandbox.
    pub(crate) fn own_child(&self, pid: i32) -> bool {
        self.host.baits.number("victim").is_ok_and(|v| v == pid)
    }

    fn with(place: &Path, user: &str, state: &str, host: host::Host) -> Result<Self> {
        let git = ["/usr/local/bin/git", "/usr/bin/git"].map(PathBuf::from);
        let git = git
            .into_iter()
            .find(|g| g.exists())
            .ok_or("git is needed")?;
        let store = Arc::new(RepoStore::open(place.join("store"), git)?);
        let options = NativeOptions::new(store.clone(), place.join(state));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let ambient = smallhands_testkit::ambient(Arc::<MemoryBlobs>::default());
        Ok(Self {
            cache: None,
            user: user.into(),
            place: place.into(),
            host,
            store,
            backend: NativeBackend::new(options)?,
            cx: CallCx::detached(ambient, CancelToken::new()),
            runtime,
        })
    }

    pub(crate) fn wait<T>(&self, f: impl Future<Output = T>) -> T {
        self.runtime.block_on(f)
    }

    pub(crate) fn spec(&self) -> SandboxSpec {
        let view = self.cache.as_ref().map(|c| c.view(caches::AT));
        SandboxSpec {
            caches: view.and_then(|v| v.ok()).into_iter().collect(),
            read_only: vec![
                self.host.tools.join("granted"),
                self.host.tools.join("owned"),
            ],
            limits: Limits {
                memory_bytes: Some(512 << 20),
                cpu_seconds: Some(1),
                file_bytes: Some(8 << 20),
                open_files: Some(128),
                processes: Some(64),
                tmp_bytes: 8 << 20,
                total_memory_bytes: Some(384 << 20),
                cpu_thousandths: None,
            },
            ..SandboxSpec::default()
        }
    }

    pub(crate) fn open(&self, spec: &SandboxSpec) -> Result<Boxed> {
        Ok(self.wait(self.backend.open(spec, &self.cx))?)
    }

    pub(crate) fn exec(
        &self,
        s: &Boxed,
        what: &Invocation,
    ) -> std::result::Result<Execution, SandboxError> {
        self.wait(s.exec(what, &mut |_, _| {}, &self.cx))
    }

    /// The command line of an attack inside.
    pub(crate) fn attack(&self, name: &str) -> Invocation {
        let mut baits: Baits = self.host.baits.clone();
        baits.set("inside", 1);
        let program = self.host.tools.join("granted/attack").display().to_string();
        let argv = [program, name.to_owned()].into_iter().chain(baits.args());
        Invocation::new(argv).deadline(Duration::from_secs(20))
    }

    /// The same outside, as this user, in a directory of its own.
    pub(crate) fn outside(&self, name: &str) -> Result<Command> {
        let here = self.place.join("outside");
        fs::create_dir_all(&here)?;
        let mut c = Command::new(self.host.tools.join("attack"));
        c.arg(name).args(self.host.baits.args()).current_dir(here);
        c.env("SECRET_TOKEN", self.host.baits.get("token")?);
        c.stdin(Stdio::null());
        Ok(c)
    }

    pub(crate) fn inside(&self, s: &Boxed, probe: &Probe) -> Got {
        match self.exec(s, &self.attack(probe.name)) {
            Ok(done) => judge(&done),
            Err(e) => Got::Broken(e.to_string()),
        }
    }

    pub(crate) fn control(&self, probe: &Probe) -> Result<Control> {
        if probe.place == Place::Root && self.user != "root" {
            return Ok(Control::ByRoot);
        }
        // Somebody who is not root cannot make a program of root's.
        let owner = |p: PathBuf| fs::metadata(p).map_or(0, |m| m.uid());
        if probe.name == "setuid_program" && owner(self.host.baits.path("setuid")?) != 0 {
            return Ok(Control::ByRoot);
        }
        let done = self.outside(probe.name)?.output()?;
        Ok(match done.status.success() {
            true => Control::Good,
            false => Control::Bad(format!(
                "{} {}{}",
                done.status,
                String::from_utf8_lossy(&done.stdout).trim(),
                String::from_utf8_lossy(&done.stderr).trim()
            )),
        })
    }

    fn probes(&self) -> Result<Vec<Row>> {
        let s = self.open(&self.spec())?;
        let mut rows = Vec::new();
        for probe in all().iter().filter(|p| p.place != Place::Helper) {
            rows.push(Row {
                user: self.user.clone(),
                class: probe.class.into(),
                name: probe.name.into(),
                control: self.control(probe)?,
                inside: self.promised(&s, probe)?.then(|| self.inside(&s, probe)),
                without: Vec::new(),
            });
        }
        self.wait(s.close())?;
        Ok(rows)
    }

    /// Whether the backend says that it enforces what the attack is about.
    fn promised(&self, s: &Boxed, probe: &Probe) -> Result<bool> {
        let whole = [
            "memory_of_many",
            "memory_without_a_process",
            "memory_in_segments",
        ];
        if !whole.contains(&probe.name) {
            return Ok(true);
        }
        let done = self.exec(s, &Invocation::new(["true"]))?;
        Ok(done
            .enforced
            .iter()
            .any(|e| e.starts_with("memory") && e.ends_with("in all")))
    }

    fn weaker(&self, (name, walls): &(&str, &[Wall]), rows: &mut [Row]) -> Result {
        let spec = SandboxSpec {
            without: walls.to_vec(),
            ..self.spec()
        };
        let mut s = self.open(&spec)?;
        let probes = all();
        for row in rows
            .iter_mut()
            .filter(|r| r.class != "limits" && r.inside.is_some())
        {
            let Some(probe) = probes.iter().find(|p| p.name == row.name) else {
                continue;
            };
            let got = self.inside(&s, probe);
            // What succeeds may have broken it for the next.
            if row.class == "mounts" && got == Got::Succeeded || matches!(got, Got::Broken(_)) {
                drop(std::mem::replace(&mut s, self.open(&spec)?));
            }
            row.without.push(((*name).into(), got));
        }
        Ok(self.wait(s.close())?)
    }

    /// Ends everything, and counts what does not.
    fn end(self) -> Result<usize> {
        let dens = self.place.join("state/sandboxes");
        drop((self.runtime, self.backend, self.host));
        let mut left = 0;
        for _ in 0..100 {
            let dirs = fs::read_dir(&dens)?.count();
            host::reap();
            left = dirs + host::children().len();
            if left == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        for pid in host::children() {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            eprintln!("left behind: {pid} {}", String::from_utf8_lossy(&line));
            host::end(pid);
        }
        Ok(left)
    }
}

/// What an attack inside came to.
pub(crate) fn judge(done: &Execution) -> Got {
    match &done.ended {
        Ended::Exited(0) => Got::Succeeded,
        Ended::Exited(REFUSED) => Got::Refused(done.text().trim().to_owned()),
        Ended::OutOfMemory => Got::Refused("killed: the sandbox has no more memory".into()),
        // Killed for what it did: by a limit, or for a call of another architecture.
        Ended::Signaled(n)
            if [
                libc::SIGKILL,
                libc::SIGSYS,
                libc::SIGXCPU,
                libc::SIGXFSZ,
                libc::SIGSEGV,
            ]
            .contains(n) =>
        {
            Got::Refused(format!(
                "killed by {}",
                std::process::ExitStatus::from_raw(*n)
            ))
        }
        other => Got::Broken(format!("{other:?}: {}", done.text().trim())),
    }
}
