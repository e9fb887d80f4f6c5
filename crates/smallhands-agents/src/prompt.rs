//! What the model is asked, and how its answer is read.

use crate::Edit;
use smallhands_llm::ChatRequest;
use smallhands_memory::{Hit, chunk_file};
use smallhands_tools::TestReport;

const SYSTEM: &str = "You are an expert programmer who finds and fixes bugs.";

pub(crate) fn language(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("py") => "python",
        Some("rs") => "rust",
        _ => "",
    }
}

/// Asks for a corrected version of one place. `small` says that one line is to blame, which a small
/// model needs to be told, and which is not always so.
pub(crate) fn repair(
    goal: &str,
    hit: &Hit,
    others: &[Hit],
    report: &TestReport,
    small: bool,
) -> ChatRequest {
    let lang = language(&hit.path);
    let near: String = others
        .iter()
        .filter(|o| o.path == hit.path && o.text.len() < 1200)
        .take(2)
        .map(|o| format!("```{lang}\n{}\n```\n", o.text.trim_end()))
        .collect();
    let context = match near.is_empty() {
        true => String::new(),
        false => format!("Other code of the same file:\n{near}\n"),
    };
    let name = hit
        .symbol
        .as_deref()
        .map_or_else(String::new, |s| format!(" `{s}`"));
    let how = match small {
        true => format!(
            "Exactly one line is wrong or missing. Answer with the whole function{name}, changing only what must be changed."
        ),
        false => format!("Fix the bug. Answer with the whole corrected function{name}."),
    };
    let question = format!(
        "Goal: {goal}.\n\nThis code of `{}` has a bug:\n```{lang}\n{}\n```\n\n{context}Its tests fail:\n```\n{}\n```\n\n{how}",
        hit.path,
        dedent(&hit.text).trim_end(),
        digest(report),
    );
    ChatRequest::new(question)
        .system(SYSTEM)
        .prefill(format!("```{lang}\n"))
        .stop("\n```")
}

/// What went wrong, in as few words as a small model can bear: each failing test's own assertion.
fn digest(r: &TestReport) -> String {
    const MOST: usize = 1000;
    let mut text = String::new();
    for f in &r.failed {
        let mut lines: Vec<_> = f
            .details
            .lines()
            .filter_map(|l| l.strip_prefix("E "))
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with("Full diff") && !l.contains("Use -v"))
            .collect();
        if lines.is_empty() {
            lines = f.details.lines().filter(|l| !l.trim().is_empty()).collect();
            lines.drain(..lines.len().saturating_sub(8));
        }
        text += &format!("{}\n", f.id.rsplit('/').next().unwrap_or(&f.id));
        for l in lines.iter().take(8) {
            text.extend(l.chars().take(200));
            text.push('\n');
        }
        if text.len() > MOST {
            break;
        }
    }
    if text.is_empty() {
        text = r.feedback(MOST);
    }
    text.truncate(text.floor_char_boundary(MOST + 600));
    text.trim_end().into()
}

/// The edit that an answer means, or why it means none.
pub(crate) fn read(answer: &str, hit: &Hit) -> Result<Edit, &'static str> {
    let code = block(answer).ok_or("no code")?;
    let wanted = hit
        .symbol
        .as_deref()
        .and_then(|s| s.rsplit(['.', ':']).next());
    let new = match wanted {
        Some(name) => function(&code, name, &hit.path).ok_or("another function")?,
        None => code,
    };
    let indent = indent_of(&hit.text);
    let mut new = indented(&new, indent);
    if hit.text.ends_with('\n') && !new.ends_with('\n') {
        new.push('\n');
    }
    if new.trim() == hit.text.trim() {
        return Err("no change");
    }
    Ok(Edit {
        path: hit.path.clone(),
        at: hit.bytes.0,
        old: hit.text.clone(),
        new,
    })
}

