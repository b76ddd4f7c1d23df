//! The answer to a call, from what a handler returned to frames.

use std::future::poll_fn;
use std::io::{self, Read};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzEncoder;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::time::timeout;

use crate::message::PREFIX_BYTES;
use crate::metadata::Metadata;
use crate::status::{GRPC_ENCODING, GRPC_STATUS, Status};

/// Up to here a part is copied behind what is before it, into one frame; above, Python's own memory is sent.
const COPIED_BYTES: usize = 8 * 1024;

pub struct Answer {
    pub outcome: Outcome,
    pub metadata: Option<Box<Metadata>>,
}

pub enum Outcome {
    Message(Reply),
    Status(Status),
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Answer { outcome: Outcome::Status(status), metadata: None }
    }
}

/// One message behind its prefix, in pieces that are sent in turn.
pub struct Reply {
    pieces: Vec<Bytes>,
    /// Compressed with gzip, by the message's own word.
    gzip: bool,
}

impl Reply {
    /// Put a small message together by copying it. None where it is better sent from where it lies.
    pub fn small(body: &[u8]) -> Option<Reply> {
        if body.len() > COPIED_BYTES {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PREFIX_BYTES + body.len());
        piece.put_u8(0);
        piece.put_u32(body.len() as u32);
        piece.put_slice(body);
        Some(Reply { pieces: vec![piece.freeze()], gzip: false })
    }

    /// Put a message together from its parts. None where its length does not fit the prefix.
    pub fn of(parts: impl ExactSizeIterator<Item = Bytes> + Clone) -> Option<Reply> {
        let length: usize = parts.clone().map(|part| part.len()).sum();
        let mut open = BytesMut::with_capacity(PREFIX_BYTES + length.min(COPIED_BYTES));
        open.put_u8(0);
        open.put_u32(u32::try_from(length).ok()?);
        let mut pieces = Vec::with_capacity(2 * parts.len());
        for part in parts {
            if part.len() <= COPIED_BYTES {
                open.extend_from_slice(&part);
            } else {
                pieces.extend([open.split().freeze(), part]);
            }
        }
        pieces.push(open.freeze());
        pieces.retain(|piece| !piece.is_empty());
        Some(Reply { pieces, gzip: false })
    }

    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() - PREFIX_BYTES
    }

    /// Compress the message where that makes it smaller.
    pub fn compressed(self) -> Reply {
        let mut packed = BytesMut::zeroed(PREFIX_BYTES).writer();
        let mut source = GzEncoder::new(Pieces(&self.pieces, PREFIX_BYTES), Compression::fast());
        if io::copy(&mut source, &mut packed).is_err() {
            return self;
        }
        let mut packed = packed.into_inner();
        let Ok(length) = u32::try_from(packed.len() - PREFIX_BYTES) else {
            return self;
        };
        if length as usize >= self.len() {
            return self;
        }
        packed[0] = 1;
        packed[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        Reply { pieces: vec![packed.freeze()], gzip: true }
    }
}

/// The bytes of pieces, one after the other, from some position of the first on.
struct Pieces<'a>(&'a [Bytes], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.0.first() {
            let left = &piece[self.1..];
            if left.is_empty() {
                (self.0, self.1) = (&self.0[1..], 0);
                continue;
            }
            let now = left.len().min(target.len());
            target[..now].copy_from_slice(&left[..now]);
            self.1 += now;
            return Ok(now);
        }
        Ok(0)
    }
}

/// The way back to the client: one answer after the other, and the status at the end.
pub struct Answering {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    trailing: HeaderMap,
    stall: Duration,
}

impl Answering {
    pub fn new(respond: SendResponse<Bytes>, stall: Duration) -> Self {
        Answering { respond, stream: None, trailing: HeaderMap::new(), stall }
    }

    /// Wait until the client has reset the stream.
    pub async fn reset(&mut self) {
        let _ = match &mut self.stream {
            Some(stream) => poll_fn(|context| stream.poll_reset(context)).await,
            None => poll_fn(|context| self.respond.poll_reset(context)).await,
        };
    }

    /// Send a message, and the head before the first one. An error means that the peer is gone.
    pub async fn message(&mut self, reply: Reply, metadata: Option<Box<Metadata>>) -> Result<(), h2::Error> {
        let metadata = metadata.map_or_else(Metadata::default, |metadata| *metadata);
        self.trailing = metadata.trailing;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let mut head = head(metadata.initial);
                if reply.gzip {
                    head.headers_mut().insert(GRPC_ENCODING, HeaderValue::from_static("gzip"));
                }
                none.insert(self.respond.send_response(head, false)?)
            }
        };
        for piece in reply.pieces {
            if piece.len() <= PREFIX_BYTES + COPIED_BYTES {
                stream.send_data(piece, false)?;
            } else {
                send_large(stream, piece, self.stall).await?;
            }
        }
        Ok(())
    }

    /// Say that all is well, after the last message.
    pub fn end(mut self) -> Result<(), h2::Error> {
        let mut trailers = std::mem::take(&mut self.trailing);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        self.last(trailers)
    }

    /// End with a status.
    pub fn fail(self, status: &Status, metadata: Option<Box<Metadata>>) -> Result<(), h2::Error> {
        let mut trailers = metadata.map_or_else(HeaderMap::new, |metadata| metadata.trailing);
        status.write(&mut trailers);
        self.last(trailers)
    }

    /// Send the last headers: those that come first too, where no message was sent.
    fn last(mut self, trailers: HeaderMap) -> Result<(), h2::Error> {
        match &mut self.stream {
            Some(stream) => stream.send_trailers(trailers),
            None => self.respond.send_response(head(trailers), true).map(|_| ()),
        }
    }
}

fn head(mut headers: HeaderMap) -> Response<()> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut response = Response::new(());
    *response.headers_mut() = headers;
    response
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

/// Refuse a call as gRPC does, before it begins.
pub fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = head(HeaderMap::new());
    status.write(response.headers_mut());
    let _ = respond.send_response(response, true);
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
