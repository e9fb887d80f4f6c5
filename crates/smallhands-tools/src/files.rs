use crate::{Tool, ToolCx, ToolError};
use regex::RegexBuilder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallhands_core::{Effect, async_trait};
use smallhands_sandbox::EntryKind;

/// Lists files.
#[derive(Clone, Copy, Debug)]
pub struct ListFiles;

/// Arguments of `list_files`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListInput {
    /// The directory, relative to the repository; empty for all of it.
    #[serde(default)]
    pub dir: String,
}

/// So many paths are shown at most.
const MOST_PATHS: usize = 500;

#[async_trait]
impl Tool for ListFiles {
    type Input = ListInput;
    type Output = Vec<String>;
    fn name(&self) -> &'static str {
        "list_files"
    }
    fn about(&self) -> &'static str {
        "Lists the files below a directory of the repository."
    }
    fn effect(&self) -> Effect {
        Effect::Pure
    }
    async fn call(&self, i: ListInput, cx: ToolCx<'_>) -> Result<Vec<String>, ToolError> {
        let all = cx.files()?.list(&i.dir).await?;
        let files = all.into_iter().filter(|e| e.kind == EntryKind::File);
        Ok(files.map(|e| e.path).collect())
    }
    fn model_view(&self, out: &Vec<String>) -> String {
        let mut text = out
            .iter()
            .take(MOST_PATHS)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        if out.len() > MOST_PATHS {
            text.push_str(&format!(
                "\n.. and {} more; name a directory",
                out.len() - MOST_PATHS
            ));
        }
        text
    }
}

/// Reads a part of a file.
#[derive(Clone, Copy, Debug)]
pub struct ReadFile;

/// Arguments of `read_file`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ReadInput {
    /// The file, relative to the repository.
    pub path: String,
    /// The first line, from 1.
    #[serde(default)]
    pub first_line: Option<u32>,
    /// The last line.
    #[serde(default)]
    pub last_line: Option<u32>,
}

/// Lines of a file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FileText {
    /// The file.
    pub path: String,
    /// The first line that is given, from 1.
    pub first_line: u32,
    /// Lines of the whole file.
    pub total_lines: u32,
    /// The text.
    pub text: String,
}

/// So many lines are given at once.
const PAGE: u32 = 400;

#[async_trait]
impl Tool for ReadFile {
    type Input = ReadInput;
    type Output = FileText;
    fn name(&self) -> &'static str {
        "read_file"
    }
    fn about(&self) -> &'static str {
        "Reads a file of the repository, up to 400 lines at a time."
    }
    fn effect(&self) -> Effect {
        Effect::Pure
    }
    async fn call(&self, i: ReadInput, cx: ToolCx<'_>) -> Result<FileText, ToolError> {
        let bytes = cx.files()?.read(&i.path).await?;
        if bytes.iter().take(8000).any(|b| *b == 0) {
            return Err(ToolError::input(format!("{} is a binary file", i.path)));
        }
        let text = String::from_utf8_lossy(&bytes);
        let total_lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        let first = i.first_line.unwrap_or(1).max(1);
        let last = i
            .last_line
            .unwrap_or(u32::MAX)
            .min(first.saturating_add(PAGE - 1));
        let part = text.split_inclusive('\n').skip(first as usize - 1);
        let part = part.take((last.saturating_sub(first) + 1) as usize);
        Ok(FileText {
            path: i.path,
            first_line: first,
            total_lines,
            text: part.collect(),
        })
    }
    fn model_view(&self, o: &FileText) -> String {
        let shown = o.text.lines().count();
        let numbered = o.text.lines().zip(o.first_line..);
        let mut text: String = numbered.map(|(l, n)| format!("{n:>5}  {l}\n")).collect();
        let last = o.first_line as usize + shown - usize::from(shown > 0);
        if last < o.total_lines as usize {
            text.push_str(&format!(
                ".. up to line {}; ask for more with first_line\n",
                o.total_lines
            ));
        }
        text
    }
}

/// Searches the text of the repository.
#[derive(Clone, Copy, Debug)]
pub struct Search;

/// Arguments of `search`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SearchInput {
    /// A regular expression (Rust syntax).
    pub pattern: String,
    /// Only below this directory.
    #[serde(default)]
    pub dir: String,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    pub ignore_case: bool,
}

/// A line that matches.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// Its text.
    pub text: String,
}

/// What a search found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchOutput {
    /// The first lines that match.
    pub found: Vec<Found>,
    /// How many match in all.
    pub total: u64,
}

/// So many lines are given at most.
const MOST_FOUND: usize = 100;
/// Larger files are not searched.
const MOST_BYTES: u64 = 1 << 20;

#[async_trait]
impl Tool for Search {
    type Input = SearchInput;
    type Output = SearchOutput;
    fn name(&self) -> &'static str {
        "search"
    }
    fn about(&self) -> &'static str {
        "Finds lines that match a regular expression in the files of the repository."
    }
    fn effect(&self) -> Effect {
        Effect::Pure
    }
    async fn call(&self, i: SearchInput, cx: ToolCx<'_>) -> Result<SearchOutput, ToolError> {
        let re = RegexBuilder::new(&i.pattern)
            .case_insensitive(i.ignore_case)
            .size_limit(1 << 20)
            .build()
            .map_err(|e| ToolError::input(format!("not a regular expression: {e}")))?;
        let files = cx.files()?;
        let mut out = SearchOutput {
            found: Vec::new(),
            total: 0,
        };
        for entry in files.list(&i.dir).await? {
            if entry.kind != EntryKind::File || entry.len > MOST_BYTES {
                continue;
            }
            let bytes = files.read(&entry.path).await?;
            let Ok(text) = std::str::from_utf8(&bytes) else {
                continue;
            };
            for (line, n) in text.lines().zip(1u32..) {
                if re.is_match(line) {
                    out.total += 1;
                    if out.found.len() < MOST_FOUND {
                        out.found.push(Found {
                            path: entry.path.clone(),
                            line: n,
                            text: line.chars().take(300).collect(),
                        });
                    }
                }
            }
        }
        Ok(out)
    }
    fn is_ok(&self, out: &SearchOutput) -> bool {
        out.total > 0
    }
    fn model_view(&self, o: &SearchOutput) -> String {
        let line = |f: &Found| format!("{}:{}: {}\n", f.path, f.line, f.text);
        let mut text: String = o.found.iter().map(line).collect();
        let more = o.total - o.found.len() as u64;
        match (o.total, more) {
            (0, _) => text.push_str("nothing matches"),
            (_, 1..) => text.push_str(&format!(".. and {more} more")),
            _ => {}
        }
        text
    }
}
