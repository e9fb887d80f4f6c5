//! Wherever the network cuts a stream, the answer is the same; wherever it ends, it is an error.

use crate::{
    anthropic,
    kit::{Act, STREAM, Server, cx, events, piece, send, stream},
};
use serde_json::json;
use smallhands_llm::{ChatRequest, ChatResponse, LlmError};

const TEXT: &str = "äé→🦀 \"x\"\n";

fn streams() -> [String; 2] {
    let openai = events(&[
        json!({"choices": [{"delta": {"content": &TEXT[..4]}}]}),
        json!({"choices": [{"delta": {"content": &TEXT[4..]}}]}),
        json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}),
    ]) + "data:[DONE]\r\n\r\n";
    let anthropic = anthropic::answer(&[&TEXT[..4], &TEXT[4..]], "end_turn");
    [openai, anthropic.replace('\n', "\r\n")]
}

/// What both wires answer to streams made from theirs by cutting at each place.
async fn answers(
    script: impl Fn(&[u8], usize) -> Vec<Act>,
) -> [Vec<Result<ChatResponse, LlmError>>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for (wire, text) in streams().iter().enumerate() {
        let scripts: Vec<_> = (1..text.len())
            .map(|at| script(text.as_bytes(), at))
            .collect();
        let count = scripts.len();
        let server = Server::new(scripts).await;
        let (model, cx) = (&server.both()[wire], cx());
        for _ in 0..count {
            all[wire].push(model.chat(&ChatRequest::new("q"), &cx).await);
        }
    }
    all
}

#[tokio::test]
async fn the_network_may_cut_a_stream_anywhere() {
    let cut = |bytes: &[u8], at: usize| {
        let (a, b) = bytes.split_at(at);
        vec![send(STREAM), piece(a), piece(b), send("0\r\n\r\n")]
    };
    for (wire, all) in answers(cut).await.into_iter().enumerate() {
        for r in all {
            let r = r.unwrap();
            assert_eq!(r.text(), TEXT);
            assert_eq!(r.usage.input_tokens, [9, 3_210][wire]);
        }
    }
}

#[tokio::test]
async fn a_stream_that_ends_anywhere_is_never_a_short_success() {
    let close = |bytes: &[u8], at: usize| vec![send(STREAM), piece(&bytes[..at])];
    let end = |bytes: &[u8], at: usize| vec![send(STREAM), piece(&bytes[..at]), send("0\r\n\r\n")];
    for orderly in [false, true] {
        let all = if orderly {
            answers(end).await
        } else {
            answers(close).await
        };
        for (wire, all) in all.into_iter().enumerate() {
            let complete = all.iter().filter(|r| r.is_ok()).count();
            for r in all {
                match r {
                    Ok(r) => assert_eq!(r.text(), TEXT),
                    Err(e) => assert!(matches!(e, LlmError::Truncated { .. }), "{e}"),
                }
            }
            // OpenAI's wire says why an answer ended before it says that it is done.
            let most = if wire == 0 && orderly { 110 } else { 5 };
            assert!(complete <= most, "{wire} {orderly} {complete}");
        }
    }
}

#[tokio::test]
async fn what_is_no_event_is_an_error_and_not_an_end() {
    let script = stream(&["data: {\"choices\": [}\n\n"]);
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<ok>";
    let server = Server::new([script.clone(), script, vec![send(page)], vec![send(page)]]).await;
    let models = server.both();
    for model in models.iter().chain(&models) {
        let e = model.chat(&ChatRequest::new("q"), &cx()).await.unwrap_err();
        assert!(matches!(e, LlmError::Malformed { .. }), "{e}");
    }
}