/// The first code block, or all of an answer that has none.
fn block(answer: &str) -> Option<String> {
    let code = match answer.find("```") {
        Some(start) => {
            let body = &answer[start + 3..];
            let body = &body[body.find('\n')? + 1..];
            &body[..body.find("```").unwrap_or(body.len())]
        }
        None => answer,
    };
    (!code.trim().is_empty()).then(|| code.trim_end().to_owned())
}

/// The function of that name, with the imports that stand before it.
fn function(code: &str, name: &str, path: &str) -> Option<String> {
    let code = dedent(code);
    let chunks = chunk_file(path, code.as_bytes());
    let found = chunks.iter().find(|c| {
        let last = c
            .symbol
            .as_deref()
            .and_then(|s| s.rsplit(['.', ':']).next());
        last == Some(name) && c.kind != smallhands_memory::ChunkKind::Class
    })?;
    let imports: String = code[..found.bytes.0]
        .lines()
        .filter(|l| l.starts_with("import ") || l.starts_with("from "))
        .map(|l| format!("{l}\n"))
        .collect();
    let body = &code[found.bytes.0..found.bytes.1];
    Some(dedent(&format!("{imports}{body}")))
}

fn indent_of(text: &str) -> &str {
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
    // A chunk may begin behind its indentation.
    &line[..line.len() - line.trim_start().len()]
}

fn dedent(text: &str) -> String {
    let indent = indent_of(text);
    let cut = |l: &str| l.strip_prefix(indent).unwrap_or(l.trim_start()).to_owned();
    match indent {
        "" => text.to_owned(),
        _ => text.lines().map(cut).collect::<Vec<_>>().join("\n"),
    }
}

fn indented(text: &str, indent: &str) -> String {
    let put = |l: &str| match l.is_empty() {
        true => String::new(),
        false => format!("{indent}{l}"),
    };
    text.lines().map(put).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallhands_memory::{Chunk, ChunkKind};

    fn hit(path: &str, symbol: &str, text: &str) -> Hit {
        let chunk = Chunk {
            path: path.into(),
            lines: (1, 2),
            bytes: (10, 10 + text.len()),
            symbol: Some(symbol.into()),
            kind: ChunkKind::Function,
            context: None,
            part: 0,
            is_test: false,
            text: text.into(),
        };
        Hit::new(chunk, Vec::new())
    }

    #[test]
    fn answers_in_every_dress() {
        let h = hit("a.py", "add", "def add(a, b):\n    return a - b\n");
        let good = "def add(a, b):\n    return a + b\n";
        for answer in [
            "```python\ndef add(a, b):\n    return a + b\n```",
            "Sure!\n```python\ndef add(a, b):\n    return a + b\n```\nHope it helps.",
            "```python\ndef add(a, b):\n    return a + b",
            "def add(a, b):\n    return a + b",
            "```python\ndef other(): pass\n\n\ndef add(a, b):\n    return a + b\n```",
        ] {
            let e = read(answer, &h).unwrap();
            assert_eq!((e.new.as_str(), e.at), (good, 10), "{answer}");
        }
        assert_eq!(
            read("```python\ndef add(a, b):\n    return a - b\n```", &h),
            Err("no change")
        );
        assert_eq!(
            read("```python\ndef sub(a, b):\n    return 1\n```", &h),
            Err("another function")
        );
        assert_eq!(read("```\n```", &h), Err("no code"));
        let with_import = read(
            "```python\nimport math\n\ndef add(a, b):\n    return math.fsum([a, b])\n```",
            &h,
        )
        .unwrap();
        assert!(with_import.new.starts_with("import math\ndef add"));
    }

    #[test]
    fn a_method_keeps_its_indentation() {
        let h = hit(
            "a.py",
            "Cart.total",
            "    def total(self):\n        return 0\n",
        );
        for answer in [
            "```python\ndef total(self):\n    return 1\n```",
            "```python\n    def total(self):\n        return 1\n```",
            "```python\nclass Cart:\n    def total(self):\n        return 1\n```",
        ] {
            assert_eq!(
                read(answer, &h).unwrap().new,
                "    def total(self):\n        return 1\n",
                "{answer}"
            );
        }
    }
}
