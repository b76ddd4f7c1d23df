//! The queue between the I/O thread and the Python threads. A lock is held for a few instructions only and never
//! while waiting for the interpreter.
//!
//! At most one thread is on its way to the queue at any time, and it takes its call only once it has the interpreter:
//! meanwhile the thread that has the interpreter goes on taking calls. Threads woken all at once would queue up for
//! the interpreter and hand it on call by call, which halves the throughput. Whoever takes a call and leaves others
//! behind wakes the next, so that calls run side by side where handlers let go of the interpreter.
//!
//! The thread that fell asleep last is woken first: what it needs is still in the processor's caches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{Thread, ThreadId};

use crate::call::{Info, Job};

#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that sleep, in the order they fell asleep.
    sleeping: Vec<Thread>,
    /// A thread has been called and is on its way.
    coming: bool,
    /// Whom the call is for, until it has been heard.
    called: Option<ThreadId>,
    closed: bool,
}

impl State {
    /// Return a thread to be woken, if one is, and count on it.
    fn call_one(&mut self) -> Option<Thread> {
        if self.coming || self.jobs.is_empty() {
            return None;
        }
        let thread = self.sleeping.pop()?;
        (self.coming, self.called) = (true, Some(thread.id()));
        Some(thread)
    }
}

fn wake(thread: Option<Thread>) {
    if let Some(thread) = thread {
        thread.unpark();
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
        wake(call);
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
        wake(call);
        job
    }

    /// Sleep until called, and tell whether there will be work: not once the pool is closed.
    pub fn sleep(&self) -> bool {
        let thread = std::thread::current();
        let mut state = self.state();
        if !state.jobs.is_empty() && !state.coming {
            state.coming = true;
            return true;
        }
        state.sleeping.push(thread.clone());
        while state.called != Some(thread.id()) && !state.closed {
            drop(state);
            std::thread::park();
            state = self.state();
        }
        state.called = None;
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
        let sleeping = std::mem::take(&mut state.sleeping);
        drop(state);
        sleeping.iter().for_each(Thread::unpark);
        drop(jobs);
    }
}
