use crate::kit::{Act, KEY, Server, cx, events, reply, stream};
use futures_util::StreamExt;
use serde_json::{Value, json};
use smallhands_llm::{Anthropic, ChatModel, ChatRequest, Delta, Endpoint, Finish, LlmError, Role};

pub(crate) fn begins() -> Value {
    json!({"type": "message_start", "message": {"model": "claude-x", "usage": {
        "input_tokens": 10, "cache_read_input_tokens": 200,
        "cache_creation_input_tokens": 3_000, "output_tokens": 1}}})
}
pub(crate) fn says(text: &str) -> Value {
    let delta = json!({"type": "text_delta", "text": text});
    json!({"type": "content_block_delta", "index": 0, "delta": delta})
}
pub(crate) fn ends(reason: &str) -> Value {
    json!({"type": "message_delta", "delta": {"stop_reason": reason},
        "usage": {"output_tokens": 15}})
}
pub(crate) fn answer(texts: &[&str], reason: &str) -> String {
    let block = json!({"type": "content_block_start", "index": 0,
        "content_block": {"type": "text", "text": ""}});
    let thought = json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "hm"}});
    let mut all = vec![begins(), json!({"type": "ping"}), block, thought];
    all.extend(texts.iter().map(|t| says(t)));
    all.extend([
        json!({"type": "content_block_stop", "index": 0}),
        ends(reason),
        json!({"type": "message_stop"}),
    ]);
    let named = |v: &Value| {
        format!(
            "event: {}\n{}",
            v["type"].as_str().unwrap(),
            events(std::slice::from_ref(v))
        )
    };
    all.iter().map(named).collect()
}
fn says_all(texts: &[&str]) -> Vec<Act> {
    stream(&[&answer(texts, "end_turn")])
}

#[tokio::test]
async fn a_request_is_sent_as_documented() {
    let server = Server::new([says_all(&["ok"])]).await;
    let r = ChatRequest::new("well?")
        .system("be brief")
        .message(Role::Assistant, "hm")
        .message(Role::User, "so?")
        .prefill("It is ")
        .samples(1, 1.5)
        .max_tokens(77)
        .stop("END")
        .seed(5);
    server.anthropic().chat(&r, &cx()).await.unwrap();
    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("post /v1/messages http/1.1"));
    assert!(seen.head.contains(&format!("x-api-key: {KEY}")));
    assert!(seen.head.contains("anthropic-version: 2023-06-01"));
    let expected = json!({
        "model": "claude-sonnet-4-5", "system": "be brief", "max_tokens": 77,
        "messages": [
            {"role": "user", "content": "well?"},
            {"role": "assistant", "content": "hm"},
            {"role": "user", "content": "so?"},
            {"role": "assistant", "content": "It is"},
        ],
        "temperature": 1.0, "stop_sequences": ["END"], "stream": true,
    });
    assert_eq!(seen.body, expected);
}

