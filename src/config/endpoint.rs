//! The endpoint, from text to parts.
//!
//! By hand rather than with a URL library: almost everything that a URL may hold (user, path,
//! query) would be a mistake here, and each deserves its own words. Resolves no names.

use std::net::{IpAddr, Ipv6Addr};

use super::logtail;
use crate::send::Endpoint;

/// Parses `http://host[:port]`, `https://host[:port]` or a bare host name, which means https.
///
/// # Errors
/// Why it is none of them. The message never repeats a part that may hold a password.
pub(super) fn parse(text: &str) -> Result<Endpoint, String> {
    let (tls, has_scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, true, rest),
        Some(_) => return Err("the scheme is neither http nor https".to_owned()),
        None => (true, false, text),
    };
    if rest.contains('@') {
        return Err("a user name or password has no place here".to_owned());
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['?', '#']) {
        return Err("a query or fragment has no place here".to_owned());
    }
    if authority.contains('/') {
        return Err("a path has no place here".to_owned());
    }
    let (host, port) = split_port(authority)?;
    if port.is_some() && !has_scheme {
        return Err("a port needs http:// or https:// in front".to_owned());
    }
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    Ok(Endpoint { tls, host: host_name(host)?, port })
}

/// Writes the endpoint in full.
pub(super) fn print(endpoint: &Endpoint) -> String {
    let scheme = if endpoint.tls { "https" } else { "http" };
    let Endpoint { host, port, .. } = endpoint;
    if host.contains(':') {
        format!("{scheme}://[{host}]:{port}")
    } else {
        format!("{scheme}://{host}:{port}")
    }
}

/// The region in the name of one of the service's endpoints:
/// `cn-hangzhou-intranet.log.aliyuncs.com`.
pub(super) fn region(host: &str) -> Option<String> {
    let name = host.strip_suffix(".log.aliyuncs.com")?;
    let network = ["-intranet", "-share"].iter().find_map(|network| name.strip_suffix(network));
    let region = network.unwrap_or(name);
    logtail::is_region(region).then(|| region.to_owned())
}

/// Hides what stands before an `@`, for messages.
pub(super) fn hide_user(text: &str) -> String {
    let Some((user, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = user.find("://").map_or("", |at| &user[..at + 3]);
    format!("{scheme}***@{host}")
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
        host.parse::<Ipv6Addr>().map_err(|_| "what is in brackets is no IPv6 address")?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err("only a port may follow the bracket".to_owned()),
        }
    } else if authority.matches(':').count() > 1 {
        return Err("an IPv6 address needs brackets".to_owned());
    } else {
        authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    let Some(port) = port else { return Ok((host, None)) };
    let digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if port > 0 && digits_only => Ok((host, Some(port))),
        _ => Err("the port is not a number from 1 to 65535".to_owned()),
    }
}

/// Checks a host name or address and writes it in lower case.
fn host_name(host: &str) -> Result<String, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.len() > 253 || !host.split('.').all(is_label) {
        return Err("it holds no host name".to_owned());
    }
    let last_label_is_number =
        host.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if last_label_is_number {
        return Err("it is no complete IP address".to_owned());
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        parse(text).map_or_else(|why| format!("! {why}"), |endpoint| print(&endpoint))
    }

    #[test]
    fn the_three_forms_are_understood() {
        for (text, expected) in [
            ("http://10.0.0.1:9200", "http://10.0.0.1:9200"),
            ("http://127.0.0.1", "http://127.0.0.1:80"),
            ("HTTPS://CN-Hangzhou.log.aliyuncs.com/", "https://cn-hangzhou.log.aliyuncs.com:443"),
            (
                "cn-hangzhou-intranet.log.aliyuncs.com",
                "https://cn-hangzhou-intranet.log.aliyuncs.com:443",
            ),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://[::1]", "https://[::1]:443"),
            ("localhost", "https://localhost:443"),
        ] {
            assert_eq!(printed(text), expected);
            assert_eq!(printed(expected), expected, "what is printed is read back");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, expected) in [
            ("", "! it holds no host name"),
            ("not a url", "! it holds no host name"),
            ("https://", "! it holds no host name"),
            ("ftp://host", "! the scheme is neither http nor https"),
            ("http://u:secret@host", "! a user name or password has no place here"),
            ("http://host/logstores", "! a path has no place here"),
            ("http://host?x=1", "! a query or fragment has no place here"),
            ("http://host:0", "! the port is not a number from 1 to 65535"),
            ("http://host:99999", "! the port is not a number from 1 to 65535"),
            ("http://host:+80", "! the port is not a number from 1 to 65535"),
            ("host:9200", "! a port needs http:// or https:// in front"),
            ("http://::1", "! an IPv6 address needs brackets"),
            ("http://[::1", "! the bracket is not closed"),
            ("http://[x]", "! what is in brackets is no IPv6 address"),
            ("http://1.2.3", "! it is no complete IP address"),
            ("http://a..b", "! it holds no host name"),
        ] {
            assert_eq!(printed(text), expected, "{text}");
        }
    }

    #[test]
    fn the_region_is_in_the_names_of_the_service() {
        for (host, expected) in [
            ("cn-hangzhou.log.aliyuncs.com", Some("cn-hangzhou")),
            ("ap-southeast-1-intranet.log.aliyuncs.com", Some("ap-southeast-1")),
            ("cn-shanghai-finance-1-share.log.aliyuncs.com", Some("cn-shanghai-finance-1")),
            ("log-global.aliyuncs.com", None),
            ("shop.cn-hangzhou.log.aliyuncs.com", None),
            ("sls.example.com", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(region(host).as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        let is = |text: &str| parse(text).unwrap().is_loopback();
        assert!(is("http://localhost") && is("http://127.8.8.8") && is("http://[::1]"));
        assert!(is("http://[::ffff:127.0.0.1]"));
        assert!(!is("http://10.0.0.1") && !is("http://localhost.example.com"));
    }

    #[test]
    fn what_stands_before_an_at_sign_is_hidden() {
        assert_eq!(hide_user("http://user:p@ss@host/x"), "http://***@host/x");
        assert_eq!(hide_user("user@host"), "***@host");
        assert_eq!(hide_user("http://host"), "http://host");
    }
}
