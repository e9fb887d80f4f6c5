//! `smallhands graph`: of a run, or of a file that is checked.
use crate::{
    args_runs::{Format, GraphArgs},
    error::CliError,
    progress::Out,
    show::load,
    state::Dirs,
};
use serde_json::json;
use smallhands::{
    core::Clock,
    graph::{Picture, Style, SystemClock, TaskGraph},
};
use std::{fs, io, path::Path};

pub(crate) async fn graph(dirs: &Dirs, out: Out, a: &GraphArgs) -> Result<u8, CliError> {
    let extension = Path::new(&a.of).extension().and_then(|e| e.to_str());
    let file = extension.filter(|e| matches!(*e, "yaml" | "yml" | "json"));
    let (key, picture) = match file {
        Some(ext) => ("file", Picture::from(&read(&a.of, ext)?)),
        None => ("run", Picture::from(&load(dirs, &a.of).await?.2)),
    };
    let format = a.format.unwrap_or(match out.terminal() {
        true => Format::Terminal,
        false => Format::Mermaid,
    });
    let (name, drawn) = match format {
        Format::Terminal => {
            let style = Style {
                color: out.colour(),
                width: out.width(),
            };
            ("terminal", picture.terminal(SystemClock.now(), &style))
        }
        Format::Mermaid => ("mermaid", picture.mermaid()),
        Format::Dot => ("dot", picture.dot()),
    };
    match out.json {
        true => out.print(&format!("{}\n", json!({ key: a.of, name: drawn }))),
        false => out.print(&drawn),
    }
    Ok(0)
}

fn read(path: &str, extension: &str) -> Result<TaskGraph, CliError> {
    let text = fs::read_to_string(path).map_err(|e| {
        let why = format!("{path} cannot be read: {e}");
        match e.kind() {
            io::ErrorKind::NotFound => CliError::new(2, "usage", format!("there is no {path}"))
                .hint("a name that ends in .yaml, .yml or .json is that of a file"),
            _ => CliError::other(why),
        }
    })?;
    let graph = match extension {
        "json" => TaskGraph::from_json(&text),
        _ => TaskGraph::from_yaml(&text),
    };
    graph.map_err(|e| CliError::new(16, e.code(), format!("{path}: {e}")))
}
