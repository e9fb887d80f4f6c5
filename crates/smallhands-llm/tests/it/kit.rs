//! A server that follows a script, one script for each connection.

pub(crate) use crate::cx::{cx, cx_with};
use serde_json::Value;
use smallhands_llm::{Anthropic, ChatModel, Endpoint, OpenAi};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

pub(crate) const KEY: &str = "sk-very-secret-0123456789";

#[derive(Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    Wait(Duration),
    /// Until the client closes.
    Hang,
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Value,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) requests: Arc<Mutex<Vec<Seen>>>,
    /// A message for each client that closed while the server hung.
    pub(crate) closed: mpsc::UnboundedReceiver<()>,
}

impl Server {
    pub(crate) async fn new(scripts: impl IntoIterator<Item = Vec<Act>> + Send) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (tell, closed) = mpsc::unbounded_channel();
        let (seen, scripts) = (requests.clone(), scripts.into_iter().collect::<Vec<_>>());
        tokio::spawn(async move {
            for script in scripts {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let request = read(&mut tcp).await;
                seen.lock().unwrap().push(request);
                tokio::spawn(play(tcp, script, tell.clone()));
            }
        });
        Self {
            url,
            requests,
            closed,
        }
    }
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.requests.lock().unwrap().clone()
    }
    pub(crate) fn body(&self, i: usize) -> Value {
        self.seen()[i].body.clone()
    }
    /// What both wires have in common: a key, this address, the price of a known model.
    pub(crate) fn endpoint(&self, of: Endpoint) -> Endpoint {
        let mut e = of;
        e.base_url.clone_from(&self.url);
        e
    }
    pub(crate) fn openai(&self) -> OpenAi {
        OpenAi::new(self.endpoint(Endpoint::openai("gpt-4o-mini", KEY))).unwrap()
    }
    pub(crate) fn compatible(&self) -> OpenAi {
        OpenAi::new(Endpoint::compatible(&self.url, "qwen", None)).unwrap()
    }
    pub(crate) fn anthropic(&self) -> Anthropic {
        Anthropic::new(self.endpoint(Endpoint::anthropic("claude-sonnet-4-5", KEY))).unwrap()
    }
    pub(crate) fn both(&self) -> [Box<dyn ChatModel>; 2] {
        [Box::new(self.openai()), Box::new(self.anthropic())]
    }
}

async fn read(tcp: &mut TcpStream) -> Seen {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = tcp.read(&mut piece).await.unwrap();
        bytes.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let (_, length) = head.split_once("content-length: ").unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if body.len() >= length {
                let body = serde_json::from_str(body).unwrap();
                return Seen { head, body };
            }
        }
        assert!(n > 0, "the request ended early");
    }
}

async fn play(mut tcp: TcpStream, script: Vec<Act>, closed: mpsc::UnboundedSender<()>) {
    for act in script {
        match act {
            Act::Send(bytes) => {
                // The client may be gone already.
                if tcp.write_all(&bytes).await.is_err() || tcp.flush().await.is_err() {
                    return;
                }
            }
            Act::Wait(d) => tokio::time::sleep(d).await,
            Act::Hang => {
                let mut rest = [0; 64];
                while tcp.read(&mut rest).await.is_ok_and(|n| n > 0) {}
                // A test that does not look has dropped its end.
                let _ = closed.send(());
            }
        }
    }
}

pub(crate) const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
     transfer-encoding: chunked\r\nconnection: close\r\n\r\n";

pub(crate) fn send(text: &str) -> Act {
    Act::Send(text.as_bytes().to_vec())
}
/// A piece of a body.
pub(crate) fn piece(bytes: &[u8]) -> Act {
    let mut all = format!("{:x}\r\n", bytes.len()).into_bytes();
    all.extend_from_slice(bytes);
    all.extend_from_slice(b"\r\n");
    Act::Send(all)
}
/// A stream that comes in these pieces and ends in order.
pub(crate) fn stream(pieces: &[&str]) -> Vec<Act> {
    let mut acts = vec![send(STREAM)];
    acts.extend(
        pieces
            .iter()
            .filter(|p| !p.is_empty())
            .map(|p| piece(p.as_bytes())),
    );
    acts.push(send("0\r\n\r\n"));
    acts
}
/// Events, each in its `data`.
pub(crate) fn events(values: &[Value]) -> String {
    values.iter().map(|v| format!("data: {v}\n\n")).collect()
}
pub(crate) fn reply(status: &str, headers: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}");
    vec![send(&format!("{head}\r\nconnection: close\r\n\r\n{body}"))]
}
