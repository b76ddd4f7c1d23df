//! Metadata that a handler sends: what Python gives, as headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// What comes before the first message, and with the status.
#[derive(Default)]
pub struct Metadata {
    pub initial: HeaderMap,
    pub trailing: HeaderMap,
}

impl Metadata {
    /// Read pairs of a name and a value: text, or bytes where the name ends in `-bin`.
    pub fn headers(pairs: &Bound<'_, PyAny>) -> PyResult<HeaderMap> {
        let mut headers = HeaderMap::new();
        for pair in pairs.try_iter()? {
            let (name, value): (String, Bound<'_, PyAny>) = pair?.extract()?;
            let wrong = |why: &str| PyValueError::new_err(format!("metadata {name:?}: {why}"));
            let header = HeaderName::from_lowercase(name.as_bytes())
                .map_err(|_| wrong("a name has lower-case letters, digits and - _ ."))?;
            if name.starts_with("grpc-") || is_https(&name) {
                return Err(wrong("the name is gRPC's or HTTP's own"));
            }
            let value = if name.ends_with("-bin") {
                STANDARD_NO_PAD.encode(value.cast::<PyBytes>()?.as_bytes())
            } else {
                value.extract::<String>()?
            };
            let value = HeaderValue::from_str(&value).map_err(|_| wrong("a value is printable ASCII"))?;
            headers.append(header, value);
        }
        Ok(headers)
    }
}

/// Tell whether a header is about HTTP's own framing.
fn is_https(name: &str) -> bool {
    ["content-type", "content-length", "te", "connection", "transfer-encoding", "upgrade"].contains(&name)
}
