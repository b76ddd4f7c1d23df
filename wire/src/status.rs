//! gRPC statuses, and how they are written into headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    Unknown = 2,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// How a call ends that has no response message.
#[derive(Clone, Debug)]
pub struct Status {
    pub code: i32,
    pub message: String,
    pub details: Vec<u8>,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status { code: code as i32, message: message.into(), details: Vec::new() }
    }

    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code));
        if !self.message.is_empty() {
            headers.insert(GRPC_MESSAGE, ascii(percent_encoded(&self.message)));
        }
        if !self.details.is_empty() {
            headers.insert(GRPC_DETAILS, ascii(STANDARD_NO_PAD.encode(&self.details)));
        }
        if self.code == Code::Unimplemented as i32 {
            headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,deflate,gzip"));
        }
    }
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("printable ASCII")
}

/// Percent-encode what gRPC does: everything but the printable ASCII characters, and the percent sign itself.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_ascii_stays_and_the_rest_is_encoded() {
        assert_eq!(percent_encoded("plain ~text"), "plain ~text");
        assert_eq!(percent_encoded("50% ü\n"), "50%25 %C3%BC%0A");
    }

    #[test]
    fn a_status_without_message_and_details_is_one_header() {
        let mut headers = HeaderMap::new();
        Status::new(Code::Internal, "").write(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[GRPC_STATUS], "13");
    }
}
