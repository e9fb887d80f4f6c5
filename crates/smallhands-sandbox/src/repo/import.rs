use super::{
    Imported, RepoStore, Uncommitted, empty,
    git::{with, with_index},
};
use crate::SandboxError;
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
    path::Path,
    process::Command,
};

impl RepoStore {
    /// Takes a commit of the user's repository into the store: `rev`, or what is checked out, on
    /// request with the uncommitted changes. Reads the repository and writes nothing there.
    ///
    /// # Errors
    /// Not a git repository, no commits yet, no such revision.
    pub fn import(
        &self,
        repo: &Path,
        rev: Option<&str>,
        uncommitted: Uncommitted,
    ) -> Result<Imported, SandboxError> {
        let shown = repo.display();
        let theirs = || self.git.theirs(repo);
        let ask = with(theirs(), ["rev-parse", "--absolute-git-dir"]);
        let git_dir = self.git.path(ask, "").map_err(|_| {
            let fix = "run git init and commit first, or give --repo";
            SandboxError::Repo(format!("{shown} is not a git repository; {fix}"))
        })?;
        let resolve = |rev: &str| {
            let name = format!("{rev}^{{commit}}");
            let c = with(
                theirs(),
                ["rev-parse", "-q", "--verify", "--end-of-options", &name],
            );
            self.git.line(c, &[], "").ok()
        };
        let head = resolve("HEAD");
        let head_commit = match (rev, &head) {
            (None, None) => {
                return Err(SandboxError::Repo(format!(
                    "{shown} has no commits yet; commit first, there is nothing to start from"
                )));
            }
            (None, Some(head)) => head.clone(),
            (Some(rev), _) => resolve(rev)
                .ok_or_else(|| SandboxError::Repo(format!("{shown} has no revision `{rev}`")))?,
        };
        self.fetch(repo, git_dir.as_os_str(), &head_commit)?;
        let branch = with(theirs(), ["symbolic-ref", "-q", "--short", "HEAD"]);
        let branch = self.git.line(branch, &[], "").ok();
        let bare = with(theirs(), ["rev-parse", "--is-bare-repository"]);
        let bare = self.git.line(bare, &[], "")? == "true";
        let mut imported = Imported {
            commit: head_commit.clone(),
            head_commit,
            branch,
            dirty: Vec::new(),
            included: false,
            submodules: Vec::new(),
        };
        let top = match bare {
            true => None,
            false => {
                let c = with(theirs(), ["rev-parse", "--show-toplevel"]);
                Some(self.git.path(c, "the working tree")?)
            }
        };
        let head_commit = &imported.head_commit;
        imported.submodules = self.take_submodules(&git_dir, top.as_deref(), head_commit)?;
        // What is uncommitted lies on top of what is checked out, not of another revision.
        if bare || head.as_ref() != Some(&imported.head_commit) {
            return Ok(imported);
        }
        let Some(top) = top else {
            return Ok(imported);
        };
        let dirty = self.dirty(&top, uncommitted)?;
        let empty = match uncommitted {
            Uncommitted::IncludeUntracked => self.empty_directories(&top)?,
            _ => Vec::new(),
        };
        let text = |p: &Vec<u8>| String::from_utf8_lossy(p).into_owned();
        imported.dirty = dirty.iter().chain(&empty).map(text).collect();
        if uncommitted != Uncommitted::Exclude && !imported.dirty.is_empty() {
            imported.commit = self.with_changes(&top, &imported.head_commit, &dirty, &empty)?;
            imported.included = imported.commit != imported.head_commit;
            if imported.included {
                self.same_submodules(&imported.head_commit, &imported.commit)?;
            }
        }
        Ok(imported)
    }

