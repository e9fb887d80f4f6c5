//! What may come from a task into a cache: only what proves itself by its content.

use sha2::{Digest, Sha256, Sha512};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// What a cache holds, which decides how its files are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheKind {
    /// A directory of wheels and source archives for `pip --find-links`. Checked: an archive whose
    /// SHA-256 is listed for the name and version that its file name has. (pip's own cache cannot be
    /// checked: its entries are named after addresses.)
    Pip,
    /// A `CARGO_HOME`. Checked: `registry/cache/*/NAME-VERSION.crate` whose SHA-256 is listed; cargo
    /// itself does not look at the sum of an archive that it finds there. The index and unpacked
    /// sources cannot be checked.
    CargoRegistry,
    /// npm's cache. Checked: `_cacache/content-v2`, where the path is the SHA-512 or SHA-256 of the
    /// content. The index cannot be checked, and installing from a lockfile does not need it.
    Npm,
    /// ccache's directory: nothing can be checked.
    Ccache,
    /// A cargo target directory: nothing can be checked.
    CargoTarget,
}

impl CacheKind {
    /// Its name: `pip`, `cargo-registry`, `npm`, `ccache`, `cargo-target`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::CargoRegistry => "cargo-registry",
            Self::Npm => "npm",
            Self::Ccache => "ccache",
            Self::CargoTarget => "cargo-target",
        }
    }

    /// Whether content proves anything here.
    pub fn is_checkable(self) -> bool {
        !matches!(self, Self::Ccache | Self::CargoTarget)
    }

    /// The variable that lets the tool use what is shown at a place.
    pub fn environment(self, at: &Path) -> (String, String) {
        let name = match self {
            Self::Pip => "PIP_FIND_LINKS",
            Self::CargoRegistry => "CARGO_HOME",
            Self::Npm => "npm_config_cache",
            Self::Ccache => "CCACHE_DIR",
            Self::CargoTarget => "CARGO_TARGET_DIR",
        };
        (name.into(), at.to_string_lossy().into_owned())
    }

    /// Whether a file may come in, by its path in the cache and its content; or why not.
    pub(super) fn check(self, path: &Path, file: &Path, sums: &Checksums) -> io::Result<Verdict> {
        let parts: Option<Vec<&str>> = path.iter().map(|p| p.to_str()).collect();
        let parts = parts.unwrap_or_default();
        match (self, &parts[..]) {
            (Self::Pip, [name]) => match archive(name) {
                Some((name, version)) => sums.check(&name, &version, file),
                None => Ok(Err("not a wheel or a source archive")),
            },
            (Self::CargoRegistry, ["registry", "cache", _, name]) => {
                match name.strip_suffix(".crate") {
                    Some(stem) => sums.check(stem, "", file),
                    None => Ok(Err("not a .crate archive")),
                }
            }
            (Self::Npm, ["_cacache", "content-v2", how, a, b, rest]) => {
                let seen = match *how {
                    "sha512" => hex::<Sha512>(file)?,
                    "sha256" => hex::<Sha256>(file)?,
                    _ => return Ok(Err("its hash is not one to rely on")),
                };
                let named = format!("{a}{b}{rest}");
                Ok((named == seen)
                    .then_some(())
                    .ok_or("its content is not what its name says"))
            }
            _ => Ok(Err("nothing proves its content")),
        }
    }
}

/// Or why not.
pub(super) type Verdict = Result<(), &'static str>;

/// SHA-256 sums of archives, from a lockfile that the host trusts: of the commit that the user
/// chose, never of an agent's tree. What they let in is seen by all who share the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksums(BTreeMap<(String, String), BTreeSet<String>>);

impl Checksums {
    /// Adds a sum (64 hex digits, of either case) for a name and version; there may be several.
    pub fn add(&mut self, name: &str, version: &str, sha256: &str) {
        let sum = sha256.to_ascii_lowercase();
        // Of a crate the file name is all that there is to go by.
        self.0
            .entry((format!("{name}-{version}"), String::new()))
            .or_default()
            .insert(sum.clone());
        let key = (normal(name), version.to_ascii_lowercase());
        self.0.entry(key).or_default().insert(sum);
    }

