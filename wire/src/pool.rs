//! The queue between the I/O thread and the Python threads. A lock is held for a few instructions only and never
//! while waiting for the interpreter.
//!
//! At most one thread is on its way to the queue at any time, and it takes its call only once it has the interpreter:
//! meanwhile the thread that has the interpreter goes on taking calls. Threads woken all at once would queue up for
//! the interpreter and hand it on call by call, which halves the throughput. Whoever takes a call and leaves others
//! behind wakes the next, so that calls run side by side where handlers let go of the interpreter.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::call::{Info, Job};

#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that sleep.
    sleeping: usize,
    /// A thread has been called and is on its way.
    coming: bool,
    /// The call has not reached a thread yet.
    calling: bool,
    closed: bool,
}

impl State {
    /// Tell whether a thread is to be woken, and count on it.
    fn call_one(&mut self) -> bool {
        let call = !self.coming && self.sleeping > 0 && !self.jobs.is_empty();
        if call {
            (self.coming, self.calling) = (true, true);
        }
        call
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    pub fn push(&self, job: Job) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.jobs.push_back(job);
        let call = state.call_one();
        drop(state);
        if call {
            self.called.notify_one();
        }
    }

    /// Take a job that waits, if one does. `came` is whether the thread was called for it.
    pub fn take(&self, came: bool) -> Option<Job> {
        let mut state = self.state();
        if came {
            state.coming = false;
        }
        let job = state.jobs.pop_front();
        let call = state.call_one();
        drop(state);
        if call {
            self.called.notify_one();
        }
        job
    }

    /// Sleep until called, and tell whether there will be work: not once the pool is closed.
    pub fn sleep(&self) -> bool {
        let mut state = self.state();
        if !state.jobs.is_empty() && !state.coming {
            state.coming = true;
            return true;
        }
        state.sleeping += 1;
        while !state.calling && !state.closed {
            state = self.called.wait(state).expect("nothing panics under this lock");
        }
        state.sleeping -= 1;
        state.calling = false;
        !state.closed
    }

    /// Drop the job of a call that nobody waits for any more, if it has not begun.
    pub fn forget(&self, info: &Arc<Info>) {
        let mut state = self.state();
        let found = state.jobs.iter().position(|job| Arc::ptr_eq(&job.info, info));
        let job = found.and_then(|position| state.jobs.remove(position));
        drop(state);
        drop(job);
    }

    /// Drop what waits and send the threads home.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.called.notify_all();
        drop(jobs);
    }
}
