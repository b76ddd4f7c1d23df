//! Length-prefixed messages out of a request's frames, held as the frames came: each is copied once, into the `bytes`
//! that Python gets.

use std::io::Read;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use h2::RecvStream;
use tokio::time::timeout;

use crate::limits::{Limits, SMALL_CALL_BYTES};
use crate::request::Encoding;
use crate::status::{Code, Status};

pub const PREFIX_BYTES: usize = 5;
/// Smaller frames are put together: a peer that sends one byte a frame must not keep a read buffer for each.
const CHUNK_BYTES: usize = 8 * 1024;

/// Bytes of a message that count against the server's buffers until it is answered.
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
            return Err(limits.refusals.buffers_full.clone());
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
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

/// The messages of one request stream, in the order they come.
pub struct Requests {
    body: RecvStream,
    encoding: Encoding,
    /// What has come of the next message, behind the end of the last one.
    ahead: Bytes,
}

impl Requests {
    pub fn new(body: RecvStream, encoding: Encoding) -> Self {
        Requests { body, encoding, ahead: Bytes::new() }
    }

    /// Read the only message of a unary call, to the end of the stream.
    pub async fn only(&mut self, limits: &Limits, held: &mut Held) -> Result<Message, NoMessage> {
        let Some(message) = self.next(limits, held, limits.stall).await? else {
            return Err(Status::new(Code::Internal, "the request has no message").into());
        };
        while self.ahead.is_empty() {
            match self.frame(limits.stall).await? {
                None => return Ok(message),
                Some(data) => self.ahead = data,
            }
        }
        Err(Status::new(Code::Internal, "a unary call has one message").into())
    }

    /// Read the next message, or none at the end of the stream. `patience` is how long to wait for its first byte.
    pub async fn next(
        &mut self,
        limits: &Limits,
        held: &mut Held,
        patience: Duration,
    ) -> Result<Option<Message>, NoMessage> {
        let mut message =
            Message { encoding: Encoding::Identity, chunks: Vec::new(), tail: BytesMut::new(), length: 0 };
        let mut begun = false;
        let mut expected: Option<usize> = None;
        loop {
            if self.ahead.is_empty() {
                match self.frame(if begun { limits.stall } else { patience }).await? {
                    Some(data) => self.ahead = data,
                    None if begun => {
                        return Err(Status::new(Code::Internal, "the request ends within its message").into());
                    }
                    None => return Ok(None),
                }
            }
            begun |= !self.ahead.is_empty();
            held.grow(self.ahead.len(), limits)?;
            if expected.is_none() {
                // a prefix may come in pieces
                let missing = (PREFIX_BYTES - message.tail.len()).min(self.ahead.len());
                message.tail.extend_from_slice(&self.ahead.split_to(missing));
                if message.tail.len() < PREFIX_BYTES {
                    continue;
                }
                expected = Some(message.start(self.encoding, limits)?);
            }
            let missing = expected.unwrap_or_default() - message.length;
            let data = self.ahead.split_to(missing.min(self.ahead.len()));
            message.length += data.len();
            message.push(data);
            if expected == Some(message.length) {
                return Ok(Some(message));
            }
        }
    }

    /// The next frame's data, or none at the end of the stream.
    async fn frame(&mut self, patience: Duration) -> Result<Option<Bytes>, NoMessage> {
        if self.body.is_end_stream() {
            return Ok(None);
        }
        match timeout(patience, self.body.data()).await {
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "the request stalled").into()),
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) => Err(NoMessage::Gone),
            Ok(Some(Ok(data))) => {
                let _ = self.body.flow_control().release_capacity(data.len());
                Ok(Some(data))
            }
        }
    }
}

impl Message {
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
            return Err(limits.refusals.message_too_large.clone());
        }
        Ok(length)
    }

    fn push(&mut self, data: Bytes) {
        if data.len() < CHUNK_BYTES {
            self.tail.extend_from_slice(&data);
            if self.tail.len() >= CHUNK_BYTES {
                self.flush();
            }
        } else {
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
    pub fn copy_to(&self, mut target: &mut [MaybeUninit<u8>]) {
        for chunk in self.chunks.iter().map(Bytes::as_ref).chain([self.tail.as_ref()]) {
            let (now, rest) = target.split_at_mut(chunk.len());
            now.write_copy_of_slice(chunk);
            target = rest;
        }
    }

    /// Return the message as it came.
    pub fn copied(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(self.length);
        for chunk in self.chunks.iter().map(Bytes::as_ref).chain([self.tail.as_ref()]) {
            copy.extend_from_slice(chunk);
        }
        copy
    }

    pub fn decompressed(&self, limits: &Limits) -> Result<Vec<u8>, Status> {
        let packed = self.copied();
        match self.encoding {
            Encoding::Identity => Ok(packed),
            Encoding::Gzip => unpacked(GzDecoder::new(packed.as_slice()), limits),
            Encoding::Deflate => unpacked(ZlibDecoder::new(packed.as_slice()), limits),
        }
    }
}

fn unpacked(decoder: impl Read, limits: &Limits) -> Result<Vec<u8>, Status> {
    let mut message = Vec::new();
    match decoder.take(limits.max_message_bytes as u64 + 1).read_to_end(&mut message) {
        Err(_) => Err(Status::new(Code::Internal, "the message cannot be decompressed")),
        Ok(_) if message.len() > limits.max_message_bytes => Err(limits.refusals.message_too_large.clone()),
        Ok(_) => Ok(message),
    }
}
