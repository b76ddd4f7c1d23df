//! What the I/O thread, the workers and the server share: routes, queues, limits and counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::limits::Limits;
use crate::pool::Pool;

pub struct Route {
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
    pub buffered_bytes: Arc<AtomicUsize>,
    pub draining: watch::Sender<bool>,
    served: Mutex<bool>,
    ended: Condvar,
}

/// A place among the calls of the server.
pub struct Permit(Arc<Hub>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
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

    pub fn permit(self: &Arc<Self>) -> Option<Permit> {
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.limits.max_calls {
            return Some(Permit(Arc::clone(self)));
        }
        self.calls.fetch_sub(1, Ordering::Relaxed);
        None
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
