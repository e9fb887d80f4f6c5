use super::{
    Imported, RepoStore, Uncommitted,
    git::{with, with_index},
};
use crate::SandboxError;
use std::path::Path;

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
        let git_dir = self.git.line(ask, &[], "").map_err(|_| {
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
        self.fetch(repo, &git_dir, &head_commit)?;
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
        };
        // What is uncommitted lies on top of what is checked out, not of another revision.
        if bare || head.as_ref() != Some(&imported.head_commit) {
            return Ok(imported);
        }
        let dirty = self.dirty(repo, uncommitted)?;
        let text = |p: &Vec<u8>| String::from_utf8_lossy(p).into_owned();
        imported.dirty = dirty.iter().map(text).collect();
        if uncommitted != Uncommitted::Exclude && !dirty.is_empty() {
            imported.commit = self.with_changes(repo, &imported.head_commit, &dirty)?;
            imported.included = imported.commit != imported.head_commit;
        }
        Ok(imported)
    }

    /// Copies what a commit needs, without its history, into our objects.
    fn fetch(&self, repo: &Path, git_dir: &str, commit: &str) -> Result<(), SandboxError> {
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
        let c = with(
            c,
            ["--no-auto-maintenance", "--end-of-options", git_dir, &spec],
        );
        self.git.run(c, &[], &what).map(drop)
    }

    /// Paths that differ from the last commit, relative to the top of the working tree.
    fn dirty(&self, repo: &Path, uncommitted: Uncommitted) -> Result<Vec<Vec<u8>>, SandboxError> {
        let untracked = match uncommitted {
            Uncommitted::IncludeUntracked => "--untracked-files=all",
            _ => "--untracked-files=no",
        };
        let c = with(
            self.git.theirs(repo),
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
        repo: &Path,
        head: &str,
        dirty: &[Vec<u8>],
    ) -> Result<String, SandboxError> {
        let what = "the uncommitted changes";
        let top = with(self.git.theirs(repo), ["rev-parse", "--show-toplevel"]);
        let top = self.git.line(top, &[], what)?;
        let index = self.git.scratch("index");
        let objects = self.git.repo().join("objects");
        // Their working tree, filters and attributes; our index and our objects.
        let mixed = || {
            let mut c = with_index(self.git.theirs(top.as_ref()), &index.0);
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
        let same = with(self.git.ours(), ["rev-parse", &format!("{head}^{{tree}}")]);
        if self.git.line(same, &[], what)? == tree {
            return Ok(head.to_owned());
        }
        let date = with(self.git.ours(), ["show", "-s", "--format=@%ct +0000", head]);
        let date = self.git.line(date, &[], what)?;
        let message = "Uncommitted changes\n";
        self.commit_tree(
            &tree,
            Some(head),
            message,
            ("SmallHands", "smallhands@localhost"),
            &date,
        )
    }
}
