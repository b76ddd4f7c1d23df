//! `Server`: Python's handle on the I/O thread and the workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};
use tokio::sync::Notify;

use crate::hub::{Hub, Kind, Route};
use crate::limits::{Limits, Refusals};
use crate::listener::{Bound, run};
use crate::worker::{Handlers, status_of, work};

/// How long threads whose calls are over get to end.
const JOIN_SECONDS: f64 = 1.0;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A gRPC server on one address. `methods` are handlers by full path; those in `slow` have threads of their own, those
/// in `conversations` and `watches` streams that stay open.
#[pyclass(frozen, module = "lightkeeper_wire._wire")]
pub struct Server {
    hub: Arc<Hub>,
    handlers: Arc<Handlers>,
    workers: usize,
    slow_workers: usize,
    running: Mutex<Option<Running>>,
}

struct Running {
    io: Option<JoinHandle<()>>,
    cut: Arc<Notify>,
    threads: Vec<Py<PyAny>>,
}

fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| PyValueError::new_err("a time must be 0 seconds or more"))
}

/// Read how calls past a limit are answered, by the limit's name.
fn read_refusals(py: Python<'_>, given: HashMap<String, Py<PyAny>>) -> PyResult<Refusals> {
    let mut refusals = Refusals::default();
    for (name, status) in given {
        let place = match name.as_str() {
            "message_too_large" => &mut refusals.message_too_large,
            "too_many_calls" => &mut refusals.too_many_calls,
            "buffers_full" => &mut refusals.buffers_full,
            "stopping" => &mut refusals.stopping,
            _ => return Err(PyValueError::new_err(format!("there is no refusal named {name}"))),
        };
        *place = status_of(status.bind(py))?;
    }
    Ok(refusals)
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (
        methods, *, slow=Vec::new(), conversations=Vec::new(), watches=Vec::new(), fallback=None,
        workers, slow_workers=4, compress_above_bytes=None, refusals=None,
        max_message_bytes=4 * MIB, max_calls=1024, max_open_streams=32, max_buffered_bytes=256 * MIB, max_connections=256,
        max_streams=256, max_header_list_bytes=16 * KIB as u32,
        stream_window_bytes=MIB as u32, connection_window_bytes=4 * MIB as u32, max_frame_bytes=256 * KIB as u32,
        handshake_seconds=5.0, stall_seconds=20.0, idle_seconds=3600.0, max_resets=200, resets_per_second=100,
    ))]
    #[allow(clippy::too_many_arguments, reason = "every limit is named")]
    fn new(
        py: Python<'_>,
        methods: HashMap<String, Py<PyAny>>,
        slow: Vec<String>,
        conversations: Vec<String>,
        watches: Vec<String>,
        fallback: Option<Py<PyAny>>,
        workers: usize,
        slow_workers: usize,
        compress_above_bytes: Option<usize>,
        refusals: Option<HashMap<String, Py<PyAny>>>,
        max_message_bytes: usize,
        max_calls: usize,
        max_open_streams: usize,
        max_buffered_bytes: usize,
        max_connections: usize,
        max_streams: u32,
        max_header_list_bytes: u32,
        stream_window_bytes: u32,
        connection_window_bytes: u32,
        max_frame_bytes: u32,
        handshake_seconds: f64,
        stall_seconds: f64,
        idle_seconds: f64,
        max_resets: u32,
        resets_per_second: u32,
    ) -> PyResult<Self> {
        if workers == 0 || slow_workers == 0 {
            return Err(PyValueError::new_err("a server needs a worker of each kind"));
        }
        if !(16 * KIB..16 * MIB).contains(&(max_frame_bytes as usize)) {
            return Err(PyValueError::new_err("max_frame_bytes must be 16 KiB or more and less than 16 MiB"));
        }
        if stream_window_bytes > i32::MAX as u32 || connection_window_bytes > i32::MAX as u32 {
            return Err(PyValueError::new_err("a window must be less than 2 GiB"));
        }
        let limits = Limits {
            max_message_bytes,
            max_calls,
            max_open_streams,
            max_buffered_bytes,
            max_connections,
            max_streams,
            max_header_list_bytes,
            stream_window_bytes,
            connection_window_bytes,
            max_frame_bytes,
            handshake: seconds(handshake_seconds)?,
            stall: seconds(stall_seconds)?,
            idle: seconds(idle_seconds)?,
            max_resets,
            resets_per_second,
            compress_above_bytes,
            refusals: read_refusals(py, refusals.unwrap_or_default())?,
        };
        let kind = |path: &String| match (conversations.contains(path), watches.contains(path)) {
            (true, _) => Kind::Conversation,
            (_, true) => Kind::Watch,
            _ => Kind::Unary,
        };
        let mut paths = HashMap::new();
        let mut routes = Vec::new();
        let mut handlers = Vec::new();
        for (path, handler) in methods {
            routes.push(Route { kind: kind(&path), slow: slow.contains(&path) });
            paths.insert(path, handlers.len());
            handlers.push(handler);
        }
        let fallback = fallback.map(|handler| {
            routes.push(Route { kind: Kind::Unary, slow: false });
            handlers.push(handler);
            handlers.len() - 1
        });
        Ok(Server {
            hub: Arc::new(Hub::new(limits, paths, routes, fallback)),
            handlers: Arc::new(Handlers::new(py, handlers)?),
            workers,
            slow_workers,
            running: Mutex::new(None),
        })
    }

    /// Bind to `unix:PATH` or `tcp:HOST:PORT`, serve, and return the address. A socket's file is the caller's to
    /// remove. Raises `OSError` where the address cannot be had.
    fn start(&self, py: Python<'_>, address: &str) -> PyResult<String> {
        let mut running = self.running.lock().expect("nothing panics under this lock");
        if running.is_some() {
            return Err(PyRuntimeError::new_err("the server was started before"));
        }
        let bound = Bound::to(address)?;
        let served = bound.address(address)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let cut = Arc::new(Notify::new());
        let (hub, notify) = (Arc::clone(&self.hub), Arc::clone(&cut));
        let io = std::thread::Builder::new().name("wire-io".into()).spawn(move || {
            // an error here is that of a listener which the kernel has just given; the workers then idle
            let _ = runtime.block_on(run(bound, hub, notify));
        })?;
        let mut threads = Vec::new();
        for number in 0..self.workers {
            threads.push(self.thread(py, format!("worker-{number}"), false)?);
        }
        for number in 0..self.slow_workers {
            threads.push(self.thread(py, format!("slow-{number}"), true)?);
        }
        *running = Some(Running { io: Some(io), cut, threads });
        Ok(served)
    }

    /// Take no new connection and no new call; those under way go on.
    fn drain(&self) {
        self.hub.draining.send_replace(true);
    }

    /// Wait, after `drain`, until the last call is answered and the connections are closed; tell whether they are.
    fn wait(&self, py: Python<'_>, limit_seconds: f64) -> PyResult<bool> {
        let limit = seconds(limit_seconds)?;
        Ok(py.detach(|| self.hub.wait_ended(limit)))
    }

    /// Close every connection, drop the calls that wait, and tell whether the workers end within a time.
    fn close(&self, py: Python<'_>, join_seconds: f64) -> PyResult<bool> {
        let limit = seconds(join_seconds)?;
        self.drain();
        let running = self.running.lock().expect("nothing panics under this lock").take();
        let Some(mut running) = running else {
            return Ok(true);
        };
        running.cut.notify_one();
        py.detach(|| {
            if let Some(io) = running.io.take() {
                let _ = io.join();
            }
            self.hub.quick.close();
            self.hub.slow.close();
        });
        let until = Instant::now() + limit;
        let mut ended = true;
        for thread in &running.threads {
            let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
            thread.call_method1(py, "join", (left,))?;
            ended &= !thread.call_method0(py, "is_alive")?.is_truthy(py)?;
        }
        Ok(ended)
    }

    /// Drain, wait for the calls under way at most the grace time, and close; tell whether all of them finished.
    fn stop(&self, py: Python<'_>, grace_seconds: f64) -> PyResult<bool> {
        self.drain();
        let finished = self.wait(py, grace_seconds)?;
        Ok(self.close(py, JOIN_SECONDS)? && finished)
    }
}

impl Server {
    /// Start one of Python's threads: it keeps its place in the interpreter from call to call.
    fn thread(&self, py: Python<'_>, name: String, slow: bool) -> PyResult<Py<PyAny>> {
        let (hub, handlers) = (Arc::clone(&self.hub), Arc::clone(&self.handlers));
        let target = PyCFunction::new_closure(py, None, None, move |arguments, _| {
            let pool = if slow { &hub.slow } else { &hub.quick };
            work(arguments.py(), pool, &handlers, &hub.limits);
        })?;
        let options = PyDict::new(py);
        options.set_item("target", target)?;
        options.set_item("name", name)?;
        options.set_item("daemon", true)?;
        let thread = py.import("threading")?.getattr("Thread")?.call((), Some(&options))?;
        thread.call_method0("start")?;
        Ok(thread.unbind())
    }
}
