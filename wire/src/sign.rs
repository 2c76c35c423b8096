//! Request signatures: V1 (HMAC-SHA1) and V4 (HMAC-SHA256).
//!
//! Pure: the caller brings the request's parts, gets the value of `Authorization`. Used by the
//! agent to sign and by the mock endpoint to verify; held to the published vectors below, which
//! were computed by the vendor's SDKs.

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Digest as _;

use super::hex_lower;

/// The parts of a request that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `GET`, `POST`…
    pub method: &'a str,
    /// Path, without query.
    pub path: &'a str,
    /// Query pairs, decoded; any order.
    pub query: &'a [(String, String)],
    /// All headers that will be sent, names in lower case; any order.
    pub headers: &'a [(String, String)],
}

impl Parts<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// The string that V1 signs: method, `Content-MD5`, `Content-Type`, `Date`, the sorted `x-log-*`
/// and `x-acs-*` headers, and the resource with its sorted, un-encoded query.
///
/// `x-log-date` is left out: the service takes it instead of `Date` but does not sign it.
#[must_use]
pub fn string_to_sign_v1(parts: &Parts<'_>) -> String {
    let mut named: Vec<(&str, &str)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| is_service_header(name) && *name != "x-log-date")
        .collect();
    named.sort_unstable();

    let mut text = String::with_capacity(512);
    for value in [
        parts.method,
        parts.header("content-md5"),
        parts.header("content-type"),
        parts.header("date"),
    ] {
        text.push_str(value);
        text.push('\n');
    }
    for (name, value) in named {
        text.extend([name, ":", value, "\n"]);
    }
    text.push_str(parts.path);
    let mut pairs: Vec<&(String, String)> = parts.query.iter().collect();
    pairs.sort_unstable();
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        text.extend([if index == 0 { "?" } else { "&" }, key, "=", value]);
    }
    text
}

/// The value of `Authorization` under V1: `LOG <id>:<base64 of HMAC-SHA1>`.
#[must_use]
pub fn authorization_v1(parts: &Parts<'_>, access_key_id: &str, access_key_secret: &str) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(access_key_secret.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(string_to_sign_v1(parts).as_bytes());
    let signature = base64::prelude::BASE64_STANDARD.encode(mac.finalize().into_bytes());
    format!("LOG {access_key_id}:{signature}")
}

/// The value of `Authorization` under V4. The headers `x-log-date` (`YYYYMMDDTHHMMSSZ`), `host`
/// and `x-log-content-sha256` must be among `parts.headers`.
#[must_use]
pub fn authorization_v4(
    parts: &Parts<'_>,
    region: &str,
    access_key_id: &str,
    access_key_secret: &str,
) -> String {
    let date_time = parts.header("x-log-date");
    let date = date_time.get(..8).unwrap_or(date_time);
    let scope = format!("{date}/{region}/sls/aliyun_v4_request");
    let canonical = hex_lower(&sha2::Sha256::digest(canonical_request_v4(parts)));
    let text = format!("SLS4-HMAC-SHA256\n{date_time}\n{scope}\n{canonical}");

    let mut key = format!("aliyun_v4{access_key_secret}").into_bytes();
    for step in [date, region, "sls", "aliyun_v4_request"] {
        key = hmac_sha256(&key, step.as_bytes());
    }
    let signature = hex_lower(&hmac_sha256(&key, text.as_bytes()));
    format!("SLS4-HMAC-SHA256 Credential={access_key_id}/{scope},Signature={signature}")
}

