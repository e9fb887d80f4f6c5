//! What commands get, give and may.

use super::bed::{Bed, Boxed, said, shell};
use crate::expect;
use smallhands_core::{CallCx, CancelToken};
use smallhands_sandbox::{
    Egress, EgressRefusal, EgressVerdict, Ended, Invocation, SandboxError, SandboxSpec,
};
use std::{
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

/// Writes for a minute, out of reach of anything but the end of the sandbox's processes.
const DAEMON: &str = "(setsid nohup sh -c 'for i in $(seq 3000); do echo x >> beat; sleep 0.02; \
                      done' >/dev/null 2>&1 &); until test -s beat; do sleep 0.02; done; \
                      echo started; ";

/// Nobody writes any more.
async fn silent(b: &Bed, s: &Boxed) -> Result<(), String> {
    let before = b.out(s, "wc -c < beat").await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    expect(
        "a daemon's heartbeat",
        &b.out(s, "wc -c < beat").await?,
        &before,
    )
}

pub(super) async fn ends(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    for (script, ended) in [
        ("exit 0", Ended::Exited(0)),
        ("exit 42", Ended::Exited(42)),
        ("kill -TERM $$", Ended::Signaled(15)),
    ] {
        expect(script, &b.sh(&s, script).await?.ended, &ended)?;
    }
    for program in ["no-such-program-anywhere", "./README.md"] {
        match b.exec(&s, &Invocation::new([program])).await?.ended {
            Ended::NotStarted(_) => {}
            other => return Err(format!("{program}: promised NotStarted, seen {other:?}")),
        }
    }
    Ok(())
}

pub(super) async fn arguments(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let argv = ["printf", "%s|", "a  b", "$HOME", "*; exit 7", "", "ü\n"];
    let done = b.exec(&s, &Invocation::new(argv)).await?;
    expect(
        "output",
        &done.text().as_str(),
        &"a  b|$HOME|*; exit 7||ü\n|",
    )
}

pub(super) async fn input(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let mut count = Invocation::new(["wc", "-c"]);
    let mut counted = Vec::new();
    for len in [0, 5 << 20] {
        count.stdin = vec![b'x'; len];
        counted.push(b.exec(&s, &count).await?.text().trim().to_owned());
    }
    expect("bytes read", &counted, &vec!["0".into(), "5242880".into()])?;
    // One that reads nothing of it ends all the same.
    count.argv = vec!["true".into()];
    expect("deaf", &b.exec(&s, &count).await?.ended, &Ended::Exited(0))?;
    let mut there = Invocation::new(["cat", "b.txt"]);
    there.cwd = "src/deep".into();
    expect(
        "in a directory",
        &b.exec(&s, &there).await?.stdout,
        &b"b\n".to_vec(),
    )?;
    there.cwd = "../etc".into();
    match b.try_exec(&s, &there).await {
        Err(SandboxError::Path { .. }) => Ok(()),
        other => Err(format!("outside: promised Path, seen {other:?}")),
    }
}

pub(super) async fn streams(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let mut live = BTreeMap::<String, Vec<u8>>::new();
    let mut sink = |stream: &str, bytes: &[u8]| {
        live.entry(stream.into()).or_default().extend(bytes);
    };
    let what = shell("echo out; echo err >&2; printf 'caf\\351'");
    let done = s.exec(&what, &mut sink, &b.cx).await.map_err(said)?;
    expect("stdout", &done.stdout, &b"out\ncaf\xe9".to_vec())?;
    expect("stderr", &done.stderr, &b"err\n".to_vec())?;
    expect("cut", &done.cut_bytes, &0)?;
    let kept = [("stderr", done.stderr), ("stdout", done.stdout)];
    expect("live", &live, &kept.map(|(k, v)| (k.into(), v)).into())
}

pub(super) async fn cap(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let mut what = shell("echo first; head -c 2000000 /dev/zero; echo last; echo err >&2");
    what.max_output = 1000;
    let done = b.exec(&s, &what).await?;
    expect("kept", &done.stdout.len(), &1000)?;
    expect("head", &done.stdout.starts_with(b"first\n"), &true)?;
    expect("tail", &done.stdout.ends_with(b"last\n"), &true)?;
    expect("cut", &done.cut_bytes, &(2_000_000 + 11 - 1000))?;
    expect("the other stream", &done.stderr, &b"err\n".to_vec())
}

pub(super) async fn environment(b: Bed) -> Result<(), String> {
    // What a minimal environment may hold too, perhaps as the host has it.
    const OWN: &[&str] = &[
        "HOME",
        "LANG",
        "PATH",
        "PWD",
        "PYTHONDONTWRITEBYTECODE",
        "SHELL",
        "SHLVL",
        "TERM",
        "TMPDIR",
        "USER",
        "_",
    ];
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let spec = SandboxSpec {
        env: vec![pair("KIT_A", "spec"), pair("KIT_B", "spec")],
        ..b.spec()
    };
    let s = b.try_open(&spec).await.map_err(said)?;
    let mut what = Invocation::new(["env"]);
    what.env = vec![pair("KIT_B", "call")];
    let text = b.exec(&s, &what).await?.text();
    let inside: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
    expect("of the sandbox", &inside.get("KIT_A"), &Some(&"spec"))?;
    expect("of the command", &inside.get("KIT_B"), &Some(&"call"))?;
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if !OWN.contains(&&*name) && inside.get(&*name) == Some(&&*value) {
            return Err(format!("{name} of the host is inside"));
        }
    }
    Ok(())
}

