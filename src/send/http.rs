//! The only user of the HTTP client: a [`Request`] out, an [`Answer`] back.
//!
//! It decides nothing about retries, but for one: a connection that the peer closed while it was
//! idle may be noticed only when a request is already on it. Then the request goes again at once,
//! once, over a new connection, and nobody hears of it. (If nothing of the request had been
//! written, the client sees to that by itself.)
//!
//! After any other failure the idle connections are given up too: what comes next looks the name up
//! again and connects anew.
//!
//! # Limits
//! Every wait has an end. Connecting (name lookup and TLS included) has its own; several addresses
//! of a name share it. The status must have come within the time of the options, and what the
//! request takes at [`BYTES_PER_SECOND_LEAST`]; what has been written to the kernel is not yet on
//! its way, so there is no telling when the wait for the first byte begins. The kernel gives up on
//! bytes that are not acknowledged or taken, and on peers that do not answer its probes, so that a
//! half-open connection costs at most 20 s. Of a body no more than [`BODY_BYTES_MAX`] is read, and
//! no longer than [`BODY_TIMEOUT`]. Redirects are not followed: the service sends none, so one
//! comes from somebody else.
//!
//! What has arrived counts, however late it is read: after a suspension of the process the answer may
//! lie in the socket when the time is over ([`ARRIVED_GRACE`]).
//!
//! # Odd answers
//! An acknowledgement is one when its status and its request id have been read. So an answer may have
//! many headers, ones that are no headers, a body that breaks off, and a coding that nobody asked for.
//! An answer with more headers than there was room for cannot be read any more; the next ones have room
//! for 20,000, until a peer abuses it.
//!
//! # Proxies
//! The settings say which one is in force; the client does not look at the environment.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::ClientConfig;
use tower_layer::Layer;
use tower_service::Service;

use super::Options;
use super::answer::Answer;
use super::cause::{Cause, LookupError, chain, flaw_in};
use super::encoding::decoded;
use super::lookup::{Lookup, Resolver};
use super::proxy::Proxy;
use super::request::Request;
use super::tls::{TlsError, TlsInUse};
use crate::base::clock;
use crate::plan::Destination;

/// Most bytes read of an answer's body. An error of the service has a few hundred.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longest time to read an answer's body, whose status is known by then.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// How much longer is waited for what has arrived in time. Short, because it takes a turn of the
/// runtime to read it, and no more.
pub const ARRIVED_GRACE: Duration = Duration::from_millis(100);

/// Most headers of an answer: what proxies add, many times over. The client makes room for as many
/// each time it parses, and a peer that sends heads without end makes it parse without end.
const HEADERS_MAX: usize = 300;

/// Most headers once an answer had more than [`HEADERS_MAX`]. The client's map of headers holds 24,576,
/// and it would panic. Parsing takes fifty times as long.
const HEADERS_MOST: usize = 20_000;

/// A network that is slower than this for a whole request is taken for broken.
pub const BYTES_PER_SECOND_LEAST: u32 = 128 * 1024;

/// Less than the 60 s after which load balancers close idle connections, so that ours is rarely
/// the one that is being closed as we use it.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// How long bytes may stay unacknowledged, or a peer without an answer to the kernel's probes: the
/// first after [`PROBE_AFTER`], the next each [`PROBE_INTERVAL`].
const PEER_SILENT_MAX: Duration = Duration::from_secs(15);
const PROBE_AFTER: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A client for one endpoint, with its pool of connections. A clone is the same one.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Without its parts: they know the proxies' passwords.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

struct Shared {
    connect_timeout: Duration,
    request_timeout: Duration,
    idle_max: usize,
    proxy: Option<Proxy>,
    resolver: Resolver,
    /// Locked for a moment, never while something is waited for.
    state: Mutex<State>,
}

struct State {
    tls: TlsInUse,
    connections: Connections,
    /// Most headers of an answer, on these and on those that follow.
    headers_max: usize,
}

/// A pool of connections. Requests under way keep theirs when a new pool takes its place.
#[derive(Clone)]
struct Connections {
    http: reqwest::Client,
    /// How many there were before.
    number: usize,
}

