//! The forward proxy on the way to the endpoint: its address, and whom it is not for.
//!
//! Pure: text in, meaning out, by the same rules as the HTTP client's. Which environment variable
//! the text comes from is the settings' business. Nothing here prints a user or a password.

use std::fmt;

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::Secret;

/// A forward proxy that requests go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `http[s]://[user:password@]host[:port]`.
    url: Secret,
    /// Who is reached without it, in the form of `NO_PROXY`.
    no_proxy: String,
}

/// Why a text is no proxy that can be used. Says what would be right, and nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// A kind of proxy that is not spoken here.
    #[error("a SOCKS proxy cannot be used; give an HTTP proxy: http://host:port")]
    Socks,
    /// Another scheme.
    #[error("the scheme is neither http nor https; expected http://[user:password@]host:port")]
    Scheme,
    /// No address at all.
    #[error(
        "this is no address of a proxy; expected http://[user:password@]host:port, with other \
         characters than letters and digits in user and password written as %XX (@ as %40)"
    )]
    Malformed,
}

impl Proxy {
    /// Reads `[http[s]://][user:password@]host[:port]`, and whom it is not for: names, addresses and
    /// networks, separated by commas.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(url: &str, no_proxy: &str) -> Result<Self, ProxyError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => {}
            "socks" | "socks4" | "socks4a" | "socks5" | "socks5h" => return Err(ProxyError::Socks),
            _ => return Err(ProxyError::Scheme),
        }
        let url = format!("{scheme}://{rest}");
        let uri: Uri = url.parse().map_err(|_| ProxyError::Malformed)?;
        let authority = uri.authority().ok_or(ProxyError::Malformed)?.as_str();
        let (_, place) = authority.split_once('@').unwrap_or(("", authority));
        let host = uri.host().unwrap_or_default();
        let is_host =
            !host.is_empty() && !host.bytes().any(|byte| b"@<>\"'{}|\\^`%".contains(&byte));
        let is_place = match place.strip_prefix(host) {
            Some("") => true,
            Some(port) => {
                let port = port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
                port.is_some_and(|port| port > 0)
            }
            None => false,
        };
        if !is_host || !is_place {
            return Err(ProxyError::Malformed);
        }
        let proxy = Self { url: Secret::new(url), no_proxy: no_proxy.to_owned() };
        // What the client would pass over without a word.
        let is_known = proxy.matcher("").intercept(&Uri::from_static("http://a.test/")).is_some();
        if is_known { Ok(proxy) } else { Err(ProxyError::Malformed) }
    }

    /// Whether a request to this address goes through it.
    #[must_use]
    pub fn is_for(&self, url: &str) -> bool {
        let matcher = self.matcher(&self.no_proxy);
        url.parse().is_ok_and(|uri| matcher.intercept(&uri).is_some())
    }

    /// The proxy's address, with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.expose()
    }

    /// Who is reached without it.
    #[must_use]
    pub fn no_proxy(&self) -> &str {
        &self.no_proxy
    }

    fn matcher(&self, no_proxy: &str) -> Matcher {
        Matcher::builder().all(self.url.expose()).no(no_proxy).build()
    }
}

/// The proxy's address, with `***` for user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.expose().trim_end_matches('/');
        match url.split_once("://").zip(url.rsplit_once('@')) {
            Some(((scheme, _), (_, place))) => write!(f, "{scheme}://***@{place}"),
            None => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_understands_is_a_proxy_and_nothing_else_is() {
        for (text, expected) in [
            ("http://proxy.test:3128", Ok("http://proxy.test:3128")),
            ("HTTPS://proxy.test/", Ok("HTTPS://proxy.test")),
            ("proxy.test:3128", Ok("http://proxy.test:3128")),
            ("user:s3cret@proxy.test:3128", Ok("http://***@proxy.test:3128")),
            ("http://user:s3%40cret@10.0.0.1:3128", Ok("http://***@10.0.0.1:3128")),
            ("http://[::1]:3128", Ok("http://[::1]:3128")),
            ("socks5://proxy.test:1080", Err(ProxyError::Socks)),
            ("SOCKS5H://user:s3cret@proxy.test", Err(ProxyError::Socks)),
            ("ftp://proxy.test", Err(ProxyError::Scheme)),
            ("://proxy.test", Err(ProxyError::Scheme)),
            ("http://", Err(ProxyError::Malformed)),
            ("http://:3128", Err(ProxyError::Malformed)),
            ("http://proxy.test:", Err(ProxyError::Malformed)),
            ("http://proxy.test:99999", Err(ProxyError::Malformed)),
            ("http://proxy.test:0", Err(ProxyError::Malformed)),
            ("http://user:s3cret", Err(ProxyError::Malformed)),
            ("http://user:s3@cret@proxy.test", Err(ProxyError::Malformed)),
            ("http://pro xy.test:3128", Err(ProxyError::Malformed)),
            ("http://proxy.test:3128\n", Err(ProxyError::Malformed)),
            ("http://[::1:3128", Err(ProxyError::Malformed)),
            ("not a proxy", Err(ProxyError::Malformed)),
            ("%", Err(ProxyError::Malformed)),
        ] {
            let parsed = Proxy::parse(text, "").map(|proxy| proxy.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text}");
            if let Ok(proxy) = Proxy::parse(text, "") {
                assert!(reqwest::Proxy::all(proxy.url()).is_ok(), "{text}");
                assert!(!format!("{proxy:?}").contains("s3"), "{proxy:?}");
            }
        }
    }

    #[test]
    fn who_is_named_is_reached_without_it() {
        let url = "https://shop.sls.test:8443";
        for (no_proxy, expected) in [
            ("", true),
            ("other.test", true),
            ("sls.test", false),
            (".sls.test", false),
            ("other.test, shop.sls.test", false),
            ("ls.test", true),
            ("*", false),
        ] {
            let proxy = Proxy::parse("http://proxy.test:3128", no_proxy).unwrap();
            assert_eq!(proxy.is_for(url), expected, "{no_proxy}");
        }
        let proxy = Proxy::parse("http://proxy.test:3128", "10.0.0.0/8").unwrap();
        assert!(!proxy.is_for("http://10.1.2.3:9200") && proxy.is_for("http://11.1.2.3:9200"));
    }
}
