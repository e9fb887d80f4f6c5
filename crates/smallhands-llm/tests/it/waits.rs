use crate::kit::{Act, KEY, STREAM, Server, cx, cx_with, events, piece, send};
use futures_util::StreamExt;
use serde_json::json;
use smallhands_core::{CancelToken, Failure, FailureClass};
use smallhands_llm::{Anthropic, ChatModel, ChatRequest, Delta, Endpoint, LlmError, OpenAi};
use std::time::{Duration, Instant};

fn begun() -> Vec<Act> {
    // Both wires find something in it.
    let v = json!({"choices": [{"index": 0, "delta": {"content": "x"}}],
        "type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}});
    vec![send(STREAM), piece(events(&[v]).as_bytes())]
}
fn and(mut acts: Vec<Act>, more: Act) -> Vec<Act> {
    acts.push(more);
    acts
}

#[tokio::test]
async fn cancelling_drops_the_connection_at_once() {
    for script in [
        vec![Act::Hang],
        and(vec![send(STREAM)], Act::Hang),
        and(begun(), Act::Hang),
    ] {
        let mut server = Server::new([script.clone(), script]).await;
        for model in server.both() {
            let cancel = CancelToken::new();
            let (cx, started) = (cx_with(cancel.child()), Instant::now());
            let later = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                cancel.cancel();
            });
            let e = model.chat(&ChatRequest::new("q"), &cx).await.unwrap_err();
            assert!(matches!(e, LlmError::Cancelled), "{e}");
            later.await.unwrap();
            server.closed.recv().await.unwrap();
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }
}

#[tokio::test]
async fn a_cancelled_call_is_not_sent() {
    let server = Server::new([begun()]).await;
    let cancel = CancelToken::new();
    cancel.cancel();
    for model in server.both() {
        let e = model
            .chat(&ChatRequest::new("q"), &cx_with(cancel.clone()))
            .await
            .unwrap_err();
        assert!(matches!(e, LlmError::Cancelled), "{e}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_stream_can_be_cancelled_or_dropped_half_way() {
    let mut server = Server::new([and(begun(), Act::Hang), and(begun(), Act::Hang)]).await;
    let (model, r, cancel) = (server.openai(), ChatRequest::new("q"), CancelToken::new());
    let cx = cx_with(cancel.clone());
    let mut deltas = model.stream(&r, &cx).await.unwrap();
    assert!(matches!(deltas.next().await, Some(Ok(Delta::Text { .. }))));
    drop(deltas);
    server.closed.recv().await.unwrap();

    let mut deltas = model.stream(&r, &cx).await.unwrap();
    assert!(matches!(deltas.next().await, Some(Ok(Delta::Text { .. }))));
    cancel.cancel();
    assert!(matches!(
        deltas.next().await,
        Some(Err(LlmError::Cancelled))
    ));
    assert!(deltas.next().await.is_none());
    server.closed.recv().await.unwrap();
}

#[tokio::test]
async fn silence_and_length_have_limits() {
    let ms = Duration::from_millis;
    let silent = vec![Act::Hang];
    let stalled = and(begun(), Act::Hang);
    let mut endless = begun();
    for _ in 0..200 {
        endless.extend([Act::Wait(ms(10)), piece(b": still here\n\n")]);
    }
    type Change = fn(&mut Endpoint);
    let cases: [(Vec<Act>, Change, &str); 4] = [
        (
            silent.clone(),
            |e| e.first_byte_timeout = Duration::from_millis(80),
            "nothing for 0.08 s",
        ),
        (
            and(vec![send(STREAM)], Act::Hang),
            |e| e.first_byte_timeout = Duration::from_millis(80),
            "nothing",
        ),
        (
            stalled,
            |e| e.idle_timeout = Duration::from_millis(80),
            "nothing for 0.08 s",
        ),
        (
            endless,
            |e| e.total_timeout = Duration::from_millis(200),
            "in time",
        ),
    ];
    for (script, change, says) in cases {
        let server = Server::new([script.clone(), script]).await;
        let mut e = server.endpoint(Endpoint::openai("m", KEY));
        change(&mut e);
        let models: [Box<dyn ChatModel>; 2] = [
            Box::new(OpenAi::new(e.clone()).unwrap()),
            Box::new(Anthropic::new(e).unwrap()),
        ];
        for model in models {
            let e = model.chat(&ChatRequest::new("q"), &cx()).await.unwrap_err();
            assert!(matches!(e, LlmError::Timeout { .. }), "{e}");
            let f = Failure::from(e);
            assert!(f.message.contains(says) && f.retryable, "{f}");
            assert_eq!(
                (f.code.as_ref(), f.class),
                ("llm.timeout", FailureClass::Timeout)
            );
        }
    }
    let server = Server::new([silent]).await;
    let cx = cx();
    let soon = cx.ambient().clock.monotonic() + ms(80);
    let r = ChatRequest::new("q");
    let cx = cx.with_deadline(soon);
    let e = server.openai().chat(&r, &cx).await.unwrap_err();
    assert_eq!((e.code(), e.is_retryable()), ("llm.deadline", false), "{e}");
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let mut script = vec![Act::Wait(Duration::from_millis(120))];
    script.extend(begun());
    script.push(Act::Wait(Duration::from_millis(120)));
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    script.extend([piece(events(&[end]).as_bytes()), send("0\r\n\r\n")]);
    let server = Server::new([script]).await;
    let got = server
        .openai()
        .chat(&ChatRequest::new("q"), &cx())
        .await
        .unwrap();
    assert_eq!(got.text(), "x");
}
