use serde_json::Value;
use smallhands_core::{
    Ambient, Effect, Failure, FailureClass, Halt, Question, Step, TaskContext, Usage, Worker,
    WorkerName, WorkerSource, async_trait, worker,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The workers that the executor's kit places.
pub fn kit_workers() -> Vec<Arc<dyn Worker>> {
    vec![
        worker("kit/echo", |v: Value, _| async move { Ok(v) }),
        worker("kit/steps", |n: u32, cx: TaskContext| async move {
            let mut sum = 0;
            for i in 1..=n {
                let step = Step::new(format!("step/{i}")).input(&i);
                sum += cx.step(step, |_| async move { Ok(i) }).await?;
            }
            Ok(sum)
        }),
        worker("kit/fail", |(): (), _| async {
            let f = Failure::new("kit.fail", FailureClass::Task, "as asked").retryable();
            Err::<(), _>(Halt::Failed(f))
        }),
        worker("kit/panic", |(): (), _| async {
            if true {
                panic!("as asked");
            }
            Ok(())
        }),
        worker("kit/wait", |(): (), cx: TaskContext| async move {
            cx.step(Step::new("begun"), |_| async { Ok(()) }).await?;
            cx.cancel().cancelled().await;
            Err::<(), _>(Halt::Cancelled)
        }),
        worker("kit/stuck", |(): (), cx: TaskContext| async move {
            cx.step(Step::new("begun"), |_| async { Ok(()) }).await?;
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        }),
        worker("kit/die", |(): (), cx: TaskContext| async move {
            cx.step(Step::new("begun"), |_| async { Ok(()) }).await?;
            std::process::abort();
            #[allow(unreachable_code)]
            Ok(())
        }),
        worker("kit/ask", |(): (), cx: TaskContext| async move {
            cx.ask("kit", Question::new("well?")).await
        }),
        worker("kit/spend", |tokens: u64, cx: TaskContext| async move {
            let most = Usage {
                input_tokens: tokens,
                ..Usage::default()
            };
            let step = Step::new("spend").effect(Effect::Idempotent);
            cx.step(step, |call| async move {
                let held = call.reserve(most).await?;
                held.settle(most).await
            })
            .await
        }),
        worker("kit/blob", |size: usize, cx: TaskContext| async move {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let blobs = &cx.ambient().blobs;
            let blob = blobs.put(bytes.clone()).await?;
            Ok(blobs.get(&blob).await? == bytes)
        }),
    ]
}

/// The kit's workers for a process that is started by a pool; the configuration does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct KitSource;

#[async_trait]
impl WorkerSource for KitSource {
    async fn open(
        &self,
        _: &Value,
        _: &Ambient,
    ) -> Result<BTreeMap<WorkerName, Arc<dyn Worker>>, Failure> {
        let all = kit_workers().into_iter();
        Ok(all.map(|w| (w.name().clone(), w)).collect())
    }
}
