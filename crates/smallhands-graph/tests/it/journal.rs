use crate::{
    kit::{engine, graph, memory, sqlite},
    run,
};
use smallhands_core::{BlobStore, TaskContext, TaskSpec, Timestamp, worker};
use smallhands_graph::{
    DirBlobs, Durability, Event, GraphError, NewRun, Record, ResumeFailed, RunState, StoreError,
};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(5);

#[tokio::test]
async fn one_driver_at_a_time_and_the_second_is_told_who() {
    let dir = tempfile::tempdir().unwrap();
    let slow = || {
        worker("slow", |(): (), cx: TaskContext| async move {
            cx.cancel().cancelled().await;
            Err::<(), _>(smallhands_core::Halt::Cancelled)
        })
    };
    for (a, b) in [(sqlite(dir.path()), sqlite(dir.path())), {
        let m = memory();
        (m.clone(), m)
    }] {
        let first = engine(&a, [slow()]).owner("process 12 on host");
        let mut h = first
            .start(NewRun::new("r", graph([TaskSpec::new("a", "slow")])))
            .await
            .unwrap();
        let mut updates = h.updates();
        while let Some(smallhands_graph::Update::Event { event, .. }) = updates.next().await
            && !matches!(&*event, Event::Dispatched { .. })
        {}
        let e = engine(&b, [slow()])
            .resume(&"r".into(), ResumeFailed::No)
            .await
            .unwrap_err();
        assert_eq!(
            e.to_string(),
            "run `r` is being driven by process 12 on host (epoch 1); wait until it ends, or stop it"
        );
        // A reader is not kept out.
        assert_eq!(RunState::load(&*b, &"r".into()).await.unwrap().running(), 1);
        h.stop();
        h.wait().await.unwrap();
        engine(&b, [slow()])
            .resume(&"r".into(), ResumeFailed::No)
            .await
            .unwrap()
            .cancel();
    }
}

#[tokio::test]
async fn appends_are_checked_and_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for store in [memory(), sqlite(dir.path())] {
        let (run, rec) = ("r".into(), |n: u64| {
            Record::new("k", 1, Timestamp(1), n.to_string())
        });
        let l = store.lease(&run, "me", TTL).await.unwrap();
        let level = Durability::PowerLoss;
        assert_eq!(
            store
                .append(&l, 0, vec![rec(1), rec(2)], None, level)
                .await
                .unwrap(),
            2
        );
        let e = store
            .append(&l, 1, vec![rec(9)], None, level)
            .await
            .unwrap_err();
        assert!(
            matches!(e, StoreError::Conflict { expected: 1, is: 2 }),
            "{e}"
        );
        store.release(&l).await.unwrap();
        let l2 = store.lease(&run, "you", TTL).await.unwrap();
        assert_eq!(l2.epoch, 2);
        let e = store
            .append(&l, 2, vec![rec(9)], None, level)
            .await
            .unwrap_err();
        assert!(matches!(e, StoreError::LeaseLost { epoch: 1, .. }), "{e}");
        let read = store.read(&run, 1, 9).await.unwrap();
        assert_eq!(
            read.iter()
                .map(|s| (s.seq, s.record.body().into_owned()))
                .collect::<Vec<_>>(),
            [(2, "2".to_owned())]
        );
    }
}

#[tokio::test]
async fn an_event_of_the_future_is_refused_by_name() {
    let store = memory();
    let run = "r".into();
    let l = store.lease(&run, "me", TTL).await.unwrap();
    let old = Record::of(Event::CancelRequested.into(), Timestamp(1));
    let mut new = old.clone();
    new.version = 2;
    store
        .append(&l, 0, vec![old, new], None, Durability::default())
        .await
        .unwrap();
    let e = RunState::load(&*store, &run).await.unwrap_err();
    assert!(matches!(&e, GraphError::Journal { seq: 2, .. }), "{e}");
    assert!(
        e.to_string()
            .contains("`cancel_requested` version 2 was written by a newer program"),
        "{e}"
    );
    let e = RunState::load(&*store, &"none".into()).await.unwrap_err();
    assert!(matches!(e, GraphError::UnknownRun(_)));
}

#[tokio::test]
async fn a_damaged_blob_is_never_returned() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = DirBlobs::open(dir.path()).unwrap();
    let r = blobs.put(b"hello".to_vec()).await.unwrap();
    assert_eq!(blobs.put(b"hello".to_vec()).await.unwrap(), r);
    assert_eq!(blobs.get(&r).await.unwrap(), b"hello");
    let file = dir
        .path()
        .join(&r.digest.hex()[..2])
        .join(&r.digest.hex()[2..]);
    std::fs::write(&file, b"hellO").unwrap();
    assert_eq!(blobs.get(&r).await.unwrap_err().code, "blob.damaged");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(blobs.get(&r).await.unwrap_err().code, "blob.missing");
}

#[tokio::test]
async fn the_same_id_twice_is_refused() {
    let store = memory();
    let e = engine(&store, [worker("w", |(): (), _| async { Ok(()) })]);
    run(&e, [TaskSpec::new("a", "w")]).await;
    let again = e
        .start(NewRun::new("r", graph([TaskSpec::new("a", "w")])))
        .await
        .unwrap_err();
    assert_eq!(again.to_string(), "there is a run `r` already");
}