    /// Copies what a commit needs, without its history, into our objects.
    pub(super) fn fetch(
        &self,
        repo: &Path,
        git_dir: &OsStr,
        commit: &str,
    ) -> Result<(), SandboxError> {
        let _lock = self.git.lock()?;
        let keep = format!("refs/imports/{commit}");
        let have = with(self.git.ours(), ["rev-parse", "-q", "--verify", &keep]);
        if self.git.output(have, &[])?.status.success() {
            return Ok(());
        }
        let what = format!("{} cannot be read", repo.display());
        let spec = format!("{commit}:{keep}");
        let mut c = self.git.ours();
        // Through the environment, because git hides `-c` from the other side of a fetch.
        c.env("GIT_CONFIG_GLOBAL", self.git.trusting());
        let c = with(
            c,
            [
                "fetch",
                "-q",
                "--no-tags",
                "--no-write-fetch-head",
                "--depth=1",
            ],
        );
        let c = with(c, ["--no-auto-maintenance", "--end-of-options"]);
        let c = with(c, [git_dir, spec.as_ref()]);
        self.git.run(c, &[], &what).map(drop)
    }

    /// Paths that differ from the last commit, relative to the top of the working tree.
    fn dirty(&self, repo: &Path, uncommitted: Uncommitted) -> Result<Vec<Vec<u8>>, SandboxError> {
        let untracked = match uncommitted {
            Uncommitted::IncludeUntracked => "--untracked-files=all",
            _ => "--untracked-files=no",
        };
        let c = with(
            self.unfiltered(repo)?(),
            [
                "status",
                "--porcelain=v1",
                "-z",
                "--no-renames",
                "--ignore-submodules=all",
                untracked,
            ],
        );
        let out = self.git.run(c, &[], "the state of the working tree")?;
        let paths = out.split(|&b| b == 0).filter_map(|line| line.get(3..));
        // A name that ends with a slash is another repository in this one.
        Ok(paths
            .filter(|p| !p.ends_with(b"/"))
            .map(<[u8]>::to_vec)
            .collect())
    }

    /// A commit in our store with the present content of these paths. The same content gives the
    /// same commit.
    fn with_changes(
        &self,
        top: &Path,
        head: &str,
        dirty: &[Vec<u8>],
        empty: &[Vec<u8>],
    ) -> Result<String, SandboxError> {
        let what = "the uncommitted changes";
        let index = self.git.scratch("index");
        let objects = self.git.repo().join("objects");
        let unfiltered = self.unfiltered(top)?;
        // Their working tree and attributes; our index and our objects.
        let mixed = || {
            let mut c = with_index(unfiltered(), &index.0);
            c.env("GIT_OBJECT_DIRECTORY", &objects);
            c
        };
        self.git
            .run(with(mixed(), ["read-tree", head]), &[], what)?;
        let c = with(
            mixed(),
            ["update-index", "--add", "--remove", "-z", "--stdin"],
        );
        let mut paths = dirty.join(&0);
        paths.push(0);
        self.git.run(c, &paths, what)?;
        let tree = self.git.line(with(mixed(), ["write-tree"]), &[], what)?;
        self.on_top(head, &tree, &empty::message(empty)?)
    }

    /// A git in a repository of the user that runs none of the programs which that has for its
    /// files: they are taken as they lie there.
    fn unfiltered(&self, repo: &Path) -> Result<impl Fn() -> Command, SandboxError> {
        let c = ["config", "-z", "--name-only", "--get-regexp", r"^filter\."];
        // It fails where there are none.
        let names = self.git.output(with(self.git.theirs(repo), c), &[])?.stdout;
        // Not as options, in which a name must not hold `=`.
        let keys = names.split(|b| *b == 0).filter(|n| !n.is_empty());
        let keys: Vec<OsString> = keys.map(|n| OsString::from_vec(n.to_vec())).collect();
        Ok(move || {
            let mut c = self.git.theirs(repo);
            c.env("GIT_CONFIG_COUNT", keys.len().to_string());
            for (i, key) in keys.iter().enumerate() {
                c.env(format!("GIT_CONFIG_KEY_{i}"), key);
                let required = key.as_encoded_bytes().ends_with(b".required");
                let value = if required { "false" } else { "" };
                c.env(format!("GIT_CONFIG_VALUE_{i}"), value);
            }
            c
        })
    }
}
