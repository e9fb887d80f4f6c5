//! What the program says of the sandbox where there is one, and where a wall is missing.
use crate::kit::{Bed, Said};
use std::process::Command;

/// The program, started by another one that takes something away.
fn doctor(b: &Bed, before: &[&str], args: &[&str]) -> Said {
    let plain = b.command(args);
    let mut c = Command::new(before[0]);
    c.args(&before[1..])
        .arg(plain.get_program())
        .args(plain.get_args());
    Said::of(c.output().unwrap())
}

#[test]
fn a_missing_wall_is_named_with_what_would_allow_it() {
    let b = Bed::new();
    let said = b.smallhands(&["doctor", "--sandbox"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out
            .contains("ok  landlock             tried: landlock abi "),
        "{said:?}"
    );
    assert!(
        said.out.contains("sandboxes can be opened here"),
        "{said:?}"
    );
    let report = b.smallhands(&["doctor", "--sandbox", "--json"]).json();
    assert_eq!(report["usable"], true);
    let layers = report["layers"].as_array().unwrap();
    assert!(
        layers
            .iter()
            .all(|l| l["works"] == true || l["required"] == false),
        "{report}"
    );

    for (limit, layer) in [("user", "user namespace"), ("net", "network namespace")] {
        let none = format!("echo 0 > /proc/sys/user/max_{limit}_namespaces; exec \"$@\"");
        let before = ["unshare", "-Ur", "sh", "-c", &none, "sh"];
        let said = doctor(&b, &before, &["doctor", "--sandbox"]);
        assert_eq!(said.code, Some(12), "{said:?}");
        let mut no = said.out.lines().filter(|l| l.starts_with("  no  "));
        let first = no.next().unwrap();
        assert!(first.contains(layer), "{first}");
        assert!(
            first.contains(&format!("sysctl user.max_{limit}_namespaces=")),
            "{first}"
        );
        assert!(no.all(|l| l.contains("not reached")), "{said:?}");
        assert!(
            said.out.contains("no sandbox can be opened here"),
            "{said:?}"
        );
        let report = doctor(&b, &before, &["doctor", "--sandbox", "--json"]).json();
        assert_eq!(report["usable"], false, "{report}");
    }
    let said = doctor(&b, &["env", "PATH=/nonexistent"], &["doctor", "--sandbox"]);
    assert_eq!(said.code, Some(12), "{said:?}");
    assert!(said.out.contains("no  git"), "{said:?}");
}
