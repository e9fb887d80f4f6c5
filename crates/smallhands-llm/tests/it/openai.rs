use crate::kit::{KEY, Server, cx, events, reply, stream};
use futures_util::StreamExt;
use serde_json::{Value, json};
use smallhands_llm::{
    ChatModel, ChatRequest, Delta, Endpoint, Finish, LlmError, OpenAi, Price, Role,
};

fn says(index: u32, text: &str) -> Value {
    json!({"model": "m-1", "choices": [{"index": index, "delta": {"content": text}}]})
}
fn ends(index: u32, reason: &str) -> Value {
    json!({"choices": [{"index": index, "delta": {}, "finish_reason": reason}]})
}
fn used(input: u64, output: u64) -> Value {
    json!({"choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": 3}}})
}
fn answer(text: &str, reason: &str) -> String {
    events(&[says(0, text), ends(0, reason), used(10, 2)]) + "data: [DONE]\n\n"
}

#[tokio::test]
async fn a_request_is_sent_as_documented() {
    let server = Server::new([stream(&[&answer("yes", "stop")])]).await;
    let r = ChatRequest::new("well?")
        .system("be brief")
        .message(Role::Assistant, "hm")
        .prefill("not sent")
        .max_tokens(77)
        .stop("END")
        .seed(5);
    server.openai().chat(&r, &cx()).await.unwrap();
    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("post /v1/chat/completions http/1.1"));
    assert!(seen.head.contains(&format!("authorization: bearer {KEY}")));
    assert!(seen.head.contains("content-type: application/json"));
    let expected = json!({
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "well?"},
            {"role": "assistant", "content": "hm"},
        ],
        "max_completion_tokens": 77, "temperature": 0.0, "stop": ["END"], "seed": 5,
        "stream": true, "stream_options": {"include_usage": true},
    });
    assert_eq!(seen.body, expected);
}

#[tokio::test]
async fn quirks_change_what_is_sent() {
    let done = stream(&[&answer("1", "stop")]);
    let server = Server::new([done.clone(), done]).await;
    let r = ChatRequest::new("q")
        .system("s")
        .samples(1, 0.7)
        .schema(json!({"type": "integer"}));
    let mut e = Endpoint::compatible(&format!("{}/", server.url), "qwen", None);
    OpenAi::new(e.clone())
        .unwrap()
        .chat(&r, &cx())
        .await
        .unwrap();
    e.quirks.no_temperature = true;
    e.quirks.no_stream_options = true;
    e.quirks.schema_in_words = true;
    let model = OpenAi::new(e).unwrap();
    model.chat(&r, &cx()).await.unwrap();
    assert!(!server.seen()[0].head.contains("authorization"));
    assert!(
        server.seen()[0]
            .head
            .starts_with("post /v1/chat/completions http/1.1")
    );
    let (first, second) = (server.body(0), server.body(1));
    assert_eq!(first["max_tokens"], 1024);
    assert_eq!(first["temperature"].to_string(), "0.7");
    let format = json!({"type": "json_schema", "json_schema":
        {"name": "answer", "strict": false, "schema": {"type": "integer"}}});
    assert_eq!(first["response_format"], format);
    for absent in ["temperature", "stream_options", "response_format"] {
        assert!(second.get(absent).is_none(), "{absent}");
    }
    let system = second["messages"][0]["content"].as_str().unwrap();
    assert!(system.starts_with("s\n\nAnswer with one JSON") && system.contains("integer"));
    assert_eq!(second["messages"].as_array().unwrap().len(), 2);
    assert!(!model.info().constrained && !model.info().prefill);
}

