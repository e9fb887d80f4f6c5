use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why a suite cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// A file or directory of the suite is missing.
    #[error("{path} cannot be read: {reason}; is it a checkout of the QuixBugs repository?")]
    Missing {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A program was asked for that the suite does not have.
    #[error("the suite has no program `{0}`")]
    Unknown(String),
}

impl SuiteError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "suite.missing",
            Self::Unknown(_) => "suite.unknown",
        }
    }
    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// One program of QuixBugs (Lin et al., SPLASH 2017) with its tests and data.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    root: PathBuf,
}

/// The Python programs of a QuixBugs checkout, in alphabetical order. Only names are read here.
///
/// # Errors
/// The directory is not such a checkout.
pub fn quixbugs(root: &Path) -> Result<Vec<Program>, SuiteError> {
    let tests = root.join("python_testcases");
    let mut programs = Vec::new();
    for entry in fs::read_dir(&tests).map_err(|e| missing(&tests, &e))? {
        let entry = entry.map_err(|e| missing(&tests, &e))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = file
            .strip_prefix("test_")
            .and_then(|f| f.strip_suffix(".py"))
            && root
                .join("python_programs")
                .join(format!("{name}.py"))
                .is_file()
        {
            programs.push(Program {
                name: name.to_owned(),
                root: root.to_owned(),
            });
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn missing(path: &Path, e: &io::Error) -> SuiteError {
    SuiteError::Missing {
        path: path.to_owned(),
        reason: e.to_string(),
    }
}

impl Program {
    /// Where the buggy function stands in the task's repository.
    pub fn source(&self) -> String {
        format!("python_programs/{}.py", self.name)
    }
    /// Its test file.
    pub fn test(&self) -> String {
        format!("python_testcases/test_{}.py", self.name)
    }

    /// Writes the task: the buggy program, its test and its data, and nothing else of the suite.
    ///
    /// # Errors
    /// A file is missing, or cannot be written.
    pub fn write(&self, to: &Path) -> Result<(), SuiteError> {
        let needed = [
            "conftest.py".to_owned(),
            "python_testcases/load_testdata.py".to_owned(),
            self.source(),
            self.test(),
        ];
        let optional = [
            format!("json_testcases/{}.json", self.name),
            "python_testcases/node.py".to_owned(),
            "python_programs/node.py".to_owned(),
        ];
        for file in needed {
            self.copy(&file, to)?;
        }
        for file in optional {
            if self.root.join(&file).is_file() {
                self.copy(&file, to)?;
            }
        }
        Ok(())
    }

    fn copy(&self, file: &str, to: &Path) -> Result<(), SuiteError> {
        let (from, to) = (self.root.join(file), to.join(file));
        let parent = to.parent().unwrap_or(&to);
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(&from, &to))
            .map(drop)
            .map_err(|e| missing(&from, &e))
    }

    /// The reference solution: for the gate alone, never for an agent.
    ///
    /// # Errors
    /// It is missing.
    pub fn reference(&self) -> Result<Vec<u8>, SuiteError> {
        let path = self.root.join("correct_python_programs");
        let path = path.join(format!("{}.py", self.name));
        fs::read(&path).map_err(|e| missing(&path, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_holds_no_reference_and_nothing_of_others() {
        let dir = std::env::temp_dir().join(format!("quixbugs-test-{}", std::process::id()));
        let put = |file: &str| {
            let path = dir.join("suite").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        };
        for n in ["gcd", "kth"] {
            put(&format!("python_programs/{n}.py"));
            put(&format!("correct_python_programs/{n}.py"));
            put(&format!("python_testcases/test_{n}.py"));
            put(&format!("json_testcases/{n}.json"));
        }
        put("conftest.py");
        put("python_testcases/load_testdata.py");
        let all = quixbugs(&dir.join("suite")).unwrap();
        assert_eq!(
            all.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            ["gcd", "kth"]
        );
        let task = dir.join("task");
        all[0].write(&task).unwrap();
        assert!(task.join("python_programs/gcd.py").is_file());
        assert!(!task.join("correct_python_programs").exists());
        assert!(!task.join("python_programs/kth.py").exists());
        assert_eq!(
            all[0].reference().unwrap(),
            b"correct_python_programs/gcd.py"
        );
        fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(quixbugs(&dir), Err(SuiteError::Missing { .. })));
    }
}
