use super::{
    DEPTH, Outline,
    lines::{Lines, indent, is_blank},
    parse::{Scope, field, parse, text},
    python_lines,
};
use crate::ChunkKind;
use tree_sitter::Node;

pub(crate) fn outline(bytes: &[u8], lines: &Lines) -> Option<Vec<Outline>> {
    let tree = parse(tree_sitter_python::LANGUAGE, bytes)?;
    if tree.root_node().has_error() {
        return Some(python_lines::outline(bytes, lines));
    }
    let mut out = Vec::new();
    Walker { bytes, lines }.block(tree.root_node(), &Scope::default(), &mut out);
    Some(out)
}

/// The grammar takes a header without a body; Python does not.
pub(crate) fn is_well_formed(bytes: &[u8]) -> bool {
    let Some(tree) = parse(tree_sitter_python::LANGUAGE, bytes) else {
        return false;
    };
    let mut rest = vec![tree.root_node()];
    while let Some(node) = rest.pop() {
        let mut cursor = node.walk();
        let statements = node.named_children(&mut cursor).filter(|c| !c.is_extra());
        let statements: Vec<_> = statements.collect();
        if node.kind() == "block" && statements.is_empty() {
            return false;
        }
        rest.extend(statements);
    }
    !tree.root_node().has_error()
}

struct Walker<'a> {
    bytes: &'a [u8],
    lines: &'a Lines,
}

impl Walker<'_> {
    fn block(&self, node: Node<'_>, scope: &Scope, out: &mut Vec<Outline>) {
        if scope.depth > DEPTH {
            return;
        }
        let mut cursor = node.walk();
        for child in node.children(&mut cursor) {
            match child.kind() {
                "function_definition" | "class_definition" => {
                    self.definition(child, child, scope, out);
                }
                "decorated_definition" => {
                    if let Some(d) = child.child_by_field_name("definition") {
                        self.definition(child, d, scope, out);
                    }
                }
                "block"
                | "if_statement"
                | "elif_clause"
                | "else_clause"
                | "try_statement"
                | "except_clause"
                | "except_group_clause"
                | "finally_clause"
                | "with_statement"
                | "for_statement"
                | "while_statement" => {
                    self.block(child, &scope.deeper(), out);
                }
                _ => {}
            }
        }
    }

    /// `whole` is the definition with its decorators.
    fn definition(&self, whole: Node<'_>, def: Node<'_>, scope: &Scope, out: &mut Vec<Outline>) {
        let Some(name) = field(self.bytes, def, "name").filter(|n| !n.is_empty()) else {
            return;
        };
        let symbol = scope.qualify(&name, ".");
        let class = def.kind() == "class_definition";
        let header = (def.start_byte(), self.header_end(def));
        let mut children = Vec::new();
        if class && let Some(body) = def.child_by_field_name("body") {
            let inner = Scope {
                name: Some(symbol.clone()),
                context: scope.within(&text(self.bytes, header.0, header.1)),
                in_type: true,
                ..scope.deeper()
            };
            self.block(body, &inner, &mut children);
        }
        out.push(Outline {
            range: self.with_comments(whole.start_byte(), whole.end_byte()),
            header,
            kind: match (class, scope.in_type) {
                (true, _) => ChunkKind::Class,
                (false, true) => ChunkKind::Method,
                (false, false) => ChunkKind::Function,
            },
            symbol: Some(symbol),
            context: scope.context.clone(),
            defines: true,
            test: scope.test,
            children,
        });
    }

    /// Behind the colon that ends `class A(B):`.
    fn header_end(&self, def: Node<'_>) -> usize {
        let end = ["name", "type_parameters", "superclasses"]
            .iter()
            .filter_map(|f| def.child_by_field_name(f))
            .map(|n| n.end_byte())
            .max()
            .unwrap_or(def.start_byte());
        let tail = &self.bytes[end..def.end_byte()];
        end + tail.iter().position(|b| *b == b':').map_or(0, |i| i + 1)
    }

    /// Takes in the comment lines right above with the same indent, and those right below with a
    /// deeper one, which end the body.
    fn with_comments(&self, start: usize, end: usize) -> (usize, usize) {
        let line = |n: usize| &self.bytes[self.lines.start(n)..self.lines.start(n + 1)];
        let mut first = self.lines.of(start);
        let column = indent(line(first));
        if !is_blank(&self.bytes[self.lines.start(first)..start]) {
            return (start, end);
        }
        let mut from = start;
        while first > 0 {
            let above = line(first - 1);
            let at = indent(above);
            if at != column || above.get(at) != Some(&b'#') || above.get(at + 1) == Some(&b'!') {
                break;
            }
            first -= 1;
            from = self.lines.start(first);
        }
        let mut to = end;
        let mut next = self.lines.of(end.saturating_sub(1)) + 1;
        while self.lines.start(next) < self.bytes.len() {
            let below = line(next);
            let at = indent(below);
            if at > column && below.get(at) == Some(&b'#') {
                to = self.lines.start(next + 1);
            } else if !is_blank(below) {
                break;
            }
            next += 1;
        }
        (from, to)
    }
}