#[tokio::test]
async fn deltas_come_as_they_are_written_and_the_end_holds_all() {
    let head = events(&[
        json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
        says(0, "Hel"),
    ]);
    let tail = events(&[says(0, "lo"), ends(0, "stop"), used(1_000, 500)]);
    let script = stream(&[&head, ": keep-alive\n\n", &tail, "data: [DONE]\n\n"]);
    let server = Server::new([script]).await;
    let (model, r, cx) = (server.openai(), ChatRequest::new("q"), cx());
    assert_eq!(model.info().id, "openai:gpt-4o-mini");
    let all: Vec<_> = model.stream(&r, &cx).await.unwrap().collect().await;
    let mut all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    let Some(Delta::End(end)) = all.pop() else {
        panic!("no end")
    };
    let text = |text: &str| Delta::Text {
        choice: 0,
        text: text.into(),
    };
    assert_eq!(all, [text("Hel"), text("lo")]);
    assert_eq!((end.text(), end.model.as_str()), ("Hello", "m-1"));
    assert_eq!(
        (end.usage.input_tokens, end.usage.output_tokens),
        (1_000, 500)
    );
    assert_eq!((end.usage.micro_usd, end.usage.calls), (Some(450), 1));
    assert!(model.worst_case(&r).calls == 1 && model.worst_case(&r).micro_usd.is_some());
}

#[tokio::test]
async fn samples_of_one_call_are_told_apart() {
    let body = events(&[
        says(1, "b"),
        says(0, "a"),
        says(7, "nobody asked"),
        says(1, "B"),
        ends(0, "length"),
        ends(1, "stop"),
        used(4, 4),
    ]);
    let server = Server::new([stream(&[&body, "data: [DONE]\n\n"])]).await;
    let r = ChatRequest::new("q").samples(2, 1.0).seed(1);
    let got = server.openai().chat(&r, &cx()).await.unwrap();
    let all: Vec<_> = got
        .choices
        .iter()
        .map(|c| (c.text.as_str(), c.finish))
        .collect();
    assert_eq!(all, [("a", Finish::Length), ("bB", Finish::Stop)]);
    assert_eq!(
        (server.body(0)["n"].clone(), got.usage.calls),
        (json!(2), 1)
    );
}

#[tokio::test]
async fn samples_that_a_server_leaves_out_are_asked_for_again() {
    let one = |t: &str| stream(&[&answer(t, "stop")]);
    let server = Server::new([one("a"), one("b"), one("c"), one("x"), one("y")]).await;
    let (model, cx) = (server.compatible(), cx());
    let r = ChatRequest::new("q").samples(3, 1.0).seed(40);
    let (mut texts, mut end) = (vec![String::new(); 3], None);
    let mut deltas = model.stream(&r, &cx).await.unwrap();
    while let Some(d) = deltas.next().await {
        match d.unwrap() {
            Delta::Text { choice, text } => texts[choice as usize].push_str(&text),
            Delta::End(e) => end = Some(e),
            other => panic!("{other:?}"),
        }
    }
    let (end, worst) = (end.unwrap(), model.worst_case(&r));
    assert_eq!(texts, ["a", "b", "c"]);
    assert_eq!(
        end.choices.iter().map(|c| &c.text).collect::<Vec<_>>(),
        texts.iter().collect::<Vec<_>>()
    );
    assert_eq!(
        (
            end.usage.calls,
            end.usage.input_tokens,
            end.usage.output_tokens
        ),
        (3, 30, 6)
    );
    assert_eq!((worst.calls, worst.output_tokens), (3, 3 * 1024));
    assert_eq!(worst.input_tokens % 3, 0);
    assert!(worst.input_tokens >= 3 * r.prompt_bound() && worst.covers(&end.usage));
    let asked: Vec<_> = (0..3)
        .map(|i| (server.body(i)["n"].clone(), server.body(i)["seed"].clone()))
        .collect();
    assert_eq!(
        asked,
        [
            (json!(3), json!(40)),
            (json!(2), json!(41)),
            (Value::Null, json!(42))
        ]
    );

    let mut e = Endpoint::compatible(&server.url, "qwen", None);
    e.quirks.one_sample_per_call = true;
    let r = ChatRequest::new("q").samples(2, 1.0);
    let got = OpenAi::new(e).unwrap().chat(&r, &cx).await.unwrap();
    assert_eq!((got.choices.len(), server.body(3).get("n")), (2, None));
}

#[tokio::test]
async fn too_few_samples_are_an_error_where_the_wire_promises_them() {
    let server = Server::new([stream(&[&answer("a", "stop")])]).await;
    let r = ChatRequest::new("q").samples(2, 1.0);
    let e = server.openai().chat(&r, &cx()).await.unwrap_err();
    assert!(
        matches!(&e, LlmError::Malformed { reason, .. } if reason.contains("ignores_n")),
        "{e}"
    );
}

