//! Caches: what one task writes there, another never sees, unless it proves itself.

use crate::hosts::alone;
use crate::support::{Boxed, World, block_on, close, host};
use smallhands_core::Digest;
use smallhands_sandbox::{
    Cache, CacheKind, CacheView, Checksums, Origin, Promotion, Refused, SandboxBackend,
    SandboxError, SandboxSpec,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

const AT: &str = "/cache/it";

fn cache(w: &World, kind: CacheKind) -> Cache {
    Cache::open(w.dir.0.join(kind.name()), kind).unwrap()
}

fn with(w: &World, cache: &Cache) -> (Boxed, CacheView) {
    let view = cache.view(AT).unwrap();
    let spec = SandboxSpec {
        env: vec![cache.kind().environment(AT.as_ref())],
        caches: vec![view.clone()],
        ..w.spec()
    };
    (w.try_open(&spec).unwrap(), view)
}

/// Lets a task write, and gives back what became of it.
fn promoted(w: &World, cache: &Cache, script: &str, origin: Origin<'_>) -> Promotion {
    let (s, view) = with(w, cache);
    w.out(&s, &format!("cd {AT}; {script}"));
    let done = block_on(cache.promote(&*s, &view, origin)).unwrap();
    close(s);
    done
}

fn setup(w: &World, cache: &Cache, script: &str) -> Promotion {
    promoted(w, cache, script, Origin::Setup)
}

fn sums(list: &[(&str, &str, &[u8])]) -> Checksums {
    let mut sums = Checksums::default();
    for (name, version, bytes) in list {
        sums.add(name, version, Digest::of_bytes(bytes).hex());
    }
    sums
}

/// Everything below a directory of the host, with what it is.
fn tree(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            if meta.is_dir() {
                open.push(path.clone());
            }
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            found.insert(name, (meta.mode(), fs::read(path).unwrap_or_default()));
        }
    }
    found
}

fn why<'a>(refused: &'a [Refused], path: &str) -> &'a str {
    let found = refused.iter().find(|r| r.path == Path::new(path));
    found.map_or("", |r| &r.why)
}

fn apart(w: &World) {
    let cache = cache(w, CacheKind::CargoTarget);
    let first = setup(w, &cache, "mkdir d; echo true > known; echo true > d/other");
    assert_eq!(first.added.len(), 2, "{first:?}");
    let before = tree(&first.generation.path);
    let (a, _) = with(w, &cache);
    let (b, _) = with(w, &cache);
    let poison = "echo false > known; echo false > new; rm d/other; mkdir e; echo false > e/x";
    w.out(&a, &format!("cd {AT} && {poison}"));
    assert_eq!(
        w.out(&a, &format!("cat {AT}/known; ls {AT}")),
        "false\nd\ne\nknown\nnew\n"
    );
    let fork = block_on(a.fork()).unwrap();
    let (c, _) = with(w, &cache);
    for s in [&b, &c] {
        let seen = w.out(s, &format!("cd {AT}; cat known d/other; ls"));
        assert_eq!(seen, "true\ntrue\nd\nknown\n");
    }
    // A fork has what its origin had, and goes its own way.
    let seen = format!("cd {AT}; cat known; ls; ls d; echo forked > known");
    assert_eq!(w.out(&fork, &seen), "false\nd\ne\nknown\nnew\n");
    assert_eq!(w.out(&a, &format!("cat {AT}/known")), "false\n");
    assert_eq!(
        tree(&first.generation.path),
        before,
        "the host's files changed"
    );
    // It is no part of the workspace.
    assert_eq!(block_on(a.diff()).unwrap(), "");
    [a, b, c, fork].into_iter().for_each(close);
}

pub(crate) fn what_a_task_writes_is_its_own() {
    apart(&World::new());
}

pub(crate) fn what_a_task_writes_is_its_own_without_an_overlay() {
    apart(&World::with(|o| o.always_copy = true));
}

