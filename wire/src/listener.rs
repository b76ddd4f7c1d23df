//! Where connections come from: a Unix socket's path, or TCP.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::call::Peer;
use crate::connection::{Handle, serve};
use crate::hub::Hub;

/// How long to wait when the process has no descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(50);
const TCP_ADDRESS: &str = "tcp:";
const UNIX_ADDRESS: &str = "unix:";

pub enum Bound {
    Unix(std::os::unix::net::UnixListener),
    Tcp(std::net::TcpListener),
}

impl Bound {
    /// Bind to `unix:PATH` or `tcp:HOST:PORT`; port 0 asks the kernel for one.
    pub fn to(address: &str) -> io::Result<Bound> {
        let bound = if let Some(path) = address.strip_prefix(UNIX_ADDRESS) {
            let listener = std::os::unix::net::UnixListener::bind(Path::new(path))?;
            listener.set_nonblocking(true)?;
            Bound::Unix(listener)
        } else if let Some(place) = address.strip_prefix(TCP_ADDRESS) {
            let listener = std::net::TcpListener::bind(place)?;
            listener.set_nonblocking(true)?;
            Bound::Tcp(listener)
        } else {
            let said = format!("{address} is neither unix:PATH nor tcp:HOST:PORT");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, said));
        };
        Ok(bound)
    }

    /// The address as a client writes it, with the port that the kernel gave.
    pub fn address(&self, asked: &str) -> io::Result<String> {
        match self {
            Bound::Unix(_) => Ok(asked.to_owned()),
            Bound::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    fn from(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
            Bound::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let known = stream.peer_cred()?;
                let peer = Peer { uid: Some(known.uid()), gid: Some(known.gid()), pid: known.pid() };
                Ok((Stream::Unix(stream), peer))
            }
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::default()))
            }
        }
    }
}

/// The connections that are open, for when one must make room.
type Open = Arc<Mutex<HashMap<u64, Arc<Handle>>>>;

/// Accept until the drain begins, then wait for the last connection to close. `cut` ends all at once.
pub async fn run(bound: Bound, hub: Arc<Hub>, cut: Arc<Notify>) -> io::Result<()> {
    let listener = Listener::from(bound)?;
    let serve = async {
        let mut connections = JoinSet::new();
        accept_all(listener, &hub, &mut connections).await;
        while connections.join_next().await.is_some() {}
        hub.tell_ended();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serve => {}
        () = cut.notified() => {}
    }
    Ok(())
}

async fn accept_all(listener: Listener, hub: &Arc<Hub>, connections: &mut JoinSet<()>) {
    let open = Open::default();
    let mut draining = hub.draining.subscribe();
    for number in 0_u64.. {
        let accepted = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let handle = Arc::new(Handle::new(hub));
        let mut table = open.lock().expect("nothing panics under this lock");
        if table.len() >= hub.limits.max_connections && !make_room(&mut table) {
            continue;
        }
        table.insert(number, Arc::clone(&handle));
        drop(table);
        let hub = Arc::clone(hub);
        let open = Arc::clone(&open);
        connections.spawn(async move {
            match stream {
                Stream::Unix(stream) => serve(stream, peer, hub, handle).await,
                Stream::Tcp(stream) => serve(stream, peer, hub, handle).await,
            }
            open.lock().expect("nothing panics under this lock").remove(&number);
        });
    }
}

/// Close the connection that has been without a call for longest; none where all are busy.
fn make_room(table: &mut HashMap<u64, Arc<Handle>>) -> bool {
    let quiet = table.iter().filter(|(_, handle)| handle.active.load(Ordering::Relaxed) == 0);
    let Some(number) = quiet.min_by_key(|(_, handle)| handle.last_active()).map(|(number, _)| *number) else {
        return false;
    };
    if let Some(handle) = table.remove(&number) {
        handle.close.notify_one();
    }
    true
}
