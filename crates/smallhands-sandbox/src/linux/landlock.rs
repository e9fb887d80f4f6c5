//! What a command may touch of the files that it can see.

use super::proto::Fault;
use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::io;

/// What this crate knows how to use; a newer kernel offers it too.
pub(super) const NEWEST: i32 = 6;

pub(super) fn missing(e: &io::Error) -> Fault {
    Fault::Unavailable {
        layer: "landlock".into(),
        reason: e.to_string(),
        fix: "use a kernel of 5.13 or later with CONFIG_SECURITY_LANDLOCK, and `landlock` in the \
              boot parameter lsm="
            .into(),
    }
}

/// The kernels from which on there is ABI 1, 2, ..
const KERNELS: [&str; NEWEST as usize] = ["5.13", "5.19", "6.2", "6.7", "6.10", "6.12"];

fn abi(layer: &str) -> Option<i32> {
    layer.strip_prefix("landlock abi ")?.parse().ok()
}

/// Whether what is in force is the ABI that is wanted, or a later one.
pub(super) fn includes(in_force: &str, wanted: &str) -> bool {
    matches!((abi(in_force), abi(wanted)), (Some(has), Some(wants)) if has >= wants)
}

/// What would allow a wanted ABI, if it is one that we know.
pub(super) fn fix(wanted: &str) -> Option<String> {
    let kernel = KERNELS.get(usize::try_from(abi(wanted)?).ok()?.checked_sub(1)?)?;
    Some(format!("use a kernel of {kernel} or later"))
}

/// What an older kernel than ours lacks.
pub(super) fn lacks(in_force: &str) -> &'static str {
    match abi(in_force) {
        Some(abi) if abi < NEWEST => {
            "; ABI 6 (kernel 6.12) adds a wall around signals and abstract sockets"
        }
        _ => "",
    }
}

/// Writing below `writable`, reading and executing below `readable`, the devices, and signals and
/// abstract sockets of one's own sandbox only.
#[derive(Debug)]
pub(super) struct Rules(RulesetCreated);

impl Rules {
    pub(super) fn new(
        writable: &[String],
        readable: &[String],
        devices: &[&str],
    ) -> Result<Self, Fault> {
        let rules = rules(writable, readable, devices);
        rules.map(Self).map_err(|e| Fault::setup("landlock", e))
    }

    /// Restricts this process, for good.
    pub(super) fn restrict(&self) -> Result<(), Fault> {
        let copy = self.0.try_clone().map_err(|e| missing(&e))?;
        match copy.restrict_self() {
            Ok(done) if done.ruleset == RulesetStatus::NotEnforced => {
                Err(missing(&io::Error::other("it is not in force")))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(Fault::setup("landlock", e)),
        }
    }
}

fn rules(
    writable: &[String],
    readable: &[String],
    devices: &[&str],
) -> Result<RulesetCreated, RulesetError> {
    let abi = ABI::V6;
    let all = AccessFs::from_all(abi);
    let write = all & !(AccessFs::MakeBlock | AccessFs::MakeChar | AccessFs::IoctlDev);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(abi))?
        .create()?;
    let mut allow = |path: &str, access: BitFlags<AccessFs>| -> Result<(), RulesetError> {
        // What is not there needs no rule.
        let Ok(fd) = PathFd::new(path) else {
            return Ok(());
        };
        (&mut rules)
            .add_rule(PathBeneath::new(fd, access))
            .map(drop)
    };
    // Names of the skeleton itself; what lies in it needs a rule of its own to be opened.
    allow("/", AccessFs::ReadDir.into())?;
    for path in writable {
        allow(path, write)?;
    }
    for path in readable {
        let read = AccessFs::from_read(abi);
        let is_dir = std::fs::metadata(path).is_ok_and(|m| m.is_dir());
        allow(
            path,
            if is_dir {
                read
            } else {
                read & AccessFs::from_file(abi)
            },
        )?;
    }
    for path in devices {
        allow(path, device)?;
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_abi_includes_an_earlier_one() {
        assert!(includes("landlock abi 6", "landlock abi 4"));
        assert!(includes("landlock abi 4", "landlock abi 4"));
        assert!(!includes("landlock abi 4", "landlock abi 6"));
        assert!(!includes("seccomp", "landlock abi 1"));
        let kernel = |abi: i32| fix(&format!("landlock abi {abi}"));
        assert_eq!(
            kernel(NEWEST).as_deref(),
            Some("use a kernel of 6.12 or later")
        );
        assert_eq!(
            [kernel(0), kernel(NEWEST + 1), fix("seccomp")],
            [None, None, None]
        );
    }
}
