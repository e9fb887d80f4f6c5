//! The way out of a run's sandboxes, with a server of our own.
use crate::kit::Bed;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
};

/// Answers every request with `3`.
fn server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut s in listener.incoming().flatten() {
            // Small enough for one read; a client that went away is no matter.
            let _ = s.read(&mut [0; 4096]);
            let _ =
                s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n3");
        }
    });
    at
}

/// A test that gets what it compares with from a server, after it asked one that nobody listed.
fn bed(at: SocketAddr) -> Bed {
    let b = Bed::new();
    let test = format!(
        "from urllib.request import urlopen\nfrom calc import add\n\n\
         try: urlopen('http://elsewhere.example/x', timeout=20); raise SystemExit('reached')\n\
         except OSError: pass\n\
         three = int(urlopen('http://{at}/three', timeout=20).read())\n\
         assert add(2, three) == 5, add(2, three)\n"
    );
    b.write("test_calc.py", &test);
    b.commit();
    b
}

#[test]
fn a_listed_host_is_reached_and_every_decision_is_told() {
    let at = server();
    let host = at.to_string();
    for pool in [&[][..], &["--processes", "1"]] {
        let b = bed(at);
        let model = b.model();
        let mut args = b.run_args(&model, "python3 test_calc.py");
        args.extend(["--allow-host", &host]);
        args.extend(pool);
        let said = b.smallhands(&args);
        assert_eq!(said.code, Some(0), "{said:?}");
        let refused = "refused: elsewhere.example:80 is not on the list";
        assert!(said.err.contains(&format!("network {refused}")), "{said:?}");
        let times = said.err.matches(refused).count();
        assert_eq!(times, 1, "a host is spoken of once: {said:?}");
        assert!(
            said.out.contains(&format!("network       {host}  ")),
            "{said:?}"
        );
        let run = b.newest().unwrap();
        let shown = b.smallhands(&["show", &run]);
        assert!(shown.out.contains(refused), "{shown:?}");
        let all = b.smallhands(&["show", &run, "--json"]).json();
        let egress = all["egress"].as_array().unwrap();
        let by = |task: &str, verdict: fn(&serde_json::Value) -> bool| {
            let of = egress
                .iter()
                .filter(|e| e["task"] == task && verdict(&e["verdict"]));
            of.count()
        };
        for task in ["reproduce", "finish"] {
            assert_eq!(by(task, |v| v == "allowed"), 1, "{egress:?}");
            assert_eq!(
                by(task, |v| v["refused"]["reason"] == "not_listed"),
                1,
                "{egress:?}"
            );
        }
        // The log of the process that has the sandboxes.
        if pool.is_empty() {
            let log = b.dir.path().join(format!("state/logs/{run}.jsonl"));
            let log = std::fs::read_to_string(log).unwrap();
            let lines = log
                .lines()
                .filter(|l| l.contains("a connection out of a sandbox"));
            assert_eq!(lines.count(), egress.len(), "{log}");
        }
    }
}

#[test]
fn without_a_list_nothing_is_reached() {
    let at = server();
    let b = bed(at);
    let model = b.model();
    let mut args = b.run_args(&model, "python3 test_calc.py");
    args.extend(["--rounds", "1"]);
    b.smallhands(&args)
        .refused(1, "no change made the tests pass");
    let run = b.newest().unwrap();
    let shown = b.smallhands(&["show", &run, "--json"]).json();
    assert_eq!(shown["egress"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_host_that_is_none_is_refused_before_anything_is_made() {
    let b = Bed::new();
    let model = b.model();
    for (host, why) in [
        ("crates.io", "it has no port; write host:port"),
        ("https://crates.io:443", "no host name"),
        ("*:443", "`*:443` cannot be used"),
    ] {
        let mut args = b.run_args(&model, "python3 test_calc.py");
        args.extend(["--allow-host", host]);
        b.smallhands(&args).refused(2, why);
        args.push("--json");
        let said = b.smallhands(&args).json();
        assert_eq!(said["error"]["code"], "sandbox.egress_rule", "{said}");
    }
    assert_eq!(b.newest(), None);
    let help = b.smallhands(&["run", "--help"]).out;
    assert!(help.contains("--allow-host <HOST:PORT>"), "{help}");
}