/// What bounds a pool.
#[derive(Clone, Copy)]
struct Limits {
    connect_timeout: Duration,
    /// Most connections without a request.
    idle_max: usize,
    /// Most headers of an answer.
    headers_max: usize,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The files of TLS.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be built.
    #[error("cannot set up the HTTP client: {0}")]
    Http(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection in time.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer sends what is no answer, more than can be read within the CPU limit.
    #[error("the peer sends without end, and no answer: the connection was cut off")]
    Flooded,
    /// No connection came about, or it broke or spoke nonsense.
    #[error("{0}")]
    Broken(Broken),
    /// The request cannot be put on the wire: some setting has characters that do not belong there.
    #[error("the {0} of the request has characters that do not belong there")]
    Malformed(String),
}

/// What broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// In a word.
    pub cause: Cause,
    /// The causes from the outside in, without the address.
    pub text: String,
    /// Whether there was a connection: the request may have arrived.
    pub was_connected: bool,
    /// Whether the peer closed it instead of answering.
    pub was_cut: bool,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TransportError {
    /// What stood between us and an answer.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::ConnectTimeout(_) | Self::Timeout(_) => Cause::TooLate,
            Self::Broken(broken) => broken.cause,
            Self::Flooded | Self::Malformed(_) => Cause::Other,
        }
    }

    /// Whether the endpoint may have got the request all the same.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Flooded => true,
            Self::Broken(broken) => broken.was_connected,
            Self::ConnectTimeout(_) | Self::Malformed(_) => false,
        }
    }
}

/// An attempt without an answer.
struct Failed {
    error: TransportError,
    /// The connection had been used before, and closed without a word of an answer.
    was_closed_idle: bool,
}

