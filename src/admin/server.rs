//! The server of the admin port: its four paths and nothing else.

use std::future::{Future, IntoFuture as _, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::oneshot;

use super::connections::{Connections, Limits};
use super::metrics::{self, Form, Snapshot};
use super::status::{Status, not_ready_reason};
use super::{Facts, Options};
use crate::base::clock;
use crate::base::escape;
use crate::handoff::SenderEnd;
use logferry_wire::host::is_foreign;

const LIMITS: Limits =
    Limits { connections_max: 16, lifetime: Duration::from_secs(5), request_bytes_max: 16 << 10 };

/// How long the collector may take to list its files.
const LIST_PATIENCE: Duration = Duration::from_secs(2);

const NOT_FOUND: &str = "not found; the paths here are /live /ready /metrics /status\n";
const NOT_GET: &str = "only GET is understood here\n";
const NOT_HERE: &str =
    "Host is a name that anybody can point here; ask for 127.0.0.1 or localhost\n";

/// The admin port, bound and not yet serving.
pub struct Server {
    listener: Option<TcpListener>,
    pub(super) limits: Limits,
}

impl Server {
    /// Takes the address; without one the server does nothing. Needs no runtime yet.
    ///
    /// # Errors
    /// If the address cannot be had: it is in use, not ours, or not allowed.
    pub fn bind(options: &Options) -> io::Result<Self> {
        let listener = options.listen.map(listen).transpose()?;
        Ok(Self { listener, limits: LIMITS })
    }

    /// Where it listens, with the port that the system chose if it was asked for 0.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Answers until `until` is ready; connections that are open then are closed.
    ///
    /// Needs a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// If the kernel refuses to watch the socket.
    pub async fn serve(
        self,
        handoff: SenderEnd,
        facts: Facts,
        until: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let Some(listener) = self.listener else {
            until.await;
            return Ok(());
        };
        let is_loopback =
            listener.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let connections = Connections::new(listener, self.limits, handoff.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let mut router = router(Arc::new(View { handoff, facts }));
        if is_loopback {
            router = router.layer(axum::middleware::from_fn(refuse_foreign_host));
        }
        let serving = axum::serve(connections, router).with_graceful_shutdown(async move {
            // The other end is only ever dropped.
            let _ = stopped.await;
        });
        let mut serving = pin!(serving.into_future());
        // Cancel-safe: `serving` goes on below.
        tokio::select! {
            result = &mut serving => return result,
            () = until => {}
        }
        drop(stop);
        // Drops the listener, which closes its connections, and waits for their tasks.
        serving.await
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error: io::Error| {
        let text = format!(
            "cannot listen on {address} (LOGFERRY_LISTEN): {error}; give the admin port another \
             address, or an empty one to switch it off"
        );
        io::Error::new(error.kind(), text)
    })
}

/// What answers are made of.
struct View {
    handoff: SenderEnd,
    facts: Facts,
}

fn router(view: Arc<View>) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(|| async { (StatusCode::NOT_FOUND, NOT_FOUND) })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, NOT_GET) })
        .layer(axum::middleware::map_response(finish))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&view), charge))
        .with_state(view)
}

/// A web page can make its name lead to this machine (DNS rebinding), and must not read what is for
/// this machine only. Where others may ask anyway, `Host` is whatever leads there.
async fn refuse_foreign_host(headers: HeaderMap, request: Request, next: Next) -> Response {
    let hosts = headers.get_all(header::HOST).iter();
    let mut hosts = hosts.map(|host| String::from_utf8_lossy(host.as_bytes()));
    if hosts.any(|host| is_foreign(&host)) {
        return finish((StatusCode::FORBIDDEN, NOT_HERE).into_response()).await;
    }
    next.run(request).await
}

/// Says what the making of an answer has cost, so that the sender blames nobody else for it.
async fn charge(State(view): State<Arc<View>>, request: Request, next: Next) -> Response {
    let mut answering = pin!(next.run(request));
    poll_fn(|context| {
        let before = clock::thread_cpu();
        let poll = answering.as_mut().poll(context);
        view.handoff.add_admin_cpu(clock::thread_cpu().saturating_sub(before));
        poll
    })
    .await
}

/// One request a connection: its end is then known, and no client is cut off by the time limit
/// between two requests. And nothing here may be kept: it is true for a moment.
async fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(view): State<Arc<View>>) -> Response {
    let handoff = &view.handoff;
    match not_ready_reason(&handoff.collector_report(), handoff.is_draining()) {
        None => "ready\n".into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
    }
}

async fn metrics(State(view): State<Arc<View>>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let form = Form::asked_for(&accept.collect::<Vec<_>>().join(","));
    let text = metrics::encode(Snapshot::of(&view.facts, &view.handoff), form);
    let headers =
        [(header::CONTENT_TYPE, form.content_type()), (header::VARY, header::ACCEPT.as_str())];
    (headers, text).into_response()
}

async fn status(State(view): State<Arc<View>>) -> Response {
    // Nobody makes a list before the state directory is had.
    let (files, is_new) = match view.handoff.collector_report().is_state_taken {
        true => (Arc::default(), true),
        false => view.handoff.files(LIST_PATIENCE).await,
    };
    let silent = (!is_new).then_some(LIST_PATIENCE);
    let status = Status::of(&view.facts, &view.handoff, &files, silent, clock::now());
    let json = serde_json::to_string(&status).expect("names are text and values are plain");
    // People look at it with curl.
    let json = escape::json(&json).into_owned();
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}
