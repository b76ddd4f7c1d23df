//! Bytes that a peer might send, and what must hold whatever they are. For `cargo fuzz` and the tests alone.
//!
//! The connection is the real one, over a pipe in memory; Python is replaced by handlers that echo.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arbitrary::Arbitrary;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::answer::{Answer, Outcome, Reply};
use crate::call::Peer;
use crate::connection::{Handle, serve};
use crate::hub::{Hub, Kind, Route};
use crate::limits::Limits;
use crate::request::Encoding;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATHS: [&str; 4] = ["/unary", "/conversation", "/watch", "/nothing"];
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const PIPE_BYTES: usize = 16 * 1024;
const MOST_BYTES: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// One thing that a peer does.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    Raw(Vec<u8>),
    Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        payload: Vec<u8>,
    },
    /// The head of a call that could be one.
    Call {
        stream: u8,
        path: u8,
        timeout: Option<u8>,
        encoding: u8,
        end: bool,
        cut: Option<u8>,
    },
    /// A message, or a part of one, of a call.
    Message {
        stream: u8,
        compressed: u8,
        length: Option<u32>,
        body: Vec<u8>,
        end: bool,
        cut: Option<u8>,
    },
    /// Let the server do what it has to.
    Wait,
    /// Begin to stop the server.
    Drain,
}

impl Step {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Step::Raw(bytes) => bytes.clone(),
            Step::Frame { kind, flags, stream, payload } => frame(*kind, *flags, *stream, payload),
            Step::Call { stream, path, timeout, encoding, end, cut } => {
                let mut block = Vec::new();
                let path = PATHS[*path as usize % PATHS.len()];
                for (name, value) in [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "%2Fa")]
                {
                    literal(&mut block, name, value);
                }
                literal(&mut block, "content-type", "application/grpc");
                if let Some(timeout) = timeout {
                    literal(&mut block, "grpc-timeout", &format!("{timeout}m"));
                }
                match encoding % 4 {
                    1 => literal(&mut block, "grpc-encoding", "gzip"),
                    2 => literal(&mut block, "grpc-encoding", "deflate"),
                    3 => literal(&mut block, "grpc-accept-encoding", "gzip"),
                    _ => {}
                }
                shortened(frame(HEADERS, 4 | u8::from(*end), u32::from(*stream), &block), *cut)
            }
            Step::Message { stream, compressed, length, body, end, cut } => {
                let mut payload = vec![*compressed];
                payload.extend(length.unwrap_or(body.len() as u32).to_be_bytes());
                payload.extend(body);
                frame(DATA, u8::from(*end), u32::from(*stream), &shortened(payload, *cut))
            }
            Step::Wait | Step::Drain => Vec::new(),
        }
    }
}

fn shortened(mut bytes: Vec<u8>, cut: Option<u8>) -> Vec<u8> {
    if let Some(cut) = cut {
        bytes.truncate(bytes.len() * cut as usize / 255);
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(text.len() as u8);
        block.extend(text.as_bytes());
    }
}

fn hub() -> Arc<Hub> {
    let limits = Limits {
        max_message_bytes: 4096,
        max_calls: 8,
        max_open_streams: 2,
        max_buffered_bytes: 16 * 1024,
        max_connections: 4,
        max_streams: 4,
        max_header_list_bytes: 4096,
        stream_window_bytes: 8192,
        connection_window_bytes: 32 * 1024,
        max_frame_bytes: 16 * 1024,
        handshake: PATIENCE,
        stall: PATIENCE,
        idle: PATIENCE,
        max_resets: 3,
        resets_per_second: 1,
        compress_above_bytes: Some(100),
        refusals: Default::default(),
    };
    let kinds = [Kind::Unary, Kind::Conversation, Kind::Watch];
    let paths =
        PATHS.iter().zip(0..kinds.len()).map(|(path, route)| ((*path).to_owned(), route)).collect::<HashMap<_, _>>();
    let routes = kinds.into_iter().map(|kind| Route { kind, slow: kind == Kind::Watch }).collect();
    Arc::new(Hub::new(limits, paths, routes, None))
}

