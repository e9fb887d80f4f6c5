use crate::RunState;
use std::fmt::Write;

/// The graph of a run with its states, as a Mermaid flowchart.
pub fn mermaid(state: &RunState) -> String {
    let nodes = state.in_order();
    let index = |id| nodes.iter().position(|(n, _)| *n == id).unwrap_or(0);
    let mut s = String::from("flowchart TD\n");
    for (i, (id, n)) in nodes.iter().enumerate() {
        let name = escape(id.as_str());
        // Writing to a string cannot fail.
        let _ = writeln!(
            s,
            "  n{i}[\"{name}<br/>{}\"]:::{}",
            n.state.as_str(),
            n.state.as_str()
        );
    }
    for (i, (_, n)) in nodes.iter().enumerate() {
        for need in &n.spec.needs {
            let arrow = if n.spec.when.is_some() { "-.->" } else { "-->" };
            let _ = writeln!(s, "  n{} {arrow} n{i}", index(need));
        }
    }
    s.push_str(
        "  classDef done fill:#d5f5d5,stroke:#2e7d32\n  classDef failed fill:#f9d5d5,stroke:#c62828\n  \
         classDef running fill:#d5e5f9,stroke:#1565c0\n  classDef suspended fill:#fdf3d0,stroke:#f9a825\n  \
         classDef skipped fill:#eeeeee,stroke:#9e9e9e\n  classDef cancelled fill:#eeeeee,stroke:#9e9e9e\n",
    );
    s
}

fn escape(s: &str) -> String {
    s.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
