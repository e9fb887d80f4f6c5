//! What a test command needs to see of the host.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Directories to show, and variables to set.
#[derive(Default)]
pub(crate) struct Toolchain {
    pub(crate) read_only: Vec<PathBuf>,
    pub(crate) env: Vec<(String, String)>,
}

/// The first executable of that name on this program's `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|p| p.is_file());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|d| d.join(program))
        .find(|p| p.is_file())
}

/// Asks the tools themselves where they live, so that version managers do not matter. `offline`: they
/// need not try the network.
pub(crate) fn of(argv: &[String], offline: bool) -> Toolchain {
    let mut t = Toolchain::default();
    let name = argv
        .first()
        .map_or("", |a| a.rsplit('/').next().unwrap_or(a));
    if name.starts_with("python") || name.starts_with("pytest") || name == "py.test" {
        let python = if name.starts_with("python") {
            argv[0].as_str()
        } else {
            "python3"
        };
        let ask = "import sys; print(sys.prefix); print(sys.base_prefix)";
        t.read_only
            .extend(lines(python, &["-c", ask]).into_iter().map(PathBuf::from));
    } else if name == "cargo" {
        t.read_only.extend(
            lines("rustc", &["--print", "sysroot"])
                .into_iter()
                .map(PathBuf::from),
        );
        t.env.push(("CARGO_HOME".into(), "/tmp/cargo".into()));
        if offline {
            t.env.push(("CARGO_NET_OFFLINE".into(), "true".into()));
        }
        t.env
            .push(("CARGO_TARGET_DIR".into(), "/tmp/target".into()));
    }
    if let Some(p) = argv.first().and_then(|a| find(a)) {
        // `/opt/tool/bin/x` needs `/opt/tool`; a script elsewhere needs its own directory.
        let dir = p.parent().unwrap_or(Path::new("/"));
        let prefix = if dir.ends_with("bin") {
            dir.parent().unwrap_or(dir)
        } else {
            dir
        };
        if argv[0].starts_with('/') || !t.read_only.iter().any(|r| p.starts_with(r)) {
            t.read_only.push(prefix.to_owned());
        }
    }
    // The order is that of the sandbox's PATH: a virtual environment before what it stands on.
    let mut all = Vec::<PathBuf>::new();
    for p in t.read_only.into_iter().filter(|p| outside(p)) {
        if !all.contains(&p) {
            all.push(p);
        }
    }
    let within = |p: &PathBuf| all.iter().any(|q| q != p && p.starts_with(q));
    t.read_only = all.iter().filter(|p| !within(p)).cloned().collect();
    t
}

/// What every sandbox shows anyway, and what must never be shown whole.
fn outside(p: &Path) -> bool {
    let system = [
        "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev",
    ];
    let home = env::var_os("HOME").map(PathBuf::from);
    p.is_absolute()
        && p.is_dir()
        && p != Path::new("/")
        && Some(p) != home.as_deref()
        && !system.iter().any(|s| p.starts_with(s))
}

fn lines(program: &str, args: &[&str]) -> Vec<String> {
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}
