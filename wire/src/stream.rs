//! One call's stream, from its requests to its status. Everything here runs on the I/O thread.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::sleep_until;

use crate::answer::{Answer, Answering, Outcome};
use crate::call::{Info, Job};
use crate::connection::Handle;
use crate::hub::{Hub, Kind, Permit};
use crate::message::{Held, Message, NoMessage, Requests};
use crate::metadata::Metadata;
use crate::status::{Code, Status};

/// A call's place among those of its connection and of the server.
pub struct Place {
    hub: Arc<Hub>,
    handle: Arc<Handle>,
    _permit: Permit,
}

impl Place {
    pub fn new(hub: &Arc<Hub>, handle: &Arc<Handle>, permit: Permit) -> Self {
        handle.active.fetch_add(1, Ordering::Relaxed);
        Place { hub: Arc::clone(hub), handle: Arc::clone(handle), _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handle.active.fetch_sub(1, Ordering::Relaxed);
        self.handle.touch();
    }
}

/// Which method a call is of, and until when.
pub struct Work {
    pub info: Arc<Info>,
    pub deadline: Option<Instant>,
    pub route: usize,
    pub kind: Kind,
}

/// Why a call is over before all is well.
enum Over {
    Failed(Status, Option<Box<Metadata>>),
    Gone,
}

impl From<NoMessage> for Over {
    fn from(reason: NoMessage) -> Self {
        match reason {
            NoMessage::Refused(status) => Over::Failed(status, None),
            NoMessage::Gone => Over::Gone,
        }
    }
}

impl From<h2::Error> for Over {
    fn from(_: h2::Error) -> Self {
        Over::Gone
    }
}

pub async fn serve(place: Place, work: Work, requests: Requests, mut answering: Answering) {
    let hub = &place.hub;
    let ended = match work.kind {
        Kind::Unary => work.unary(hub, requests, &mut answering).await,
        Kind::Conversation => work.conversation(hub, requests, &mut answering).await,
        Kind::Watch => work.watch(hub, requests, &mut answering).await,
    };
    // an error of the last words means that the peer is gone, and nobody is left to tell
    match ended {
        Ok(()) => drop(answering.end()),
        Err(Over::Failed(status, metadata)) => {
            work.drop_unheard(hub);
            drop(answering.fail(&status, metadata));
        }
        Err(Over::Gone) => {
            work.drop_unheard(hub);
            place.handle.count_reset(hub);
        }
    }
}

impl Work {
    async fn unary(&self, hub: &Hub, mut requests: Requests, answering: &mut Answering) -> Result<(), Over> {
        let mut held = Held::new(Arc::clone(&hub.buffered_bytes));
        let answer = async {
            let message = requests.only(&hub.limits, &mut held).await?;
            Ok(self.answer(hub, message).await)
        };
        let answer = self.until_over(answering, answer).await?;
        send(answer, answering).await
    }

    async fn conversation(&self, hub: &Hub, mut requests: Requests, answering: &mut Answering) -> Result<(), Over> {
        let mut stopping = hub.draining.subscribe();
        loop {
            let mut held = Held::new(Arc::clone(&hub.buffered_bytes));
            let answer = async {
                let message = tokio::select! {
                    biased;
                    message = requests.next(&hub.limits, &mut held, hub.limits.idle) => message?,
                    _ = stopping.wait_for(|stopping| *stopping) => return Err(stopped(hub)),
                };
                match message {
                    Some(message) => Ok(Some(self.answer(hub, message).await)),
                    None => Ok(None),
                }
            };
            match self.until_over(answering, answer).await? {
                Some(answer) => send(answer, answering).await?,
                None => return Ok(()),
            }
        }
    }

    async fn watch(&self, hub: &Hub, mut requests: Requests, answering: &mut Answering) -> Result<(), Over> {
        let mut stopping = hub.draining.subscribe();
        let mut held = Held::new(Arc::clone(&hub.buffered_bytes));
        let message = self.until_over(answering, async { Ok(requests.only(&hub.limits, &mut held).await?) }).await?;
        let first = self.until_over(answering, async { Ok(self.answer(hub, message.clone()).await) }).await?;
        send(first, answering).await?;
        let last = async {
            // the sender lives in the hub, so that it cannot be gone
            let _ = stopping.wait_for(|stopping| *stopping).await;
            Ok(self.answer(hub, message).await)
        };
        let last = self.until_over(answering, last).await?;
        send(last, answering).await?;
        Err(stopped(hub))
    }

    /// Have a message answered.
    async fn answer(&self, hub: &Hub, message: Message) -> Answer {
        let (reply, answer) = oneshot::channel();
        hub.pool_of(self.route).push(Job { info: Arc::clone(&self.info), route: self.route, message, reply });
        answer.await.unwrap_or_else(|_| hub.limits.refusals.stopping.clone().into())
    }

    /// Take a message that nobody waits for out of the queue, or tell its handler.
    fn drop_unheard(&self, hub: &Hub) {
        self.info.cancelled.store(true, Ordering::Relaxed);
        hub.pool_of(self.route).forget(&self.info);
    }

    /// Wait for something of this call, unless the deadline or the client's reset comes first.
    async fn until_over<T>(
        &self,
        answering: &mut Answering,
        awaited: impl Future<Output = Result<T, Over>>,
    ) -> Result<T, Over> {
        let over = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = awaited => result,
            () = answering.reset() => Err(Over::Gone),
            () = over => Err(Over::Failed(Status::new(Code::DeadlineExceeded, "the deadline has passed"), None)),
        }
    }
}

async fn send(answer: Answer, answering: &mut Answering) -> Result<(), Over> {
    match answer.outcome {
        Outcome::Message(reply) => Ok(answering.message(reply, answer.metadata).await?),
        Outcome::Status(status) => Err(Over::Failed(status, answer.metadata)),
    }
}

fn stopped(hub: &Hub) -> Over {
    Over::Failed(hub.limits.refusals.stopping.clone(), None)
}
