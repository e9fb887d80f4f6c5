//! What flows through the way out: whole, bounded, and gone with the sandbox.

use crate::{
    egress::{PRELUDE, Way},
    support::{block_on, close},
    upstream::{Names, Upstream, http_server, rules},
};
use smallhands_sandbox::{Egress, EgressRefusal, EgressVerdict, Invocation};
use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) fn each_direction_ends_by_itself() {
    let up = Upstream::new(|mut s| {
        s.write_all(b"early").unwrap();
        let mut all = Vec::new();
        s.read_to_end(&mut all).unwrap();
        s.write_all(format!("late {}", all.len()).as_bytes())
            .unwrap();
    });
    let first = Upstream::new(|mut s| {
        s.write_all(b"bye").unwrap();
        s.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        s.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"after your end");
    });
    let names = Names::new([("a.test", up.at), ("b.test", first.at)]);
    let way = Way::new(names, rules(&["a.test:1", "b.test:1"], &[up.at, first.at]));
    let (said, seen) = way.py(r#"s, _ = socks("a.test", 1)
assert s.recv(5, socket.MSG_WAITALL) == b"early"
s.sendall(b"12345"); s.shutdown(1); print(rest(s).decode())
s, _ = socks("b.test", 1)
assert rest(s) == b"bye"
s.sendall(b"after your end"); s.close()"#);
    assert_eq!(said, "late 5");
    let b = seen.iter().find(|r| r.host == "b.test").unwrap();
    assert_eq!((b.sent, b.received), (14, 3));
    first.join();
    close(way.s);
}

