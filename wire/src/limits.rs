//! What a peer may ask of the server: every limit, with its unit.

use std::time::Duration;

use crate::status::{Code, Status};

#[derive(Clone, Debug)]
pub struct Limits {
    /// One request message, after decompression too.
    pub max_message_bytes: usize,
    /// Calls under way or waiting, over all connections.
    pub max_calls: usize,
    /// Those of them whose stream may stay open: conversations and watches.
    pub max_open_streams: usize,
    /// Request bytes held for calls that are under way or waiting. Past it, calls larger than
    /// `SMALL_CALL_BYTES` are refused; small ones are bounded by `max_calls`.
    pub max_buffered_bytes: usize,
    pub max_connections: usize,
    /// Streams that one connection may have open.
    pub max_streams: u32,
    pub max_header_list_bytes: u32,
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    pub max_frame_bytes: u32,
    /// From the connection to the end of the client's preface.
    pub handshake: Duration,
    /// How long a peer may send no byte of an unfinished request, or take none of an answer.
    pub stall: Duration,
    /// How long a connection may have no call before it is closed gracefully.
    pub idle: Duration,
    /// Streams of one connection that the client may reset: at once, and refilled each second.
    pub max_resets: u32,
    pub resets_per_second: u32,
    /// Answers larger than this are compressed for clients that take it; none where it is off.
    pub compress_above_bytes: Option<usize>,
    pub refusals: Refusals,
}

/// How a call past a limit is answered, in the words of whoever runs the server.
#[derive(Clone, Debug)]
pub struct Refusals {
    pub message_too_large: Status,
    pub too_many_calls: Status,
    pub buffers_full: Status,
    pub stopping: Status,
}

impl Default for Refusals {
    fn default() -> Self {
        Refusals {
            message_too_large: Status::new(Code::ResourceExhausted, "the message is larger than the server takes"),
            too_many_calls: Status::new(Code::ResourceExhausted, "too many calls are under way"),
            buffers_full: Status::new(Code::ResourceExhausted, "the server's buffers are full"),
            stopping: Status::new(Code::Unavailable, "the server is stopping"),
        }
    }
}

/// A call of up to so many bytes is served even when the buffers are full.
pub const SMALL_CALL_BYTES: usize = 64 * 1024;
