use crate::kit::{engine, graph, memory};
use serde_json::{Value, json};
use smallhands_core::{
    Ambient, Effect, Halt, NoGuard, Question, SecretName, Secrets, Step, TaskContext, TaskOutput,
    TaskSpec, Worker, WorkerName, async_trait, worker,
};
use smallhands_exec::InProcess;
use smallhands_graph::{Engine, NewRun, Report, RunState, SystemClock};
use std::{path::Path, sync::Arc};

/// A run with a step, a question, a report and a failure; its task knows a secret.
async fn state() -> RunState {
    let store = memory();
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(One),
    };
    let acts: Arc<dyn Worker> = Arc::new(Acts("acts".into()));
    let asks = worker("asks", |_: Value, cx: TaskContext| async move {
        let q = Question::new("go?").schema(json!({"type": "boolean"}));
        cx.ask("go", q).await
    });
    let fails = worker("fails", |_: Value, _| async {
        let class = smallhands_core::FailureClass::Task;
        Err::<(), _>(smallhands_core::Failure::new("test.no", class, "no").into())
    });
    let exec = Arc::new(InProcess::new([acts, asks, fails], ambient));
    let e = Engine::new(store, exec, Arc::new(SystemClock));
    let tasks = [
        TaskSpec::new("a", "acts"),
        TaskSpec::new("b", "asks").needs("a"),
        TaskSpec::new("c", "fails").on_failure(smallhands_core::OnFailure::Continue),
    ];
    let mut new = NewRun::new("r", graph(tasks));
    new.secrets = vec!["KEY".into()];
    new.environment = json!({"rustc": "1.95"});
    e.start(new).await.unwrap().wait().await.unwrap().state
}

#[derive(Debug)]
struct Acts(WorkerName);

#[async_trait]
impl Worker for Acts {
    fn name(&self) -> &WorkerName {
        &self.0
    }
    async fn run(&self, _: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        assert!(cx.ambient().secrets.get(&"KEY".into()).is_some());
        let step = Step::new("pay").effect(Effect::AtMostOnce);
        cx.step(step, |_| async { Ok(1) }).await?;
        let blob = cx.ambient().blobs.put(b"<xml/>".to_vec()).await?;
        Ok(TaskOutput {
            value: json!({"report": {"passed": ["a"], "failed": []}}),
            artifacts: vec![
                ("report/junit".into(), blob.clone()),
                ("other".into(), blob),
            ],
            expansion: None,
        })
    }
}

#[derive(Debug)]
struct One;
impl Secrets for One {
    fn get(&self, _: &SecretName) -> Option<String> {
        Some("hunter2-value".into())
    }
}

#[tokio::test]
async fn a_run_is_told_as_its_schema_says() {
    let state = state().await;
    let report = state.report().of(&"r".into());
    let v = serde_json::to_value(&report).unwrap();
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<_> = validator.iter_errors(&v).map(|e| e.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:?}\n{v:#}");
    assert!(!validator.is_valid(&json!({"format": "smallhands.run-state"})));
    assert_eq!(serde_json::from_value::<Report>(v.clone()).unwrap(), report);

    assert_eq!((&v["run"], &v["status"]), (&json!("r"), &json!("waiting")));
    let step = json!([{"key": "pay", "effect": "at_most_once", "state": "done", "failed": false}]);
    assert_eq!(v["tasks"][0]["steps"], step);
    assert_eq!(v["tasks"][1]["questions"]["go"]["text"], "go?");
    assert_eq!(v["tasks"][2]["failure"]["code"], "test.no");
    let names: Vec<_> = report.artifacts.iter().map(|a| &*a.name).collect();
    assert_eq!(names, ["report/junit", "other"]);
    let reports: Vec<_> = report
        .reports
        .iter()
        .map(|r| (&*r.name, r.blob.is_some()))
        .collect();
    assert_eq!(reports, [("report/junit", true), ("report", false)]);
    // Names of secrets, no values.
    assert_eq!(v["secrets"], json!(["KEY"]));
    assert!(!v.to_string().contains("hunter2"), "{v}");
}

#[tokio::test]
async fn a_state_of_nothing_has_a_report_too() {
    let e = engine(&memory(), []);
    assert!(e.load(&"r".into()).await.is_err());
    assert_eq!(RunState::default().report().tasks, []);
}

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/run-state.v1.json")
}

/// `UPDATE_SCHEMAS=1 cargo test -p smallhands-graph --all-features --test portable schema` writes
/// the file anew.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a test that writes what it checks"
)]
fn the_schema_is_that_of_the_types() {
    let mut schema = serde_json::to_value(schemars::schema_for!(Report)).unwrap();
    schema["$id"] = json!("urn:smallhands:run-state:v1");
    let text = format!("{schema:#}\n");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(file(), &text).unwrap();
    }
    let is: Value = serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap();
    assert!(
        is == schema,
        "the report and its schema differ; UPDATE_SCHEMAS=1 writes the schema anew:\n{text}"
    );
}
