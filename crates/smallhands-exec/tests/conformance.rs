//! Both executors keep the contract; the pool's workers are this very program.
use libtest_mimic::{Arguments, Failed, Trial};
use smallhands_core::BlobStore;
use smallhands_exec::{InProcess, PoolOptions, ProcessPool, WorkerParts};
use smallhands_graph::{MemoryBlobs, SystemClock};
use smallhands_testkit::{KitSource, ambient, executor, kit_workers};
use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobs::default());
    // Before the hook: refused, and nothing is started.
    let early = ProcessPool::new(PoolOptions::default(), blobs.clone(), Arc::new(SystemClock));
    smallhands_exec::init(|blobs| {
        Ok(WorkerParts {
            source: Arc::new(KitSource),
            ambient: ambient(blobs),
        })
    });
    let mut trials = vec![Trial::test(
        "without the hook the pool is a typed error",
        move || match early {
            Err(f) if f.code == "exec.not_initialised" => Ok(()),
            other => Err(Failed::from(format!("{other:?}"))),
        },
    )];
    let own = blobs.clone();
    let in_process = executor(blobs.clone(), move || {
        Arc::new(InProcess::new(kit_workers(), ambient(own.clone())))
    });
    let kept = blobs.clone();
    let pool = executor(blobs, move || {
        let options = PoolOptions {
            slots: 2,
            tasks_per_process: 5,
            ..PoolOptions::default()
        };
        match ProcessPool::new(options, kept.clone(), Arc::new(SystemClock)) {
            Ok(p) => Arc::new(p),
            Err(f) => panic!("{f}"),
        }
    });
    for (name, kit) in [("in-process", in_process), ("pool", pool)] {
        for check in kit {
            let title = format!("{name}: {}", check.name);
            trials.push(Trial::test(title, move || {
                check.run().map_err(Failed::from)
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
