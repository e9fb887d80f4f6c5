//! Each layer replaced, one repair, green.
#![allow(clippy::unwrap_used, reason = "tests")]

use embedder::{
    Answers, CountingClock, CountingStore, Directories, Grep, Inbox, NoPush, OneSecret, Tests,
    Threads, Uses, Watcher, audit, planner,
};
use smallhands::{
    SmallHands,
    agents::{Finished, RepairSpec},
    core::Budget,
    sandbox::{RepoSource, SandboxSpec},
    tools::{Registry, TestCommand},
};
use std::{fs, path::Path, sync::Arc};

fn broken(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("sum.sh"), "#!/bin/sh\necho $(($1 - $2))\n").unwrap();
    fs::write(
        dir.join("test.sh"),
        "sum=$(sh sum.sh 2 3)\necho \"sum.sh says $sum\"\ntest \"$sum\" = 5\n",
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_layer_can_be_replaced() {
    let tmp = tempfile::tempdir().unwrap();
    broken(&tmp.path().join("base"));
    let (uses, inbox) = (Uses::default(), Arc::new(Inbox::default()));
    let tests = TestCommand::parse("sh test.sh").unwrap();
    let threads = uses.clone();
    let hands = SmallHands::builder()
        .executor_with(move |workers, ambient| {
            Arc::new(Threads::new(workers, ambient, threads.clone()))
        })
        .sandbox(Arc::new(Directories::new(tmp.path(), uses.clone())))
        .model(Arc::new(Answers::new(uses.clone())))
        .memory(Arc::new(Grep(uses.clone())))
        .tools(Registry::default().with_dyn(Arc::new(Tests(tests.clone(), uses.clone()))))
        .store(Arc::new(CountingStore::new(uses.clone())))
        .guardrail(Arc::new(NoPush(uses.clone())))
        .secrets(Arc::new(OneSecret(uses.clone())))
        .clock(Arc::new(CountingClock(uses.clone())))
        .sink(Arc::new(Watcher(uses.clone())))
        .delivery(inbox.clone())
        .planner(planner(uses.clone()))
        .worker(audit(uses.clone()))
        .build()
        .unwrap();
    let sandbox = SandboxSpec {
        source: Some(RepoSource {
            commit: "base".into(),
        }),
        ..SandboxSpec::default()
    };
    let spec = RepairSpec::new("make the sum right", sandbox, tests);
    let run = hands
        .repair("own", spec, serde_json::Value::Null, Budget::default())
        .await
        .unwrap();
    let done = run.wait().await.unwrap();

    let finished = done
        .state
        .value("finish")
        .unwrap_or_else(|| panic!("{:?}", done.state));
    let report: Finished = serde_json::from_value(finished.clone()).unwrap();
    assert!(report.after.ok && !report.before.ok);
    assert_eq!(inbox.patch().as_deref(), Some(&*report.patch));
    assert!(
        report.patch.contains("+echo $(($1 + $2))"),
        "{}",
        report.patch
    );
    let audit = done.state.value("audit").unwrap();
    assert_eq!(audit, &serde_json::json!({"denied": true, "secret": true}));
    assert_eq!(
        fs::read_to_string(tmp.path().join("base/sum.sh")).unwrap(),
        "#!/bin/sh\necho $(($1 - $2))\n"
    );

    let uses = uses.all();
    for layer in [
        "clock",
        "executor",
        "guard.allowed",
        "guard.denied",
        "memory",
        "model",
        "planner",
        "sandbox.exec",
        "sandbox.fork",
        "sandbox.open",
        "sandbox.snapshot",
        "secrets",
        "sink.event",
        "sink.notice",
        "store",
        "tools",
        "worker",
    ] {
        assert!(uses.contains_key(layer), "{layer} was not used: {uses:?}");
    }
    // One placement of each task: plan, audit, reproduce, locate, propose, validate, finish.
    assert_eq!(
        (uses["executor"], uses["model"], uses["guard.denied"]),
        (7, 1, 1),
        "{uses:?}"
    );
}
