//! Other processes: this test program again, in a role.
#![allow(
    clippy::disallowed_methods,
    reason = "the other process is this program again"
)]
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

const ROLE: &str = "SMALLHANDS_STORE_ROLE";
const DIR: &str = "SMALLHANDS_STORE_DIR";
/// Before each line of an answer: the test harness prints lines of its own.
const MARK: &str = "child: ";

/// A command that runs this program in a role; `under` goes before it.
pub(crate) fn command(under: &[&str], role: &str, dir: &Path) -> Command {
    let me = env::current_exe().unwrap();
    let mut c = match under {
        [] => Command::new(&me),
        [program, args @ ..] => {
            let mut c = Command::new(program);
            c.args(args).arg(&me);
            c
        }
    };
    c.args(["--exact", "child::role", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    c
}

/// One that answers line by line.
pub(crate) struct Other {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Other {
    pub(crate) fn start(c: Command) -> Self {
        Self::try_start(c).unwrap()
    }
    pub(crate) fn try_start(mut c: Command) -> std::io::Result<Self> {
        let mut child = c.spawn()?;
        Ok(Self {
            to: child.stdin.take().unwrap(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
        })
    }
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }
    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let (name, id) = (format!("-{name}"), self.child.id().to_string());
        let sent = Command::new("kill").args([name, id]).status();
        assert!(sent.unwrap().success());
    }
    /// The next line; none when it ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The harness may have begun the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.trim_end().into());
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may be over already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// In the role: what is told by the test.
pub(crate) fn told() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(n) if n > 0 => Some(line.trim_end().into()),
        _ => None,
    }
}

/// In the role: answers the test.
#[expect(clippy::print_stdout, reason = "how a child answers its test")]
pub(crate) fn say(line: &str) {
    println!("{MARK}{line}");
}

#[tokio::test]
#[ignore = "runs in a process of its own, for another test"]
async fn role() {
    let (Ok(role), Some(dir)) = (env::var(ROLE), env::var_os(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    match role.as_str() {
        "lease" => crate::contend::role(&dir).await,
        "fill" => crate::trouble::fill(&dir).await,
        "run" => crate::full::run(&dir).await,
        "read-only" => crate::trouble::read_only(&dir),
        other => panic!("no role {other}"),
    }
}
