use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

/// What attacks are after, as `name=value` arguments.
#[derive(Clone, Debug, Default)]
pub struct Baits(HashMap<String, String>);

impl Baits {
    /// From arguments.
    pub fn read(args: impl Iterator<Item = String>) -> Self {
        let pair = |a: String| a.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Self(args.filter_map(pair).collect())
    }
    /// Sets one.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.into(), value.to_string());
    }
    /// As arguments.
    pub fn args(&self) -> Vec<String> {
        let mut all: Vec<_> = self.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        all.sort();
        all
    }
    /// One of them.
    ///
    /// # Errors
    /// It was not set: then the attack is broken, not refused.
    pub fn get(&self, name: &str) -> io::Result<&str> {
        let found = self.0.get(name).map(String::as_str);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no bait {name}")))
    }
    /// One of them as a number.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn number(&self, name: &str) -> io::Result<i32> {
        let bad = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("bait {name}"));
        self.get(name)?.parse().map_err(bad)
    }
    /// One of them as a path.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn path(&self, name: &str) -> io::Result<PathBuf> {
        self.get(name).map(PathBuf::from)
    }
    /// Whether this is an attack in a sandbox, not its control.
    pub fn inside(&self) -> bool {
        self.0.contains_key("inside")
    }
    /// Whether some bytes hold the secret.
    ///
    /// # Errors
    /// They do not.
    pub fn found(&self, bytes: &[u8]) -> io::Result<()> {
        let token = self.get("token")?.as_bytes();
        match bytes.windows(token.len()).any(|w| w == token) {
            true => Ok(()),
            false => Err(io::Error::other("no secret in it")),
        }
    }
    /// Whether a file holds the secret.
    ///
    /// # Errors
    /// It cannot be read, or does not.
    pub fn found_in(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.found(&std::fs::read(path)?)
    }
}
