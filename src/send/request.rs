//! Requests, down to the last header: what goes over the wire, before anything does.
//!
//! Pure: destination, batch, credentials and date in; URL, headers and body out. Source: the service's
//! pages on common request headers, PutLogs, and signatures V1 and V4; where those two disagree
//! with the vendor's SDK about V4, the SDK.

use std::sync::Arc;

use sha2::Digest as _;

use super::package_list;
use super::secret::{Credentials, Signature};
use crate::base::sealed::{Route, SealedBatch};
use crate::plan::Destination;
use logferry_wire::{API_VERSION, CONTENT_TYPE, content_md5, hex_lower, sign};

/// A request, ready to be sent. It has no `Debug`: it carries a token and a signature.
#[derive(Clone)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Absolute.
    pub url: String,
    /// Names in lower case, `host` among them; `content-length` is left to the client.
    pub headers: Vec<(String, String)>,
    /// The body, shared with the batch.
    pub body: Option<Arc<[u8]>>,
}

/// PutLogs: the batches of one load, which have the same destination, route and compression. Several are a
/// package list. `date_unix` is the time by the service's clock.
///
/// # Panics
/// Without a batch.
#[must_use]
pub fn put_logs(
    destination: &Destination,
    batches: &[SealedBatch],
    credentials: Option<&Credentials>,
    date_unix: i64,
) -> Request {
    let first = batches.first().expect("a load holds a batch");
    let (body, raw_bytes, mode) = match batches {
        [one] => (Arc::clone(&one.payload), one.raw_bytes as usize, None),
        several => {
            let list: Arc<[u8]> = package_list::encode(several).into();
            (Arc::clone(&list), list.len(), Some("batch_group"))
        }
    };
    let (shards, query) = shards(first.route);
    let path = format!("/logstores/{}/shards/{shards}", destination.logstore);
    let mut headers = Headers::common(destination, date_unix);
    headers.add("content-type", CONTENT_TYPE);
    headers.add("content-md5", &content_md5(&body));
    headers.add("x-log-bodyrawsize", &raw_bytes.to_string());
    // Of the packages, where there are several: a list itself is never compressed.
    if let Some(name) = first.compression.header() {
        headers.add("x-log-compresstype", name);
    }
    if let Some(mode) = mode {
        headers.add("x-log-mode", mode);
    }
    headers.finish("POST", destination, &path, &query, credentials, date_unix, Some(body))
}

/// The last part of the path, and the query, that lead to a batch's shard.
fn shards(route: Route) -> (&'static str, Vec<(String, String)>) {
    let (key, sequence) = match route {
        Route::Any => return ("lb", Vec::new()),
        Route::Key(key) => (key, None),
        Route::Once { key, sequence } => (key, Some(sequence)),
    };
    let mut query = vec![("key".to_owned(), format!("{key:032x}"))];
    query.extend(sequence.map(|sequence| ("seqid".to_owned(), sequence.to_string())));
    ("route", query)
}

/// ListShards: reads, changes nothing, and needs everything that PutLogs needs to be right.
#[must_use]
pub fn list_shards(
    destination: &Destination,
    credentials: Option<&Credentials>,
    date_unix: i64,
) -> Request {
    let path = format!("/logstores/{}/shards", destination.logstore);
    let mut headers = Headers::common(destination, date_unix);
    headers.add("x-log-bodyrawsize", "0");
    headers.finish("GET", destination, &path, &[], credentials, date_unix, None)
}

/// Headers being put together.
struct Headers(Vec<(String, String)>);

impl Headers {
    fn common(destination: &Destination, date_unix: i64) -> Self {
        let mut headers = Self(Vec::with_capacity(16));
        headers.add("host", &destination.endpoint.host_header(&destination.project));
        headers.add("user-agent", concat!("logferry/", env!("CARGO_PKG_VERSION")));
        headers.add("accept-encoding", "identity");
        headers.add("date", &http_date(date_unix));
        headers.add("x-log-apiversion", API_VERSION);
        headers
    }

    fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// Signs, if there is something to sign with: the last step, because it covers the others.
    #[expect(clippy::too_many_arguments, reason = "the parts of a request")]
    fn finish(
        mut self,
        method: &'static str,
        destination: &Destination,
        path: &str,
        query: &[(String, String)],
        credentials: Option<&Credentials>,
        date_unix: i64,
        body: Option<Arc<[u8]>>,
    ) -> Request {
        if let Some(credentials) = credentials {
            if let Some(token) = &credentials.security_token {
                self.add("x-acs-security-token", token.expose());
            }
            let (id, secret) = (&credentials.access_key_id, credentials.access_key_secret.expose());
            let authorization = match &destination.signature {
                Signature::V1 => {
                    self.add("x-log-signaturemethod", "hmac-sha1");
                    let parts = sign::Parts { method, path, query, headers: &self.0 };
                    sign::authorization_v1(&parts, id, secret)
                }
                Signature::V4 { region } => {
                    self.add("x-log-date", &compact_date(date_unix));
                    let digest = sha2::Sha256::digest(body.as_deref().unwrap_or_default());
                    self.add("x-log-content-sha256", &hex_lower(&digest));
                    let parts = sign::Parts { method, path, query, headers: &self.0 };
                    sign::authorization_v4(&parts, region, id, secret)
                }
            };
            self.add("authorization", &authorization);
        }
        let mut url = format!("{}{path}", destination.endpoint.origin(&destination.project));
        for (index, (name, value)) in query.iter().enumerate() {
            // Hexadecimal and decimal numbers need no encoding.
            url.extend([if index == 0 { "?" } else { "&" }, name, "=", value]);
        }
        Request { method, url, headers: self.0, body }
    }
}

/// `Tue, 14 Nov 2023 22:13:20 GMT`. A time that no calendar has reads as the epoch; the service
/// will complain and be believed.
fn http_date(unix: i64) -> String {
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    jiff::Timestamp::from_second(unix)
        .and_then(|time| printer.timestamp_to_rfc9110_string(&time))
        .unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 GMT".to_owned())
}

