//! Connections that cannot be held against the agent: bounded in number, in time and in bytes read.
//!
//! It wraps the listener and its sockets, because the server on top has no such limits of its own.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::handoff::SenderEnd;

/// What a connection is taken to cost in CPU time, the making of its answer not included: more than
/// it does.
const CONNECTION_CPU: Duration = Duration::from_millis(1);

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most connections at once; one more closes the oldest.
    pub(super) connections_max: usize,
    /// Longest life of a connection.
    pub(super) lifetime: Duration,
    /// Most bytes that are read from a connection. May be passed by one read.
    pub(super) request_bytes_max: usize,
}

/// A listener that keeps [`Limits`].
pub(super) struct Connections {
    listener: TcpListener,
    limits: Limits,
    /// Told what the connections cost.
    handoff: SenderEnd,
    /// One for each open connection, the oldest first. Dropping it closes the connection.
    open: VecDeque<oneshot::Sender<()>>,
}

impl Connections {
    pub(super) fn new(listener: TcpListener, limits: Limits, handoff: SenderEnd) -> Self {
        assert!(limits.connections_max > 0, "a server has room for a client");
        Self { listener, limits, handoff, open: VecDeque::new() }
    }

    fn admit(&mut self, stream: TcpStream) -> Connection {
        self.open.retain(|connection| !connection.is_closed());
        while self.open.len() >= self.limits.connections_max {
            self.open.pop_front();
        }
        let (hold, released) = oneshot::channel();
        self.open.push_back(hold);
        Connection {
            stream,
            released,
            deadline: Box::pin(tokio::time::sleep(self.limits.lifetime)),
            read_left: self.limits.request_bytes_max,
            is_over: false,
        }
    }
}

impl axum::serve::Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Errors of accept(2), such as too many open files, are logged and waited out in there.
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        self.handoff.add_admin_cpu(CONNECTION_CPU);
        (self.admit(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A socket that fails when its time is over, its place is needed, or too much was sent to it.
pub(super) struct Connection {
    stream: TcpStream,
    /// Resolves when [`Connections`] wants the place.
    released: oneshot::Receiver<()>,
    deadline: Pin<Box<Sleep>>,
    read_left: usize,
    /// A limit was hit: nothing is read or written any more.
    is_over: bool,
}

impl Connection {
    /// Fails when a limit was hit, and otherwise sees to it that the task is woken when one is.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_over = self.is_over
            || self.deadline.as_mut().poll(cx).is_ready()
            || Pin::new(&mut self.released).poll(cx).is_ready();
        if self.is_over { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > self.read_left {
            self.is_over = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        self.read_left -= read;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
