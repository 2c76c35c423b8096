//! Connections that can be cut: by a fault, or when the server stops.
//!
//! A severed connection answers every read and write of the HTTP layer with an error; that layer
//! then drops it, and the peer sees it close without a response. Nothing is written after the
//! cut, not even what was waiting.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Pause after a failed `accept`: most likely out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener whose connections end when `stop` turns true or is dropped.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) stop: watch::Receiver<bool>,
}

impl Drop for Door {
    /// Ends the listening itself, beside the descriptor: a process that another thread is about to start
    /// has a copy of that, and would listen on until it runs its own program.
    fn drop(&mut self) {
        // Fails only if it does not listen.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // A failure costs latency, nothing else.
            let _ = stream.set_nodelay(true);
            let mut stop = self.stop.clone();
            let stopped = Box::pin(async move {
                // An error means that the server is gone.
                let _ = stop.wait_for(|stop| *stop).await;
            });
            return (Connection { stream, cut: Cut::default(), stopped }, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Severs one connection. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut(Arc<AtomicBool>);

impl Cut {
    /// From now on nothing is read from or written to the connection.
    ///
    /// It takes effect with the next read or write, so the caller ends its response at once.
    pub(super) fn sever(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Door>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().cut.clone()
    }
}

/// An accepted connection.
pub(super) struct Connection {
    stream: TcpStream,
    cut: Cut,
    /// Ready when the server stops.
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connection {
    fn poll_whole(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.cut.0.load(Ordering::Relaxed) && self.stopped.as_mut().poll(context).is_ready() {
            self.cut.sever();
        }
        if self.cut.0.load(Ordering::Relaxed) {
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "severed on purpose"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_whole(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_whole(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
