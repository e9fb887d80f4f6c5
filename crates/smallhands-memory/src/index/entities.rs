//! What a question names outright: places in tracebacks, files, identifiers.

/// A place that a traceback or a compiler message names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) path: String,
    pub(crate) line: u32,
    pub(crate) function: Option<String>,
}

/// Everything that was named, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entities {
    /// Nearest to the failure first.
    pub(crate) frames: Vec<Frame>,
    pub(crate) files: Vec<String>,
    /// Dotted: `Class.method`.
    pub(crate) symbols: Vec<String>,
}

const MOST: usize = 64;
const EXTENSIONS: &[&str] = &[
    "py", "pyi", "rs", "js", "ts", "tsx", "go", "java", "c", "h", "cc", "cpp", "rb", "toml",
    "json", "yaml", "yml", "md", "rst", "txt", "cfg", "ini", "sh", "sql", "html", "css",
];

pub(crate) fn extract(text: &str) -> Entities {
    let mut e = Entities::default();
    // Python and pytest print the innermost frame last, Rust first.
    let (mut outer_first, mut inner_first) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(frame) = python_frame(line) {
            outer_first.push(frame);
            continue;
        }
        let start = line.trim_start();
        let rust =
            line.contains("panicked at") || start.starts_with("--> ") || start.starts_with("at ");
        let to = if rust {
            &mut inner_first
        } else {
            &mut outer_first
        };
        words(line, to, &mut e);
        quoted(line, &mut e);
        calls(line, &mut e);
    }
    outer_first.reverse();
    for f in inner_first.into_iter().chain(outer_first) {
        add(&mut e.frames, f);
    }
    e
}

fn add<T: PartialEq>(to: &mut Vec<T>, item: T) {
    if to.len() < MOST && !to.contains(&item) {
        to.push(item);
    }
}

/// `File "x.py", line 3, in f`.
fn python_frame(line: &str) -> Option<Frame> {
    let (_, rest) = line.split_once("File \"")?;
    let (path, rest) = rest.split_once("\", line ")?;
    let (number, rest) = digits(rest)?;
    let function = rest
        .strip_prefix(", in ")
        .map(|f| f.trim().trim_end_matches("()").to_string());
    Some(Frame {
        path: path.replace('\\', "/"),
        line: number,
        function: function.filter(|f| symbol(f).is_some()),
    })
}

fn digits(s: &str) -> Option<(u32, &str)> {
    let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    Some((s[..end].parse().ok()?, &s[end..]))
}

fn words(line: &str, frames: &mut Vec<Frame>, e: &mut Entities) {
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let word = word.trim_matches(|c: char| "'\"`()[]{}<>,;!?".contains(c));
        if let Some((path, line)) = location(word) {
            let mut rest = words.clone();
            let function = (rest.next() == Some("in"))
                .then(|| rest.next().and_then(symbol))
                .flatten();
            if frames.len() < MOST {
                frames.push(Frame {
                    path,
                    line,
                    function,
                });
            }
        } else {
            named(word.trim_end_matches(['.', ':']), e);
        }
    }
}

/// `src/x.rs:10:5`, `x.py:10:`.
fn location(word: &str) -> Option<(String, u32)> {
    let word = word.replace('\\', "/");
    let mut from = 0;
    loop {
        let colon = from + word.get(from..)?.find(':')?;
        if let Some((line, rest)) = digits(&word[colon + 1..])
            && (rest.is_empty() || rest.starts_with(':'))
        {
            return file(&word[..colon]).map(|p| (p, line)).filter(|_| line > 0);
        }
        from = colon + 1;
    }
}

/// A path or file name, by its known ending.
fn file(word: &str) -> Option<String> {
    let word = word.replace('\\', "/");
    let name = word.rsplit('/').next()?;
    let (stem, extension) = name.rsplit_once('.')?;
    let ok = !stem.is_empty()
        && EXTENSIONS.contains(&extension)
        && !word.contains("://")
        && !word.contains(char::is_whitespace);
    ok.then(|| word.trim_start_matches("./").to_string())
}

