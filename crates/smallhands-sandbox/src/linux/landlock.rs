//! What a command may touch of the files that it can see.

use super::proto::Fault;
use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
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

/// Restricts this process for good: writing below `writable`, reading and executing below
/// `readable`, the devices, and signals and abstract sockets of this sandbox only.
pub(super) fn restrict(
    writable: &[&str],
    readable: &[String],
    devices: &[&str],
) -> Result<(), Fault> {
    match try_restrict(writable, readable, devices) {
        Ok(RulesetStatus::NotEnforced) => Err(missing(&io::Error::other("it is not in force"))),
        Ok(_) => Ok(()),
        Err(e) => Err(Fault::setup("landlock", e)),
    }
}

fn try_restrict(
    writable: &[&str],
    readable: &[String],
    devices: &[&str],
) -> Result<RulesetStatus, RulesetError> {
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
    Ok(rules.restrict_self()?.ruleset)
}