pub(crate) fn it_is_said_how_a_cache_is_shown() {
    for (copy, how) in [
        (false, "caches (overlay)"),
        (true, "caches (copied: asked for)"),
    ] {
        let w = World::with(|o| o.always_copy = copy);
        let cache = cache(&w, CacheKind::Npm);
        let spec = SandboxSpec {
            caches: vec![cache.view(AT).unwrap()],
            require: vec!["caches".into()],
            ..w.spec()
        };
        let s = w.try_open(&spec).unwrap();
        let done = w.sh(&s, "true");
        assert!(
            done.enforced.iter().any(|e| e == how),
            "{:?}",
            done.enforced
        );
        close(s);
        let refused = w.try_open(&SandboxSpec {
            require: vec!["caches".into()],
            ..w.spec()
        });
        assert!(matches!(refused, Err(SandboxError::Unavailable { .. })));
        for name in ["caches", "environment"] {
            let can = block_on(w.backend.probe());
            let layer = can.layers.iter().find(|l| l.name == name).unwrap();
            assert!(layer.works && !layer.required, "{layer:?}");
        }
    }
}

pub(crate) fn a_cache_has_a_place_of_its_own() {
    let w = World::new();
    let cache = cache(&w, CacheKind::Pip);
    let granted = w.dir.0.join("granted");
    fs::create_dir(&granted).unwrap();
    let below = granted.join("below");
    let view = |at: &Path| cache.view(at).unwrap();
    let places = [
        "/",
        "cache",
        "/workspace/x",
        "/usr/cache",
        "/tmp",
        "/tmp/x",
        "/var",
        "/etc/x",
        "/c/../x",
        "/proc/1",
    ];
    let places = places
        .map(Path::new)
        .into_iter()
        .chain([&*granted, &*below]);
    let mut specs: Vec<SandboxSpec> = places
        .map(|at| SandboxSpec {
            caches: vec![view(at)],
            ..w.spec()
        })
        .collect();
    for nested in ["/cache", "/cache/it", "/cache/it/x"] {
        specs.push(SandboxSpec {
            caches: vec![view(AT.as_ref()), view(nested.as_ref())],
            ..w.spec()
        });
    }
    for spec in &mut specs {
        spec.read_only = vec![granted.clone()];
        let refused = w.try_open(spec);
        let shown = &spec.caches;
        assert!(
            matches!(refused, Err(SandboxError::Path { .. })),
            "{shown:?}: {refused:?}"
        );
    }
    assert!(!below.exists());
    let gone = SandboxSpec {
        caches: vec![CacheView {
            generation: smallhands_sandbox::Generation {
                path: w.dir.0.clone(),
            },
            at: AT.into(),
        }],
        ..w.spec()
    };
    // Not any directory: one that was published.
    assert!(matches!(w.try_open(&gone), Err(SandboxError::Cache { .. })));
}

/// Wheels of the same name and version, one of which is another.
fn wheels(w: &World) -> Vec<u8> {
    let script = r#"
import zipfile
for where, text in [("good", "true"), ("false", "false")]:
    with zipfile.ZipFile(f"wheels/{where}/Tiny_Lib-1.0-py3-none-any.whl", "w") as z:
        z.writestr("tiny_lib.py", f"WHO = '{text}'\n")
        info = "tiny_lib-1.0.dist-info/"
        z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: Tiny-Lib\nVersion: 1.0\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "RECORD", "")
"#;
    fs::create_dir_all(w.repo.join("wheels/good")).unwrap();
    fs::create_dir_all(w.repo.join("wheels/false")).unwrap();
    host("/usr/bin/python3", &["-c", script], &w.repo);
    crate::support::commit_all(&w.repo);
    fs::read(w.repo.join("wheels/good/Tiny_Lib-1.0-py3-none-any.whl")).unwrap()
}