impl Client {
    /// A client as the options want it, for requests to these destinations. Opens no connection yet.
    ///
    /// # Errors
    /// If the files of TLS are unusable.
    pub fn new(options: &Options, destinations: &[Destination]) -> Result<Self, ClientError> {
        let tls = TlsInUse::new(options.tls.clone(), clock::now())?;
        let Options { connect_timeout, request_timeout, concurrency_max, .. } = *options;
        let (idle_max, proxy) = (concurrency_max, options.proxy.clone());
        let resolver = Resolver::default();
        if destinations.iter().any(|destination| !destination.endpoint.is_loopback()) {
            resolver.prepare();
        }
        let lookup = Lookup { turn: 0, resolver: resolver.clone() };
        let limits = Limits { connect_timeout, idle_max, headers_max: HEADERS_MAX };
        let connections = Connections::new(tls.config(), limits, proxy.as_ref(), lookup)?;
        let state = Mutex::new(State { tls, connections, headers_max: HEADERS_MAX });
        let shared = Shared { connect_timeout, request_timeout, idle_max, proxy, resolver, state };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The peer was cut off: no more is parsed for it at once than has to be.
    pub(super) fn on_flood(&self) {
        self.make_room_for_headers(HEADERS_MAX);
    }

    /// One attempt.
    ///
    /// *Cancel-safe* in that dropping it breaks the connection; whether the endpoint has taken the
    /// request is then unknown.
    ///
    /// # Errors
    /// If no status line has come back.
    pub async fn send(&self, request: Request) -> Result<Answer, TransportError> {
        let connections = self.connections();
        let failed = match self.attempt(&connections.http, request.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if matches!(failed.error, TransportError::Malformed(_)) {
            return Err(failed.error);
        }
        if failed.error.cause() == Cause::LargeHead {
            self.make_room_for_headers(HEADERS_MOST);
        }
        let connections = self.renew(connections.number);
        if !failed.was_closed_idle {
            return Err(failed.error);
        }
        tracing::trace!("a connection was closed while it was idle; the request goes again");
        self.attempt(&connections.http, request).await.map_err(|failed| {
            self.renew(connections.number);
            failed.error
        })
    }

    async fn attempt(&self, http: &reqwest::Client, request: Request) -> Result<Answer, Failed> {
        let timeout = self.timeout(request.body.as_ref().map_or(0, |body| body.len()));
        let failed = |error| Failed { error, was_closed_idle: false };
        let request = into_http(request).map_err(failed)?;
        let answer = NEEDS_CONNECTION.scope(Cell::new(false), async {
            let result = http.execute(request).await;
            (result, !NEEDS_CONNECTION.with(Cell::get))
        });
        let (result, is_used) = within(timeout, answer)
            .await
            .ok_or_else(|| failed(TransportError::Timeout(timeout)))?;
        let mut response = result.map_err(|error| Failed {
            was_closed_idle: is_used && was_closed(&error),
            error: self.describe(error, timeout),
        })?;
        let body = read_body(&mut response).await;
        let header = |name| {
            let value = response.headers().get(name)?;
            std::str::from_utf8(value.as_bytes()).ok()
        };
        let body = decoded(header("content-encoding"), body, BODY_BYTES_MAX);
        Ok(Answer::parse(response.status().as_u16(), header, &body))
    }

    fn timeout(&self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let takes = f64::from(bytes) / f64::from(BYTES_PER_SECOND_LEAST);
        self.shared.request_timeout + Duration::from_secs_f64(takes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections to use now: new ones if the files of TLS have changed.
    fn connections(&self) -> Connections {
        let mut state = self.state();
        if state.tls.has_changed(clock::now()) {
            self.replace(&mut state);
        }
        state.connections.clone()
    }

    /// Gives the idle connections up, unless that has been done since these were taken.
    fn renew(&self, number: usize) -> Connections {
        let mut state = self.state();
        if state.connections.number == number {
            self.replace(&mut state);
        }
        state.connections.clone()
    }

    fn make_room_for_headers(&self, headers_max: usize) {
        let mut state = self.state();
        if state.headers_max != headers_max {
            state.headers_max = headers_max;
            self.replace(&mut state);
        }
    }

    fn replace(&self, state: &mut State) {
        let Shared { connect_timeout, idle_max, ref proxy, .. } = *self.shared;
        let (tls, number) = (state.tls.config(), state.connections.number.wrapping_add(1));
        let lookup = Lookup { turn: number, resolver: self.shared.resolver.clone() };
        let limits = Limits { connect_timeout, idle_max, headers_max: state.headers_max };
        match Connections::new(tls, limits, proxy.as_ref(), lookup) {
            Ok(connections) => state.connections = connections,
            Err(error) => tracing::warn!(%error, "keeping the connections as they are"),
        }
    }

    fn describe(&self, error: reqwest::Error, timeout: Duration) -> TransportError {
        if error.is_timeout() {
            return match error.is_connect() {
                true => TransportError::ConnectTimeout(self.shared.connect_timeout),
                false => TransportError::Timeout(timeout),
            };
        }
        let was_connected = !error.is_connect();
        let was_cut = was_connected && was_closed(&error);
        let error = error.without_url();
        let (cause, text) = (Cause::of(&error), text_of(&error));
        TransportError::Broken(Broken { cause, text, was_connected, was_cut })
    }
}

impl Connections {
    fn new(
        tls: ClientConfig,
        limits: Limits,
        proxy: Option<&Proxy>,
        lookup: Lookup,
    ) -> Result<Self, ClientError> {
        let Limits { connect_timeout, idle_max, headers_max } = limits;
        let number = lookup.turn;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .http1_max_headers(headers_max)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(lookup))
            .connector_layer(NoteConnections)
            .connect_timeout(connect_timeout)
            .tcp_user_timeout(PEER_SILENT_MAX)
            .tcp_keepalive(PROBE_AFTER)
            .tcp_keepalive_interval(PROBE_INTERVAL)
            .tcp_keepalive_retries(2)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(idle_max);
        let unusable = |error: reqwest::Error| ClientError::Http(text_of(&error.without_url()));
        if let Some(proxy) = proxy {
            let past = reqwest::NoProxy::from_string(proxy.no_proxy());
            let proxy = reqwest::Proxy::all(proxy.url()).map_err(unusable)?;
            builder = builder.proxy(proxy.no_proxy(past));
        }
        let http = builder.build().map_err(unusable)?;
        Ok(Self { http, number })
    }
}

tokio::task_local! {
    /// Whether the request of this task has asked for a new connection. If not, it goes over one
    /// that was there.
    static NEEDS_CONNECTION: Cell<bool>;
}

/// Takes note of requests that ask for a new connection.
#[derive(Clone)]
struct NoteConnections;

impl<S> Layer<S> for NoteConnections {
    type Service = Noting<S>;

    fn layer(&self, connector: S) -> Noting<S> {
        Noting { connector }
    }
}

#[derive(Clone)]
struct Noting<S> {
    connector: S,
}

impl<S: Service<R>, R> Service<R> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, target: R) -> S::Future {
        // Without a scope the client connects for a request that has found another connection.
        let _ = NEEDS_CONNECTION.try_with(|needs| needs.set(true));
        self.connector.call(target)
    }
}

/// Whether the peer closed the connection instead of answering. It may have begun an answer; that
/// is as rare as it is harmless: what is sent again because of an answer that broke off may arrive
/// twice either way.
fn was_closed(error: &reqwest::Error) -> bool {
    chain(error).any(|error| {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return error.is_incomplete_message();
        }
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
    })
}

