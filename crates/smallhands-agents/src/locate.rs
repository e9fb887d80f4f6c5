use crate::{Candidate, Place, RepairParts, RepairSpec, failures};
use serde::{Deserialize, Serialize};
use smallhands_core::{CallCx, Failure, Step, TaskContext, Worker, async_trait, worker as make};
use smallhands_memory::{Chunk, CodeIndex, CodeQuery, Hit, Retriever, SourceFile, chunk_file};
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
    goal: Option<String>,
    report: TestReport,
}

/// Where the fault may be, and what a model is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Located {
    /// The likeliest first; never a test.
    pub places: Vec<Place>,
    /// The failing tests in few words.
    pub failures: String,
}

/// So many places are handed on.
const PLACES: usize = 6;

pub(crate) fn worker(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Arc<dyn Worker> {
    make("locate", move |i: Input, cx: TaskContext| {
        let (parts, spec) = (parts.clone(), spec.clone());
        async move {
            let goal = i.goal.as_ref().unwrap_or(&spec.goal);
            let mut query = CodeQuery::new(format!("{goal}\n{}", i.report.feedback(6000)));
            query.limit = PLACES * 3;
            let step = Step::new("search").input(&(&query, &i.base));
            cx.step(step, |call| async move {
                let sandbox = parts.trial(&spec, &i.base, &call).await?;
                let memory = parts.memory.open(&*sandbox, &call).await?;
                let hits = memory.retrieve(&query, &call).await?;
                let out = Located {
                    places: places(&*sandbox, hits).await?,
                    failures: described(&*sandbox, &i.report).await,
                };
                sandbox.close().await?;
                Ok::<_, Failure>(out)
            })
            .await
        }
    })
}

async fn places(files: &dyn Sandbox, hits: Vec<Hit>) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    for hit in hits.into_iter().filter(|h| !h.is_test).take(PLACES) {
        let bytes = files.read(&hit.path).await?;
        let text = String::from_utf8_lossy(&bytes);
        places.extend(Place::new(hit, &text));
    }
    Ok(places)
}

/// With the source of the failing tests, where it can be read.
async fn described(files: &dyn Sandbox, report: &TestReport) -> String {
    let mut sources = Vec::new();
    for (path, line) in failures::places(report) {
        let Ok(bytes) = files.read(&path).await else {
            continue;
        };
        let holds = |c: &Chunk| (c.lines.0 as usize..=c.lines.1 as usize).contains(&line);
        if let Some(c) = chunk_file(&path, &bytes).into_iter().find(holds) {
            sources.push((path, line, c.text));
        }
    }
    failures::describe(report, |path, line| {
        let source = sources
            .iter()
            .find(|(p, l, _)| (p.as_str(), *l) == (path, line));
        source.map(|(_, _, text)| text.clone())
    })
}