pub(crate) fn a_wheel_comes_in_if_its_sum_is_listed() {
    let w = World::new();
    let good = wheels(&w);
    let cache = cache(&w, CacheKind::Pip);
    let lock = format!(
        "tiny-lib==1.0 --hash=sha256:{}\n",
        Digest::of_bytes(&good).hex()
    );
    let sums = Checksums::from_requirements(&lock);
    let name = Path::new("Tiny_Lib-1.0-py3-none-any.whl");
    // The false one, as pip fetches it; and the good one under another name.
    let fetch = |from: &str| {
        format!(
            "python3 -m pip download -q --no-index --find-links /workspace/wheels/{from} -d . tiny-lib"
        )
    };
    let other = "cp /workspace/wheels/good/*.whl six-1.0-py3-none-any.whl; mkdir sub; cp *.whl sub";
    let script = format!("{}; {other}", fetch("false"));
    let done = promoted(&w, &cache, &script, Origin::Task(&sums));
    assert_eq!(done.added.len(), 0, "{done:?}");
    assert_eq!(
        why(&done.refused, name.to_str().unwrap()),
        "its content has another checksum"
    );
    assert_eq!(
        why(&done.refused, "six-1.0-py3-none-any.whl"),
        "no checksum was given for it"
    );
    assert_eq!(
        why(&done.refused, "sub/six-1.0-py3-none-any.whl"),
        "nothing proves its content"
    );
    let done = promoted(&w, &cache, &fetch("good"), Origin::Task(&sums));
    assert_eq!(done.added, [name], "{done:?}");
    // From here on it is there for everybody, and nobody can put another in its place.
    let done = promoted(
        &w,
        &cache,
        &format!("rm *; {}", fetch("false")),
        Origin::Task(&sums),
    );
    assert_eq!(
        why(&done.refused, name.to_str().unwrap()),
        "there already, with other content"
    );
    let (s, _) = with(&w, &cache);
    let install = "python3 -m pip install -q --no-index --target /tmp/lib tiny-lib && \
                   PYTHONPATH=/tmp/lib python3 -c 'import tiny_lib; print(tiny_lib.WHO)'";
    assert_eq!(w.out(&s, install), "true\n");
    close(s);
}

pub(crate) fn a_crate_comes_in_if_its_sum_is_listed() {
    let w = World::new();
    let cache = cache(&w, CacheKind::CargoRegistry);
    let lock = format!(
        "version = 4\n\n[[package]]\nname = \"one-dep\"\nversion = \"1.2.3-rc.1\"\n\
         source = \"registry+https://example.invalid\"\nchecksum = \"{}\"\n",
        Digest::of_bytes(b"true").hex()
    );
    let sums = Checksums::from_cargo_lock(&lock);
    let script = "mkdir -p registry/cache/r registry/src/r/one-dep registry/index/r bin; \
                  printf false > registry/cache/r/one-dep-1.2.3-rc.1.crate; \
                  printf true > registry/cache/r/one-dep-1.2.3.crate; echo x > bin/cargo; \
                  echo x > registry/index/r/config.json; echo x > registry/src/r/one-dep/lib.rs";
    let done = promoted(&w, &cache, script, Origin::Task(&sums));
    assert!(done.added.is_empty() && done.refused.len() == 5, "{done:?}");
    let script = script.replace("printf false", "printf true");
    let done = promoted(&w, &cache, &script, Origin::Task(&sums));
    assert_eq!(
        done.added,
        [Path::new("registry/cache/r/one-dep-1.2.3-rc.1.crate")]
    );
    // What a set-up left may come in, but replaces nothing.
    let script = script
        .replace("printf true", "printf other")
        .replace("mkdir -p", "rm -r *; mkdir -p");
    let done = setup(&w, &cache, &script);
    assert_eq!(done.added.len(), 4, "{done:?}");
    let file = done
        .generation
        .path
        .join("registry/cache/r/one-dep-1.2.3-rc.1.crate");
    assert_eq!(fs::read(file).unwrap(), b"true");
}