/// `20231114T221320Z`, of the same times as [`http_date`].
fn compact_date(unix: i64) -> String {
    // Years beyond four digits have no such form.
    const SECONDS: std::ops::Range<i64> = 0..253_402_300_800;
    let time = jiff::Timestamp::from_second(if SECONDS.contains(&unix) { unix } else { 0 });
    time.unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::{Endpoint, Secret};
    use super::*;
    use crate::base::sealed::{BatchId, DestinationId};
    use crate::base::span::{CollectionId, FileKey, Span, StreamKey};
    use logferry_wire::Compression;

    const DATE: i64 = 1_700_000_000;

    fn to(host: &str) -> Destination {
        Destination {
            endpoint: Endpoint { tls: false, host: host.to_owned(), port: 80 },
            project: "test-project".to_owned(),
            logstore: "test-logstore".to_owned(),
            ..Destination::sample()
        }
    }

    fn credentials(token: Option<&str>) -> Credentials {
        Credentials {
            access_key_id: "test-access-key-id".to_owned(),
            access_key_secret: Secret::new("test-access-key-secret".to_owned()),
            security_token: token.map(|token| Secret::new(token.to_owned())),
        }
    }

    /// The body of the published signature vectors.
    fn batch(compression: Compression) -> SealedBatch {
        let raw = concat!(
            "0a200880e2cfaa0612180a07636f6e74656e74120d4c6f67203120746f2066696c65220931302e372e302e",
            "3337321f0a085f5f706174685f5f12132f73686172652f6c6f67732f6170702e6c6f6732270a0a5f706f64",
            "5f6e616d655f12196170702d736964656361722d6c6f677461696c2d356671726c"
        );
        let bytes = (0..raw.len()).step_by(2).map(|at| u8::from_str_radix(&raw[at..at + 2], 16));
        let mut payload: Vec<u8> = bytes.map(Result::unwrap).collect();
        if compression == Compression::Lz4 {
            payload.splice(..0, [0xf0, 0x68]);
        }
        let stream = StreamKey { file: FileKey(0), collection: CollectionId(0) };
        SealedBatch {
            id: BatchId(0),
            span: Span::new(stream, 0, 14),
            destination: DestinationId(0),
            path: Arc::from("/share/logs/app.log"),
            payload: Arc::from(payload),
            compression,
            raw_bytes: 119,
            lines: 1,
            first: 0,
            route: Route::Any,
            since: crate::base::clock::now(),
        }
    }

    fn check(request: &Request, expected: &Expect) {
        let mut text = format!("{} {}\n", request.method, request.url);
        for (name, value) in &request.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        let version = concat!("logferry/", env!("CARGO_PKG_VERSION"));
        expected.assert_eq(&text.replace(version, "logferry/<version>"));
    }

    const NAMED: &str = "cn-hangzhou.log.aliyuncs.com";

    #[test]
    fn put_logs_is_signed_as_the_published_vectors() {
        let token = credentials(Some("test-security-token"));
        check(
            &put_logs(&to(NAMED), &[batch(Compression::Lz4)], Some(&token), DATE),
            &expect![[r#"
                POST http://test-project.cn-hangzhou.log.aliyuncs.com/logstores/test-logstore/shards/lb
                host: test-project.cn-hangzhou.log.aliyuncs.com
                user-agent: logferry/<version>
                accept-encoding: identity
                date: Tue, 14 Nov 2023 22:13:20 GMT
                x-log-apiversion: 0.6.0
                content-type: application/x-protobuf
                content-md5: 7A9A06A1F838DC6F418396C46EBDE3FF
                x-log-bodyrawsize: 119
                x-log-compresstype: lz4
                x-acs-security-token: test-security-token
                x-log-signaturemethod: hmac-sha1
                authorization: LOG test-access-key-id:PIVld3XdaVwnsbMz2hgRzi5caXc=
            "#]],
        );

        for (compression, signature) in [
            (Compression::Lz4, "2JZZQhvj7qPF4gFCj0z5+cif94s="),
            (Compression::None, "ko3uX6FgUeEesSc7eKkr+g55IU8="),
        ] {
            let credentials = credentials(None);
            let request = put_logs(&to(NAMED), &[batch(compression)], Some(&credentials), DATE);
            let authorization = format!("LOG test-access-key-id:{signature}");
            assert_eq!(request.headers.last().unwrap().1, authorization);
        }
    }

    #[test]
    fn a_route_is_signed_as_the_published_vectors() {
        let key = 0x14d2_f850_ad6e_a48e_46e4_547e_dbbb_27e0;
        let url = concat!(
            "http://test-project.cn-hangzhou.log.aliyuncs.com/logstores/test-logstore/shards/",
            "route?key=14d2f850ad6ea48e46e4547edbbb27e0"
        );
        for (route, more, signature) in [
            (Route::Key(key), "", "/m51o+jHi8VdXmxWfeXKoF+u8Og="),
            (Route::Once { key, sequence: 1 }, "&seqid=1", "S0K20UdSyey3MulKmn3W8Fzuu3k="),
        ] {
            let batch = SealedBatch { route, ..batch(Compression::Lz4) };
            let request = put_logs(&to(NAMED), &[batch], Some(&credentials(None)), DATE);
            let authorization = format!("LOG test-access-key-id:{signature}");
            assert_eq!(request.headers.last().unwrap().1, authorization);
            assert_eq!(request.url, format!("{url}{more}"));
        }
    }

    /// The published signatures of V4, over requests as they are made here.
    #[test]
    fn put_logs_is_signed_as_the_published_vectors_of_v4() {
        const KEY: u128 = 0x14d2_f850_ad6e_a48e_46e4_547e_dbbb_27e0;
        let region = "cn-hangzhou".to_owned();
        let to = Destination { signature: Signature::V4 { region }, ..to(NAMED) };
        let (lz4, none) = (Compression::Lz4, Compression::None);
        for (compression, route, token, signature) in [
            (
                lz4,
                Route::Any,
                None,
                "bc157459d3252d7640afe989635e22336d0e0195bf4d4eb91c8a8e1425109943",
            ),
            (
                none,
                Route::Any,
                None,
                "750ab5421d961e573ab27678461d415ffb1c6f08a5d3cf35bcb48723d2b18212",
            ),
            (
                lz4,
                Route::Key(KEY),
                None,
                "73b0adf779d3f8eba3184d02c0e9e3db14c842298d14acb82449e882f0e28270",
            ),
            (
                lz4,
                Route::Once { key: KEY, sequence: 1 },
                None,
                "b6c41e8b04d7985203c0df766e4a7df4210350055f063569817f3ba1c9c036a0",
            ),
            (
                lz4,
                Route::Any,
                Some("test-security-token"),
                "aeff708a781a0829f5eed29f24eb83adece296e3822dac39b5437309c67f38bc",
            ),
        ] {
            let batch = SealedBatch { route, ..batch(compression) };
            let request = put_logs(&to, &[batch], Some(&credentials(token)), DATE);
            let authorization = format!(
                "SLS4-HMAC-SHA256 Credential=test-access-key-id/20231114/cn-hangzhou/sls/\
                 aliyun_v4_request,Signature={signature}"
            );
            assert_eq!(request.headers.last().unwrap().1, authorization, "{route:?}");
        }
    }

    #[test]
    fn unsigned_put_logs_to_an_address_names_the_project_in_host_only() {
        check(
            &put_logs(&to("127.0.0.1"), &[batch(Compression::None)], None, DATE),
            &expect![[r#"
                POST http://127.0.0.1/logstores/test-logstore/shards/lb
                host: test-project.127.0.0.1
                user-agent: logferry/<version>
                accept-encoding: identity
                date: Tue, 14 Nov 2023 22:13:20 GMT
                x-log-apiversion: 0.6.0
                content-type: application/x-protobuf
                content-md5: 6A24843F53D5186C441B4C330037A0EC
                x-log-bodyrawsize: 119
            "#]],
        );
    }

    #[test]
    fn several_batches_are_a_package_list() {
        let batches = [batch(Compression::Lz4), batch(Compression::Lz4)];

        let request = put_logs(&to(NAMED), &batches, Some(&credentials(None)), DATE);

        let body = request.body.as_deref().unwrap();
        assert_eq!(body, package_list::encode(&batches));
        let header = |name: &str| {
            let found = request.headers.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(header("x-log-mode"), Some("batch_group"));
        assert_eq!(header("x-log-compresstype"), Some("lz4"));
        assert_eq!(header("x-log-bodyrawsize"), Some(body.len().to_string().as_str()));
        assert_eq!(header("content-md5"), Some(content_md5(body).as_str()));
        let alone = put_logs(&to(NAMED), &batches[..1], None, DATE);
        assert_eq!(request.url, alone.url);
        assert!(alone.headers.iter().all(|(name, _)| name != "x-log-mode"));
    }

    #[test]
    fn list_shards_has_no_body() {
        let request = list_shards(&to(NAMED), Some(&credentials(None)), DATE);

        check(
            &request,
            &expect![[r#"
            GET http://test-project.cn-hangzhou.log.aliyuncs.com/logstores/test-logstore/shards
            host: test-project.cn-hangzhou.log.aliyuncs.com
            user-agent: logferry/<version>
            accept-encoding: identity
            date: Tue, 14 Nov 2023 22:13:20 GMT
            x-log-apiversion: 0.6.0
            x-log-bodyrawsize: 0
            x-log-signaturemethod: hmac-sha1
            authorization: LOG test-access-key-id:C+B93/kq5K31kcQMqlB+5wuUI90=
        "#]],
        );
        assert!(request.body.is_none());
    }

    #[test]
    fn any_time_makes_a_date() {
        for unix in [i64::MIN, -1, 0, 253_402_300_800, i64::MAX] {
            assert!(http_date(unix).ends_with(" GMT"), "{unix}");
            assert_eq!(compact_date(unix).len(), "20231114T221320Z".len(), "{unix}");
        }
    }
}