    /// The `checksum` lines of a `Cargo.lock`.
    pub fn from_cargo_lock(text: &str) -> Self {
        let mut sums = Self::default();
        for package in text.split("[[package]]").skip(1) {
            let value = |key: &str| {
                let mut lines = package.lines();
                let found = lines.find_map(|l| l.strip_prefix(key)?.trim().strip_prefix('='));
                found.map(|v| v.trim().trim_matches('"'))
            };
            if let (Some(name), Some(version), Some(sum)) =
                (value("name"), value("version"), value("checksum"))
            {
                sums.add(name, version, sum);
            }
        }
        sums
    }

    /// The `name==version --hash=sha256:..` lines of a requirements file.
    pub fn from_requirements(text: &str) -> Self {
        let mut sums = Self::default();
        for line in text.replace("\\\r\n", " ").replace("\\\n", " ").lines() {
            let mut words = line.split_whitespace();
            let pinned = words.next().and_then(|w| w.split_once("=="));
            let Some((name, version)) = pinned.filter(|_| !line.trim_start().starts_with('#'))
            else {
                continue;
            };
            let name = name.split('[').next().unwrap_or(name);
            let version = version.split(';').next().unwrap_or(version);
            for sum in words.filter_map(|w| w.strip_prefix("--hash=sha256:")) {
                sums.add(name, version, sum);
            }
        }
        sums
    }

    fn check(&self, name: &str, version: &str, file: &Path) -> io::Result<Verdict> {
        let Some(sums) = self.0.get(&(name.to_owned(), version.to_owned())) else {
            return Ok(Err("no checksum was given for it"));
        };
        let seen = hex::<Sha256>(file)?;
        Ok(sums
            .contains(&seen)
            .then_some(())
            .ok_or("its content has another checksum"))
    }
}

/// A Python project's name as the index compares it.
fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|p| !p.is_empty());
    let parts: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    parts.join("-")
}

/// Name and version of a wheel or source archive.
fn archive(file: &str) -> Option<(String, String)> {
    let (name, version) = match file.strip_suffix(".whl") {
        Some(stem) => {
            let mut parts = stem.split('-');
            (parts.next()?, parts.next()?)
        }
        None => [".tar.gz", ".zip"]
            .iter()
            .find_map(|end| file.strip_suffix(end))?
            .rsplit_once('-')?,
    };
    Some((normal(name), version.to_ascii_lowercase()))
}

fn hex<D: Digest>(file: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(file)?, D::new());
    let mut buf = vec![0; 64 << 10];
    loop {
        match file.read(&mut buf)? {
            0 => break,
            n => hash.update(&buf[..n]),
        }
    }
    let mut text = String::new();
    for b in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{b:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockfiles_are_read() {
        let lock = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\n[[package]]\n\
                    name = \"serde\"\nversion = \"1.0.2\"\nsource = \"registry\"\n\
                    checksum = \"AB\"\ndependencies = [\n \"x\",\n]\n";
        let sums = Checksums::from_cargo_lock(lock);
        let key = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert!(sums.0[&key("serde-1.0.2", "")].contains("ab"));
        assert!(!sums.0.contains_key(&key("own-0.1.0", "")));
        let text = "# six==9 --hash=sha256:00\nZope.Interface[x]==6.0 ; python_version > '3' \\\n  \
                    --hash=sha256:aa \\\n  --hash=sha256:bb\nsix\n";
        let sums = Checksums::from_requirements(text);
        assert_eq!(sums.0[&key("zope-interface", "6.0")].len(), 2);
        assert!(!sums.0.keys().any(|(n, _)| n.starts_with("six")));
    }

    #[test]
    fn archives_have_names_and_versions() {
        let of = |file| archive(file).map(|(n, v)| format!("{n} {v}"));
        let wheel = of("Zope_Interface-6.0-1-py3-none-any.whl");
        assert_eq!(wheel.as_deref(), Some("zope-interface 6.0"));
        assert_eq!(of("a-b-1.0.tar.gz").as_deref(), Some("a-b 1.0"));
        assert_eq!(of("index.html"), None);
        assert_eq!(of(".whl"), None);
    }
}
