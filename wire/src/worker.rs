//! A Python thread's work: take a call, run its handler, hand back the answer.

use std::mem::MaybeUninit;
use std::sync::Arc;

use bytes::Bytes;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::answer::{Answer, Outcome, Reply};
use crate::call::{Call, Info, Job};
use crate::limits::Limits;
use crate::metadata::Metadata;
use crate::pool::Pool;
use crate::request::Encoding;
use crate::status::{Code, Status};

/// While a message of this size or more is copied, other threads may have the interpreter.
const LET_GO_BYTES: usize = 64 * 1024;

pub struct Handlers {
    handlers: Vec<Py<PyAny>>,
    status: Py<PyAny>,
    response: Py<PyAny>,
}

impl Handlers {
    pub fn new(py: Python<'_>, handlers: Vec<Py<PyAny>>) -> PyResult<Self> {
        let module = py.import("lightkeeper_wire.answer")?;
        let status = module.getattr("Status")?.unbind();
        let response = module.getattr("Response")?.unbind();
        Ok(Handlers { handlers, status, response })
    }
}

pub fn work(py: Python<'_>, pool: &Pool, handlers: &Handlers, limits: &Limits) {
    let mut came = false;
    loop {
        // while calls wait, the interpreter is not given back between them
        let Some(job) = pool.take(came) else {
            came = py.detach(|| pool.sleep());
            if came {
                continue;
            }
            return;
        };
        came = false;
        if job.info.is_over() {
            continue;
        }
        let Job { info, route, message, reply } = job;
        let answer = request(py, &message, limits).and_then(|body| {
            drop(message);
            let call = Bound::new(py, Call { info: Arc::clone(&info) }).map_err(|error| fault(py, error))?;
            handlers.run(route, &body, &call)
        });
        let answer = match answer {
            Ok(answer) => packed(py, answer, &info, limits),
            Err(status) => Answer::from(status),
        };
        let _ = reply.send(answer);
    }
}

fn request<'py>(
    py: Python<'py>,
    message: &crate::message::Message,
    limits: &Limits,
) -> Result<Bound<'py, PyBytes>, Status> {
    if message.encoding != Encoding::Identity {
        let unpacked = py.detach(|| message.decompressed(limits))?;
        return Ok(PyBytes::new(py, &unpacked));
    }
    let bytes = empty_bytes(py, message.len()).map_err(|error| fault(py, error))?;
    let start = bytes.as_bytes().as_ptr().cast_mut();
    // SAFETY: the memory is that of new bytes, which nobody else knows yet, and has the message's length.
    let target: &mut [MaybeUninit<u8>] = unsafe { std::slice::from_raw_parts_mut(start.cast(), message.len()) };
    if message.len() < LET_GO_BYTES {
        message.copy_to(target);
    } else {
        py.detach(|| message.copy_to(target));
    }
    Ok(bytes)
}

