//! One connection, and the calls on it. Everything here runs on the I/O thread.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant as TokioInstant, sleep_until, timeout};

use crate::answer::{Answer, send, send_http};
use crate::call::{Info, Job, Peer};
use crate::hub::{Hub, Permit};
use crate::message::{Held, Message, NoMessage};
use crate::request::{Head, Refusal, read_head};
use crate::status::{Code, Status};

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

    fn touch(&self) {
        *self.last_active.lock().expect("nothing panics under this lock") = Instant::now();
    }

    pub fn last_active(&self) -> Instant {
        *self.last_active.lock().expect("nothing panics under this lock")
    }

    /// Count a stream that the client has reset; one that resets for its own sake is closed.
    fn count_reset(&self, hub: &Hub) {
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

/// A call's place among those of its connection and of the server.
struct Place {
    hub: Arc<Hub>,
    handle: Arc<Handle>,
    _permit: Permit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handle.active.fetch_sub(1, Ordering::Relaxed);
        self.handle.touch();
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
    let Some(permit) = hub.permit() else {
        return refuse(&mut respond, &Status::new(Code::ResourceExhausted, "too many calls are under way"));
    };
    handle.active.fetch_add(1, Ordering::Relaxed);
    let place = Place { hub: Arc::clone(hub), handle: Arc::clone(handle), _permit: permit };
    let info = Arc::new(Info {
        method: parts.uri.path().to_owned(),
        headers: parts.headers,
        deadline: head.deadline,
        peer,
        cancelled: AtomicBool::new(false),
    });
    tokio::spawn(call(place, info, head, route, body, respond));
}

fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = http::Response::new(());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    status.write(response.headers_mut());
    let _ = respond.send_response(response, true);
}

/// How a call ended.
enum End {
    Answer(Answer),
    Reset,
}

async fn call(
    place: Place,
    info: Arc<Info>,
    head: Head,
    route: usize,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) {
    let hub = &place.hub;
    let mut held = Held::new(Arc::clone(&hub.buffered_bytes));
    let work = run(hub, &info, head.encoding, route, body, &mut held);
    match until_over(work, head.deadline, &mut respond).await {
        End::Answer(answer) => {
            if let Answer::Status(_) = answer {
                drop_unheard(hub, &info, route);
            }
            let _ = send(&mut respond, answer, hub.limits.stall).await;
        }
        End::Reset => {
            drop_unheard(hub, &info, route);
            place.handle.count_reset(hub);
        }
    }
}

/// Take a call that nobody waits for out of the queue, or tell its handler.
fn drop_unheard(hub: &Hub, info: &Arc<Info>, route: usize) {
    info.cancelled.store(true, Ordering::Relaxed);
    hub.pool_of(route).forget(info);
}

/// Wait for the work's end, the deadline or the client's reset, whichever is first.
async fn until_over(
    work: impl Future<Output = End>,
    deadline: Option<Instant>,
    respond: &mut SendResponse<Bytes>,
) -> End {
    let over = async {
        match deadline {
            Some(deadline) => sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        end = work => end,
        _ = poll_fn(|context| respond.poll_reset(context)) => End::Reset,
        () = over => End::Answer(Answer::Status(Status::new(Code::DeadlineExceeded, "the deadline has passed"))),
    }
}

async fn run(
    hub: &Hub,
    info: &Arc<Info>,
    encoding: crate::request::Encoding,
    route: usize,
    mut body: RecvStream,
    held: &mut Held,
) -> End {
    let message = match Message::read(&mut body, encoding, &hub.limits, held).await {
        Ok(message) => message,
        Err(NoMessage::Refused(status)) => return End::Answer(Answer::Status(status)),
        Err(NoMessage::Gone) => return End::Reset,
    };
    let (reply, answer) = oneshot::channel();
    hub.pool_of(route).push(Job { info: Arc::clone(info), route, message, reply });
    match answer.await {
        Ok(answer) => End::Answer(answer),
        Err(_) => End::Answer(Answer::Status(Status::new(Code::Unavailable, "the server is stopping"))),
    }
}
