use super::Picture;
use std::fmt::Write;

const CLASSES: &str = "  classDef done fill:#d5f5d5,stroke:#2e7d32
  classDef failed fill:#f9d5d5,stroke:#c62828
  classDef running fill:#d5e5f9,stroke:#1565c0
  classDef suspended fill:#fdf3d0,stroke:#f9a825
  classDef skipped fill:#eeeeee,stroke:#9e9e9e
  classDef cancelled fill:#eeeeee,stroke:#9e9e9e
";

impl Picture {
    /// As a Mermaid flowchart. Dashed arrows lead into tasks with a condition, arrows that end in a
    /// circle to the tasks that another one stands for.
    pub fn mermaid(&self) -> String {
        let mut s = String::from("flowchart TD\n");
        // Writing to a string cannot fail.
        for (i, r) in self.rows.iter().enumerate() {
            let label = r.label(escape, "<br/>");
            let (open, close) = match r.expands() {
                true => ("[[", "]]"),
                false => ("[", "]"),
            };
            let _ = write!(s, "  n{i}{open}\"{label}\"{close}");
            let _ = match r.state() {
                Some(state) => writeln!(s, ":::{state}"),
                None => writeln!(s),
            };
        }
        for (i, r) in self.rows.iter().enumerate() {
            let arrow = if r.spec.when.is_some() { "-.->" } else { "-->" };
            for need in &r.needs {
                let _ = writeln!(s, "  n{need} {arrow} n{i}");
            }
            if let Some(owner) = r.owner {
                let _ = writeln!(s, "  n{owner} --o n{i}");
            }
        }
        if self.rows.iter().any(|r| r.seen.is_some()) {
            s.push_str(CLASSES);
        }
        s
    }
}

/// With what Mermaid, its Markdown, its `%%{directives}%%` and HTML could read as theirs as
/// entities.
fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '"' | '&' | '<' | '>' | '#' | '%' | '`' | '\\' | '*' => {
                let _ = write!(out, "#{};", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}