fn canonical_request_v4(parts: &Parts<'_>) -> String {
    let mut signed: Vec<(&str, &str)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.trim()))
        .filter(|(name, _)| is_service_header(name) || *name == "host" || *name == "content-type")
        .collect();
    signed.sort_unstable();
    let mut pairs: Vec<&(String, String)> = parts.query.iter().collect();
    pairs.sort_unstable();
    let query: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| match value.as_str() {
            "" => key.clone(),
            value => format!("{key}={}", percent_encode(value)),
        })
        .collect();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    format!(
        "{}\n{}\n{}\n{lines}\n{}\n{}",
        parts.method,
        parts.path,
        query.join("&"),
        names.join(";"),
        parts.header("x-log-content-sha256"),
    )
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac =
        Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn is_service_header(name: &str) -> bool {
    name.starts_with("x-log-") || name.starts_with("x-acs-")
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn percent_encode(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content_md5;

    const RAW: &str = "0a200880e2cfaa0612180a07636f6e74656e74120d4c6f67203120746f2066696c65220931302e372e302e3337321f0a085f5f706174685f5f12132f73686172652f6c6f67732f6170702e6c6f6732270a0a5f706f645f6e616d655f12196170702d736964656361722d6c6f677461696c2d356671726c";
    const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const LB: &str = "/logstores/test-logstore/shards/lb";
    const ROUTE: &str = "/logstores/test-logstore/shards/route";
    const KEY: (&str, &str) = ("key", "14d2f850ad6ea48e46e4547edbbb27e0");

    fn raw_body() -> Vec<u8> {
        (0..RAW.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&RAW[at..at + 2], 16).unwrap())
            .collect()
    }

    fn body(compressed: bool) -> Vec<u8> {
        if compressed { [&[0xf0, 0x68], raw_body().as_slice()].concat() } else { raw_body() }
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn check_v1(
        compressed: bool,
        path: &str,
        query: &[(&str, &str)],
        extra: &[(&str, &str)],
        expected: &str,
    ) {
        let md5 = content_md5(&body(compressed));
        let mut headers = vec![
            ("content-md5", md5.as_str()),
            ("content-type", "application/x-protobuf"),
            ("date", DATE),
            ("host", "test-project.cn-hangzhou.log.aliyuncs.com"),
            ("x-log-apiversion", "0.6.0"),
            ("x-log-bodyrawsize", "119"),
            ("x-log-signaturemethod", "hmac-sha1"),
        ];
        if compressed {
            headers.push(("x-log-compresstype", "lz4"));
        }
        headers.extend(extra);
        let parts = Parts { method: "POST", path, query: &owned(query), headers: &owned(&headers) };
        assert_eq!(
            authorization_v1(&parts, "test-access-key-id", "test-access-key-secret"),
            format!("LOG test-access-key-id:{expected}")
        );
    }

    #[test]
    fn bodies_of_the_vectors_have_the_published_digests() {
        assert_eq!(content_md5(&body(false)), "6A24843F53D5186C441B4C330037A0EC");
        assert_eq!(content_md5(&body(true)), "7A9A06A1F838DC6F418396C46EBDE3FF");
    }

    #[test]
    fn v1_equals_the_vendors_vectors() {
        let token = [("x-acs-security-token", "test-security-token")];
        check_v1(true, LB, &[], &[], "2JZZQhvj7qPF4gFCj0z5+cif94s=");
        check_v1(false, LB, &[], &[], "ko3uX6FgUeEesSc7eKkr+g55IU8=");
        check_v1(true, ROUTE, &[KEY], &[], "/m51o+jHi8VdXmxWfeXKoF+u8Og=");
        check_v1(true, ROUTE, &[("seqid", "1"), KEY], &[], "S0K20UdSyey3MulKmn3W8Fzuu3k=");
        check_v1(true, LB, &[], &token, "PIVld3XdaVwnsbMz2hgRzi5caXc=");
    }

    #[test]
    fn v1_equals_the_vectors_of_the_vendors_rust_sdk() {
        let check = |id: &str, secret: &str, method, path, query: &[_], body: &[_], expected| {
            let fixed = [
                ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
                ("x-log-apiversion", "0.6.0"),
                ("x-log-signaturemethod", "hmac-sha1"),
            ];
            let headers = owned(&[&fixed, body].concat());
            let parts = Parts { method, path, query: &owned(query), headers: &headers };
            assert_eq!(authorization_v1(&parts, id, secret), format!("LOG {id}:{expected}"));
        };
        let json = [
            ("content-type", "application/json"),
            ("content-md5", "CE688F8D1AC3ED309BA9BE0A5ABAFCE5"),
        ];
        let with_token = [json.as_slice(), &[("x-acs-security-token", "test-security-token")]];
        let with_token = with_token.concat();
        let (id, secret) = ("test-access-key-id", "test-access-key");
        let logs = [("type", "log"), ("offset", "0"), ("line", "100")];
        let pull = [("type", "log"), ("count", "1000"), ("cursor", "MTczNzY2OTAzNjAxNzIxODQ1NA==")];
        let (store, shard) = ("/logstores/test-logstore", "/logstores/test/shards/2");

        check("", "", "GET", "/", &[], &[], "SApFTtfTFKHmzdEdaMe5TjNn+RQ=");
        check(id, secret, "POST", store, &logs, &json, "4pL2xZJERC3tPKtRiHh9+nMG3tI=");
        check(id, secret, "POST", store, &logs, &with_token, "ZQt+0wIvpd+O9yIJKeKxZTJ2hv0=");
        check(id, secret, "POST", shard, &pull, &with_token, "K3rw5WXRe77aZ/meSyEa8NNUYFc=");
    }

    #[test]
    fn v1_string_is_as_documented() {
        let headers = owned(&[
            ("content-md5", "7A9A06A1F838DC6F418396C46EBDE3FF"),
            ("content-type", "application/x-protobuf"),
            ("date", DATE),
            ("x-log-bodyrawsize", "119"),
            ("x-log-apiversion", "0.6.0"),
            ("x-log-date", DATE),
            ("x-log-signaturemethod", "hmac-sha1"),
            ("x-log-compresstype", "lz4"),
        ]);
        let parts = Parts { method: "POST", path: LB, query: &[], headers: &headers };
        expect_test::expect![[r#"
            POST
            7A9A06A1F838DC6F418396C46EBDE3FF
            application/x-protobuf
            Tue, 14 Nov 2023 22:13:20 GMT
            x-log-apiversion:0.6.0
            x-log-bodyrawsize:119
            x-log-compresstype:lz4
            x-log-signaturemethod:hmac-sha1
            /logstores/test-logstore/shards/lb"#]]
        .assert_eq(&string_to_sign_v1(&parts));
    }

    fn check_v4(
        compressed: bool,
        path: &str,
        query: &[(&str, &str)],
        extra: &[(&str, &str)],
        expected: &str,
    ) {
        let sha = hex_lower(&sha2::Sha256::digest(body(compressed)));
        let mut headers = vec![
            ("content-type", "application/x-protobuf"),
            ("host", "test-project.cn-hangzhou.log.aliyuncs.com"),
            ("x-log-apiversion", "0.6.0"),
            ("x-log-bodyrawsize", "119"),
            ("x-log-content-sha256", sha.as_str()),
            ("x-log-date", "20231114T221320Z"),
        ];
        if compressed {
            headers.push(("x-log-compresstype", "lz4"));
        }
        headers.extend(extra);
        let parts = Parts { method: "POST", path, query: &owned(query), headers: &owned(&headers) };
        let value =
            authorization_v4(&parts, "cn-hangzhou", "test-access-key-id", "test-access-key-secret");
        assert_eq!(
            value,
            format!(
                "SLS4-HMAC-SHA256 Credential=test-access-key-id/20231114/cn-hangzhou/sls/aliyun_v4_request,Signature={expected}"
            )
        );
    }

    #[test]
    fn v4_equals_the_vendors_vectors() {
        let token = [("x-acs-security-token", "test-security-token")];
        for (compressed, path, query, extra, expected) in [
            (
                true,
                LB,
                &[][..],
                &[][..],
                "bc157459d3252d7640afe989635e22336d0e0195bf4d4eb91c8a8e1425109943",
            ),
            (
                false,
                LB,
                &[],
                &[],
                "750ab5421d961e573ab27678461d415ffb1c6f08a5d3cf35bcb48723d2b18212",
            ),
            (
                true,
                ROUTE,
                &[KEY],
                &[],
                "73b0adf779d3f8eba3184d02c0e9e3db14c842298d14acb82449e882f0e28270",
            ),
            (
                true,
                ROUTE,
                &[KEY, ("seqid", "1")],
                &[],
                "b6c41e8b04d7985203c0df766e4a7df4210350055f063569817f3ba1c9c036a0",
            ),
            (
                true,
                LB,
                &[],
                &token,
                "aeff708a781a0829f5eed29f24eb83adece296e3822dac39b5437309c67f38bc",
            ),
        ] {
            check_v4(compressed, path, query, extra, expected);
        }
    }
}
