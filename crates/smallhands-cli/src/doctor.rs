use crate::{error::CliError, models::KNOWN, progress::Out, state::Dirs, toolchain};
use serde_json::json;
use smallhands::{
    sandbox::{Capabilities, Layer},
    standard,
};

/// `smallhands doctor`.
pub(crate) async fn doctor(dirs: &Dirs, out: Out, sandbox_only: bool) -> Result<u8, CliError> {
    let git = toolchain::find("git");
    let layers = match &git {
        Some(git) => {
            let repos = standard::repos(&dirs.state, git)?;
            standard::sandbox(&dirs.state, repos)?.probe().await
        }
        None => Capabilities {
            layers: vec![Layer {
                name: "git".into(),
                works: false,
                required: true,
                detail: "not on the PATH; clean copies are made with it: apt-get install git"
                    .into(),
            }],
        },
    };
    let mut programs = vec![("git", git)];
    for p in ["python3", "cargo"] {
        programs.push((p, toolchain::find(p)));
    }
    let models: Vec<_> = KNOWN
        .iter()
        .map(|k| (k.alias, k.name, k.cached(&dirs.cache)))
        .collect();
    if out.json {
        let programs: Vec<_> = programs
            .iter()
            .map(|(n, p)| json!({ "program": n, "path": p }))
            .collect();
        let models: Vec<_> = models
            .iter()
            .map(|(a, n, p)| json!({ "alias": a, "model": n, "path": p }))
            .collect();
        let sandbox = json!({ "usable": layers.usable(), "layers": layers.layers });
        let all = json!({
            "sandbox": sandbox, "programs": programs, "models": models, "state_dir": dirs.state,
            "cache_dir": dirs.cache, "local_model": cfg!(feature = "local-model"),
        });
        out.print(&format!("{}\n", if sandbox_only { sandbox } else { all }));
    } else {
        let mark = |ok: bool| {
            if ok {
                out.paint("ok", "32")
            } else {
                out.paint("no", "31")
            }
        };
        let mut text = String::from("sandbox\n");
        for l in &layers.layers {
            let needed = if l.required { "" } else { " (optional)" };
            text += &format!("  {}  {:<20} {}{needed}\n", mark(l.works), l.name, l.detail);
        }
        text += match layers.usable() {
            true => "  sandboxes can be opened here\n",
            false => "  no sandbox can be opened here: see the first line with `no`\n",
        };
        if !sandbox_only {
            text += "programs\n";
            for (name, path) in &programs {
                let p = path
                    .as_ref()
                    .map_or("not found".into(), |p| p.display().to_string());
                text += &format!("  {}  {name:<20} {p}\n", mark(path.is_some()));
            }
            text += "models\n";
            for (alias, name, path) in &models {
                let p = if path.is_some() {
                    "in the cache"
                } else {
                    "got at first use"
                };
                text += &format!("  {}  {alias:<20} {name}, {p}\n", mark(path.is_some()));
            }
            if !cfg!(feature = "local-model") {
                text += "  this program was built without the feature local-model\n";
            }
            text += &format!(
                "state  {}\ncache  {}\n",
                dirs.state.display(),
                dirs.cache.display()
            );
        }
        out.print(&text);
    }
    Ok(if layers.usable() { 0 } else { 12 })
}
