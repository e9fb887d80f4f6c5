use super::{
    DEPTH, Outline,
    parse::{Scope, field, parse, text},
};
use crate::ChunkKind;
use tree_sitter::Node;

pub(crate) fn outline(bytes: &[u8]) -> Option<Vec<Outline>> {
    let tree = parse(tree_sitter_rust::LANGUAGE, bytes)?;
    let mut out = Vec::new();
    Walker { bytes }.block(tree.root_node(), &Scope::default(), &mut out);
    Some(out)
}

pub(crate) fn is_well_formed(bytes: &[u8]) -> bool {
    parse(tree_sitter_rust::LANGUAGE, bytes).is_some_and(|t| !t.root_node().has_error())
}

struct Walker<'a> {
    bytes: &'a [u8],
}

/// Attributes and comments above an item, and whether one of them marks a test.
#[derive(Clone, Copy, Default)]
struct Above {
    start: Option<usize>,
    end: usize,
    attribute: bool,
    test: bool,
}

impl Walker<'_> {
    fn block(&self, node: Node<'_>, scope: &Scope, out: &mut Vec<Outline>) {
        if scope.depth > DEPTH {
            return;
        }
        let mut above = Above::default();
        let mut cursor = node.walk();
        for child in node.children(&mut cursor) {
            match child.kind() {
                "attribute_item" | "line_comment" | "block_comment" => {
                    above = self.above(above, child);
                    continue;
                }
                "function_item" | "macro_definition" | "struct_item" | "enum_item"
                | "union_item" | "impl_item" | "trait_item" | "mod_item" => {
                    self.item(child, self.attached(above, child), scope, out);
                }
                "foreign_mod_item" | "declaration_list" | "ERROR" => {
                    self.block(child, &scope.deeper(), out);
                }
                _ => {}
            }
            above = Above::default();
        }
    }

    fn above(&self, above: Above, node: Node<'_>) -> Above {
        let (from, to) = (node.start_byte(), node.end_byte());
        let source = &self.bytes[from..to];
        if source.starts_with(b"//!") || source.starts_with(b"/*!") {
            return Above::default();
        }
        let attribute = node.kind() == "attribute_item";
        let before = self.attached(above, node);
        let line = self.bytes[..from].iter().rposition(|b| *b == b'\n');
        let own_line = self.bytes[line.map_or(0, |i| i + 1)..from]
            .trim_ascii()
            .is_empty();
        // A comment behind other code belongs to that.
        let begins = (attribute || own_line).then_some(from);
        Above {
            start: before.start.or(begins),
            end: to,
            attribute: before.attribute || attribute,
            test: before.test || (attribute && is_test_attribute(source)),
        }
    }

    /// What is above belongs to a node unless it is only comments and a blank line lies between.
    fn attached(&self, above: Above, node: Node<'_>) -> Above {
        if above.attribute || !self.gap(above.end, node.start_byte()) {
            above
        } else {
            Above::default()
        }
    }

    /// Whether a blank line lies between; the nodes of doc comments contain their newline.
    fn gap(&self, from: usize, to: usize) -> bool {
        let between = self.bytes.get(from..to).unwrap_or_default();
        let inside = usize::from(from > 0 && self.bytes[from - 1] == b'\n');
        inside + between.iter().filter(|b| **b == b'\n').count() > 1
    }

    fn item(&self, node: Node<'_>, above: Above, scope: &Scope, out: &mut Vec<Outline>) {
        let named = match node.kind() {
            "impl_item" => node
                .child_by_field_name("type")
                .and_then(|t| self.type_name(t)),
            _ => field(self.bytes, node, "name"),
        };
        let Some(name) = named.filter(|n| !n.is_empty()) else {
            return;
        };
        let body = node.child_by_field_name("body");
        let container = matches!(node.kind(), "impl_item" | "trait_item" | "mod_item");
        if node.kind() == "mod_item" && body.is_none() {
            return;
        }
        let symbol = scope.qualify(&name, "::");
        let test = scope.test || above.test;
        let open = body.map_or(node.end_byte(), |b| b.start_byte());
        let mut children = Vec::new();
        if container && let Some(body) = body {
            let inner = Scope {
                name: Some(symbol.clone()),
                context: scope.within(&text(self.bytes, node.start_byte(), open)),
                in_type: node.kind() != "mod_item",
                test,
                ..scope.deeper()
            };
            self.block(body, &inner, &mut children);
        }
        out.push(Outline {
            range: (above.start.unwrap_or(node.start_byte()), node.end_byte()),
            header: (node.start_byte(), open),
            kind: match node.kind() {
                "function_item" if scope.in_type => ChunkKind::Method,
                "function_item" | "macro_definition" => ChunkKind::Function,
                "mod_item" => ChunkKind::Module,
                _ => ChunkKind::Class,
            },
            symbol: Some(symbol),
            context: scope.context.clone(),
            defines: node.kind() != "impl_item",
            test,
            children,
        });
    }

    /// `Type` of `module::Type<T>`, `&Type`, `dyn Type`.
    fn type_name(&self, node: Node<'_>) -> Option<String> {
        match node.kind() {
            "generic_type" | "reference_type" | "pointer_type" => {
                self.type_name(node.child_by_field_name("type")?)
            }
            "scoped_type_identifier" => field(self.bytes, node, "name"),
            "dynamic_type" => self.type_name(node.child_by_field_name("trait")?),
            _ => Some(text(self.bytes, node.start_byte(), node.end_byte())),
        }
    }
}

/// `#[test]`, `#[tokio::test(..)]`, `#[rstest]`, `#[cfg(test)]`, `#[cfg(all(test, ..))]`.
fn is_test_attribute(source: &[u8]) -> bool {
    let source: String = String::from_utf8_lossy(source)
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    let inner = source.trim_start_matches("#[").trim_end_matches(']');
    let (path, args) = inner.split_once('(').unwrap_or((inner, ""));
    let last = path.rsplit("::").next().unwrap_or_default();
    matches!(last, "test" | "rstest" | "test_case" | "bench")
        || (path == "cfg" && (args.starts_with("test)") || args.starts_with("all(test,")))
}