pub(crate) fn a_blob_comes_in_where_its_hash_says() {
    let w = World::new();
    let cache = cache(&w, CacheKind::Npm);
    let script = r#"
put() { # bytes, algorithm, what is stored
  h=$(printf "$1" | $2sum | cut -d' ' -f1); d=_cacache/content-v2/$2/$(echo $h | cut -c1-2)/$(echo $h | cut -c3-4)
  mkdir -p $d; printf "$3" > $d/$(echo $h | cut -c5-)
}
put one sha512 one; put two sha256 two; put three sha512 false; put four sha1 four
mkdir -p _cacache/index-v5/aa/bb _logs; echo x > _cacache/index-v5/aa/bb/c; echo x > _logs/l
"#;
    let done = promoted(&w, &cache, script, Origin::Task(&Checksums::default()));
    assert_eq!((done.added.len(), done.refused.len()), (2, 4), "{done:?}");
    let reasons: Vec<&str> = done.refused.iter().map(|r| &*r.why).collect();
    assert!(
        reasons.contains(&"its content is not what its name says"),
        "{reasons:?}"
    );
    assert!(
        reasons.contains(&"its hash is not one to rely on"),
        "{reasons:?}"
    );
    if !Path::new("/usr/bin/npm").exists() {
        return;
    }
    // What npm itself writes has that form.
    let script = "mkdir -p /tmp/p/package; cd /tmp/p; \
                  echo '{\"name\":\"p\",\"version\":\"1.0.0\"}' > package/package.json; \
                  tar czf p.tgz package; npm cache add ./p.tgz >/dev/null 2>&1";
    let done = promoted(&w, &cache, script, Origin::Task(&Checksums::default()));
    let blobs = |p: &std::path::PathBuf| p.starts_with("_cacache/content-v2/sha512");
    assert!(
        !done.added.is_empty() && done.added.iter().all(blobs),
        "{done:?}"
    );
}

pub(crate) fn only_new_plain_files_come_in() {
    let w = World::new();
    let cache = cache(&w, CacheKind::Ccache);
    setup(
        &w,
        &cache,
        "mkdir d full; echo 1 > known; echo 1 > d/a; echo 1 > full/b; echo 1 > file",
    );
    let secret = w.dir.0.join("secret");
    fs::write(&secret, "secret").unwrap();
    let before = tree(&cache.view(AT).unwrap().generation.path);
    let script = format!(
        "ln -s {} link; ln -s .. up; ln -s /etc dir; echo 2 > known; rm d/a; rm -r full; mkdir full; \
         echo 2 > full/c; echo x > suid; chmod 4755 suid; mkfifo pipe; echo x > closed; chmod 0 closed; \
         mkdir locked; echo x > locked/x; chmod 0 locked; rm file; mkdir file; echo x > file/x; \
         echo x > fine; chmod 0777 fine; mknod dev c 1 3 2>/dev/null || true",
        secret.display()
    );
    let done = setup(&w, &cache, &script);
    assert_eq!(done.added, ["fine", "full/c"].map(Path::new), "{done:?}");
    for (path, reason) in [
        ("link", "a symbolic link"),
        ("up", "a symbolic link"),
        ("dir", "a symbolic link"),
        ("known", "there already, with other content"),
        ("d/a", "removed inside; what is there stays"),
        ("full", "it replaces a directory of the same name"),
        ("suid", "set-user-id or set-group-id"),
        ("pipe", "neither a file, a directory nor a link"),
        ("closed", "its mode forbids its owner to read it"),
        ("locked", "its mode forbids its owner to read it"),
        ("file/x", "it lies below what is a file already"),
    ] {
        assert_eq!(
            why(&done.refused, path),
            reason,
            "{path}: {:?}",
            done.refused
        );
    }
    let mut after = tree(&done.generation.path);
    let fine = after.remove("fine").unwrap();
    assert_eq!((fine.0 & 0o7777, &fine.1[..]), (0o755, &b"x\n"[..]));
    assert_eq!(after.remove("full/c").unwrap().1, b"2\n");
    assert_eq!(after, before);
}

