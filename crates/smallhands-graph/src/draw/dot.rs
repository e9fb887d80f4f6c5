use super::{Picture, Row};
use smallhands_core::TaskId;
use std::{collections::HashMap, fmt::Write};

impl Picture {
    /// In the DOT language of Graphviz. Edges carry what is bound; those into a task with a
    /// condition are dashed, dotted ones lead to the tasks that another one stands for.
    pub fn dot(&self) -> String {
        let mut s = String::from(
            "digraph tasks {\n  node [shape=box, style=filled, fillcolor=\"#ffffff\"];\n",
        );
        // Writing to a string cannot fail.
        for (i, r) in self.rows.iter().enumerate() {
            let _ = write!(s, "  n{i} [label=\"{}\"", r.label(escape, "\\n"));
            if r.expands() {
                s.push_str(", peripheries=2");
            }
            if let Some((fill, line)) = r.state().and_then(colors) {
                let _ = write!(s, ", fillcolor=\"{fill}\", color=\"{line}\"");
            }
            s.push_str("];\n");
        }
        for (i, r) in self.rows.iter().enumerate() {
            let bound = bound(r);
            let label = |from: &usize| {
                let what = bound.get(&self.rows[*from].id)?;
                Some(format!("label=\"{}\"", what.join("\\n")))
            };
            for need in &r.needs {
                let dashed = r.spec.when.as_ref().map(|_| "style=dashed".into());
                let about: Vec<_> = label(need).into_iter().chain(dashed).collect();
                let _ = match about.is_empty() {
                    true => writeln!(s, "  n{need} -> n{i};"),
                    false => writeln!(s, "  n{need} -> n{i} [{}];", about.join(", ")),
                };
            }
            // Of a sub-graph's input its tasks may bind fields too.
            if let Some(owner) = &r.owner {
                let label = label(owner).map_or(String::new(), |l| l + ", ");
                let _ = writeln!(
                    s,
                    "  n{owner} -> n{i} [{label}style=dotted, arrowhead=odot];"
                );
            }
        }
        s.push_str("}\n");
        s
    }
}

/// What it takes from each task that it needs.
fn bound(r: &Row) -> HashMap<&TaskId, Vec<String>> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    let mut add = |from, what: String| {
        let what = escape(&super::text::clean(&what));
        all.entry(from).or_default().push(what);
    };
    // An empty pointer is the whole.
    if let Some(m) = &r.spec.map {
        match m.pointer.as_str() {
            "" => add(&m.from, format!("{}: each", m.field)),
            p => add(&m.from, format!("{}: each of {p}", m.field)),
        }
    }
    for b in &r.spec.bind {
        match b.pointer.as_str() {
            "" => add(&b.from, b.field.clone()),
            p => add(&b.from, format!("{}: {p}", b.field)),
        }
    }
    all
}

/// Within quotes; Graphviz reads HTML entities there too.
fn escape(s: &str) -> String {
    s.replace('&', "&amp;")
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
}

fn colors(state: &str) -> Option<(&'static str, &'static str)> {
    Some(match state {
        "done" => ("#d5f5d5", "#2e7d32"),
        "failed" => ("#f9d5d5", "#c62828"),
        "running" => ("#d5e5f9", "#1565c0"),
        "suspended" => ("#fdf3d0", "#f9a825"),
        "skipped" | "cancelled" => ("#eeeeee", "#9e9e9e"),
        _ => return None,
    })
}
