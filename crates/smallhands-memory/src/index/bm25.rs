//! BM25 over path, symbol and body. The only place that knows tantivy.

use super::tokens::CodeTokenizer;
use crate::{MemoryError, Result};
use tantivy::{
    DocId, Index, IndexReader, IndexSettings, ReloadPolicy, Score, SegmentOrdinal, SegmentReader,
    TantivyDocument, TantivyError, Term,
    collector::{Collector, SegmentCollector},
    directory::RamDirectory,
    query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery},
    schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{TextAnalyzer, TokenizerManager},
};

const TOKENIZER: &str = "code";
const BUDGET: usize = 64 << 20;

/// The fields and what a term counts in each.
const FIELDS: [(&str, Score); 3] = [("symbol", 2.0), ("path", 1.0), ("body", 1.0)];

pub(crate) struct Bm25 {
    reader: IndexReader,
    fields: [Field; 3],
    /// Which chunk each document is.
    chunks: Vec<u32>,
}

fn failed(stage: &'static str) -> impl Fn(TantivyError) -> MemoryError {
    move |e| MemoryError::Index {
        stage,
        reason: e.to_string(),
    }
}

impl Bm25 {
    /// Takes (chunk, symbol, path, body) for each document. One segment, written in order by this
    /// thread, so that the same input gives the same index.
    pub(crate) fn build<'a>(
        documents: impl Iterator<Item = (u32, &'a str, &'a str, &'a str)>,
    ) -> Result<Self> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(TOKENIZER)
            .set_index_option(IndexRecordOption::WithFreqs);
        let options = TextOptions::default().set_indexing_options(indexing);
        let fields = FIELDS.map(|(name, _)| schema.add_text_field(name, options.clone()));
        let tokenizers = TokenizerManager::default();
        tokenizers.register(TOKENIZER, TextAnalyzer::from(CodeTokenizer));
        let mut writer = Index::builder()
            .schema(schema.build())
            .settings(IndexSettings::default())
            .tokenizers(tokenizers)
            .single_segment_index_writer(RamDirectory::create(), BUDGET)
            .map_err(failed("starting"))?;
        let mut chunks = Vec::new();
        for (chunk, symbol, path, body) in documents {
            let mut document = TantivyDocument::default();
            for (field, text) in fields.iter().zip([symbol, path, body]) {
                document.add_text(*field, text);
            }
            writer
                .add_document(document)
                .map_err(failed("adding a chunk"))?;
            chunks.push(chunk);
        }
        let index = writer.finalize().map_err(failed("finishing"))?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()
            .map_err(failed("opening"))?;
        Ok(Self {
            reader,
            fields,
            chunks,
        })
    }

    /// The score of every chunk that has one of the terms.
    pub(crate) fn scores(&self, terms: &[String]) -> Result<Vec<(u32, f32)>> {
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for term in terms {
            for (field, (_, boost)) in self.fields.iter().zip(FIELDS) {
                let term = Term::from_field_text(*field, term);
                let query = Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs));
                clauses.push((Occur::Should, Box::new(BoostQuery::new(query, boost))));
            }
        }
        let found = self
            .reader
            .searcher()
            .search(&BooleanQuery::new(clauses), &All)
            .map_err(failed("searching"))?;
        let chunk = |d: DocId| self.chunks.get(d as usize).copied();
        Ok(found
            .into_iter()
            .filter_map(|(d, s)| Some((chunk(d)?, s)))
            .collect())
    }
}

/// Collects every document with its score.
struct All;
struct AllOfSegment(Vec<(DocId, Score)>);

impl Collector for All {
    type Fruit = Vec<(DocId, Score)>;
    type Child = AllOfSegment;
    fn for_segment(&self, _: SegmentOrdinal, _: &SegmentReader) -> tantivy::Result<AllOfSegment> {
        Ok(AllOfSegment(Vec::new()))
    }
    fn requires_scoring(&self) -> bool {
        true
    }
    fn merge_fruits(&self, parts: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        Ok(parts.into_iter().flatten().collect())
    }
}

impl SegmentCollector for AllOfSegment {
    type Fruit = Vec<(DocId, Score)>;
    fn collect(&mut self, doc: DocId, score: Score) {
        self.0.push((doc, score));
    }
    fn harvest(self) -> Self::Fruit {
        self.0
    }
}
