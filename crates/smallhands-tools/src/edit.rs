use crate::{Tool, ToolCx, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallhands_core::{Effect, async_trait};

/// Replaces a text that occurs exactly once, or creates a file.
#[derive(Clone, Copy, Debug)]
pub struct EditFile;

/// Arguments of `edit_file`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct EditInput {
    /// The file, relative to the repository.
    pub path: String,
    /// The text to replace, exactly as it stands; it must occur once. Empty creates a new file.
    #[serde(default)]
    pub old: String,
    /// What stands there afterwards.
    pub new: String,
}

/// What an edit did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Edited {
    /// The file.
    pub path: String,
    /// The change as a unified diff.
    pub diff: String,
}

async fn text(cx: &ToolCx<'_>, path: &str) -> Result<String, ToolError> {
    String::from_utf8(cx.files()?.read(path).await?)
        .map_err(|_| ToolError::input(format!("{path} is not UTF-8 text and cannot be edited")))
}

#[async_trait]
impl Tool for EditFile {
    type Input = EditInput;
    type Output = Edited;
    fn name(&self) -> &'static str {
        "edit_file"
    }
    fn about(&self) -> &'static str {
        "Replaces a text of a file that occurs exactly once, or creates a file if `old` is empty."
    }
    fn effect(&self) -> Effect {
        Effect::Workspace
    }
    async fn call(&self, i: EditInput, cx: ToolCx<'_>) -> Result<Edited, ToolError> {
        let files = cx.files()?;
        let (before, after) = if i.old.is_empty() {
            if files.read(&i.path).await.is_ok() {
                let why = format!("{} exists; give the text to replace in `old`", i.path);
                return Err(ToolError::input(why));
            }
            (String::new(), i.new)
        } else {
            let before = text(&cx, &i.path).await?;
            let after = match before.matches(&i.old).count() {
                1 => before.replacen(&i.old, &i.new, 1),
                0 => {
                    let why = format!(
                        "the text to replace does not occur in {}; read it again",
                        i.path
                    );
                    return Err(ToolError::input(why));
                }
                n => {
                    let why = format!(
                        "the text to replace occurs {n} times in {}; give more of its surroundings",
                        i.path
                    );
                    return Err(ToolError::input(why));
                }
            };
            (before, after)
        };
        files.write(&i.path, after.as_bytes()).await?;
        Ok(Edited {
            diff: diffy::create_patch(&before, &after).to_string(),
            path: i.path,
        })
    }
    fn model_view(&self, o: &Edited) -> String {
        o.diff.clone()
    }
}

/// Applies a unified diff.
#[derive(Clone, Copy, Debug)]
pub struct ApplyPatch;

/// Arguments of `apply_patch`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PatchInput {
    /// A unified diff of text files, as `git diff` prints it.
    pub patch: String,
}

/// What a patch did.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Patched {
    /// The files that it changed, created or removed.
    pub files: Vec<String>,
}

#[async_trait]
impl Tool for ApplyPatch {
    type Input = PatchInput;
    type Output = Patched;
    fn name(&self) -> &'static str {
        "apply_patch"
    }
    fn about(&self) -> &'static str {
        "Applies a unified diff to files of the repository: all of it, or nothing."
    }
    fn effect(&self) -> Effect {
        Effect::Workspace
    }
    async fn call(&self, i: PatchInput, cx: ToolCx<'_>) -> Result<Patched, ToolError> {
        let parts = split(&i.patch)?;
        let mut results = Vec::with_capacity(parts.len());
        for part in parts {
            let before = match &part.0 {
                Some(p) => text(&cx, p).await?,
                None => String::new(),
            };
            let after = applied(&before, &part)?;
            let (old, new, _) = part;
            results.push((old, new, after));
        }
        let files = cx.files()?;
        let mut changed = Vec::new();
        for (old, new, after) in results {
            if let Some(p) = old.filter(|p| new.as_ref() != Some(p)) {
                files.remove(&p).await?;
                changed.push(p);
            }
            if let Some(p) = new {
                files.write(&p, after.as_bytes()).await?;
                changed.push(p);
            }
        }
        Ok(Patched { files: changed })
    }
    fn model_view(&self, o: &Patched) -> String {
        format!("changed {}", o.files.join(", "))
    }
}

/// One file's part of a patch, with its old and new path.
pub(crate) type Part = (Option<String>, Option<String>, String);

/// A text with one part of a patch applied.
pub(crate) fn applied(before: &str, (old, new, part): &Part) -> Result<String, ToolError> {
    let patch = diffy::Patch::from_str(part)
        .map_err(|e| ToolError::input(format!("the patch cannot be read: {e}")))?;
    diffy::apply(before, &patch).map_err(|e| {
        let name = old.as_ref().or(new.as_ref()).cloned().unwrap_or_default();
        ToolError::input(format!(
            "the patch does not fit {name}: {e}; read the file again"
        ))
    })
}

/// The parts of a patch, each with just its own lines.
pub(crate) fn split(patch: &str) -> Result<Vec<Part>, ToolError> {
    let mut parts: Vec<Part> = Vec::new();
    // With their ends, which belong to the text.
    let mut lines = patch.split_inclusive('\n').peekable();
    // Lines of a hunk that are still to come: what they hold may look like anything.
    let mut left = (0_u64, 0_u64);
    while let Some(line) = lines.next() {
        let next = lines.peek().and_then(|l| l.strip_prefix("+++ "));
        match (line.strip_prefix("--- "), next, parts.last_mut()) {
            (_, _, Some((.., body))) if left != (0, 0) => {
                body.push_str(line);
                let (old, new) = match line.as_bytes()[0] {
                    b'-' => (1, 0),
                    b'+' => (0, 1),
                    b'\\' => (0, 0),
                    _ => (1, 1),
                };
                left = (left.0.saturating_sub(old), left.1.saturating_sub(new));
            }
            (Some(old), Some(new), _) => parts.push((path(old), path(new), line.to_owned())),
            _ if line.starts_with("diff --git ") || line.starts_with("index ") => {}
            (_, _, Some((.., body))) => {
                body.push_str(line);
                left = hunk(line).unwrap_or_default();
            }
            _ => {}
        }
    }
    match parts.is_empty() {
        true => Err(ToolError::input(
            "this is not a unified diff: no `---` and `+++` lines",
        )),
        false => Ok(parts),
    }
}

/// How many lines of the old and of the new text follow `@@ -1,2 +3,4 @@`.
fn hunk(line: &str) -> Option<(u64, u64)> {
    let mut words = line.strip_prefix("@@ ")?.split(' ');
    let mut count = |sign| {
        let range = words.next()?.strip_prefix(sign)?;
        range
            .split_once(',')
            .map_or(Some(1), |(_, n)| n.parse().ok())
    };
    Some((count('-')?, count('+')?))
}

fn path(header: &str) -> Option<String> {
    let p = header.split('\t').next().unwrap_or(header).trim();
    if p == "/dev/null" {
        return None;
    }
    let p = p
        .strip_prefix("a/")
        .or_else(|| p.strip_prefix("b/"))
        .unwrap_or(p);
    Some(p.into())
}
