//! The address of the service, parsed. It does not read settings and does not resolve names.

use std::fmt;
use std::net::IpAddr;

/// Address of the service, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https` rather than `http`.
    pub tls: bool,
    /// Host name without the project, or an IP address (IPv6 without brackets).
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// Whether the host is a name that a project can stand in front of, rather than an IP address
    /// or `localhost`.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.address().is_none() && !self.is_localhost()
    }

    /// Whether requests never leave the machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address().is_some_and(|address| address.to_canonical().is_loopback())
            || self.is_localhost()
    }

    /// Where a project's requests go: `{scheme}://{host}[:port]`, without a path. A name has the
    /// project in front.
    #[must_use]
    pub fn origin(&self, project: &str) -> String {
        let scheme = self.scheme();
        let (host, port) = (self.bracketed_host(), self.port_suffix());
        if self.is_named() {
            format!("{scheme}://{project}.{host}{port}")
        } else {
            format!("{scheme}://{host}{port}")
        }
    }

    /// The header `Host` of a project's requests.
    ///
    /// The service reads the project from its first label, so an address without a name gets the
    /// project in front too. No port follows there: it is a name made up for the service and not
    /// the place the request goes to.
    #[must_use]
    pub fn host_header(&self, project: &str) -> String {
        let port = if self.is_named() { self.port_suffix() } else { String::new() };
        format!("{project}.{}{port}", self.bracketed_host())
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn is_localhost(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    fn port_suffix(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { String::new() } else { format!(":{}", self.port) }
    }
}

/// As a person would write it: `https://cn-hangzhou.log.aliyuncs.com`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.bracketed_host(), self.port_suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endpoint, then what it gives for the project `shop`: display, origin, `Host`.
    fn check(tls: bool, host: &str, port: u16, expected: [&str; 3]) {
        let endpoint = Endpoint { tls, host: host.to_owned(), port };
        let actual = [endpoint.to_string(), endpoint.origin("shop"), endpoint.host_header("shop")];
        assert_eq!(actual, expected);
    }

    #[test]
    fn a_name_has_the_project_in_front_and_an_address_only_in_the_host_header() {
        let region = "cn-hangzhou.log.aliyuncs.com";
        check(
            true,
            region,
            443,
            [
                "https://cn-hangzhou.log.aliyuncs.com",
                "https://shop.cn-hangzhou.log.aliyuncs.com",
                "shop.cn-hangzhou.log.aliyuncs.com",
            ],
        );
        check(
            false,
            "sls.test",
            8080,
            ["http://sls.test:8080", "http://shop.sls.test:8080", "shop.sls.test:8080"],
        );
        check(
            false,
            "127.0.0.1",
            9200,
            ["http://127.0.0.1:9200", "http://127.0.0.1:9200", "shop.127.0.0.1"],
        );
        check(false, "localhost", 80, ["http://localhost", "http://localhost", "shop.localhost"]);
        check(false, "::1", 9200, ["http://[::1]:9200", "http://[::1]:9200", "shop.[::1]"]);
    }

    #[test]
    fn only_loopback_is_loopback() {
        let is_loopback =
            |host: &str| Endpoint { tls: false, host: host.to_owned(), port: 80 }.is_loopback();

        for host in ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "::2", "localhost.example.com", "127.0.0.1.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
