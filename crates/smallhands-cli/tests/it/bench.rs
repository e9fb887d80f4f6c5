use crate::kit::{Bed, path};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Looks for the reference's marker in every file that it can read and that is no part of the
/// operating system or of Python, as an agent could. The gate
/// puts the reference in the place of the program, where it is allowed.
const SEARCH: &str = r#"
import os, stat, sys, pytest, python_programs.twice as program

MARKER = "ref" + "erence-4711"

def readable():
    for base, dirs, files in os.walk("/"):
        skipped = ("/proc", "/sys", "/dev", "/usr", sys.prefix, sys.base_prefix)
        dirs[:] = [d for d in dirs if os.path.join(base, d) not in skipped]
        assert "correct_python_programs" not in dirs, base
        for f in files:
            path = os.path.join(base, f)
            try:
                if stat.S_ISREG(os.stat(path).st_mode) and os.path.getsize(path) < 200_000:
                    with open(path, "rb") as f:
                        yield path, f.read()
            except OSError:
                pass

def test_nothing_holds_the_reference():
    own = os.path.realpath(program.__file__)
    seen = 0
    for path, text in readable():
        seen += 1
        if os.path.realpath(path) != own and not path.endswith(".pyc"):
            assert MARKER.encode() not in text, path
    assert seen > 10
    assert not os.path.exists("HOST")

@pytest.mark.parametrize("n,expected", [(1, 2), (3, 6)])
def test_twice(n, expected):
    assert program.twice(n) == expected
"#;

/// A suite of one program in the shape of QuixBugs.
fn suite(bed: &Bed) -> PathBuf {
    let dir = bed.dir.path().join("suite");
    let put = |file: &str, text: &str| {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "conftest.py",
        "def pytest_addoption(parser):\n    parser.addoption(\"--runslow\", action=\"store_true\")\n",
    );
    put("python_testcases/load_testdata.py", "");
    put(
        "python_testcases/test_twice.py",
        &SEARCH.replace("HOST", path(&dir)),
    );
    put("python_programs/__init__.py", "");
    put(
        "python_programs/twice.py",
        "def twice(n):\n    return n + n + 1\n",
    );
    put(
        "correct_python_programs/twice.py",
        "# reference-4711\ndef twice(n):\n    return n + n\n",
    );
    let sound = "def same(n):\n    return n\n";
    let test =
        "from python_programs.same import same\n\ndef test_same():\n    assert same(1) == 1\n";
    put("python_programs/same.py", sound);
    put("correct_python_programs/same.py", sound);
    put("python_testcases/test_same.py", test);
    dir
}

#[test]
fn a_suite_is_gated_and_graded_and_no_reference_is_readable_in_the_sandbox() {
    let Some(pytest) = env::var_os("SMALLHANDS_TEST_PYTEST") else {
        println!("SKIPPED: SMALLHANDS_TEST_PYTEST is not set; cargo xtask test sets it");
        return;
    };
    let b = Bed::new();
    let answers = ["```python\ndef twice(n):\n    return n + n\n```"];
    fs::write(b.answers(), serde_json::to_string(&answers).unwrap()).unwrap();
    let (dir, model) = (suite(&b), b.model());
    let python_path = format!("PYTHONPATH={}", Path::new(&pytest).display());
    let pytest = pytest.to_str().unwrap();
    let args = [
        "bench",
        "quixbugs",
        "--dir",
        path(&dir),
        "--model",
        &model,
        "--json",
        "--read-only",
        pytest,
        "--env",
        &python_path,
    ];
    let said = b.smallhands(&args).json();
    assert_eq!(
        (&said["attempted"], &said["fixed"]),
        (&2.into(), &1.into()),
        "{said}"
    );
    // A program that is not wrong counts as not fixed, and is named.
    assert_eq!(said["rows"][0]["program"], "same");
    assert_eq!(said["rows"][0]["why"], "the buggy program passes");
    assert_eq!(said["rows"][1]["fixed"], true, "{said}");
    assert!(said["median_seconds"].as_f64() > Some(0.0));
}