pub(super) async fn deadline(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let begun = Instant::now();
    let what = shell(&format!("{DAEMON} sleep 1000")).deadline(Duration::from_millis(700));
    let done = b.exec(&s, &what).await?;
    expect("ended", &done.ended, &Ended::TimedOut)?;
    expect("soon", &(begun.elapsed() < Duration::from_secs(20)), &true)?;
    expect("output", &done.stdout, &b"started\n".to_vec())?;
    silent(&b, &s).await
}

pub(super) async fn call_deadline(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let at = b.cx.ambient().clock.monotonic() + Duration::from_millis(300);
    let (what, cx) = (shell("sleep 10"), b.cx.with_deadline(at));
    let done = s.exec(&what, &mut |_, _| {}, &cx).await.map_err(said)?;
    expect("ended", &done.ended, &Ended::TimedOut)
}

pub(super) async fn orphans(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let begun = Instant::now();
    // Its output stays open in the background: that must not hold the command.
    let done = b.sh(&s, &format!("{DAEMON} sleep 100 & exit 3")).await?;
    expect("ended", &done.ended, &Ended::Exited(3))?;
    expect("soon", &(begun.elapsed() < Duration::from_secs(20)), &true)?;
    silent(&b, &s).await
}

pub(super) async fn cancel(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let what = shell(&format!("{DAEMON} sleep 10"));
    let mut started = |_: &str, _: &[u8]| b.cancel.cancel();
    match s.exec(&what, &mut started, &b.cx).await {
        Err(SandboxError::Cancelled) => {}
        other => return Err(format!("promised Cancelled, seen {other:?}")),
    }
    let b = Bed {
        cx: CallCx::detached(b.cx.ambient().clone(), CancelToken::new()),
        ..b
    };
    silent(&b, &s).await
}

pub(super) async fn turns(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let script = "test ! -e busy && touch busy && sleep 0.1 && rm busy";
    let all = tokio::join!(b.sh(&s, script), b.sh(&s, script), b.sh(&s, script));
    for done in [all.0, all.1, all.2] {
        expect("alone", &done?.ended, &Ended::Exited(0))?;
    }
    Ok(())
}

pub(super) async fn network(b: Bed) -> Result<(), String> {
    let host = TcpListener::bind("127.0.0.1:0").map_err(said)?;
    let address = host.local_addr().map_err(said)?;
    // The control: from outside it is reached.
    drop(TcpStream::connect(address).map_err(said)?);
    drop(host.accept().map_err(said)?);
    let s = b.open().await?;
    let script = format!(
        "(exec 3<>/dev/tcp/127.0.0.1/{}) && exit 7; exit 0",
        address.port()
    );
    let done = b
        .exec(&s, &Invocation::new(["bash", "-c", &script]))
        .await?;
    expect("a connection to the host", &done.ended, &Ended::Exited(0))?;
    host.set_nonblocking(true).map_err(said)?;
    expect("seen by the host", &host.accept().is_ok(), &false)
}

pub(super) async fn egress(b: Bed) -> Result<(), String> {
    let spec = SandboxSpec {
        egress: Some(Egress::default()),
        ..b.spec()
    };
    let s = match b.try_open(&spec).await {
        // What cannot be enforced is refused.
        Err(SandboxError::Unavailable { .. }) => return Ok(()),
        other => other.map_err(said)?,
    };
    let ask = "p=${HTTP_PROXY#http://}; exec 3<>/dev/tcp/${p%:*}/${p#*:} || exit 7; \
               printf 'CONNECT example.com:443 HTTP/1.1\\r\\n\\r\\n' >&3; read -r a b c <&3; echo $b";
    let done = b.exec(&s, &Invocation::new(["bash", "-c", ask])).await?;
    expect("the proxy's answer", &done.text(), &"403\n".to_owned())?;
    let [one] = &done.egress[..] else {
        return Err(format!("not one connection: {:?}", done.egress));
    };
    let refused = matches!(
        one.verdict,
        EgressVerdict::Refused {
            reason: EgressRefusal::NotListed,
            ..
        }
    );
    expect("refused in the result", &refused, &true)?;
    expect("host", &one.host.as_str(), &"example.com")
}

pub(super) async fn process(b: Bed) -> Result<(), String> {
    let s = b.open().await?;
    let mut what = shell("while read x; do echo $KIT $x; done; exit 4");
    what.env = vec![("KIT".into(), "got".into())];
    let mut p = match s.spawn(&what, &b.cx).await {
        // It is an offer, not a promise.
        Err(SandboxError::Unavailable { .. }) => return Ok(()),
        other => other.map_err(said)?,
    };
    for line in ["one", "two"] {
        p.write(format!("{line}\n").as_bytes())
            .await
            .map_err(said)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") {
            match p.read().await.map_err(said)? {
                Some((_, bytes)) => answer.extend(bytes),
                None => return Err("it ended before its input did".into()),
            }
        }
        expect("answer", &answer, &format!("got {line}\n").into_bytes())?;
    }
    expect(
        "ended",
        &p.wait().await.map_err(said)?.ended,
        &Ended::Exited(4),
    )?;
    let mut p = s
        .spawn(&shell(&format!("{DAEMON} sleep 1000")), &b.cx)
        .await
        .map_err(said)?;
    p.read().await.map_err(said)?;
    drop(p);
    silent(&b, &s).await
}
