//! S05: a secret is said nowhere. Key, token, the proxy's password and a private key go through
//! everything that can be made to speak: logs at trace, errors, commands, the admin port, a panic.

use base64::Engine as _;
use logferry::config::{self, Environment, Flags};
use logferry_mock::{Fault, Kind};

use crate::support::observe::get;
use crate::support::tls::{Authority, Pair, TlsFront};
use crate::support::{Pod, run};

const KEY_ID: &str = "test-access-key-id";
const KEY_SECRET: &str = "test-access-key-secret";
const TOKEN: &str = "st5-t0ken-0f-the-p0d";
const PASSWORD: &str = "pr0xy-passw0rd";

/// A pod that holds every kind of secret. The proxy is for others than the endpoint, which is on
/// this machine.
struct Scene {
    pod: Pod,
    log: std::path::PathBuf,
    front: TlsFront,
    client: Pair,
}

impl Scene {
    fn new() -> Self {
        let (mut pod, log) = Pod::with_log();
        let authority = Authority::new("private");
        let client = authority.client("pod");
        let server = authority.server(&["127.0.0.1"]);
        let front = TlsFront::new(pod.mock.address(), &server);
        front.present(&server, Some(&authority));
        let ca = authority.pem();
        for (name, file, text) in [
            ("LOGFERRY_CA_FILE", "ca.pem", &ca),
            ("LOGFERRY_CLIENT_CERT_FILE", "client.pem", &client.cert),
            ("LOGFERRY_CLIENT_KEY_FILE", "client-key.pem", &client.key),
        ] {
            let path = pod.path(file);
            std::fs::write(&path, text).unwrap();
            pod.set(name, path.to_str().unwrap());
        }
        let proxy = format!("http://ferry:{PASSWORD}@127.0.0.1:9");
        pod.set("HTTP_PROXY", &proxy).set("HTTPS_PROXY", &proxy);
        pod.set("ALIBABA_CLOUD_SECURITY_TOKEN", TOKEN);
        pod.set("LOGFERRY_ENDPOINT", &format!("https://{}", front.address()));
        pod.set("LOGFERRY_LOG", "trace");
        Self { pod, log, front, client }
    }

    fn expect_none(&self, what: &str, text: &str) {
        let encoded = base64::prelude::BASE64_STANDARD.encode(format!("ferry:{PASSWORD}"));
        let key = self.client.key.lines().nth(1).expect("base64");
        // Also as the bytes that a derived `Debug` would print.
        let debug = |text: &str| format!("{:?}", &text.as_bytes()[..8]).replace(['[', ']'], "");
        let secrets = [KEY_SECRET, TOKEN, PASSWORD, &encoded, key];
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {what}:\n{text}");
            assert!(!text.contains(&debug(secret)), "{secret} as bytes in {what}:\n{text}");
        }
    }
}

#[test]
fn s05_secrets_are_in_no_log_no_status_and_no_metric() {
    let mut scene = Scene::new();
    let admin = scene.pod.listen();
    let faults =
        ["SignatureNotMatch", "Unauthorized", "RequestTimeTooSkewed", "InternalServerError"];
    let fault = |code: &&str| Fault { times: Some(1), ..Fault::error(code) };
    let mut faults: Vec<Fault> = faults.iter().map(fault).collect();
    faults.push(Fault { times: Some(1), ..Fault::new(Kind::CutBefore) });
    faults.push(Fault { times: Some(1), ..Fault::new(Kind::CaptivePortal) });
    scene.pod.mock.faults().set(faults);
    scene.pod.ledger.append(&scene.log, 100);
    let agent = scene.pod.start();
    scene.pod.wait_for_log("SignatureNotMatch", 1);
    for path in ["/status", "/metrics", "/live", "/ready", "/config", "/debug"] {
        let (_, text) = get(&admin, path);
        scene.expect_none(path, &text);
    }
    scene.pod.expect_all();
    let (_, text) = get(&admin, "/status");
    scene.expect_none("the status", &text);

    assert_eq!(agent.stop().0, 0);
    assert!(scene.pod.agent_log().contains("batch delivered"));
    assert!(scene.front.handshakes() > 0, "over TLS, with the key");
    scene.expect_none("the log", &scene.pod.agent_log());
}

#[test]
fn s05_secrets_are_in_nothing_that_a_command_prints() {
    let scene = Scene::new();
    let good = scene.pod.environment();
    let with = |name: &str, value: &str| {
        let mut env = good.clone();
        env.insert(name.to_owned(), value.to_owned());
        env
    };
    let broken = scene.pod.path("broken.json");
    let text = format!("{{\"access_key_secret\": \"{KEY_SECRET}\", {TOKEN}");
    std::fs::write(&broken, text).unwrap();
    let broken = broken.to_str().unwrap();
    let key = scene.pod.path("client-key.pem");
    for (name, env) in [
        ("good settings", good.clone()),
        ("a wrong key", with("ALIBABA_CLOUD_ACCESS_KEY_SECRET", &format!("{KEY_SECRET}-not"))),
        ("a key with a blank", with("ALIBABA_CLOUD_ACCESS_KEY_SECRET", &format!("{KEY_SECRET} x"))),
        ("a broken file", with("LOGFERRY_CREDENTIALS_FILE", broken)),
        ("a key for a certificate", with("LOGFERRY_CLIENT_CERT_FILE", key.to_str().unwrap())),
        ("a tag of a secret", with("ALIYUN_LOG_ENV_TAGS", "ALIBABA_CLOUD_SECURITY_TOKEN")),
        ("a dead end", with("LOGFERRY_ENDPOINT", "https://127.0.0.1:1")),
        ("a proxy that is not there", with("LOGFERRY_ENDPOINT", "http://192.0.2.1:1")),
    ] {
        for args in
            [&["check"][..], &["check", "--connect"], &["status"], &["run", "--listen", "x"]]
        {
            let (_, out, complaint) = run(args, &env);
            scene.expect_none(&format!("{name}, {args:?}"), &format!("{out}\n{complaint}"));
        }
    }
}

/// Whatever somebody prints while looking for a bug, and whatever a panic takes along.
#[test]
fn s05_secrets_are_in_no_debug_form_and_no_panic() {
    let scene = Scene::new();
    let env: Environment =
        scene.pod.environment().into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    let config = config::load(&env, &Flags::new()).expect("good settings");

    let shown = format!("{config:?}\n{config:#?}");
    let destinations = config.plan.destinations();
    let client = logferry::send::http::Client::new(&config.send, destinations).expect("a client");
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        panic!("{:?} {:?} {client:?}", config.send, destinations[0].credentials)
    }));
    let said = panic.expect_err("it panics").downcast::<String>().expect("a text");

    assert!(shown.contains(KEY_ID), "the public half is there");
    scene.expect_none("the settings", &shown);
    assert!(said.contains("Client"), "{said}");
    scene.expect_none("a panic", &said);
}
