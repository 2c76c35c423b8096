//! N13: a real forward proxy. Its password stays between it and the agent.

use std::path::PathBuf;

use base64::Engine as _;

use crate::support::forward::{ForwardProxy, HOST, at_home};
use crate::support::tls::{Authority, TlsFront};
use crate::support::wire::Wire;
use crate::support::{Pod, run};

const FAILED: &str = "cannot deliver, trying again";
const USER: &str = "ferry";
const PASSWORD: &str = "pr0xy-passw0rd";

/// A pod whose endpoint has a name that only the proxy knows.
struct Scene {
    pod: Pod,
    log: PathBuf,
    /// From the agent to the proxy.
    to_proxy: Wire,
    /// From the proxy (or, without one, the agent) to the endpoint.
    to_endpoint: Wire,
    proxy: ForwardProxy,
}

impl Scene {
    fn new(user: Option<(&str, &str)>) -> Option<Self> {
        let (mut pod, log) = Pod::with_log();
        let proxy = ForwardProxy::start(&pod, user)?;
        let to_proxy = Wire::to(proxy.address());
        let to_endpoint = pod.wire();
        let port = to_endpoint.address().port();
        pod.set("LOGFERRY_ENDPOINT", &format!("http://{HOST}:{port}"));
        pod.set("LOGFERRY_LOG", "trace");
        Some(Self { pod, log, to_proxy, to_endpoint, proxy })
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}{}", self.to_proxy.address())
    }

    /// What must not be seen beyond the proxy, nor in any text of the agent's.
    fn expect_secret(&self, text: &str) {
        let encoded = base64::prelude::BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        for secret in [PASSWORD, encoded.as_str()] {
            assert!(!text.contains(secret), "{secret} in:\n{text}");
        }
    }

    fn heard_by_proxy(&self) -> String {
        String::from_utf8_lossy(&self.to_proxy.heard()).into_owned()
    }

    fn heard_by_endpoint(&self) -> String {
        String::from_utf8_lossy(&self.to_endpoint.heard()).into_owned()
    }
}

#[test]
fn n13_plain_http_goes_through_the_proxy_and_its_password_no_further() {
    let Some(mut scene) = Scene::new(Some((USER, PASSWORD))) else { return };
    let url = scene.url(&format!("{USER}:{PASSWORD}@"));
    scene.pod.set("HTTP_PROXY", &url);
    scene.pod.ledger.append(&scene.log, 100);
    let agent = scene.pod.start();
    assert_eq!(scene.pod.finish(agent), 0);

    let (heard, passed) = (scene.heard_by_proxy().to_lowercase(), scene.heard_by_endpoint());
    assert!(heard.contains("proxy-authorization: basic "), "{heard}");
    assert!(passed.contains("/logstores/app-log/shards/"), "it came this way");
    assert!(!passed.to_lowercase().contains("proxy-authorization"));
    scene.expect_secret(&passed);
    scene.expect_secret(&scene.pod.agent_log());
    let (code, out, complaint) = run(&["check", "--connect"], &scene.pod.environment());
    assert_eq!(code, 0, "{complaint}");
    scene.expect_secret(&format!("{out}{complaint}"));
}

#[test]
fn n13_https_goes_through_a_tunnel_that_sees_neither_logs_nor_keys() {
    let Some(mut scene) = Scene::new(Some((USER, PASSWORD))) else { return };
    let authority = Authority::new("private");
    let pair = authority.server(&[&format!("test-project.{HOST}")]);
    let front = TlsFront::new(scene.to_endpoint.address(), &pair);
    std::fs::write(scene.pod.path("ca.pem"), authority.pem()).unwrap();
    let ca = scene.pod.path("ca.pem").display().to_string();
    let url = scene.url(&format!("{USER}:{PASSWORD}@"));
    scene.pod.set("LOGFERRY_CA_FILE", &ca);
    scene.pod.set("LOGFERRY_ENDPOINT", &format!("https://{HOST}:{}", front.address().port()));
    scene.pod.set("https_proxy", &url);
    scene.pod.ledger.append(&scene.log, 100);
    let agent = scene.pod.start();
    assert_eq!(scene.pod.finish(agent), 0);

    let (heard, passed) = (scene.heard_by_proxy(), scene.heard_by_endpoint());
    let port = front.address().port();
    assert!(heard.contains(&format!("CONNECT test-project.{HOST}:{port} ")), "{heard}");
    for secret in ["LOG test-access-key-id", "line 0000", "/logstores/"] {
        assert!(!heard.contains(secret), "{secret} is for the endpoint only");
    }
    assert!(passed.contains("LOG test-access-key-id"), "it came this way");
    assert!(!passed.to_lowercase().contains("proxy-authorization"));
    scene.expect_secret(&passed);
    scene.expect_secret(&scene.pod.agent_log());
}