/// Take what waits and answer with the request, as a worker does.
fn echo(hub: &Hub) {
    for pool in [&hub.quick, &hub.slow] {
        while let Some(job) = pool.take(false) {
            let body = if job.message.encoding == Encoding::Identity {
                Ok(job.message.copied())
            } else {
                job.message.decompressed(&hub.limits)
            };
            let answer = match body {
                Ok(body) => {
                    assert!(body.len() <= hub.limits.max_message_bytes);
                    let reply = Reply::small(&body).expect("within what is copied");
                    let packs = body.len() > 100 && job.info.takes_gzip();
                    let outcome = Outcome::Message(if packs { reply.compressed() } else { reply });
                    Answer { outcome, metadata: None }
                }
                Err(status) => status.into(),
            };
            let _ = job.reply.send(answer);
        }
    }
}

/// What the server says to a peer that does these things and goes away.
async fn said(hub: &Arc<Hub>, steps: &[Step]) -> Vec<u8> {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (mut reader, mut writer) = tokio::io::split(ours);
    let handle = Arc::new(Handle::new(hub));
    let server = tokio::spawn(serve(theirs, Peer::default(), Arc::clone(hub), Arc::clone(&handle)));
    let (gone, mut going) = watch::channel(false);
    let worker = async {
        while !*going.borrow_and_update() {
            echo(hub);
            tokio::task::yield_now().await;
        }
    };
    let read = async {
        let mut said = Vec::new();
        let _ = reader.read_to_end(&mut said).await;
        said
    };
    let talk = async {
        for step in steps {
            if matches!(step, Step::Drain) {
                hub.draining.send_replace(true);
            }
            if matches!(step, Step::Wait) {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            if writer.write_all(&step.bytes()).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        server.await.expect("a connection does not panic");
        for _ in 0..20 {
            tokio::task::yield_now().await; // its calls learn that it is gone
        }
        gone.send_replace(true);
    };
    let ended = async { tokio::join!(talk, read, worker).1 };
    let said = tokio::time::timeout(PATIENCE, ended).await.expect("a connection whose peer is gone ends");
    assert_eq!(handle.active.load(Ordering::Relaxed), 0, "a call outlives its connection");
    said
}

fn good_call(body: &[u8]) -> Vec<Step> {
    vec![
        Step::Raw([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()),
        Step::Call { stream: 1, path: 0, timeout: None, encoding: 0, end: false, cut: None },
        Step::Message { stream: 1, compressed: 0, length: None, body: body.to_vec(), end: true, cut: None },
        Step::Wait,
        Step::Wait,
    ]
}

/// Serve a peer that does anything, then one that makes a call; the second is answered and nothing is left behind.
pub fn connection(greets: bool, steps: &[Step]) {
    if steps.iter().map(|step| step.bytes().len()).sum::<usize>() > MOST_BYTES {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let hub = hub();
        let mut all = Vec::new();
        if greets {
            all.push(Step::Raw([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()));
        }
        all.extend_from_slice(steps);
        said(&hub, &all).await;
        assert_eq!(hub.under_way(), (0, 0), "a call is still counted");
        assert_eq!(hub.buffered_bytes.load(Ordering::Relaxed), 0, "a request's bytes are still counted");
        let draining = *hub.draining.borrow();
        let body = b"a well-behaved client";
        let answer = said(&hub, &good_call(body)).await;
        let answered = answer.windows(body.len()).any(|window| window == body);
        assert!(answered || draining, "others are not served: {answer:?}");
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbitrary::Unstructured;

    #[test]
    fn a_call_is_answered() {
        connection(true, &good_call(b"first")[1..]);
    }

    #[test]
    fn whatever_a_peer_sends_others_are_served() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..1500 {
            let bytes: Vec<u8> = (0..600)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 32) as u8
                })
                .collect();
            let steps = Vec::<Step>::arbitrary(&mut Unstructured::new(&bytes)).expect("bytes enough");
            connection(bytes[0] % 4 != 0, &steps);
        }
    }
}