fn into_http(request: Request) -> Result<reqwest::Request, TransportError> {
    let malformed = |what: &str| TransportError::Malformed(what.to_owned());
    let url = reqwest::Url::parse(&request.url).map_err(|_| malformed("address"))?;
    let method =
        reqwest::Method::from_bytes(request.method.as_bytes()).map_err(|_| malformed("method"))?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for (name, value) in &request.headers {
        let mut value = HeaderValue::from_str(value).map_err(|_| malformed(name))?;
        value.set_sensitive(matches!(name.as_str(), "authorization" | "x-acs-security-token"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed(name))?;
        headers.insert(name, value);
    }
    let mut http = reqwest::Request::new(method, url);
    *http.headers_mut() = headers;
    *http.body_mut() = request.body.map(|body| Bytes::from_owner(body).into());
    Ok(http)
}

/// The output of a future within a time, and a moment more: what has arrived by then is taken, also
/// where nobody could look in time.
pub(super) async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    if let Ok(output) = tokio::time::timeout(time, &mut future).await {
        return Some(output);
    }
    tokio::time::timeout(ARRIVED_GRACE, future).await.ok()
}

/// The body as far as it comes, up to the limits. The status is known already, so a body that
/// breaks off is not an error: what there is of it says no less.
async fn read_body(response: &mut reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while body.len() < BODY_BYTES_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            let room = BODY_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    let _ = within(BODY_TIMEOUT, reading).await;
    body
}

/// An error and its causes from the outside in, without repeats. What stands above a name that was
/// not found, or above words of TLS, says nothing more.
fn text_of(error: &(dyn Error + 'static)) -> String {
    let says_all =
        |error: &&(dyn Error + 'static)| error.is::<LookupError>() || error.is::<rustls::Error>();
    if let Some(error) = chain(error).find(says_all) {
        let flaw = error.downcast_ref().and_then(flaw_in);
        // The library would show it in its debug form.
        return flaw
            .map_or_else(|| error.to_string(), |flaw| format!("invalid peer certificate: {flaw}"));
    }
    let mut text = String::new();
    for cause in chain(error) {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&words);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::TlsFiles;
    use super::*;

    fn options() -> Options {
        Options {
            concurrency_max: 1,
            together: super::super::queue::Together { raw_bytes_max: 512 * 1024, lines_max: 4000 },
            in_order: false,
            verify_response: true,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
            tls: TlsFiles::default(),
            proxy: None,
        }
    }

    fn request(header: &str) -> Request {
        Request {
            method: "POST",
            url: "http://127.0.0.1:1/".to_owned(),
            headers: vec![("authorization".to_owned(), header.to_owned())],
            body: Some(Arc::from([1, 2, 3].as_slice())),
        }
    }

    #[test]
    fn a_large_request_has_more_time() {
        let client = Client::new(&options(), &[]).unwrap();

        assert_eq!(client.timeout(0), Duration::from_secs(1));
        assert_eq!(client.timeout(3 << 20), Duration::from_secs(25));
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_an_error_without_its_value() {
        let error = into_http(request("LOG id\n:s1gnature")).unwrap_err();

        assert_eq!(error, TransportError::Malformed("authorization".to_owned()));
        assert!(!error.to_string().contains("s1gnature"));
    }

    #[test]
    fn a_signature_does_not_show_in_the_debug_form() {
        let http = into_http(request("LOG id:s1gnature")).unwrap();

        assert!(!format!("{http:?}").contains("s1gnature"), "{http:?}");
    }
}
