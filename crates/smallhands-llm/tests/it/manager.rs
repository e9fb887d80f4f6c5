//! A durable call: what is shown, what is recorded, what is charged.

use crate::{
    cx::ambient,
    kit::{Server, events, reply, stream},
};
use serde_json::{Value, json};
use smallhands_core::{
    BlobRef, CancelToken, Digest, DispatchKey, Halt, HostCall, HostReply, Notice, StepRecord,
    TaskContext, TaskEnvelope, TaskHost, TaskSpec, Usage, async_trait,
};
use smallhands_llm::{ChatModel, ChatRequest, ChatResponse, ModelManager, Scripted};
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Eyes {
    notices: Mutex<Vec<Notice>>,
    ended: Mutex<Vec<StepRecord>>,
}

#[async_trait]
impl TaskHost for Eyes {
    async fn call(&self, _: &DispatchKey, call: HostCall) -> Result<HostReply, Halt> {
        if let HostCall::EndStep(record) = call {
            self.ended.lock().unwrap().push(record);
        }
        Ok(HostReply::Proceed)
    }
    fn notice(&self, _: &DispatchKey, notice: Notice) {
        self.notices.lock().unwrap().push(notice);
    }
}

/// The answer, the texts shown, other notices, what was charged.
async fn ask(
    model: Arc<dyn ChatModel>,
    r: ChatRequest,
) -> (ChatResponse, Vec<String>, Vec<Notice>, Usage) {
    let eyes = Arc::new(Eyes::default());
    let envelope = TaskEnvelope {
        v: TaskEnvelope::VERSION,
        key: DispatchKey {
            run: "r".into(),
            task: "t".into(),
            attempt: 1,
            fence: 1,
        },
        spec: TaskSpec::new("t", "w").into(),
        iteration: 0,
        again: false,
        input: Value::Null,
        steps: Vec::new(),
        answers: Default::default(),
        view: None,
        config: BlobRef {
            digest: Digest::of_bytes(b""),
            len: 0,
        },
        secrets: Vec::new(),
        traceparent: None,
    };
    let cx = TaskContext::new(envelope, eyes.clone(), ambient(), CancelToken::new());
    let manager = ModelManager::new([model]).unwrap();
    let answer = manager.chat(&cx, "ask", 0, r).await.unwrap();
    let record = eyes.ended.lock().unwrap().remove(0);
    assert_eq!(record.result.unwrap(), json!(answer));
    let (mut shown, mut rest) = (Vec::new(), Vec::new());
    for n in eyes.notices.lock().unwrap().drain(..) {
        match n {
            Notice::Delta { text } => shown.push(text),
            other => rest.push(other),
        }
    }
    (answer, shown, rest, record.usage.unwrap())
}

fn says(index: u32, text: &str) -> Value {
    json!({"choices": [{"index": index, "delta": {"content": text}}]})
}
fn done() -> [Value; 2] {
    let end = |i| json!({"index": i, "delta": {}, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 7});
    [
        json!({"choices": [end(0), end(1)]}),
        json!({"choices": [], "usage": usage}),
    ]
}

#[tokio::test]
async fn the_first_sample_is_shown_in_lots_and_the_whole_is_recorded() {
    let words: Vec<_> = (0..50).map(|i| format!("word {i}, ")).collect();
    let mut all: Vec<_> = words
        .iter()
        .flat_map(|w| [says(0, w), says(1, "other ")])
        .collect();
    all.extend(done());
    let server = Server::new([stream(&[&(events(&all) + "data: [DONE]\n\n")])]).await;
    let r = ChatRequest::new("q").samples(2, 1.0);
    let (answer, shown, rest, charged) = ask(Arc::new(server.openai()), r).await;
    assert_eq!(shown.concat(), words.concat());
    assert_eq!(answer.text(), words.concat());
    assert!((4..=8).contains(&shown.len()), "{shown:?}");
    assert_eq!(rest, []);
    assert_eq!((charged.input_tokens, charged.output_tokens), (5, 7));
}

#[tokio::test]
async fn what_answers_at_once_has_nothing_to_show() {
    let model = Arc::new(Scripted::new("s", |_, _| "yes".into()));
    let (answer, shown, ..) = ask(model.clone(), ChatRequest::new("q")).await;
    assert_eq!((answer.text(), shown.len(), model.calls()), ("yes", 0, 1));
}

#[tokio::test]
async fn a_failed_attempt_is_charged_unless_it_surely_was_free() {
    let good = events(&[says(0, "good")]) + &events(&done());
    let begun = events(&[says(0, "bad")]);
    let broken = begun.clone() + &events(&[json!({"error": {"code": 503, "message": "oops"}})]);
    let limited = begun + &events(&[json!({"error": {"code": 429, "message": "slow"}})]);
    let r = ChatRequest::new("q").max_tokens(10);
    for (failure, free) in [
        (reply("429 x", "", ""), true),
        (stream(&[&broken]), false),
        (stream(&[&limited]), false),
    ] {
        let server = Server::new([failure, stream(&[&good])]).await;
        let model = Arc::new(server.openai());
        let worst = model.worst_case(&r).output_tokens;
        let (answer, shown, rest, charged) = ask(model, r.clone()).await;
        assert_eq!((answer.text(), shown), ("good", vec!["good".to_owned()]));
        assert!(
            matches!(&rest[..], [Notice::Progress { text, .. }] if text.contains("again")),
            "{rest:?}"
        );
        assert_eq!(charged.output_tokens, if free { 7 } else { 7 + worst });
    }
}
