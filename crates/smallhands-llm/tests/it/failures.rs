use crate::kit::{KEY, Server, cx, events, piece, reply, send, stream};
use serde_json::json;
use smallhands_core::FailureClass;
use smallhands_llm::{Anthropic, ChatModel, ChatRequest, Endpoint, LlmError, OpenAi};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// What both wires make of this answer.
async fn both(status: &str, headers: &str, body: &str) -> [LlmError; 2] {
    let script = reply(status, headers, body);
    let server = Server::new([script.clone(), script]).await;
    let r = ChatRequest::new("q");
    let [a, b] = server.both();
    [
        a.chat(&r, &cx()).await.unwrap_err(),
        b.chat(&r, &cx()).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn a_status_becomes_a_typed_error() {
    let cases = [
        (
            "401 x",
            r#"{"error":{"message":"Incorrect key","code":"invalid_api_key"}}"#,
            "llm.auth",
        ),
        (
            "403 x",
            r#"{"error":{"type":"permission_error","message":"no"}}"#,
            "llm.auth",
        ),
        ("402 x", "{\"error\":\"pay first\"}", "llm.auth"),
        (
            "429 x",
            r#"{"error":{"message":"You exceeded your quota","type":"insufficient_quota"}}"#,
            "llm.auth",
        ),
        (
            "404 x",
            r#"{"error":{"message":"model 'm' not found, try pulling it first"}}"#,
            "llm.unknown_model",
        ),
        (
            "400 x",
            r#"{"error":{"message":"no such","code":"model_not_found"}}"#,
            "llm.unknown_model",
        ),
        ("429 x", "slow down", "llm.rate_limited"),
        (
            "400 x",
            r#"{"error":{"message":"temperature must be at most 2"}}"#,
            "llm.refused",
        ),
        ("307 x", "", "llm.refused"),
        ("408 x", "", "llm.overloaded"),
        ("500 x", "", "llm.overloaded"),
        (
            "503 x",
            r#"{"error":{"message":"Loading model","code":503}}"#,
            "llm.overloaded",
        ),
        (
            "529 x",
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            "llm.overloaded",
        ),
        ("501 x", "not implemented", "llm.refused"),
    ];
    for (status, body, code) in cases {
        for e in both(status, "", body).await {
            assert_eq!(e.code(), code, "{status} {body} {e}");
            let passes = ["llm.overloaded", "llm.rate_limited"].contains(&code);
            assert_eq!(e.is_retryable(), passes, "{e}");
        }
    }
    let [e, _] = both(
        "404 Not Found",
        "",
        r#"{"error":"model 'm' not found, pull it"}"#,
    )
    .await;
    let text = e.to_string();
    assert!(
        text.contains("127.0.0.1") && text.contains("pull it") && text.contains("/v1"),
        "{text}"
    );
    let [e, _] = both("401 Unauthorized", "", "").await;
    assert!(e.to_string().contains("401 Unauthorized"), "{e}");
}

#[tokio::test]
async fn limits_and_overload_say_how_long_to_wait() {
    let cases = [
        ("retry-after: 7\r\n", Some(7_000)),
        ("retry-after: 7\r\nretry-after-ms: 1500\r\n", Some(1_500)),
        ("retry-after: 0.5\r\n", Some(500)),
        ("retry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\n", None),
        ("retry-after: -3\r\n", None),
        ("", None),
    ];
    for (headers, millis) in cases {
        for (status, code) in [("429 x", "llm.rate_limited"), ("503 x", "llm.overloaded")] {
            for e in both(status, headers, "").await {
                assert_eq!(e.code(), code, "{e}");
                let wait = millis.map(Duration::from_millis);
                assert_eq!(e.retry_after(), wait, "{headers}");
                let says = wait.map_or("later".into(), |w| format!("in {} s", w.as_secs_f64()));
                assert!(e.to_string().ends_with(&says), "{e}");
            }
        }
    }
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_told_with_its_counts() {
    let cases = [
        (
            r#"{"error":{"code":"context_length_exceeded","message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."}}"#,
            9_001,
            8_192,
        ),
        (
            r#"{"error":{"code":400,"type":"exceed_context_size_error","message":"too big","n_prompt_tokens":1091,"n_ctx":1024}}"#,
            1_091,
            1_024,
        ),
        (
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"}}"#,
            208_310,
            200_000,
        ),
    ];
    for (body, had, fits) in cases {
        for e in both("400 Bad Request", "", body).await {
            let LlmError::TooLong {
                tokens, context, ..
            } = e
            else {
                panic!("{e}")
            };
            assert_eq!((tokens, context), (Some(had), Some(fits)));
        }
    }
    let unsaid = r#"{"error":{"message":"Your input exceeds the context window of this model."}}"#;
    for e in both("400 Bad Request", "", unsaid).await {
        let text = e.to_string();
        assert!(
            text.contains("the prompt and its answer must fit into the context"),
            "{text}"
        );
        let LlmError::TooLong {
            tokens, context, ..
        } = e
        else {
            panic!("{e}")
        };
        assert_eq!((tokens, context), (None, None));
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_an_error() {
    let text = json!({"choices": [{"index": 0, "delta": {"content": "rm -rf /tmp/"}}]});
    let cases = [
        (
            json!({"message": "slow", "code": 429}),
            "llm.rate_limited",
            true,
        ),
        (
            json!({"message": "oops", "type": "server_error"}),
            "llm.overloaded",
            true,
        ),
        (json!("just words"), "llm.overloaded", true),
        (
            json!({"message": "bad", "type": "invalid_request_error"}),
            "llm.refused",
            false,
        ),
        (
            json!({"message": "maximum context length is 10 tokens", "code": 400}),
            "llm.too_long",
            false,
        ),
    ];
    for (error, code, retryable) in cases {
        let body = events(&[text.clone(), json!({"error": error})]) + "data: [DONE]\n\n";
        let server = Server::new([stream(&[&body])]).await;
        let e = server
            .openai()
            .chat(&ChatRequest::new("q"), &cx())
            .await
            .unwrap_err();
        assert_eq!((e.code(), e.is_retryable()), (code, retryable), "{e}");
    }
}

#[tokio::test]
async fn what_fails_after_a_paid_sample_is_charged() {
    let paid =
        events(&[json!({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})]);
    let r = ChatRequest::new("q").samples(2, 1.0);
    let wait = Some(Duration::from_secs(2));
    for (status, code, wait) in [
        ("429 x", "llm.rate_limited", wait),
        ("401 x", "llm.auth", None),
        ("404 x", "llm.unknown_model", None),
    ] {
        let refusal = reply(status, "retry-after: 2\r\n", "");
        let server = Server::new([stream(&[&paid]), refusal]).await;
        let e = server.compatible().chat(&r, &cx()).await.unwrap_err();
        assert!(matches!(e, LlmError::Failed(_)), "it is charged: {e:?}");
        assert_eq!((e.code(), e.retry_after()), (code, wait));
        assert_eq!(e.is_retryable(), wait.is_some());
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_and_the_key_is_not() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut e = Endpoint::openai("m", KEY);
    e.base_url = format!("http://{gone}/v1?token={KEY}");
    let models: [Box<dyn ChatModel>; 2] = [
        Box::new(OpenAi::new(e.clone()).unwrap()),
        Box::new(Anthropic::new(e).unwrap()),
    ];
    for model in models {
        let e = model.chat(&ChatRequest::new("q"), &cx()).await.unwrap_err();
        let text = format!("{e} {e:?} {model:?}");
        assert!(
            matches!(e, LlmError::Unreachable { .. }) && e.is_retryable(),
            "{text}"
        );
        assert!(
            text.contains(&gone.to_string()) && text.contains("refused"),
            "{text}"
        );
        assert!(!text.contains(KEY), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_without_a_word_may_have_worked() {
    let server = Server::new([vec![], vec![send("HTTP/1.1 2")]]).await;
    for model in server.both() {
        let e = model.chat(&ChatRequest::new("q"), &cx()).await.unwrap_err();
        assert!(matches!(e, LlmError::Failed(_)), "it is charged: {e:?}");
        assert_eq!((e.code(), e.is_retryable()), ("llm.unreachable", true));
    }
}

#[tokio::test]
async fn the_key_is_never_shown() {
    let e = Endpoint::anthropic("m", KEY);
    let shown = format!(
        "{e:?} {:?} {:?} {:?}",
        e.api_key,
        OpenAi::new(e.clone()),
        Anthropic::new(e.clone())
    );
    assert!(!shown.contains(KEY), "{shown}");
    let said = format!("{{\"error\":{{\"message\":\"bad key {KEY}\"}}}}");
    for status in ["400 x", "401 x", "404 x", "500 x"] {
        for e in both(status, "", &said).await {
            let text = format!("{e} {e:?}");
            assert!(
                !text.contains(KEY) && text.contains("bad key [key]"),
                "{text}"
            );
        }
    }
    let event = json!({"error": {"message": format!("no {KEY}")}, "type": "error"});
    let unread = json!({"choices": [{"delta": {}, "finish_reason": KEY}],
        "type": "message_delta", "delta": {"stop_reason": KEY}});
    for v in [event, unread] {
        let script = vec![send(crate::kit::STREAM), piece(events(&[v]).as_bytes())];
        let server = Server::new([script.clone(), script]).await;
        for model in server.both() {
            let e = model.chat(&ChatRequest::new("q"), &cx()).await.unwrap_err();
            assert!(!format!("{e} {e:?}").contains(KEY), "{e:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_an_endpoint_is_refused_before_anything_is_sent() {
    let with = |url: &str, key: Option<&str>| {
        OpenAi::new(Endpoint::compatible(url, "m", key.map(Into::into)))
    };
    let bad = [
        ("localhost:8080/v1", None),
        ("ftp://x/v1", None),
        ("", None),
        ("https://user:pw@x/v1", None),
        ("http://10.0.0.7:8080/v1", Some(KEY)),
        ("http://localhost.example.com/v1", Some(KEY)),
        ("https://x/v1", Some("a\nb")),
    ];
    for (url, key) in bad {
        let e = with(url, key).unwrap_err();
        let LlmError::Failed(f) = &e else {
            panic!("{e}")
        };
        assert_eq!(
            (f.code.as_ref(), f.class),
            ("llm.endpoint", FailureClass::Input),
            "{url}"
        );
        assert!(!format!("{e} {e:?}").contains("pw@"), "{e}");
    }
    let good = [
        ("http://10.0.0.7:8080/v1", None),
        ("http://localhost:1/v1", Some(KEY)),
        ("http://127.0.0.1:1/v1", Some(KEY)),
        ("http://[::1]:1/v1", Some(" key\n")),
    ];
    for (url, key) in good {
        with(url, key).unwrap();
    }
    let mut e = Endpoint::compatible("http://10.0.0.7:8080/v1", "m", Some(KEY.into()));
    e.quirks.key_over_http = true;
    OpenAi::new(e).unwrap();
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Server::new([stream(&[])]).await;
    let to = format!("location: {}/messages\r\n", target.url);
    for e in both("307 Temporary Redirect", &to, "").await {
        assert!(
            matches!(&e, LlmError::Refused { reason, .. } if reason.contains("redirect")),
            "{e}"
        );
    }
    assert!(target.seen().is_empty());
}

#[tokio::test]
async fn https_is_spoken() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    let model = match OpenAi::new(Endpoint::compatible(&url, "m", Some(KEY.into()))) {
        Ok(m) => m,
        Err(e) => return println!("SKIPPED https_is_spoken: no root certificates here ({e})"),
    };
    let hello = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = [0; 3];
        tcp.read_exact(&mut head).await.unwrap();
        head
    });
    let e = model.chat(&ChatRequest::new("q"), &cx()).await.unwrap_err();
    assert!(matches!(e, LlmError::Unreachable { .. }), "{e}");
    // A TLS handshake record, and nothing of the request.
    assert_eq!(hello.await.unwrap(), [0x16, 3, 1]);
}
