use crate::{CodeQuery, Hit, Result};
use async_trait::async_trait;
use smallhands_core::CallCx;
use std::fmt::Debug;

/// Finds the code that a question is about.
#[async_trait]
pub trait Retriever: Debug + Send + Sync + 'static {
    /// The best hits, best first.
    ///
    /// # Behavior
    /// - At most `query.limit` hits, in falling order of score; no hit twice.
    /// - Only paths under `query.path_prefix`, if it is given.
    /// - Each hit's lines, bytes and text agree with the file as it was indexed.
    /// - An empty or meaningless query is an empty answer, not an error.
    /// - A cancelled call ends soon, with [`MemoryError::Cancelled`](crate::MemoryError::Cancelled).
    /// - What it spends (a model behind it) goes through [`CallCx::reserve`].
    async fn retrieve(&self, query: &CodeQuery, cx: &CallCx) -> Result<Vec<Hit>>;
}

/// Puts hits into a better order.
#[async_trait]
pub trait Reranker: Debug + Send + Sync + 'static {
    /// Stable; stored beside results so that they can be compared.
    fn name(&self) -> &str;
    /// The same hits in a better order.
    ///
    /// # Behavior
    /// - Never invents a hit and never changes one but its score and evidence; it may leave some
    ///   out.
    /// - Returns them in falling order of the new score.
    /// - No hits are answered by no hits, without a call.
    async fn rerank(&self, query: &CodeQuery, hits: Vec<Hit>, cx: &CallCx) -> Result<Vec<Hit>>;
}

/// Turns text into vectors.
#[async_trait]
pub trait Embedder: Debug + Send + Sync + 'static {
    /// Names the weights; vectors of two ids are never compared.
    fn model_id(&self) -> &str;
    /// The length of every vector.
    fn dimension(&self) -> usize;
    /// One vector a text.
    ///
    /// # Behavior
    /// - As many vectors as texts, in their order, each of [`dimension`](Self::dimension) finite
    ///   numbers.
    /// - The same text gives the same vector, whatever is beside it in the batch.
    /// - Texts that are too long are cut, not refused.
    async fn embed(&self, texts: &[&str], cx: &CallCx) -> Result<Vec<Vec<f32>>>;
}
