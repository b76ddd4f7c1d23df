//! The answer to a call, from what a handler returned to frames.

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::future::poll_fn;
use std::time::Duration;
use tokio::time::timeout;

use crate::message::PREFIX_BYTES;
use crate::status::{GRPC_STATUS, Status};

/// Up to here a message is copied behind its prefix, into one frame; above, Python's own bytes are sent.
const COPIED_BYTES: usize = 8 * 1024;

pub enum Answer {
    Message { prefix: Bytes, body: Bytes },
    Status(Status),
}

impl Answer {
    pub fn message(bytes: &Bound<'_, PyBytes>) -> Answer {
        let body = bytes.as_bytes();
        let Ok(length) = u32::try_from(body.len()) else {
            return Answer::Status(Status::new(crate::status::Code::Internal, "the response passes 4 GiB"));
        };
        let copied = if body.len() <= COPIED_BYTES { body.len() } else { 0 };
        let mut prefix = BytesMut::with_capacity(PREFIX_BYTES + copied);
        prefix.put_u8(0);
        prefix.put_u32(length);
        prefix.put_slice(&body[..copied]);
        let body = if copied == body.len() {
            Bytes::new()
        } else {
            Bytes::from_owner(Owned { start: body.as_ptr(), length: body.len(), _bytes: bytes.clone().unbind() })
        };
        Answer::Message { prefix: prefix.freeze(), body }
    }
}

/// Python's bytes, read without the interpreter: they never move and never change while they are owned.
struct Owned {
    start: *const u8,
    length: usize,
    _bytes: Py<PyBytes>,
}

// SAFETY: the memory is immutable and lives as long as `_bytes`.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of `_bytes`, which is alive.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// Send an answer. An error means that the peer is gone.
pub async fn send(respond: &mut SendResponse<Bytes>, answer: Answer, stall: Duration) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    match answer {
        Answer::Status(status) => {
            status.write(response.headers_mut());
            respond.send_response(response, true)?;
        }
        Answer::Message { prefix, body } => {
            let mut stream = respond.send_response(response, false)?;
            stream.send_data(prefix, false)?;
            if !body.is_empty() {
                send_large(&mut stream, body, stall).await?;
            }
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
            stream.send_trailers(trailers)?;
        }
    }
    Ok(())
}

/// Hand over as much as the peer takes; one that takes nothing for too long is given up.
async fn send_large(stream: &mut SendStream<Bytes>, mut body: Bytes, stall: Duration) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let capacity = match timeout(stall, poll_fn(|context| stream.poll_capacity(context))).await {
            Ok(Some(capacity)) => capacity?,
            Ok(None) => return Err(h2::Reason::CANCEL.into()),
            Err(_) => {
                stream.send_reset(h2::Reason::CANCEL);
                return Err(h2::Reason::CANCEL.into());
            }
        };
        stream.send_data(body.split_to(capacity.min(body.len())), false)?;
    }
    Ok(())
}

/// Answer what is no gRPC call at all.
pub fn send_http(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    let _ = respond.send_response(response, true);
}
