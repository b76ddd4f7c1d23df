//! The head of a call: is it gRPC, which encoding, and until when.

use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::status::{Code, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Deflate,
    Gzip,
}

/// What cannot be answered as a gRPC call at all is answered as HTTP.
pub enum Refusal {
    Http(StatusCode),
    Grpc(Status),
}

pub struct Head {
    pub encoding: Encoding,
    pub deadline: Option<Instant>,
}

pub fn read_head(parts: &Parts, now: Instant) -> Result<Head, Refusal> {
    if !parts.headers.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(Refusal::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    if parts.method != Method::POST {
        return Err(Refusal::Http(StatusCode::METHOD_NOT_ALLOWED));
    }
    let encoding = encoding(&parts.headers).map_err(Refusal::Grpc)?;
    let deadline = match parts.headers.get("grpc-timeout") {
        None => None,
        Some(value) => match timeout(value.as_bytes()) {
            // a time too far away to be counted is none
            Some(timeout) => now.checked_add(timeout),
            None => return Err(Refusal::Grpc(Status::new(Code::Internal, "the grpc-timeout is malformed"))),
        },
    };
    Ok(Head { encoding, deadline })
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type
        .as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Encoding::Identity),
        Some(b"deflate") => Ok(Encoding::Deflate),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(other) => {
            let name = String::from_utf8_lossy(other);
            Err(Status::new(Code::Unimplemented, format!("the message encoding {name} is not supported")))
        }
    }
}

/// At most eight digits and a unit, as gRPC has it.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_eight_digits_and_a_unit() {
        assert_eq!(timeout(b"20S"), Some(Duration::from_secs(20)));
        assert_eq!(timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout(b"1n"), Some(Duration::from_nanos(1)));
        for wrong in [&b""[..], b"S", b"1", b"-1S", b"123456789S", b"1s", b"1.5S"] {
            assert_eq!(timeout(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_grpc_and_its_subtypes_are_grpc() {
        for (text, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }
}