pub(crate) fn nobody_vouches_for_what_a_compiler_left() {
    let w = World::new();
    for kind in [CacheKind::Ccache, CacheKind::CargoTarget] {
        let cache = cache(&w, kind);
        let (s, view) = with(&w, &cache);
        w.out(&s, &format!("echo x > {AT}/object"));
        let sums = sums(&[("object", "", b"x\n")]);
        let refused = block_on(cache.promote(&*s, &view, Origin::Task(&sums)));
        let Err(e @ SandboxError::Unverifiable(_)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(e.code(), "sandbox.unverifiable");
        assert_eq!(cache.view(AT).unwrap(), view, "nothing was published");
        close(s);
        let other = Cache::open(w.dir.0.join(kind.name()), CacheKind::Npm);
        assert!(
            matches!(other, Err(SandboxError::Cache { .. })),
            "{other:?}"
        );
    }
}

pub(crate) fn promotions_wait_for_each_other() {
    let w = World::new();
    let first = cache(&w, CacheKind::Ccache);
    std::thread::scope(|t| {
        for n in 0..6 {
            let w = &w;
            // Each as a process of its own would.
            t.spawn(move || setup(w, &cache(w, CacheKind::Ccache), &format!("echo {n} > f{n}")));
        }
    });
    let all = tree(&first.view(AT).unwrap().generation.path);
    assert_eq!(all.len(), 6, "{:?}", all.keys());
    // What a killed promotion left is gone with the next.
    let left = w.dir.0.join("ccache/incoming.tmp");
    fs::create_dir_all(left.join("half")).unwrap();
    fs::write(left.join("half/file"), "x").unwrap();
    let done = setup(&w, &first, "echo 7 > f7");
    assert_eq!(done.added, [Path::new("f7")]);
    assert!(!left.exists());
}

pub(crate) fn a_cache_has_a_bound() {
    alone("caches::a_cache_has_a_bound", bound);
}

fn bound() {
    let w = World::new();
    let mut cache = cache(&w, CacheKind::Ccache);
    cache.max_bytes = 100_000;
    let fill = "head -c 60000 /dev/zero > zeros; head -c 60000 /dev/zero > more; \
                truncate -s 1G sparse; echo x > small";
    let done = setup(&w, &cache, fill);
    assert_eq!(done.added, ["more", "small"].map(Path::new), "{done:?}");
    for path in ["zeros", "sparse"] {
        assert_eq!(why(&done.refused, path), "too large", "{done:?}");
    }
    let done = setup(&w, &cache, "head -c 60000 /dev/zero > third; echo y > next");
    assert_eq!(done.added, [Path::new("next")]);
    assert!(why(&done.refused, "third").contains("full"), "{done:?}");
    // Three generations by now, which share what they have in common.
    let old = cache.view(AT).unwrap();
    let (s, _) = with(&w, &cache);
    setup(&w, &cache, "echo z > last");
    let pruned = cache.prune(20_000).unwrap();
    let name = |v: &CacheView| v.generation.path.file_name().unwrap().to_owned();
    assert_eq!(pruned.in_use, [name(&old).to_str().unwrap()], "{pruned:?}");
    assert!(
        pruned.removed.len() >= 2 && pruned.kept_bytes >= 60_000,
        "{pruned:?}"
    );
    assert_eq!(w.out(&s, &format!("ls {AT}")), "more\nnext\nsmall\n");
    close(s);
    let pruned = cache.prune(20_000).unwrap();
    assert!(
        pruned
            .removed
            .contains(&name(&old).to_str().unwrap().to_owned()),
        "{pruned:?}"
    );
    assert!(
        pruned.freed_bytes >= 60_000 && pruned.kept_bytes <= 20_000,
        "{pruned:?}"
    );
    let spec = SandboxSpec {
        caches: vec![old],
        ..w.spec()
    };
    let gone = w.try_open(&spec);
    assert!(matches!(gone, Err(SandboxError::Cache { .. })), "{gone:?}");
    // It begins anew.
    let (s, _) = with(&w, &cache);
    assert_eq!(w.out(&s, &format!("ls {AT}")), "");
    close(s);
    let mode = fs::metadata(w.dir.0.join("ccache"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o066, 0, "others can look into it");
}
