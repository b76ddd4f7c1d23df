//! A call on its way to Python: what the handler is told, and how its answer comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::message::Message;
use crate::status::GRPC_ACCEPT_ENCODING;

/// Clients send `-bin` metadata with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// HTTP's own headers are no metadata.
const OWN_HEADERS: [&str; 5] = ["content-type", "te", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"];

/// Who is at the other end of a Unix socket, by the kernel's word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub pid: Option<i32>,
}

pub struct Info {
    pub method: String,
    pub headers: HeaderMap,
    pub deadline: Option<Instant>,
    pub peer: Peer,
    pub cancelled: AtomicBool,
}

impl Info {
    pub fn takes_gzip(&self) -> bool {
        let accepted = self.headers.get_all(GRPC_ACCEPT_ENCODING);
        accepted
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|one| one.trim_ascii() == b"gzip")
    }

    pub fn is_over(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

pub struct Job {
    pub info: Arc<Info>,
    pub route: usize,
    pub message: Message,
    pub reply: oneshot::Sender<Answer>,
}

/// What a handler is told about a call beside its bytes.
#[pyclass(frozen, module = "lightkeeper_wire._wire")]
pub struct Call {
    pub info: Arc<Info>,
}

#[pymethods]
impl Call {
    /// The method's full path, such as `/package.Service/Method`.
    #[getter]
    fn method(&self) -> &str {
        &self.info.method
    }

    /// The metadata in the order they came; those whose name ends in `-bin` are bytes.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let mut found: Vec<(&str, Bound<'py, PyAny>)> = Vec::new();
        for (name, value) in &self.info.headers {
            let name = name.as_str();
            if OWN_HEADERS.contains(&name) {
                continue;
            }
            if name.ends_with("-bin") {
                for part in value.as_bytes().split(|byte| *byte == b',') {
                    if let Ok(bytes) = BASE64.decode(part.trim_ascii()) {
                        found.push((name, PyBytes::new(py, &bytes).into_any()));
                    }
                }
            } else {
                let text = String::from_utf8_lossy(value.as_bytes());
                found.push((name, PyString::new(py, &text).into_any()));
            }
        }
        PyTuple::new(py, found)
    }

    /// The user id of the process at the other end of a Unix socket, as the kernel knows it.
    #[getter]
    fn peer_uid(&self) -> Option<u32> {
        self.info.peer.uid
    }

    /// The group id of the process at the other end of a Unix socket, as the kernel knows it.
    #[getter]
    fn peer_gid(&self) -> Option<u32> {
        self.info.peer.gid
    }

    /// The process id at the other end of a Unix socket, as the kernel knows it.
    #[getter]
    fn peer_pid(&self) -> Option<i32> {
        self.info.peer.pid
    }

    /// Seconds until the client gives up, 0 where it has, None where it waits for ever.
    fn time_remaining(&self) -> Option<f64> {
        let deadline = self.info.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }

    /// Whether somebody still waits for the answer.
    fn is_active(&self) -> bool {
        !self.info.is_over()
    }
}