pub(crate) fn ten_megabytes_each_way_are_whole() {
    let up = Upstream::new(|mut s| {
        let mut all = Vec::new();
        s.read_to_end(&mut all).unwrap();
        all.iter_mut().for_each(|b| *b = b.wrapping_add(1));
        s.write_all(&all).unwrap();
    });
    let way = Way::new(
        Names::new([("a.test", up.at)]),
        rules(&["a.test:1"], &[up.at]),
    );
    let (_, seen) = way.py(r#"s, _ = socks("a.test", 1)
data = os.urandom(10 << 20)
s.sendall(data); s.shutdown(1)
back = rest(s)
assert len(back) == len(data)
want = data.translate(bytes((i + 1) % 256 for i in range(256)))
assert hashlib.sha256(back).digest() == hashlib.sha256(want).digest()"#);
    assert_eq!((seen[0].sent, seen[0].received), (10 << 20, 10 << 20));
    close(way.s);
}

pub(crate) fn many_at_once_and_one_that_does_not_read() {
    let up = Upstream::new(|mut s| {
        let mut word = [0; 5];
        s.read_exact(&mut word).unwrap();
        match &word {
            b"flood" => {
                let block = vec![7; 1 << 20];
                while s.write_all(&block).is_ok() {}
            }
            _ => s.write_all(&word).unwrap(),
        }
    });
    let way = Way::new(
        Names::new([("a.test", up.at)]),
        rules(&["a.test:1"], &[up.at]),
    );
    let (said, seen) = way.py(
        r#"stuck, _ = socks("a.test", 1); stuck.sendall(b"flood"); time.sleep(0.2)
good = []
def one(i):
    s, code = socks("a.test", 1)
    barrier.wait()
    word = b"%05d" % i
    s.sendall(word)
    if code == 0 and rest(s) == word: good.append(i)
barrier = threading.Barrier(100)
all = [threading.Thread(target=one, args=(i,)) for i in range(100)]
[t.start() for t in all]; [t.join() for t in all]
print(len(good))"#,
    );
    assert_eq!((said.as_str(), seen.len()), ("100", 101));
    let stuck = seen.iter().max_by_key(|r| r.received).unwrap();
    assert!(
        stuck.received < 20 << 20,
        "nothing holds it back: {stuck:?}"
    );
    close(way.s);
}

pub(crate) fn limits_hold() {
    let up = Upstream::new(|mut s| {
        let block = vec![7; 1 << 20];
        while s.write_all(&block).is_ok() {}
    });
    let silent = Upstream::new(|mut s| {
        let mut all = Vec::new();
        drop(s.read_to_end(&mut all));
    });
    let names = || Names::new([("a.test", up.at), ("b.test", silent.at)]);
    let with = |change: fn(&mut Egress)| {
        let mut egress = rules(&["a.test:1", "b.test:1"], &[up.at, silent.at]);
        change(&mut egress);
        Way::new(names(), egress)
    };
    let way = with(|e| e.max_bytes = Some(1 << 20));
    let (_, seen) = way.py(
        "s, _ = socks(\"a.test\", 1)\ntry: rest(s)\nexcept OSError: pass\n\
         s, code = socks(\"a.test\", 1); assert code == 2, code",
    );
    assert!(
        matches!(seen[0].verdict, EgressVerdict::Stopped(_)),
        "{seen:?}"
    );
    assert_eq!(seen[0].received, 1 << 20);
    let limit = EgressRefusal::ByteLimit;
    assert!(matches!(seen[1].verdict, EgressVerdict::Refused { reason, .. } if reason == limit));
    close(way.s);

    let way = with(|e| e.idle_timeout = Duration::from_millis(200));
    let (_, seen) = way.py("s, _ = socks(\"b.test\", 1)\ntry: rest(s)\nexcept OSError: pass");
    assert!(
        matches!(seen[0].verdict, EgressVerdict::Stopped(_)),
        "{seen:?}"
    );
    close(way.s);

    let way = with(|e| e.connect_timeout = Duration::from_millis(200));
    let (_, seen) = way.py("s = proxy(); s.sendall(b\"CONN\"); assert rest(s) == b\"\"");
    assert!(
        matches!(seen[0].verdict, EgressVerdict::Stopped(_)),
        "{seen:?}"
    );
    close(way.s);

    // More than may be open wait for their turn.
    let way = with(|e| e.connections = 2);
    let (said, _) = way.py(r#"a, _ = socks("b.test", 1); b, _ = socks("b.test", 1)
c = proxy(); c.sendall(b"\5\1\0"); c.settimeout(0.3)
try: c.recv(2); print("not held back")
except TimeoutError: print("waits")
a.close(); c.settimeout(60); assert c.recv(2) == b"\5\0""#);
    assert_eq!(said, "waits");
    close(way.s);
}

pub(crate) fn garbage_does_no_harm() {
    let up = http_server();
    let way = Way::new(
        Names::new([("a.test", up.at)]),
        rules(&["a.test:80"], &[up.at]),
    );
    let (said, seen) = way.py(
        r#"import random
r = random.Random(7)
starts = [b"", b"GET http://a.test", b"CONNECT a.test:80", b"\5\1\0", b"\5\1\0\5\1\0\3\6a.tes", b"\5\xff", b"POST http://a.test/ HTTP/1.1\r\nContent-Length: "]
for i in range(300):
    s = proxy()
    try:
        s.sendall(r.choice(starts) + r.randbytes(r.choice([0, 1, 7, 100, 40000])))
        if r.random() < 0.5: s.shutdown(1)
        if r.random() < 0.5: s.settimeout(0.01); s.recv(100)
    except OSError: pass
    s.close()
s, first = connect("a.test:80"); print(first)
s.sendall(b"GET /c HTTP/1.0\r\n\r\n"); print(rest(s).split(b"\r\n\r\n")[1].decode())"#,
    );
    assert_eq!(said, "HTTP/1.1 200 Connection established\nGET /c  0");
    assert_eq!(seen.last().unwrap().verdict, EgressVerdict::Allowed);
    close(way.s);
}

/// A command that nobody waits for, and one that is spoken to: their connections end with them.
pub(crate) fn connections_end_with_their_command() {
    let up = Upstream::new(|mut s| {
        let mut all = Vec::new();
        drop(s.read_to_end(&mut all));
    });
    let way = Way::new(
        Names::new([("a.test", up.at)]),
        rules(&["a.test:1"], &[up.at]),
    );
    let script = format!("{PRELUDE}\ns, _ = socks(\"a.test\", 1)\nprint(1)\ntime.sleep(1000)");
    let what = Invocation::new(["/usr/bin/python3", "-u", "-c", &script]);
    block_on(async {
        let mut process = way.s.spawn(&what, &way.w.cx).await.unwrap();
        assert!(process.read().await.unwrap().is_some());
        up.until("nobody was connected", |busy| busy == 1);
        drop(process);
    });
    let (_, seen) = way.py_alone("s, _ = socks(\"a.test\", 1); s.sendall(b\"last words\")");
    let [only] = &seen[..] else {
        panic!("{seen:?}")
    };
    // It ended without waiting for anything, and all of it arrived.
    assert_eq!((only.sent, &only.verdict), (10, &EgressVerdict::Allowed));
    up.until_idle();
    let script = format!("{PRELUDE}\ns, _ = socks(\"a.test\", 1)\ninput()");
    let what = Invocation::new(["/usr/bin/python3", "-c", &script]);
    let done = block_on(async {
        let process = way.s.spawn(&what, &way.w.cx).await.unwrap();
        process.wait().await.unwrap()
    });
    assert_eq!(done.egress.len(), 1, "{done:?}");
    up.until_idle();
    close(way.s);
}

pub(crate) fn nothing_is_left_of_a_transfer() {
    let up = Upstream::new(|mut s| {
        let block = vec![7; 1 << 16];
        while s.write_all(&block).is_ok() {}
    });
    let way = Way::new(
        Names::new([("a.test", up.at)]),
        rules(&["a.test:1"], &[up.at]),
    );
    let endless = format!(
        "{PRELUDE}\ns, _ = socks(\"a.test\", 1)\nopen(\"begun\", \"w\")\nwhile s.recv(65536): pass"
    );
    // The command is killed at its deadline: its connection ends with it.
    let what =
        Invocation::new(["/usr/bin/python3", "-c", &endless]).deadline(Duration::from_secs(2));
    let done = way.w.exec(&way.s, &what);
    assert_eq!(done.egress.len(), 1, "{done:?}");
    up.until_idle();
    // The sandbox is destroyed in the middle.
    let (w, s) = (&way.w, way.s);
    block_on(async {
        let what = Invocation::new(["/usr/bin/python3", "-c", &endless]);
        let mut sink = |_: &str, _: &[u8]| {};
        let mut call = s.exec(&what, &mut sink, &w.cx);
        while up.busy() == 0 {
            std::future::poll_fn(|cx| {
                drop(call.as_mut().poll(cx));
                std::task::Poll::Ready(())
            })
            .await;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    close(s);
    up.until_idle();
    // The proxy, and who looks names up for it, held some; what is left is ours and the backend's.
    let begun = Instant::now();
    while Arc::strong_count(&way.names) > 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "a proxy stays");
        std::thread::sleep(Duration::from_millis(10));
    }
}