/// A word that is a file, a test id (`tests/test_x.py::TestA::test_b`) or a qualified name.
fn named(word: &str, e: &mut Entities) {
    if let Some(f) = file(word) {
        return add(&mut e.files, f);
    }
    if let Some((path, test)) = word.split_once("::")
        && let Some(f) = file(path)
    {
        add(&mut e.files, f);
        let test = test.split('[').next().unwrap_or_default();
        e.symbol(symbol(test));
    } else if word.contains("::") || word.contains('.') {
        e.symbol(symbol(word).filter(|s| s.contains('.')));
    }
}

impl Entities {
    fn symbol(&mut self, s: Option<String>) {
        if let Some(s) = s {
            add(&mut self.symbols, s);
        }
    }
}

/// What stands between quotes or backticks on one line.
fn quoted(line: &str, e: &mut Entities) {
    for quote in ['`', '"', '\''] {
        let mut rest = line;
        while let Some((_, tail)) = rest.split_once(quote) {
            rest = tail;
            let Some((inside, after)) = tail.split_once(quote) else {
                break;
            };
            if inside.len() > 100 || inside.contains(' ') {
                continue;
            }
            rest = after;
            match file(inside) {
                Some(f) => add(&mut e.files, f),
                None => e.symbol(symbol(inside)),
            }
        }
    }
}

/// Names right before a parenthesis.
fn calls(line: &str, e: &mut Entities) {
    for (at, _) in line.match_indices('(') {
        let before = &line[..at];
        let from = before
            .rfind(|c: char| !(c.is_alphanumeric() || "_.:".contains(c)))
            .map_or(0, |i| {
                i + before[i..].chars().next().map_or(1, char::len_utf8)
            });
        e.symbol(symbol(&before[from..]));
    }
}

/// A name, dotted, without `self`, `crate` and parentheses; `None` if it is not one.
fn symbol(word: &str) -> Option<String> {
    let word = word.trim_matches(|c: char| "'\"`,;".contains(c));
    let word = word.split('(').next()?.replace("::", ".");
    let mut parts: Vec<&str> = word.split('.').collect();
    while parts.len() > 1 && matches!(parts[0], "self" | "cls" | "crate" | "super" | "Self") {
        parts.remove(0);
    }
    let identifier = |p: &&str| {
        p.chars().enumerate().all(|(i, c)| {
            c == '_'
                || if i == 0 {
                    c.is_alphabetic()
                } else {
                    c.is_alphanumeric()
                }
        }) && !p.is_empty()
    };
    let last = parts.last()?;
    (last.len() > 1 && parts.iter().all(identifier)).then(|| parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[&str]) {
        let e = extract(text);
        let mut got: Vec<String> = Vec::new();
        for f in &e.frames {
            let function = f.function.as_deref().unwrap_or("-");
            got.push(format!("frame {}:{} {function}", f.path, f.line));
        }
        got.extend(e.files.iter().map(|f| format!("file {f}")));
        got.extend(e.symbols.iter().map(|s| format!("symbol {s}")));
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn tracebacks() {
        check(
            "  File \"/a/b.py\", line 3, in <module>\n  File \"C:\\x\\c.py\", line 12, in Cart.add\n",
            &["frame C:/x/c.py:12 Cart.add", "frame /a/b.py:3 -"],
        );
        check(
            "tests/test_a.py:9: in test_it\n    go(1)\nshop/cart.py:31: ValueError",
            &[
                "frame shop/cart.py:31 -",
                "frame tests/test_a.py:9 test_it",
                "symbol go",
            ],
        );
        check(
            "thread 'main' panicked at src/lib.rs:10:5:\n   1: app::run\n   at ./src/main.rs:4:9",
            &[
                "frame src/lib.rs:10 -",
                "frame src/main.rs:4 -",
                "symbol main",
                "symbol app.run",
            ],
        );
        check("error[E0308]\n  --> src/x.rs:7:13", &["frame src/x.rs:7 -"]);
        check("at 12:30:05 on http://x.py:80 and 1.2.3", &[]);
    }

    #[test]
    fn names() {
        check(
            "`Cart.add` don't call self.total() in shop/cart.py.",
            &["file shop/cart.py", "symbol Cart.add", "symbol total"],
        );
        check(
            "FAILED tests/test_a.py::TestA::test_b[x-1] - KeyError: 'colour'",
            &[
                "file tests/test_a.py",
                "symbol TestA.test_b",
                "symbol colour",
            ],
        );
        check("e.g. this, i.e. 'a b' or \"x\" ((", &[]);
    }
}
