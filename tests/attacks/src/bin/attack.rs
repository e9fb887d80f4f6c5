//! One attack, named by the first argument. Exits with 0 if it succeeded, with 10 if it was refused.

use smallhands_attacks::{Baits, REFUSED, all, host};
use std::{env, process::exit};

fn main() {
    // Started as a sandbox's helper that is to die, or to be refused something.
    let me = env::args().next().unwrap_or_default();
    let asked = |how: &str| Some(me.rsplit_once(how)?.1.parse().unwrap_or(0));
    let kill = asked("kill-at-").map(|number| (number, true));
    if let Some((number, kill)) = kill.or_else(|| Some((asked("refuse-at-")?, false))) {
        let real = env::current_exe()
            .unwrap_or_default()
            .with_file_name("attacks");
        let failed = host::stopped_at(number, kill, &real);
        eprintln!("{failed:?}");
        exit(2);
    }
    let name = env::args().nth(1).unwrap_or_default();
    let baits = Baits::read(env::args().skip(2));
    let Some(probe) = all().into_iter().find(|p| p.name == name) else {
        eprintln!("no attack is called `{name}`");
        exit(2);
    };
    match (probe.run)(&baits) {
        Ok(()) => println!("it succeeded"),
        // A bait that is missing is a fault of ours.
        Err(e) if e.to_string().contains("no bait") => {
            eprintln!("{e}");
            exit(2);
        }
        Err(e) => {
            println!("{e}");
            exit(REFUSED);
        }
    }
}
