use std::ops::ControlFlow;
use tree_sitter::{Language, Node, ParseOptions, ParseState, Parser, Tree};

/// The parser may work this many rounds (of 100 operations) for a file, and as many again for each
/// so many bytes. A count, not a time, so that the same file always gives the same chunks.
const ROUNDS: usize = 20_000;
const BYTES_PER_ROUND: usize = 8;

/// Parses within bounds.
pub(crate) fn parse(language: impl Into<Language>, bytes: &[u8]) -> Option<Tree> {
    let mut parser = Parser::new();
    parser.set_language(&language.into()).ok()?;
    let mut left = ROUNDS + bytes.len() / BYTES_PER_ROUND;
    let mut tick = |_: &ParseState| {
        left = left.saturating_sub(1);
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    parser.parse_with_options(
        &mut |at, _| bytes.get(at..).unwrap_or_default(),
        None,
        Some(ParseOptions::new().progress_callback(&mut tick)),
    )
}

/// The source of a range, decoded.
pub(crate) fn text(bytes: &[u8], from: usize, to: usize) -> String {
    String::from_utf8_lossy(bytes.get(from..to).unwrap_or_default()).into_owned()
}

/// The source of a node's field, decoded.
pub(crate) fn field(bytes: &[u8], node: Node<'_>, name: &str) -> Option<String> {
    let n = node.child_by_field_name(name)?;
    Some(text(bytes, n.start_byte(), n.end_byte()))
}

/// Names and headers around a definition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) name: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) in_type: bool,
    pub(crate) test: bool,
    pub(crate) depth: usize,
}

impl Scope {
    pub(crate) fn qualify(&self, name: &str, separator: &str) -> String {
        match &self.name {
            Some(outer) => format!("{outer}{separator}{name}"),
            None => name.into(),
        }
    }

    pub(crate) fn within(&self, header: &str) -> Option<String> {
        let header = header.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(match &self.context {
            Some(outer) => format!("{outer}\n{header}"),
            None => header,
        })
    }

    pub(crate) fn deeper(&self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self.clone()
        }
    }
}
