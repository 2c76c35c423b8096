//! The only user of the HTTP client: a [`Request`] out, an [`Answer`] back.
//!
//! It decides nothing about retries. A connection that the peer closed while it was idle is
//! replaced by the client itself, without a failure, because nothing of the request had been sent.
//!
//! # Limits
//! Every wait has an end: connecting (name resolution and TLS included) and the whole attempt have
//! their timeouts from the options, and the kernel gives up on unacknowledged bytes after the
//! latter. Of a body no more than [`BODY_BYTES_MAX`] is read. Redirects are not followed: the
//! service sends none, so one comes from somebody else.
//!
//! # Proxies
//! `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` count as everywhere, but never for
//! loopback.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::Options;
use super::answer::Answer;
use super::request::Request;

/// Most bytes read of an answer's body. An error of the service has a few hundred.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Less than the 60 s after which load balancers close idle connections, so that ours is rarely
/// the one that is being closed as we use it.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// A client for one endpoint, with its pool of connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
    connect_timeout: Duration,
    request_timeout: Duration,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS settings do not fit together.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be built, for example because of a malformed proxy variable.
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
    /// The connection was refused, broke or spoke nonsense; or the name is not known.
    #[error("{0}")]
    Broken(String),
    /// The request cannot be put on the wire: some setting has characters that do not belong there.
    #[error("the {0} of the request has characters that do not belong there")]
    Malformed(String),
}

impl Client {
    /// A client as the options want it. Opens no connection yet.
    ///
    /// # Errors
    /// If TLS or the proxy settings of the environment are unusable.
    pub fn new(options: &Options) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config()?)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .timeout(options.request_timeout)
            .tcp_user_timeout(options.request_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_keepalive_interval(Duration::from_secs(10))
            .tcp_keepalive_retries(3)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(options.concurrency_max);
        if options.endpoint.is_loopback() {
            builder = builder.no_proxy();
        }
        let inner = builder.build().map_err(|error| ClientError::Http(chain_of(error)))?;
        let Options { connect_timeout, request_timeout, .. } = *options;
        Ok(Self { inner, connect_timeout, request_timeout })
    }

    /// One attempt.
    ///
    /// *Cancel-safe* in that dropping it breaks the connection; whether the endpoint has taken the
    /// request is then unknown.
    ///
    /// # Errors
    /// If no status line has come back.
    pub async fn send(&self, request: Request) -> Result<Answer, TransportError> {
        let request = into_http(request)?;
        let mut response =
            self.inner.execute(request).await.map_err(|error| self.describe(error))?;
        let body = read_body(&mut response).await;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Ok(Answer::parse(response.status().as_u16(), header, &body))
    }

    fn describe(&self, error: reqwest::Error) -> TransportError {
        if !error.is_timeout() {
            TransportError::Broken(chain_of(error))
        } else if error.is_connect() {
            TransportError::ConnectTimeout(self.connect_timeout)
        } else {
            TransportError::Timeout(self.request_timeout)
        }
    }
}

/// TLS 1.2 and 1.3 with ring; certificates are verified against the roots inside the binary.
fn tls_config() -> Result<rustls::ClientConfig, rustls::Error> {
    let roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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

/// The body as far as it comes, up to the limit. The status is known already, so a body that
/// breaks off is not an error: what there is of it says no less.
async fn read_body(response: &mut reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        let room = BODY_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    body
}

/// The causes of an error from the outside in, without the address and without repeats.
fn chain_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{CredentialsSource, Endpoint};
    use super::*;

    fn options() -> Options {
        Options {
            endpoint: Endpoint { tls: true, host: "127.0.0.1".to_owned(), port: 1 },
            project: "shop".to_owned(),
            logstore: "orders".to_owned(),
            credentials: CredentialsSource::Unsigned,
            concurrency_max: 1,
            verify_response: true,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
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
    fn tls_is_set_up_with_roots_and_without_http_2() {
        let config = tls_config().unwrap();

        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
        assert!(webpki_roots::TLS_SERVER_ROOTS.len() > 50);
        Client::new(&options()).unwrap();
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
