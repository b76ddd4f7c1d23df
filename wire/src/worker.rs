//! A Python thread's work: take a call, run its handler, hand back the answer.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::answer::Answer;
use crate::call::{Call, Job};
use crate::pool::Pool;
use crate::request::Encoding;
use crate::status::{Code, Status};

pub struct Handlers {
    handlers: Vec<Py<PyAny>>,
    status: Py<PyAny>,
}

impl Handlers {
    pub fn new(py: Python<'_>, handlers: Vec<Py<PyAny>>) -> PyResult<Self> {
        let status = py.import("lightkeeper_wire.status")?.getattr("Status")?.unbind();
        Ok(Handlers { handlers, status })
    }
}

pub fn work(py: Python<'_>, pool: &Pool, handlers: &Handlers, limit_bytes: usize) {
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
        let answer = request(py, &message, limit_bytes).and_then(|body| {
            drop(message);
            let call = Bound::new(py, Call { info: Arc::clone(&info) }).map_err(|error| fault(py, error))?;
            run(&handlers.handlers[route], &body, &call, handlers)
        });
        let _ = reply.send(answer.unwrap_or_else(Answer::Status));
    }
}

fn request<'py>(
    py: Python<'py>,
    message: &crate::message::Message,
    limit_bytes: usize,
) -> Result<Bound<'py, PyBytes>, Status> {
    if message.encoding != Encoding::Identity {
        let unpacked = py.detach(|| message.decompressed(limit_bytes))?;
        return Ok(PyBytes::new(py, &unpacked));
    }
    PyBytes::new_with(py, message.len(), |target| {
        message.copy_to(target);
        Ok(())
    })
    .map_err(|error| fault(py, error))
}

fn run(
    handler: &Py<PyAny>,
    body: &Bound<'_, PyBytes>,
    call: &Bound<'_, Call>,
    handlers: &Handlers,
) -> Result<Answer, Status> {
    let py = body.py();
    match handler.bind(py).call1((body, call)) {
        Ok(response) => match response.cast::<PyBytes>() {
            Ok(bytes) => Ok(Answer::message(bytes)),
            Err(_) => {
                let said = format!("a handler must return bytes, not {}", response.get_type());
                Err(fault(py, PyTypeError::new_err(said)))
            }
        },
        Err(error) => Err(raised(py, error, handlers)),
    }
}

/// The status that a handler raised; anything else is a fault of the handler.
fn raised(py: Python<'_>, error: PyErr, handlers: &Handlers) -> Status {
    let value = error.value(py);
    if !value.is_instance(handlers.status.bind(py)).unwrap_or(false) {
        return fault(py, error);
    }
    let read = || -> PyResult<Status> {
        Ok(Status {
            code: value.getattr("code")?.extract()?,
            message: value.getattr("message")?.extract()?,
            details: value.getattr("details")?.extract()?,
        })
    };
    read().unwrap_or_else(|error| fault(py, error))
}

/// Report what nobody foresaw where Python reports such (`sys.unraisablehook`), and tell the client nothing of it.
fn fault(py: Python<'_>, error: PyErr) -> Status {
    error.write_unraisable(py, None);
    Status::new(Code::Unknown, "the handler failed")
}