#[tokio::test]
async fn an_answer_goes_on_from_its_prefill_and_all_input_is_counted() {
    let server = Server::new([says_all(&["\n", "    1", "+1"])]).await;
    let (model, cx) = (server.anthropic(), cx());
    assert!(model.info().prefill && model.info().id == "anthropic:claude-sonnet-4-5");
    let r = ChatRequest::new("q").prefill("return\n    ");
    let all: Vec<_> = model
        .stream(&r, &cx)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    let Some((Delta::End(end), deltas)) = all.split_last() else {
        panic!("no end")
    };
    assert_eq!(
        (end.text(), end.model.as_str()),
        ("return\n    1+1", "claude-x")
    );
    let text = |d: &Delta| match d {
        Delta::Text { choice: 0, text } => text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(deltas.iter().map(text).collect::<String>(), end.text());
    assert_eq!(
        (
            end.usage.input_tokens,
            end.usage.output_tokens,
            end.usage.calls
        ),
        (3_210, 15, 1)
    );
    assert_eq!(end.usage.micro_usd, Some(9_855));
}

#[tokio::test]
async fn without_prefill_it_is_left_out() {
    let server = Server::new([says_all(&["x"])]).await;
    let mut e = server.endpoint(Endpoint::anthropic("claude-new", KEY));
    e.quirks.no_prefill = true;
    e.quirks.no_temperature = true;
    let model = Anthropic::new(e).unwrap();
    let got = model
        .chat(&ChatRequest::new("q").prefill("p"), &cx())
        .await
        .unwrap();
    assert_eq!((got.text(), got.usage.micro_usd), ("x", None));
    let expected = json!({"model": "claude-new", "max_tokens": 1024, "stream": true,
        "messages": [{"role": "user", "content": "q"}]});
    assert_eq!(server.body(0), expected);
    assert!(!model.info().prefill);
}

#[tokio::test]
async fn each_sample_is_a_call() {
    let server = Server::new(["a", "b", "c"].map(|t| says_all(&[t]))).await;
    let model = server.anthropic();
    let r = ChatRequest::new("long ".repeat(700))
        .samples(3, 0.7)
        .greedy_first();
    let got = model.chat(&r, &cx()).await.unwrap();
    let texts: Vec<_> = got.choices.iter().map(|c| c.text.as_str()).collect();
    assert_eq!(texts, ["a", "b", "c"]);
    assert_eq!((got.usage.calls, got.usage.input_tokens), (3, 9_630));
    let heat = |i| server.body(i)["temperature"].to_string();
    assert_eq!([heat(0), heat(1), heat(2)], ["0.0", "0.7", "0.7"]);
    let worst = model.worst_case(&r);
    assert!(worst.calls == 3 && worst.covers(&got.usage));
}

#[tokio::test]
async fn a_schema_is_asked_for_in_words_and_checked() {
    let scripts = [
        &["{\"a\"", ":1}"],
        &["```\n{\"a\":1}", "\n```"],
        &["Here", " it is"],
    ];
    let server = Server::new(scripts.map(|t| says_all(t))).await;
    let (model, cx) = (server.anthropic(), cx());
    let r = ChatRequest::new("q").schema(json!({"type": "object"}));
    assert_eq!(model.chat(&r, &cx).await.unwrap().text(), "{\"a\":1}");
    let deltas: Vec<_> = model
        .stream(&r, &cx)
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    assert!(
        matches!(&deltas[..], [Delta::Text { text, .. }, Delta::End(_)] if text == "{\"a\":1}")
    );
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(matches!(e, LlmError::Malformed { .. }), "{e}");
    let system = server.body(0)["system"].as_str().unwrap().to_owned();
    assert!(system.contains("JSON schema") && system.contains("{\"type\":\"object\"}"));
    assert!(!model.info().constrained);
}

#[tokio::test]
async fn why_an_answer_ended_is_told() {
    let cases = [
        ("end_turn", Some(Finish::Stop)),
        ("stop_sequence", Some(Finish::Stop)),
        ("max_tokens", Some(Finish::Length)),
        ("model_context_window_exceeded", Some(Finish::Length)),
        ("refusal", Some(Finish::Filtered)),
        ("pause_turn", None),
    ];
    let server = Server::new(cases.map(|(r, _)| stream(&[&answer(&["x"], r)]))).await;
    let model = server.anthropic();
    for (reason, finish) in cases {
        let got = model.chat(&ChatRequest::new("q"), &cx()).await;
        assert_eq!(got.ok().map(|r| r.choices[0].finish), finish, "{reason}");
    }
}

#[tokio::test]
async fn errors_in_the_middle_and_missing_ends_are_errors() {
    let error = |kind: &str| {
        let e = json!({"type": "error", "error": {"type": kind, "message": "Sorry"}});
        stream(&[&events(&[begins(), says("half"), e])])
    };
    let unended = stream(&[&events(&[begins(), says("all"), ends("end_turn")])]);
    let scripts = [
        error("overloaded_error"),
        error("rate_limit_error"),
        error("api_error"),
        unended,
    ];
    let server = Server::new(scripts).await;
    let (model, r, cx) = (server.anthropic(), ChatRequest::new("q"), cx());
    let all: Vec<_> = model.stream(&r, &cx).await.unwrap().collect().await;
    assert!(matches!(
        &all[..],
        [Ok(Delta::Text { text, .. }), Err(LlmError::Overloaded { reason, .. })]
            if text == "half" && reason.contains("Sorry")
    ));
    // Charged, because something was written; and still to be tried again.
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(
        e.is_retryable() && matches!(&e, LlmError::Failed(f) if f.code == "llm.rate_limited"),
        "{e}"
    );
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(matches!(e, LlmError::Overloaded { .. }), "{e}");
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(matches!(e, LlmError::Truncated { bytes: 1.., .. }), "{e}");
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_read_at_once() {
    let body = json!({"type": "message", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "whole"}],
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 1}});
    let script = reply(
        "200 OK",
        "content-type: application/json\r\n",
        &body.to_string(),
    );
    let server = Server::new([script]).await;
    let got = server
        .anthropic()
        .chat(&ChatRequest::new("q"), &cx())
        .await
        .unwrap();
    assert_eq!((got.text(), got.usage.input_tokens), ("whole", 7));
}
