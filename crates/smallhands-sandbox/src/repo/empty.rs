//! Empty directories of a working tree, which git does not keep: named in the message of the commit
//! that holds the uncommitted changes, so that they are part of what its id stands for.

use super::{
    RepoStore,
    git::{io_error, with},
    tree::is_plain,
};
use crate::{Change, Content, SandboxError};
use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, path::Path};

/// The first line of the message.
pub(super) const SUBJECT: &str = "Uncommitted changes";
const HEADING: &str = "\nEmpty directories:\n";
/// Deeper than any working tree, and safe for a recursion.
const MAX_DEPTH: usize = 256;

/// A message that names these directories.
pub(super) fn message(empty: &[Vec<u8>]) -> Result<String, SandboxError> {
    let mut text = format!("{SUBJECT}\n");
    if !empty.is_empty() {
        text += HEADING;
    }
    for path in empty {
        let change = Change::<u64> {
            path: path.clone(),
            now: Content::Dir,
        };
        let line = serde_json::to_string(&change);
        text += &line.map_err(|e| SandboxError::Repo(e.to_string()))?;
        text.push('\n');
    }
    Ok(text)
}

/// Makes the directories that the message of a commit names, below `top`, which is ours alone.
/// Anybody can have written the message: it leads through no link.
pub(super) fn make(top: &Path, message: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(message);
    let text = text.split_once("\n\n").map_or("", |(_, message)| message);
    let Some((_, list)) = text
        .strip_prefix(SUBJECT)
        .and_then(|t| t.split_once(HEADING))
    else {
        return Ok(());
    };
    for line in list.lines() {
        let Ok(Change::<u64> { path, .. }) = serde_json::from_str(line) else {
            continue;
        };
        if !is_plain(&path) {
            continue;
        }
        let mut here = top.to_owned();
        for name in path.split(|b| *b == b'/').take(MAX_DEPTH) {
            here.push(OsStr::from_bytes(name));
            match fs::symlink_metadata(&here) {
                Ok(m) if m.is_dir() => {}
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir(&here)?,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

impl RepoStore {
    /// Directories of a working tree that hold nothing and are not ignored.
    pub(super) fn empty_directories(&self, top: &Path) -> Result<Vec<Vec<u8>>, SandboxError> {
        let what = "the empty directories";
        let theirs = || {
            let mut c = self.git.theirs(top);
            c.arg("--literal-pathspecs");
            c
        };
        let c = [
            "ls-files",
            "--others",
            "--directory",
            "--exclude-standard",
            "-z",
        ];
        let list = self.git.run(with(theirs(), c), &[], what)?;
        let mut found = Vec::new();
        for dir in list.split(|b| *b == 0) {
            if let Some(dir) = dir.strip_suffix(b"/") {
                empty_below(top, dir.to_vec(), MAX_DEPTH, &mut found).map_err(io_error(what))?;
            }
        }
        if found.is_empty() {
            return Ok(found);
        }
        // It fails where none is ignored.
        let asked: Vec<u8> = found
            .iter()
            .flat_map(|p| [b"./", &p[..], b"/\0"].concat())
            .collect();
        let c = with(theirs(), ["check-ignore", "-z", "--stdin"]);
        let out = self.git.output(c, &asked)?;
        let ignored: Vec<&[u8]> = out.stdout.split(|b| *b == 0).collect();
        found.retain(|p| !ignored.contains(&[b"./", &p[..], b"/"].concat().as_slice()));
        Ok(found)
    }
}

fn empty_below(top: &Path, dir: Vec<u8>, depth: usize, found: &mut Vec<Vec<u8>>) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(top.join(OsStr::from_bytes(&dir)))? {
        let entry = entry?;
        entries.push((entry.file_name(), entry.file_type()?.is_dir()));
    }
    if entries.is_empty() {
        found.push(dir);
        return Ok(());
    }
    // Another repository in this one.
    if depth == 0 || entries.iter().any(|(name, _)| name == ".git") {
        return Ok(());
    }
    entries.sort();
    for (name, _) in entries.iter().filter(|(_, is_dir)| *is_dir) {
        let path = [&dir[..], b"/", name.as_bytes()].concat();
        empty_below(top, path, depth - 1, found)?;
    }
    Ok(())
}
