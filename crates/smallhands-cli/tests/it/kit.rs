use serde_json::Value;
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A repository with a bug, and directories of its own for state and cache.
pub(crate) struct Bed {
    pub(crate) dir: TempDir,
    pub(crate) repo: PathBuf,
}

pub(crate) const TEST: &str = "python3 test_calc.py";

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        fs::create_dir(&repo).unwrap();
        let b = Self { dir, repo };
        b.write("calc.py", "def add(a, b):\n    return a - b\n");
        b.write(
            "test_calc.py",
            "from calc import add\n\nassert add(2, 3) == 5, add(2, 3)\n",
        );
        let answers = [
            "```python\ndef add(a, b):\n    return a * b\n```",
            "```python\ndef add(a, b):\n    return a + b\n```",
        ];
        fs::write(b.answers(), serde_json::to_string(&answers).unwrap()).unwrap();
        b.git(&["init", "-q", "-b", "main"]);
        b.commit();
        b
    }
    pub(crate) fn answers(&self) -> PathBuf {
        self.dir.path().join("answers.json")
    }
    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.repo.join(file), text).unwrap();
    }
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let identity = ["-c", "user.name=me", "-c", "user.email=me@localhost"];
        let out = Command::new("git")
            .current_dir(&self.repo)
            .args(identity)
            .args(args)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    }
    pub(crate) fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-qm", "a commit"]);
    }
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_smallhands"));
        c.args(args)
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"));
        c
    }
    pub(crate) fn smallhands(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap())
    }
    /// `run` with recorded answers.
    pub(crate) fn run_args<'a>(&'a self, model: &'a str, test: &'a str) -> Vec<&'a str> {
        vec![
            "run",
            "--repo",
            path(&self.repo),
            "--model",
            model,
            "--test",
            test,
        ]
    }
    pub(crate) fn model(&self) -> String {
        format!("recorded:{}", self.answers().display())
    }
    pub(crate) fn newest(&self) -> Option<String> {
        let all = self.smallhands(&["runs", "--json"]).json();
        all["runs"][0]["run"].as_str().map(str::to_owned)
    }
}

pub(crate) fn path(p: &Path) -> &str {
    p.to_str().unwrap()
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(o: Output) -> Self {
        Self {
            code: o.status.code(),
            out: String::from_utf8_lossy(&o.stdout).into(),
            err: String::from_utf8_lossy(&o.stderr).into(),
        }
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
    /// The exit code, and that the one sentence and its suggestion are there.
    pub(crate) fn refused(&self, code: i32, sentence: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains("error: "), "{self:?}");
        assert!(self.err.contains(sentence), "{self:?}");
    }
}

/// A run whose tests take long, in a process group of its own.
pub(crate) fn slow(b: &Bed) -> Child {
    let model = b.model();
    let mut c = b.command(&b.run_args(
        &model,
        "python3 -c 'import time; time.sleep(20); raise SystemExit(1)'",
    ));
    let child = c
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !b.newest().is_some_and(|r| {
        b.smallhands(&["graph", &r])
            .out
            .contains("reproduce<br/>running")
    }) {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "the run does not start"
        );
        thread::sleep(Duration::from_millis(50));
    }
    child
}

pub(crate) fn signal(child: &Child, name: &str) {
    let group = format!("-{}", child.id());
    assert!(
        Command::new("kill")
            .args([name, "--", &group])
            .status()
            .unwrap()
            .success()
    );
}
