//! What the model is asked, and how its answer is read.

use crate::{
    Edit, Place,
    code::{Body, dedent, function, indent_of, indented, language},
};
use smallhands_llm::ChatRequest;

const FIXER: &str = "You are an expert programmer who finds and fixes bugs.";
const WRITER: &str = "You are an expert programmer.";

/// Asks for a corrected version of one place. `line` says that one line is to blame, which a small
/// model needs to be told, and which is not always so.
pub(crate) fn rewrite(goal: &str, place: &Place, failures: &str, line: bool) -> ChatRequest {
    let lang = language(&place.hit.path);
    let what = match place.function() {
        Some(name) => format!("the whole function `{name}`"),
        None => "all of this code".into(),
    };
    let shown = match place.function() {
        Some(_) => format!("{}{}{}", place.before, place.hit.text, place.after),
        None => place.hit.text.clone(),
    };
    let how = match line {
        true => format!(
            "Exactly one line is wrong or missing. Answer with {what}, changing only what must be changed."
        ),
        false => format!("Explain nothing. Fix the bug. Answer with {what}, corrected."),
    };
    let question = format!(
        "Goal: {goal}.\n\nThis code of `{}` has a bug:\n```{lang}\n{}\n```\n\nIts tests fail:\n```\n{failures}\n```\n\n{how}",
        place.hit.path,
        dedent(&shown).trim(),
    );
    let header = match Body::of(place) {
        Some(b) if line => b.until(b.header),
        _ => String::new(),
    };
    ChatRequest::new(question)
        .system(FIXER)
        .prefill(format!("```{lang}\n{header}"))
        .stop("\n```")
}

/// Asks for the function as if it were new, up to one line of it; the answer is the next line.
pub(crate) fn go_on(place: &Place, body: &Body, line: usize, failures: &str) -> ChatRequest {
    let (lang, name) = (language(&place.hit.path), place.function().unwrap_or(""));
    let question = format!(
        "Write the {lang} function `{name}`.\n\n{}This test failed for an earlier version:\n```\n{failures}\n```\n\n\
         Answer with the function `{name}` in a {lang} code block.",
        around(place),
    );
    one_line(question, format!("```{lang}\n{}", body.until(line)))
}

/// Shows the function without one line, and asks for the line.
pub(crate) fn fill(place: &Place, body: &Body, line: usize, failures: &str) -> ChatRequest {
    let lang = language(&place.hit.path);
    let indent = indent_of(&body.lines[line]);
    let mark = if lang == "python" { "#" } else { "//" };
    let after: String = body.lines[line + 1..]
        .iter()
        .map(|l| format!("{l}\n"))
        .collect();
    let question = format!(
        "{}This test failed for an earlier version:\n```\n{failures}\n```\n\n\
         In the function below one line is missing:\n```{lang}\n{}{indent}{mark} <the missing line>\n{after}```\n\n\
         Write the missing line.",
        around(place),
        body.until(line),
    );
    one_line(question, format!("```{lang}\n{indent}"))
}

fn one_line(question: String, prefill: String) -> ChatRequest {
    ChatRequest::new(question)
        .system(WRITER)
        .prefill(prefill)
        .max_tokens(40)
        .stop("\n")
        .stop("```")
}

/// The file without the function: imports, helpers, description.
fn around(place: &Place) -> String {
    let text = format!(
        "{}\n{}",
        dedent(&place.before).trim(),
        dedent(&place.after).trim()
    );
    match text.trim() {
        "" => String::new(),
        t => format!("{t}\n\n"),
    }
}