#[tokio::test]
async fn a_schema_is_enforced_and_what_is_no_json_is_an_error() {
    let cut = answer("{\"a\":", "length");
    let scripts = ["{\"a\":1}", "```json\n{\"a\":1}\n```", "Sure! {\"a\":1}"];
    let scripts = scripts.map(|t| stream(&[&answer(t, "stop")]));
    let server = Server::new(scripts.into_iter().chain([stream(&[&cut])])).await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}},
        "required": ["a"], "additionalProperties": false});
    let (model, r, cx) = (
        server.openai(),
        ChatRequest::new("q").schema(schema.clone()),
        cx(),
    );
    for _ in 0..2 {
        assert_eq!(model.chat(&r, &cx).await.unwrap().text(), "{\"a\":1}");
    }
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(matches!(e, LlmError::Malformed { .. }), "{e}");
    assert_eq!(
        model.chat(&r, &cx).await.unwrap().choices[0].finish,
        Finish::Length
    );
    let format = &server.body(0)["response_format"]["json_schema"];
    assert_eq!(
        (&format["strict"], &format["schema"]),
        (&json!(true), &schema)
    );
    assert!(model.info().constrained);
}

#[tokio::test]
async fn why_an_answer_ended_is_told() {
    let refusal = events(&[
        json!({"choices": [{"index": 0, "delta": {"refusal": "I will not"}}]}),
        ends(0, "stop"),
    ]);
    let of = |reason: &str| answer("x", reason);
    let bodies = [
        of("stop"),
        of("length"),
        of("content_filter"),
        refusal,
        of("abort"),
        of("new"),
    ];
    let server = Server::new(bodies.map(|b| stream(&[&b]))).await;
    let (model, r, cx) = (server.openai(), ChatRequest::new("q"), cx());
    for finish in [
        Finish::Stop,
        Finish::Length,
        Finish::Filtered,
        Finish::Filtered,
    ] {
        assert_eq!(model.chat(&r, &cx).await.unwrap().choices[0].finish, finish);
    }
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(matches!(e, LlmError::Overloaded { .. }), "{e}");
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(
        matches!(&e, LlmError::Malformed { reason, .. } if reason.contains("new")),
        "{e}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_read_at_once() {
    let body = json!({"model": "m-2", "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"},
            "finish_reason": "stop"}]});
    let json = "content-type: application/json\r\n";
    let error = json!({"error": {"message": "no slot", "code": 503}});
    let scripts = [&body, &error].map(|b| reply("200 OK", json, &b.to_string()));
    let server = Server::new(scripts).await;
    let (model, r, cx) = (server.openai(), ChatRequest::new("q"), cx());
    let got = model.chat(&r, &cx).await.unwrap();
    assert_eq!(
        (got.text(), got.model.as_str(), got.usage.input_tokens),
        ("whole", "m-2", 3)
    );
    let e = model.chat(&r, &cx).await.unwrap_err();
    assert!(matches!(e, LlmError::Overloaded { .. }), "{e}");
}

#[tokio::test]
async fn unreported_use_is_charged_at_its_bound_and_unknown_prices_stay_unknown() {
    // Nor does this server say that it is done, as some do not.
    let script = stream(&[&events(&[says(0, "x"), ends(0, "stop")])]);
    let server = Server::new([script.clone(), script]).await;
    let r = ChatRequest::new("q").max_tokens(9);
    let model = server.compatible();
    let got = model.chat(&r, &cx()).await.unwrap();
    assert_eq!(got.usage, model.worst_case(&r));
    assert_eq!((got.usage.micro_usd, got.usage.output_tokens), (None, 9));

    let mut own = Endpoint::compatible(&server.url, "qwen", None);
    own.price = Some(Price::FREE);
    let model = OpenAi::new(own).unwrap();
    assert_eq!(
        model.chat(&r, &cx()).await.unwrap().usage.micro_usd,
        Some(0)
    );
}
