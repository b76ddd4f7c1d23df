//! What the I/O thread, the workers and the server share: routes, queues, limits and counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::limits::Limits;
use crate::pool::Pool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one answer.
    Unary,
    /// Any number of requests, each answered in turn.
    Conversation,
    /// One request, answered at once and again when the server begins to stop.
    Watch,
}

pub struct Route {
    pub kind: Kind,
    pub slow: bool,
}

pub struct Hub {
    pub limits: Limits,
    paths: HashMap<String, usize>,
    routes: Vec<Route>,
    fallback: Option<usize>,
    pub quick: Pool,
    pub slow: Pool,
    calls: AtomicUsize,
    open_streams: AtomicUsize,
    pub buffered_bytes: Arc<AtomicUsize>,
    pub draining: watch::Sender<bool>,
    served: Mutex<bool>,
    ended: Condvar,
}

/// A place among the calls of the server, and among its open streams.
pub struct Permit {
    hub: Arc<Hub>,
    open_stream: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.hub.calls.fetch_sub(1, Ordering::Relaxed);
        if self.open_stream {
            self.hub.open_streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Count one more, up to a limit.
fn counted(count: &AtomicUsize, limit: usize) -> bool {
    let fits = count.fetch_add(1, Ordering::Relaxed) < limit;
    if !fits {
        count.fetch_sub(1, Ordering::Relaxed);
    }
    fits
}

impl Hub {
    pub fn new(limits: Limits, paths: HashMap<String, usize>, routes: Vec<Route>, fallback: Option<usize>) -> Self {
        Hub {
            limits,
            paths,
            routes,
            fallback,
            quick: Pool::default(),
            slow: Pool::default(),
            calls: AtomicUsize::new(0),
            open_streams: AtomicUsize::new(0),
            buffered_bytes: Arc::default(),
            draining: watch::Sender::new(false),
            served: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    pub fn route(&self, path: &str) -> Option<usize> {
        self.paths.get(path).copied().or(self.fallback)
    }

    pub fn pool_of(&self, route: usize) -> &Pool {
        if self.routes[route].slow { &self.slow } else { &self.quick }
    }

    pub fn kind(&self, route: usize) -> Kind {
        self.routes[route].kind
    }

    /// How many calls there are, and how many of them are open streams.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn under_way(&self) -> (usize, usize) {
        (self.calls.load(Ordering::Relaxed), self.open_streams.load(Ordering::Relaxed))
    }

    pub fn permit(self: &Arc<Self>, kind: Kind) -> Option<Permit> {
        if !counted(&self.calls, self.limits.max_calls) {
            return None;
        }
        let mut permit = Permit { hub: Arc::clone(self), open_stream: false };
        if kind != Kind::Unary {
            permit.open_stream = counted(&self.open_streams, self.limits.max_open_streams);
            return permit.open_stream.then_some(permit);
        }
        Some(permit)
    }

    /// Say that the last connection has closed after the drain began.
    pub fn tell_ended(&self) {
        *self.served.lock().expect("nothing panics under this lock") = true;
        self.ended.notify_all();
    }

    /// Wait until the last connection has closed after the drain began, and tell whether it has.
    pub fn wait_ended(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut ended = self.served.lock().expect("nothing panics under this lock");
        while !*ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            ended = self.ended.wait_timeout(ended, left).expect("nothing panics under this lock").0;
        }
        true
    }
}
