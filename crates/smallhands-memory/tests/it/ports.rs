use crate::FIXTURES;
use smallhands_core::{
    Ambient, BlobRef, BlobStore, BoxFuture, CallCx, CancelToken, Clock, Failure, FailureClass,
    NoGuard, NoSecrets, Timestamp, async_trait,
};
use smallhands_memory::{
    CodeIndex, CodeQuery, Embedder, Hit, MemoryError, Reranker, Result, Retriever, SourceFile,
};
use std::{sync::Arc, time::Duration};

#[derive(Debug)]
struct Nothing;

impl Clock for Nothing {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[async_trait]
impl BlobStore for Nothing {
    async fn put(&self, _: Vec<u8>) -> Result<BlobRef, Failure> {
        Err(Failure::new("test.none", FailureClass::Store, "no store"))
    }
    async fn get(&self, _: &BlobRef) -> Result<Vec<u8>, Failure> {
        Err(Failure::new("test.none", FailureClass::Store, "no store"))
    }
}

fn cx(cancel: CancelToken) -> CallCx {
    let ambient = Ambient {
        clock: Arc::new(Nothing),
        blobs: Arc::new(Nothing),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    CallCx::detached(ambient, cancel)
}

/// Somebody else's: the shortest chunk first.
#[derive(Debug)]
struct Shortest;

#[async_trait]
impl Reranker for Shortest {
    fn name(&self) -> &'static str {
        "shortest"
    }
    async fn rerank(&self, _: &CodeQuery, mut hits: Vec<Hit>, _: &CallCx) -> Result<Vec<Hit>> {
        hits.sort_by_key(|h| h.text.len());
        for h in &mut hits {
            h.score = 1.0 / h.text.len() as f32;
            h.evidence = vec![("shortest".into(), h.score)];
        }
        Ok(hits)
    }
}

#[derive(Debug)]
struct Lengths;

#[async_trait]
impl Embedder for Lengths {
    fn model_id(&self) -> &'static str {
        "lengths-1"
    }
    fn dimension(&self) -> usize {
        1
    }
    async fn embed(&self, texts: &[&str], _: &CallCx) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|t| vec![t.len() as f32]).collect())
    }
}

#[tokio::test]
async fn ports_are_objects_that_others_can_implement() {
    let files = FIXTURES.iter().map(|(p, b)| SourceFile::new(*p, *b));
    let retriever: Arc<dyn Retriever> = Arc::new(CodeIndex::build(files).unwrap());
    let reranker: Arc<dyn Reranker> = Arc::new(Shortest);
    let embedder: Arc<dyn Embedder> = Arc::new(Lengths);
    let (query, cx) = (
        CodeQuery::new("discount on the total"),
        cx(CancelToken::new()),
    );
    let hits = retriever.retrieve(&query, &cx).await.unwrap();
    let ranked = reranker.rerank(&query, hits.clone(), &cx).await.unwrap();
    assert_eq!(ranked.len(), hits.len());
    assert!(ranked.windows(2).all(|w| w[0].score >= w[1].score));
    assert_eq!(embedder.embed(&["ab"], &cx).await.unwrap(), [[2.0]]);
    let back: Vec<Hit> = serde_json::from_str(&serde_json::to_string(&hits).unwrap()).unwrap();
    assert_eq!(back, hits);
}

#[tokio::test]
async fn a_cancelled_call_ends() {
    let index = CodeIndex::build([SourceFile::new("a.py", "x = 1")]).unwrap();
    let cancel = CancelToken::new();
    cancel.cancel();
    let e = index
        .retrieve(&CodeQuery::new("x"), &cx(cancel))
        .await
        .unwrap_err();
    assert!(matches!(e, MemoryError::Cancelled));
}

#[test]
fn errors_have_codes_and_become_failures() {
    let below = Failure::new("net.down", FailureClass::Unavailable, "down").retryable();
    for (e, code, class, retryable) in [
        (
            MemoryError::NoIndex,
            "memory.no_index",
            FailureClass::Input,
            false,
        ),
        (
            MemoryError::Cancelled,
            "cancelled",
            FailureClass::Cancelled,
            false,
        ),
        (
            MemoryError::Dimension {
                expected: 3,
                got: 4,
            },
            "memory.dimension",
            FailureClass::Input,
            false,
        ),
        (
            MemoryError::Failed(below),
            "memory.failed",
            FailureClass::Unavailable,
            true,
        ),
    ] {
        assert_eq!((e.code(), e.is_retryable()), (code, retryable));
        let f = Failure::from(e);
        assert_eq!((f.class, f.retryable), (class, retryable));
    }
}
