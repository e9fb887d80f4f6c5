//! The list.

mod files;
mod ipc;
mod kernel;
mod limits;
mod mounts;
mod network;
mod privileges;
mod proc;
mod processes;
mod proxy;

use crate::Baits;
use std::io;

/// Where the same attack must succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Outside, as the same user.
    Host,
    /// Outside, as root.
    Root,
    /// Nowhere: it is the second half of an attack (a helper of the driver's own probes).
    Helper,
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// What it is after.
    pub class: &'static str,
    /// Where it must succeed.
    pub place: Place,
    /// Tries. `Ok`: it got what it wanted.
    pub run: fn(&Baits) -> io::Result<()>,
}

const fn probe(
    class: &'static str,
    name: &'static str,
    place: Place,
    run: fn(&Baits) -> io::Result<()>,
) -> Probe {
    Probe {
        name,
        class,
        place,
        run,
    }
}

/// All of them; what may break the sandbox for those after it comes last.
pub fn all() -> Vec<Probe> {
    let rooms = [
        files::LIST,
        proc::LIST,
        privileges::LIST,
        processes::LIST,
        ipc::LIST,
        network::LIST,
        proxy::LIST,
        kernel::LIST,
        limits::LIST,
        mounts::LIST,
    ];
    rooms.concat()
}