/// tinyproxy answers 407 without a password, and to a wrong one 401, which it does not sign.
#[test]
fn n13_a_proxy_that_does_not_know_us_is_named_as_the_trouble() {
    let Some(mut scene) = Scene::new(Some((USER, "another"))) else { return };
    let wrong = scene.url(&format!("{USER}:{PASSWORD}@"));
    let none = scene.url("");
    let port = scene.to_endpoint.address().port();
    for (scheme, url, what, advice) in [
        ("http", &none, "proxy: status 407", "its user and password"),
        ("https", &none, "proxy: ", "its user and password"),
        ("http", &wrong, "somebody else answers: status 401", "a proxy"),
        ("https", &wrong, "proxy: ", "its user and password"),
    ] {
        scene.pod.set("HTTP_PROXY", url).set("HTTPS_PROXY", url);
        scene.pod.set("LOGFERRY_ENDPOINT", &format!("{scheme}://{HOST}:{port}"));

        let (code, out, complaint) = run(&["check", "--connect"], &scene.pod.environment());

        assert_eq!(code, 78, "{out}");
        assert!(complaint.contains(&format!("take logs: {what}")), "{scheme}: {complaint}");
        assert!(complaint.contains(advice), "{complaint}");
        scene.expect_secret(&format!("{out}{complaint}"));
    }
    assert_eq!(scene.to_endpoint.accepted(), 0);
}

#[test]
fn n13_no_proxy_names_who_is_reached_directly() {
    for no_proxy in [HOST, "other.test,.test", "*"] {
        let Some(mut scene) = Scene::new(None) else { return };
        let url = scene.url("");
        scene.pod.set("ALL_PROXY", &url).set("NO_PROXY", no_proxy);
        scene.pod.ledger.append(&scene.log, 100);
        let Some(agent) = scene.pod.start_with_files(&at_home()) else { return };

        assert_eq!(scene.pod.finish(agent), 0);

        assert_eq!(scene.to_proxy.accepted(), 0, "{no_proxy}");
    }
}

#[test]
fn n13_a_proxy_that_dies_and_comes_back_loses_nothing() {
    let Some(mut scene) = Scene::new(None) else { return };
    let url = scene.url("");
    scene.pod.set("http_proxy", &url);
    scene.pod.ledger.append(&scene.log, 100);
    let agent = scene.pod.start();
    scene.pod.expect_all();
    assert!(scene.to_proxy.accepted() > 0);

    let address = scene.proxy.address();
    drop(scene.proxy);
    scene.pod.ledger.append(&scene.log, 100);
    scene.pod.wait_for_log(FAILED, 1);
    let Some(proxy) = ForwardProxy::start_at(&scene.pod, address, None) else { return };
    scene.pod.ledger.append(&scene.log, 100);

    scene.pod.finish(agent);
    drop(proxy);
}

/// The endpoint itself plays the proxy for plain HTTP: what it is sent shows what goes to one.
#[test]
fn n13_the_proxy_of_the_environment_is_used_and_shown() {
    for (name, other) in [("HTTP_PROXY", "HTTPS_PROXY"), ("http_proxy", "REQUEST_METHOD")] {
        let (mut pod, log) = Pod::with_log();
        let to_proxy = Wire::to(pod.mock.address());
        let url = format!("http://{USER}:{PASSWORD}@{}", to_proxy.address());
        pod.set("LOGFERRY_ENDPOINT", "http://sls.test:9200").set(name, &url);
        // Neither another scheme's proxy nor a variable of web servers changes anything.
        pod.set(other, "http://127.0.0.1:1");
        let (code, out, complaint) = run(&["check", "--connect"], &pod.environment());
        assert_eq!(code, 0, "{complaint}");
        let shown = format!("http://***@{}", to_proxy.address());
        let row = out.lines().find(|line| line.starts_with(name)).expect("the proxy's row");
        assert!(row.contains(&shown) && !out.contains(PASSWORD), "{row}");

        pod.ledger.append(&log, 100);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0);

        let heard = String::from_utf8_lossy(&to_proxy.heard()).into_owned();
        assert!(
            heard.contains("POST http://test-project.sls.test:9200/logstores/app-log/"),
            "{heard}"
        );
        assert!(heard.to_lowercase().contains("proxy-authorization: basic "), "{heard}");
        assert!(!pod.agent_log().contains(PASSWORD));
    }
}

/// One that is none is refused, instead of being passed over.
#[test]
fn n13_a_proxy_that_is_none_stops_the_start() {
    for (name, value) in [
        ("HTTP_PROXY", "http://ferry:pr0xy-passw0rd@proxy.test:99999"),
        ("http_proxy", "http://ferry:pr0xy-passw0rd"),
        ("ALL_PROXY", "socks5h://ferry:pr0xy-passw0rd@127.0.0.1:1080"),
        ("all_proxy", "socks4://127.0.0.1:1080"),
    ] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_ENDPOINT", "http://sls.test:9200").set(name, value);
        pod.ledger.append(&log, 10);
        let agent = pod.start();

        assert_eq!(agent.exit_code(), 78, "{name}");

        let (code, out, complaint) = run(&["check"], &pod.environment());
        assert_eq!(code, 78);
        for text in [pod.agent_log(), out + &complaint] {
            assert!(text.contains(name) && text.contains("http://"), "{text}");
            assert!(!text.contains(PASSWORD), "{text}");
        }
    }
}

/// Who is named in NO_PROXY is reached directly, and `check` says so.
#[test]
fn n13_check_says_that_no_proxy_names_the_endpoint() {
    let (mut pod, _) = Pod::with_log();
    pod.set("LOGFERRY_ENDPOINT", "http://sls.test:9200");
    pod.set("ALL_PROXY", "socks5://127.0.0.1:1080").set("no_proxy", ".test");

    let (code, out, complaint) = run(&["check"], &pod.environment());

    assert_eq!(code, 0, "{complaint}");
    let row = out.lines().find(|line| line.starts_with("ALL_PROXY")).expect("the proxy's row");
    assert!(row.contains("not used: NO_PROXY names the endpoint"), "{row}");
}
