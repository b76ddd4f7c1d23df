//! A gRPC server that calls Python handlers with bytes. It knows no message, no service and no model.
//!
//! One I/O thread (`listener`, `connection`, `stream`) reads and writes HTTP/2; Python's own threads (`worker`) take calls from
//! a queue (`pool`) and hold the interpreter only while a handler runs.

mod answer;
mod call;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hub;
mod limits;
mod listener;
mod message;
mod metadata;
mod pool;
mod request;
mod server;
mod status;
mod stream;
mod worker;

#[pyo3::pymodule]
mod _wire {
    #[pymodule_export]
    use crate::call::Call;
    #[pymodule_export]
    use crate::server::Server;
}
