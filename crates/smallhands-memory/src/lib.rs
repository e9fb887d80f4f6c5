//! Code memory for agents: chunks of source code, a lexical index over them, and the ports of
//! retrieval.
//!
//! Without features the crate is just its ports ([`Retriever`], [`Reranker`], [`Embedder`]) and
//! types. With `index` (in the default) come `chunk_file`, which cuts a file into functions,
//! methods, class headers and the rest, and `CodeIndex`, an in-memory BM25 index over such chunks
//! that also understands tracebacks, file names and quoted identifiers in a query.
//!
//! - Every chunk is an exact range of its file: `source[chunk.bytes] == chunk.text`.
//! - Each result says why it was found, and its score is the sum of its evidence.
//! - The same files and query give the same answer, in any order and on any machine.
//! - No file is read, no process started, nothing printed: callers bring the bytes.
//!
//! ```
//! # #[cfg(all(feature = "index", feature = "languages-python"))] {
//! use smallhands_memory::{CodeIndex, CodeQuery, SourceFile};
//!
//! let file = SourceFile::new(
//!     "shop/cart.py",
//!     "class Cart:\n    def total(self):\n        return sum(self.items)\n\ndef ship(cart): ...\n",
//! );
//! let index = CodeIndex::build([file])?;
//! let hits = index.search(&CodeQuery::new("total of the cart"))?;
//! assert_eq!(hits[0].symbol.as_deref(), Some("Cart.total"));
//! assert_eq!(hits[0].lines, (2, 3));
//! # }
//! # Ok::<(), smallhands_memory::MemoryError>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "index")]
mod chunk;
mod error;
#[cfg(feature = "index")]
mod index;
mod port;
mod types;

#[cfg(feature = "index")]
pub use chunk::{chunk_file, is_well_formed};
pub use error::{MemoryError, Result};
#[cfg(feature = "index")]
pub use index::CodeIndex;
pub use port::{Embedder, Reranker, Retriever};
pub use types::{Chunk, ChunkKind, CodeQuery, Coverage, Hit, SkipReason, SourceFile, Symbol};