/// Make bytes of a length, whose content is whatever lies there.
fn empty_bytes(py: Python<'_>, length: usize) -> PyResult<Bound<'_, PyBytes>> {
    let length = length.try_into().map_err(|_| PyValueError::new_err("a message of that length"))?;
    // SAFETY: Python allows it without content, to be filled before anybody else sees it.
    unsafe {
        let made = pyo3::ffi::PyBytes_FromStringAndSize(std::ptr::null(), length);
        Ok(Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked())
    }
}

/// Compress an answer that is worth it, for a client that takes it.
fn packed(py: Python<'_>, answer: Answer, info: &Info, limits: &Limits) -> Answer {
    match (answer, limits.compress_above_bytes) {
        (Answer { outcome: Outcome::Message(reply), metadata }, Some(above))
            if reply.len() > above && info.takes_gzip() =>
        {
            Answer { outcome: Outcome::Message(py.detach(|| reply.compressed())), metadata }
        }
        (answer, _) => answer,
    }
}

impl Handlers {
    fn run(&self, route: usize, body: &Bound<'_, PyBytes>, call: &Bound<'_, Call>) -> Result<Answer, Status> {
        let py = body.py();
        match self.handlers[route].bind(py).call1((body, call)) {
            Ok(returned) => self.answer(&returned).map_err(|error| fault(py, error)),
            Err(error) => self.raised(py, error),
        }
    }

    fn answer(&self, returned: &Bound<'_, PyAny>) -> PyResult<Answer> {
        if let Ok(bytes) = returned.cast::<PyBytes>() {
            let outcome = match Reply::small(bytes.as_bytes()) {
                Some(reply) => Outcome::Message(reply),
                None => message([owned_bytes(bytes)].into_iter())?,
            };
            return Ok(Answer { outcome, metadata: None });
        }
        let py = returned.py();
        if !returned.is_instance(self.response.bind(py))? {
            let said = format!("a handler must return bytes or a Response, not {}", returned.get_type());
            return Err(PyTypeError::new_err(said));
        }
        let parts: Vec<Bound<'_, PyAny>> = returned.getattr("parts")?.extract()?;
        let parts = parts.iter().map(owned).collect::<PyResult<Vec<Bytes>>>()?;
        let initial = Metadata::headers(&returned.getattr("initial_metadata")?)?;
        let trailing = Metadata::headers(&returned.getattr("trailing_metadata")?)?;
        let metadata = (!initial.is_empty() || !trailing.is_empty()).then(|| Box::new(Metadata { initial, trailing }));
        Ok(Answer { outcome: message(parts.into_iter())?, metadata })
    }

    /// The status that a handler raised; anything else is a fault of the handler.
    fn raised(&self, py: Python<'_>, error: PyErr) -> Result<Answer, Status> {
        let value = error.value(py);
        if !value.is_instance(self.status.bind(py)).unwrap_or(false) {
            return Err(fault(py, error));
        }
        let read = || -> PyResult<Answer> {
            let trailing = Metadata::headers(&value.getattr("trailing_metadata")?)?;
            let metadata = (!trailing.is_empty()).then(|| Box::new(Metadata { trailing, ..Metadata::default() }));
            Ok(Answer { outcome: Outcome::Status(status_of(value.as_any())?), metadata })
        };
        read().map_err(|error| fault(py, error))
    }
}

/// Read the fields of Python's `Status`.
pub fn status_of(value: &Bound<'_, PyAny>) -> PyResult<Status> {
    Ok(Status {
        code: value.getattr("code")?.extract()?,
        message: value.getattr("message")?.extract()?,
        details: value.getattr("details")?.extract()?,
    })
}

fn message(parts: impl ExactSizeIterator<Item = Bytes> + Clone) -> PyResult<Outcome> {
    match Reply::of(parts) {
        Some(reply) => Ok(Outcome::Message(reply)),
        None => Err(PyValueError::new_err("a response must have less than 4 GiB")),
    }
}

/// Python's memory, read without the interpreter.
struct Owned {
    start: *const u8,
    length: usize,
    _keeper: Py<PyAny>,
}

// SAFETY: the memory lives as long as `_keeper`, and who gives it away does not write to it any more.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `_keeper` keeps `length` bytes alive at `start`.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

fn owned_bytes(bytes: &Bound<'_, PyBytes>) -> Bytes {
    let memory = bytes.as_bytes();
    Bytes::from_owner(Owned {
        start: memory.as_ptr(),
        length: memory.len(),
        _keeper: bytes.clone().into_any().unbind(),
    })
}

/// Take an object's memory in place. A view that nobody else knows keeps it: that one is never released early.
fn owned(part: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = part.cast::<PyBytes>() {
        return Ok(owned_bytes(bytes));
    }
    let view = PyMemoryView::from(part)?;
    let buffer = PyUntypedBuffer::get(view.as_any())?;
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("a part of a response must be contiguous"));
    }
    let (start, length) = (buffer.buf_ptr().cast::<u8>().cast_const(), buffer.len_bytes());
    if length == 0 {
        return Ok(Bytes::new());
    }
    Ok(Bytes::from_owner(Owned { start, length, _keeper: view.into_any().unbind() }))
}

/// Report what nobody foresaw where Python reports such (`sys.unraisablehook`), and tell the client nothing of it.
fn fault(py: Python<'_>, error: PyErr) -> Status {
    error.write_unraisable(py, None);
    Status::new(Code::Unknown, "the handler failed")
}
