//! Trees of files: read, compared, written as a patch.

use smallhands::sandbox::{Change, Content};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

/// A file's bytes and whether it is executable, by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, (bool, Vec<u8>)>;

pub(crate) fn tree(root: &Path) -> io::Result<Tree> {
    let (mut found, mut open) = (Tree::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(root).map_err(io::Error::other)?;
            let exec = entry.metadata()?.permissions().mode() & 0o100 != 0;
            found.insert(name.as_os_str().as_bytes().into(), (exec, fs::read(&path)?));
        }
    }
    Ok(found)
}

pub(crate) fn put(root: &Path, tree: &Tree) -> io::Result<()> {
    for (name, (exec, bytes)) in tree {
        let path = root.join(std::ffi::OsStr::from_bytes(name));
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&path, bytes)?;
        let mode = if *exec { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

pub(crate) fn changes(base: &Tree, now: &Tree) -> Vec<Change<Vec<u8>>> {
    let gone = base
        .keys()
        .filter(|p| !now.contains_key(*p))
        .map(|p| Change {
            path: p.clone(),
            now: Content::Gone,
        });
    let new = now.iter().filter(|(p, f)| base.get(*p) != Some(f));
    let new = new.map(|(p, (exec, bytes))| Change {
        path: p.clone(),
        now: Content::File {
            exec: *exec,
            bytes: bytes.clone(),
        },
    });
    gone.chain(new).collect()
}

/// A base with changes; of what there is only files.
pub(crate) fn changed(base: &Tree, changes: Vec<Change<Vec<u8>>>) -> Tree {
    let mut tree = base.clone();
    for Change { path, now } in changes {
        match now {
            Content::File { exec, bytes } => tree.insert(path, (exec, bytes)),
            _ => tree.remove(&path),
        };
    }
    tree
}

/// Every changed file in one hunk.
pub(crate) fn patch(base: &Tree, now: &Tree) -> String {
    let mut patch = String::new();
    for Change { path, .. } in changes(base, now) {
        let name = String::from_utf8_lossy(&path);
        let side = |t: &Tree, sign: char, null: &str| {
            let text = t
                .get(&path)
                .map(|(_, b)| String::from_utf8_lossy(b).into_owned());
            let lines: Vec<_> = text
                .iter()
                .flat_map(|t| t.lines())
                .map(|l| format!("{sign}{l}\n"))
                .collect();
            let label = if text.is_some() {
                format!("{null}/{name}")
            } else {
                "/dev/null".into()
            };
            (label, lines.len(), lines.concat())
        };
        let ((a, n, minus), (b, m, plus)) = (side(base, '-', "a"), side(now, '+', "b"));
        let at = |n: usize| usize::from(n > 0);
        patch += &format!("diff --git a/{name} b/{name}\n--- {a}\n+++ {b}\n");
        patch += &format!("@@ -{},{n} +{},{m} @@\n{minus}{plus}", at(n), at(m));
    }
    patch
}
