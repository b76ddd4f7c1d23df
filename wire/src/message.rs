//! One length-prefixed message out of a request's frames, held as the frames came: it is copied once, into the
//! `bytes` that Python gets.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use h2::RecvStream;
use tokio::time::timeout;

use crate::limits::{Limits, SMALL_CALL_BYTES};
use crate::request::Encoding;
use crate::status::{Code, Status};

pub const PREFIX_BYTES: usize = 5;
/// Smaller frames are put together: a peer that sends one byte a frame must not cost a buffer each.
const CHUNK_BYTES: usize = 8 * 1024;

/// Bytes of a call that count against the server's buffers until the call is over.
pub struct Held {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    pub fn new(total: Arc<AtomicUsize>) -> Self {
        Held { total, bytes: 0 }
    }

    fn grow(&mut self, bytes: usize, limits: &Limits) -> Result<(), Status> {
        self.bytes += bytes;
        let total = self.total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total > limits.max_buffered_bytes && self.bytes > SMALL_CALL_BYTES {
            return Err(Status::new(Code::ResourceExhausted, "the server's buffers are full"));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Message {
    pub encoding: Encoding,
    chunks: Vec<Bytes>,
    tail: BytesMut,
    length: usize,
}

/// Why there is no message: an answer for the client, or nobody left to answer.
pub enum NoMessage {
    Refused(Status),
    Gone,
}

impl From<Status> for NoMessage {
    fn from(status: Status) -> Self {
        NoMessage::Refused(status)
    }
}

impl Message {
    /// Read the only message of a unary call, to the end of the stream.
    pub async fn read(
        body: &mut RecvStream,
        encoding: Encoding,
        limits: &Limits,
        held: &mut Held,
    ) -> Result<Message, NoMessage> {
        let mut message =
            Message { encoding: Encoding::Identity, chunks: Vec::new(), tail: BytesMut::new(), length: 0 };
        let mut prefix: Option<usize> = None;
        while !body.is_end_stream() {
            let mut data = match timeout(limits.stall, body.data()).await {
                Err(_) => return Err(Status::new(Code::DeadlineExceeded, "the request stalled").into()),
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(NoMessage::Gone),
                Ok(Some(Ok(data))) => data,
            };
            let _ = body.flow_control().release_capacity(data.len());
            held.grow(data.len(), limits)?;
            if prefix.is_none() {
                // a prefix may come in pieces
                let missing = (PREFIX_BYTES - message.tail.len()).min(data.len());
                message.tail.extend_from_slice(&data.split_to(missing));
                if message.tail.len() < PREFIX_BYTES {
                    continue;
                }
                let length = message.start(encoding, limits)?;
                prefix = Some(length);
            }
            message.length += data.len();
            if Some(message.length) > prefix {
                return Err(Status::new(Code::Internal, "a unary call has one message").into());
            }
            message.push(data);
        }
        match prefix {
            Some(length) if length == message.length => Ok(message),
            None if message.tail.is_empty() => Err(Status::new(Code::Internal, "the request has no message").into()),
            _ => Err(Status::new(Code::Internal, "the request ends within its message").into()),
        }
    }

    /// Take the prefix out of the tail and return the length that follows.
    fn start(&mut self, encoding: Encoding, limits: &Limits) -> Result<usize, Status> {
        let compressed = self.tail.get_u8();
        let length = self.tail.get_u32() as usize;
        self.encoding = match (compressed, encoding) {
            (0, _) => Encoding::Identity,
            (1, Encoding::Identity) => {
                return Err(Status::new(Code::Internal, "the message is compressed, but no grpc-encoding says how"));
            }
            (1, encoding) => encoding,
            _ => return Err(Status::new(Code::Internal, "the message's compressed flag is neither 0 nor 1")),
        };
        if length > limits.max_message_bytes {
            return Err(too_large(length, limits.max_message_bytes));
        }
        Ok(length)
    }

    fn push(&mut self, data: Bytes) {
        if data.len() < CHUNK_BYTES && !(self.tail.is_empty() && self.chunks.is_empty()) {
            self.tail.extend_from_slice(&data);
            if self.tail.len() >= CHUNK_BYTES {
                self.flush();
            }
        } else if !data.is_empty() {
            self.flush();
            self.chunks.push(data);
        }
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    /// Write the message as it came into a buffer of its length.
    pub fn copy_to(&self, mut target: &mut [u8]) {
        for chunk in self.chunks.iter().map(Bytes::as_ref).chain([self.tail.as_ref()]) {
            let (now, rest) = target.split_at_mut(chunk.len());
            now.copy_from_slice(chunk);
            target = rest;
        }
    }

    pub fn decompressed(&self, limit_bytes: usize) -> Result<Vec<u8>, Status> {
        let mut packed = vec![0; self.length];
        self.copy_to(&mut packed);
        match self.encoding {
            Encoding::Identity => Ok(packed),
            Encoding::Gzip => unpacked(GzDecoder::new(packed.as_slice()), limit_bytes),
            Encoding::Deflate => unpacked(ZlibDecoder::new(packed.as_slice()), limit_bytes),
        }
    }
}

fn unpacked(decoder: impl Read, limit_bytes: usize) -> Result<Vec<u8>, Status> {
    let mut message = Vec::new();
    match decoder.take(limit_bytes as u64 + 1).read_to_end(&mut message) {
        Err(_) => Err(Status::new(Code::Internal, "the message cannot be decompressed")),
        Ok(_) if message.len() > limit_bytes => Err(too_large(message.len(), limit_bytes)),
        Ok(_) => Ok(message),
    }
}

fn too_large(length: usize, limit_bytes: usize) -> Status {
    Status::new(Code::ResourceExhausted, format!("the message has {length} bytes or more, the limit is {limit_bytes}"))
}
