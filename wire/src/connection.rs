//! One connection: its streams come in here, and here it is closed. Everything runs on the I/O thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant as TokioInstant, sleep_until, timeout};

use crate::answer::{Answering, refuse, send_http};
use crate::call::{Info, Peer};
use crate::hub::Hub;
use crate::message::Requests;
use crate::request::{Refusal, read_head};
use crate::status::{Code, Status};
use crate::stream::{self, Place, Work};

/// How long a connection that is being closed may take to read the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the server may want of a connection from outside.
pub struct Handle {
    /// Streams under way.
    pub active: AtomicUsize,
    pub last_active: std::sync::Mutex<Instant>,
    pub close: Notify,
    hostile: AtomicBool,
    resets: std::sync::Mutex<Resets>,
}

/// A bucket of resets that refills with time.
struct Resets {
    left: f64,
    at: Instant,
}

impl Handle {
    pub fn new(hub: &Hub) -> Self {
        let now = Instant::now();
        Handle {
            active: AtomicUsize::new(0),
            last_active: std::sync::Mutex::new(now),
            close: Notify::new(),
            hostile: AtomicBool::new(false),
            resets: std::sync::Mutex::new(Resets { left: f64::from(hub.limits.max_resets), at: now }),
        }
    }

    pub fn touch(&self) {
        *self.last_active.lock().expect("nothing panics under this lock") = Instant::now();
    }

    pub fn last_active(&self) -> Instant {
        *self.last_active.lock().expect("nothing panics under this lock")
    }

    /// Count a stream that the client has reset; one that resets for its own sake is closed.
    pub fn count_reset(&self, hub: &Hub) {
        let mut resets = self.resets.lock().expect("nothing panics under this lock");
        let now = Instant::now();
        let refill = now.duration_since(resets.at).as_secs_f64() * f64::from(hub.limits.resets_per_second);
        resets.left = (resets.left + refill).min(f64::from(hub.limits.max_resets)) - 1.0;
        resets.at = now;
        if resets.left < 0.0 {
            self.hostile.store(true, Ordering::Relaxed);
            self.close.notify_one();
        }
    }
}

pub async fn serve<T>(io: T, peer: Peer, hub: Arc<Hub>, handle: Arc<Handle>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &hub.limits;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_list_bytes)
        .initial_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(limits.max_frame_bytes)
        .max_send_buffer_size(limits.stream_window_bytes as usize);
    let Ok(Ok(mut connection)) = timeout(limits.handshake, builder.handshake::<T, Bytes>(io)).await else {
        return;
    };
    let mut draining = hub.draining.subscribe();
    let idle = sleep_until(TokioInstant::now() + limits.idle);
    tokio::pin!(idle);
    loop {
        tokio::select! {
            biased;
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => begin(request, respond, peer, &hub, &handle),
                Some(Err(_)) | None => return,
            },
            _ = draining.wait_for(|draining| *draining) => break,
            () = handle.close.notified() => break,
            () = &mut idle => {
                let until = handle.last_active() + limits.idle;
                if handle.active.load(Ordering::Relaxed) == 0 && until <= Instant::now() {
                    break;
                }
                idle.as_mut().reset(TokioInstant::from_std(until.max(Instant::now() + LAST_WORDS)));
            }
        }
    }
    close(connection, &handle).await;
}

/// Say good-bye, refuse what is new, and stay until the calls under way are answered.
async fn close<T>(mut connection: Connection<T, Bytes>, handle: &Handle)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    if handle.hostile.load(Ordering::Relaxed) {
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let _ = timeout(LAST_WORDS, connection.accept()).await;
        return;
    }
    connection.graceful_shutdown();
    loop {
        match timeout(LAST_WORDS, connection.accept()).await {
            Ok(Some(Ok((_request, mut respond)))) => respond.send_reset(Reason::REFUSED_STREAM),
            Ok(Some(Err(_)) | None) => return,
            // a peer that does not answer the good-bye, and has no call, is not waited for
            Err(_) if handle.active.load(Ordering::Relaxed) == 0 => return,
            Err(_) => {}
        }
    }
}

fn begin(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: Peer,
    hub: &Arc<Hub>,
    handle: &Arc<Handle>,
) {
    let (parts, body) = request.into_parts();
    let head = match read_head(&parts, Instant::now()) {
        Ok(head) => head,
        Err(Refusal::Http(status)) => return send_http(&mut respond, status),
        Err(Refusal::Grpc(status)) => return refuse(&mut respond, &status),
    };
    let Some(route) = hub.route(parts.uri.path()) else {
        return refuse(&mut respond, &Status::new(Code::Unimplemented, "the server has no such method"));
    };
    let kind = hub.kind(route);
    let Some(permit) = hub.permit(kind) else {
        return refuse(&mut respond, &hub.limits.refusals.too_many_calls);
    };
    let place = Place::new(hub, handle, permit);
    let info = Arc::new(Info {
        method: parts.uri.path().to_owned(),
        headers: parts.headers,
        deadline: head.deadline,
        peer,
        cancelled: AtomicBool::new(false),
    });
    let requests = Requests::new(body, head.encoding);
    let answering = Answering::new(respond, hub.limits.stall);
    tokio::spawn(stream::serve(place, Work { info, deadline: head.deadline, route, kind }, requests, answering));
}
