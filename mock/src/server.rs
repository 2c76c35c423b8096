//! The endpoint on a socket: [`Server`] in the caller's runtime, [`Background`] on its own thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use axum::{Router, middleware};
use tokio::net::TcpSocket;
use tokio::sync::{oneshot, watch};

use super::connection::{Cut, Door};
use super::{Access, Endpoint, Faults, Options, Store, endpoint, guard, page};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A mock endpoint that serves from the caller's tokio runtime. Dropping it closes its listener
/// and all its connections.
#[derive(Debug)]
pub struct Server {
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Binds and starts to serve.
    ///
    /// # Errors
    /// When the address cannot be listened on or `groups.jsonl` cannot be opened.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listen = options.listen;
        Self::serve(Endpoint::open(options)?, bound(listen)?)
    }

    fn serve(endpoint: Arc<Endpoint>, socket: TcpSocket) -> io::Result<Self> {
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let door = Door { listener, stop: stopping };
        let app: Router = page::routes()
            .layer(middleware::from_fn(guard::own))
            .fallback(endpoint::serve)
            .layer(middleware::from_fn(guard::any))
            .with_state(Arc::clone(&endpoint));
        let app = app.into_make_service_with_connect_info::<Cut>();
        let task = tokio::spawn(async move {
            // It never returns; the task is aborted.
            let _ = axum::serve(door, app).await;
        });
        Ok(Self { endpoint, address, stop, task })
    }

    /// The address it listens on, with the port it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is behind the socket.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Closes the listener and all connections; returns when the port is free again.
    pub async fn stop(mut self) {
        self.close();
        // It ends by having been aborted.
        let _ = (&mut self.task).await;
    }

    fn close(&self) {
        self.stop.send_replace(true);
        self.task.abort();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

/// A mock endpoint on a thread of its own, for synchronous tests. Stops when dropped.
///
/// It can be stopped and resumed on the same port with the same store: an endpoint that is down
/// for a while.
#[derive(Debug)]
pub struct Background {
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
    running: Option<Running>,
    /// Never listens: keeps the port from others, also while it is stopped.
    _port: TcpSocket,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Background {
    /// Binds and starts to serve.
    ///
    /// # Errors
    /// When the address cannot be listened on, `groups.jsonl` cannot be opened, or no thread can
    /// be had.
    pub fn start(options: Options) -> io::Result<Self> {
        let listen = options.listen;
        let endpoint = Endpoint::open(options)?;
        let port = bound(listen)?;
        let mut background =
            Self { endpoint, address: port.local_addr()?, running: None, _port: port };
        background.resume()?;
        Ok(background)
    }

    /// Stops serving: the port refuses connections, open ones are closed. Does nothing if stopped.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        // The thread may have ended by itself.
        let _ = running.stop.send(());
        let _ = running.thread.join();
    }

    /// Serves again, on the same port and with the same store. Does nothing if running.
    ///
    /// # Errors
    /// When the port cannot be listened on, or no thread can be had.
    pub fn resume(&mut self) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let socket = bound(self.address)?;
        let (stop, stopped) = oneshot::channel();
        let (started, start) = mpsc::sync_channel(1);
        let endpoint = Arc::clone(&self.endpoint);
        let thread =
            std::thread::Builder::new().name("logferry-mock".to_owned()).spawn(move || {
                let served = serve_until(stopped, endpoint, socket, &started);
                if let Err(error) = served {
                    let _ = started.send(Err(error));
                }
            })?;
        start.recv().unwrap_or_else(|_| Err(io::Error::other("its thread died")))?;
        self.running = Some(Running { stop, thread });
        Ok(())
    }

    /// The address it listens on, with the port it got; the same after [`Self::resume`].
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is behind the socket.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// What it accepted.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(self.endpoint.store())
    }

    /// What it spoils.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.endpoint.faults()
    }

    /// From now on accepts this.
    pub fn set_access(&self, access: Access) {
        self.endpoint.set_access(access);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A socket that has its port and does not listen: connections are refused, and nobody gets the port
/// who has not asked for this one.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The life of a background thread. Says through `started` that it listens.
fn serve_until(
    stopped: oneshot::Receiver<()>,
    endpoint: Arc<Endpoint>,
    socket: TcpSocket,
    started: &mpsc::SyncSender<io::Result<()>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::serve(endpoint, socket)?;
        let _ = started.send(Ok(()));
        // An error means that the owner is gone: stop as well.
        let _ = stopped.await;
        server.stop().await;
        Ok(())
    })
}