/// The edits that a new line means: in the place of the old one, and before it.
pub(crate) fn read_line(
    answer: &str,
    asked: &ChatRequest,
    place: &Place,
    body: &Body,
    line: usize,
) -> Vec<Edit> {
    let prefix = asked.prefill.as_deref().unwrap_or("");
    let Some(said) = answer.strip_prefix(prefix) else {
        return Vec::new();
    };
    // What stands in the last line of the prefix belongs to the new one: its indentation.
    let begun = prefix.rsplit('\n').next().unwrap_or("");
    let new = match begun {
        "" => said.trim_end().to_owned(),
        _ => format!("{begun}{}", said.trim()),
    };
    if new.trim().is_empty() || new.trim() == body.lines[line].trim() {
        return Vec::new();
    }
    let edit = |rest: usize| {
        let (before, after) = (&body.lines[..line], &body.lines[rest..]);
        let lines = before.iter().chain([&new]).chain(after).cloned();
        replace(place, &lines.collect::<Vec<_>>().join("\n"))
    };
    vec![edit(line + 1), edit(line)]
}

/// The edit that an answer means, or why it means none.
pub(crate) fn read(answer: &str, place: &Place) -> Result<Edit, &'static str> {
    let code = block(answer).ok_or("no code")?;
    let new = match place.function() {
        Some(name) => function(&code, name, &place.hit.path).ok_or("another function")?,
        None => code,
    };
    let edit = replace(place, &new);
    match edit.new.trim() == edit.old.trim() {
        true => Err("no change"),
        false => Ok(edit),
    }
}

/// New text, without indentation, for the whole place.
fn replace(place: &Place, new: &str) -> Edit {
    let hit = &place.hit;
    let mut new = indented(new, indent_of(&hit.text));
    if hit.text.ends_with('\n') && !new.ends_with('\n') {
        new.push('\n');
    }
    Edit {
        path: hit.path.clone(),
        at: hit.bytes.0,
        old: hit.text.clone(),
        new,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use smallhands_memory::{Chunk, ChunkKind, Hit};

    fn place(path: &str, symbol: &str, text: &str) -> Place {
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
        Place {
            hit: Hit::new(chunk, Vec::new()),
            before: String::new(),
            after: String::new(),
        }
    }

    #[test]
    fn answers_in_every_dress() {
        let h = place("a.py", "add", "def add(a, b):\n    return a - b\n");
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
        let h = place(
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

    const GCD: &str =
        "def gcd(a, b):\n    if b == 0:\n        return a\n    return gcd(a % b, b)\n";

    #[test]
    fn a_line_is_asked_for_without_what_follows_and_put_in_its_place() {
        let p = place("a.py", "gcd", GCD);
        let body = Body::of(&p).unwrap();
        assert_eq!((body.header, body.statements()), (1, vec![1, 2, 3]));
        let ask = go_on(&p, &body, 3, "boom");
        let prefix = "```python\ndef gcd(a, b):\n    if b == 0:\n        return a\n";
        assert_eq!(ask.prefill.as_deref(), Some(prefix));
        assert!(!ask.messages[1].text.contains("a % b"));
        let edits = read_line(
            &format!("{prefix}    return gcd(b, a % b)"),
            &ask,
            &p,
            &body,
            3,
        );
        let news: Vec<_> = edits.iter().map(|e| e.new.as_str()).collect();
        let right = GCD.replace("(a % b, b)", "(b, a % b)");
        assert_eq!(news[0], right);
        assert!(news[1].ends_with("(b, a % b)\n    return gcd(a % b, b)\n"));
        let same = format!("{prefix}    return gcd(a % b, b)");
        assert!(read_line(&same, &ask, &p, &body, 3).is_empty());
    }

    #[test]
    fn a_line_is_filled_in_at_its_indentation() {
        let p = place("a.py", "C.gcd", &format!("{}\n", indented(GCD, "    ")));
        let body = Body::of(&p).unwrap();
        let ask = fill(&p, &body, 3, "boom");
        assert!(
            ask.messages[1]
                .text
                .contains("    # <the missing line>\n```")
        );
        let edits = read_line("```python\n    return gcd(b, a % b)", &ask, &p, &body, 3);
        assert!(
            edits[0].new.ends_with("\n        return gcd(b, a % b)\n"),
            "{}",
            edits[0].new
        );
    }
}
