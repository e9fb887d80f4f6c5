use crate::{Candidate, RepairParts, RepairSpec};
use serde::{Deserialize, Serialize};
use smallhands_core::{CallCx, Failure, Step, TaskContext, Worker, async_trait, worker as make};
use smallhands_memory::{CodeIndex, CodeQuery, Hit, Retriever, SourceFile};
use smallhands_sandbox::{EntryKind, Sandbox};
use smallhands_tools::TestReport;
use std::{fmt::Debug, sync::Arc};

/// Makes the files of a workspace searchable.
#[async_trait]
pub trait Memory: Debug + Send + Sync + 'static {
    /// Something that finds code in these files, as they are now.
    ///
    /// # Behavior
    /// - Changes nothing in the workspace.
    async fn open(&self, files: &dyn Sandbox, cx: &CallCx) -> Result<Arc<dyn Retriever>, Failure>;
}

/// The default: chunks and BM25 over every source file, in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexFiles;

/// Larger files are not source that anybody writes.
const MOST_BYTES: u64 = 1 << 20;

#[async_trait]
impl Memory for IndexFiles {
    async fn open(&self, files: &dyn Sandbox, _: &CallCx) -> Result<Arc<dyn Retriever>, Failure> {
        let mut sources = Vec::new();
        for e in files.list("").await? {
            if e.kind == EntryKind::File && e.len <= MOST_BYTES {
                let bytes = files.read(&e.path).await?;
                sources.push(SourceFile::new(e.path, bytes));
            }
        }
        Ok(Arc::new(CodeIndex::build(sources)?))
    }
}

#[derive(Deserialize)]
struct Input {
    base: Candidate,
    report: TestReport,
}

#[derive(Serialize)]
struct Output {
    hits: Vec<Hit>,
}

/// So many places are handed on.
const PLACES: usize = 6;

pub(crate) fn worker(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Arc<dyn Worker> {
    make("locate", move |i: Input, cx: TaskContext| {
        let (parts, spec) = (parts.clone(), spec.clone());
        async move {
            let mut query = CodeQuery::new(format!("{}\n{}", spec.goal, i.report.feedback(6000)));
            query.limit = PLACES * 3;
            let step = Step::new("search").input(&(&query, &i.base));
            let hits: Vec<Hit> = cx
                .step(step, |call| async move {
                    let sandbox = parts.trial(&spec, &i.base, &call).await?;
                    let memory = parts.memory.open(&*sandbox, &call).await?;
                    let hits = memory.retrieve(&query, &call).await?;
                    sandbox.close().await?;
                    Ok(hits)
                })
                .await?;
            // What is to be repaired is never the test.
            let mut hits: Vec<_> = hits.into_iter().filter(|h| !h.is_test).collect();
            hits.truncate(PLACES);
            Ok(Output { hits })
        }
    })
}
