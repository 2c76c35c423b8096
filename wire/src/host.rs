//! Whom the sender of a request believes to talk to: its header `Host`.
//!
//! A web page can make a name of its own lead to this machine, and a browser that has loaded it asks
//! here as if the page had come from here (DNS rebinding). Such a request still names the page's
//! `Host`. So what is not meant for the world answers only to names that nobody can buy.

/// Names below these belong to the machine or to its cluster.
const PRIVATE: [&str; 4] = [".localhost", ".internal", ".svc", ".cluster.local"];

/// Whether somebody else may have pointed this `Host` here.
///
/// Nobody can point an address, `localhost`, a name of one label, one in a cluster (`sls.logs.svc`), or
/// what is no name (`shop.127.0.0.1`, which browsers refuse). Without a `Host` it is no browser.
#[must_use]
pub fn is_foreign(host: &str) -> bool {
    let (_, place) = host.rsplit_once('@').unwrap_or(("", host));
    if place.starts_with('[') {
        return false;
    }
    let name = place.split_once(':').map_or(place, |(name, _port)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !name.bytes().all(is_plain) {
        return true;
    }
    let Some((_, last)) = name.rsplit_once('.') else { return false };
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && !PRIVATE.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_somebody_can_own_are_foreign() {
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:9200",
            "10.0.0.7:9465",
            "[::1]",
            "[::1]:9200",
            "localhost",
            "LOCALHOST:9465",
            "localhost.:80",
            "shop.localhost:9200",
            "shop.127.0.0.1",
            "sls:9200",
            "sls.logs.svc:9200",
            "sls.logs.svc.cluster.local",
        ] {
            assert!(!is_foreign(host), "{host}");
        }
        for host in [
            "evil.example.com",
            "evil.example.com:9200",
            "EVIL.example.",
            "127.0.0.1.nip.io",
            "127.0.0.1.evil.com:9465",
            "localhost.evil.com",
            "evil.com:127",
            "svc.evil.com",
            "evil.com/.svc",
            "localhost@evil.com",
            "a..b",
        ] {
            assert!(is_foreign(host), "{host}");
        }
    }
}
