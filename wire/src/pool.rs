//! The queue between the I/O thread and the Python threads. A lock is held for a few instructions only and never
//! while waiting for the interpreter.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::call::{Info, Job};

#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    waiting: usize,
    closed: bool,
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
        let wake = state.waiting > 0;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Take a job that waits, if one does.
    pub fn try_take(&self) -> Option<Job> {
        self.state().jobs.pop_front()
    }

    /// Wait for a job; None once the pool is closed.
    pub fn take(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.waiting += 1;
            state = self.filled.wait(state).expect("nothing panics under this lock");
            state.waiting -= 1;
        }
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
        self.filled.notify_all();
        drop(jobs);
    }
}
