//! The proxy variables of the environment: which of them is in force for the endpoint.
//!
//! They count as everywhere: `HTTPS_PROXY` or `HTTP_PROXY` by the endpoint's scheme, else `ALL_PROXY`,
//! but for whom `NO_PROXY` names; of the two spellings of a name, the one in capitals first. An empty
//! one is not set. For loopback none of them counts.
//!
//! What is no address of a proxy is a mistake wherever it stands: to pass it over would send logs
//! around the proxy that somebody has ordered.

use super::checked::Effective;
use super::endpoint;
use super::layers::{Environment, variable};
use super::meaning::Meanings;
use super::mistake::{Mistake, Mistakes};
use crate::send::Endpoint;
use crate::send::proxy::{Proxy, ProxyError};

/// Both spellings of a name.
type Spellings = [&'static str; 2];

const HTTP: Spellings = ["HTTP_PROXY", "http_proxy"];
const HTTPS: Spellings = ["HTTPS_PROXY", "https_proxy"];
const ALL: Spellings = ["ALL_PROXY", "all_proxy"];
const NO: Spellings = ["NO_PROXY", "no_proxy"];

/// What the environment says of proxies.
#[derive(Default)]
pub(super) struct Found {
    /// The one that requests to the endpoint go through, unless `NO_PROXY` names it.
    pub(super) proxy: Option<Proxy>,
    /// A row for each variable that is set, for `check`.
    pub(super) rows: Vec<Effective>,
}

/// Reads the proxy variables. Mistakes are noted.
pub(super) fn find(env: &Environment, meanings: &Meanings, mistakes: &mut Mistakes) -> Found {
    let Some(endpoint) = meanings.endpoint() else { return Found::default() };
    let origin = endpoint.origin(&meanings.text("project").unwrap_or_default());
    let no_proxy = text(env, NO, mistakes);
    let excluded = no_proxy.map_or("", |(_, list)| list);
    let own = if endpoint.tls { HTTPS } else { HTTP };
    let mut found = Found::default();
    let mut is_decided = endpoint.is_loopback();
    for spellings in [own, ALL, if endpoint.tls { HTTP } else { HTTPS }] {
        let Some((name, url)) = text(env, spellings, mistakes) else { continue };
        let is_candidate = !is_decided && (spellings == own || spellings == ALL);
        let parsed = Proxy::parse(url, excluded);
        let is_named = is_candidate && !is_excluded(excluded, &origin);
        let use_of = match (is_candidate, is_named) {
            (true, true) => "environment".to_owned(),
            (true, false) => "environment (not used: NO_PROXY names the endpoint)".to_owned(),
            (false, _) => unused(&endpoint, spellings, own),
        };
        let shown = match parsed {
            Ok(proxy) => {
                let shown = proxy.to_string();
                if is_candidate {
                    found.proxy = Some(proxy);
                }
                shown
            }
            // Good for other programs, and not asked here.
            Err(ProxyError::Socks | ProxyError::Scheme) if !is_named => {
                // What stands there may as well be a name and a password.
                let is_scheme = |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
                let scheme = url.split_once("://").map(|(scheme, _)| scheme).filter(is_scheme);
                scheme.map_or_else(|| "***".to_owned(), |scheme| format!("{scheme}://***"))
            }
            Err(error) => {
                mistakes.push(Mistake::new(name, error.to_string()).origin("environment"));
                continue;
            }
        };
        is_decided |= is_candidate;
        found.rows.push(row(name, &shown, &use_of));
    }
    if let Some((name, list)) = no_proxy {
        found.rows.push(row(name, &endpoint::hide_user(list), "environment"));
    }
    found
}

/// Whether the list names the endpoint: asked of a proxy that is surely good.
fn is_excluded(no_proxy: &str, origin: &str) -> bool {
    Proxy::parse("http://proxy.invalid", no_proxy).is_ok_and(|proxy| !proxy.is_for(origin))
}

fn unused(endpoint: &Endpoint, spellings: Spellings, own: Spellings) -> String {
    if endpoint.is_loopback() {
        "environment (not used: the endpoint is on this machine)".to_owned()
    } else if spellings == ALL {
        format!("environment (not used: {} is set)", own[0])
    } else {
        let scheme = if endpoint.tls { "https" } else { "http" };
        format!("environment (not used: the endpoint is {scheme}://)")
    }
}

/// The first spelling that is set, and what it says. One that is no UTF-8 is a mistake.
fn text<'a>(
    env: &'a Environment,
    spellings: Spellings,
    mistakes: &mut Mistakes,
) -> Option<(&'static str, &'a str)> {
    let (name, value) =
        spellings.into_iter().find_map(|name| Some((name, variable(env, name)?)))?;
    match value {
        Ok(text) => Some((name, text)),
        Err(_) => {
            let advice = "the value is not UTF-8";
            mistakes.push(Mistake::new(name, advice).origin("environment"));
            None
        }
    }
}

fn row(name: &str, value: &str, origin: &str) -> Effective {
    Effective { key: name.to_owned(), value: value.to_owned(), origin: origin.to_owned() }
}
