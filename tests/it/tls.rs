//! N12: certificates. Whom the agent believes, how it proves who it is, and what becomes of both
//! while it runs.

use std::path::PathBuf;
use std::time::Duration;

use logferry::base::clock;

use crate::support::tls::{Authority, OpenSsl, Pair, Secrets, TlsFront, self_signed};
use crate::support::{Agent, Pod, run, wait_for};

/// The agent looks at its files no more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const FAILED: &str = "cannot deliver, trying again";

/// A pod whose endpoint speaks TLS, with a certificate of a private authority.
struct Scene {
    pod: Pod,
    log: PathBuf,
    authority: Authority,
    front: TlsFront,
    secrets: Secrets,
}

impl Scene {
    /// The agent trusts the authority.
    fn new() -> Self {
        let authority = Authority::new("first");
        let pair = authority.server(&["127.0.0.1"]);
        let (mut pod, log) = Pod::with_log();
        let front = TlsFront::new(pod.mock.address(), &pair);
        let secrets = Secrets::new(pod.path("secrets"), &[("ca.pem", &authority.pem())]);
        pod.set("LOGFERRY_ENDPOINT", &format!("https://{}", front.address()));
        pod.set("LOGFERRY_CA_FILE", &secrets.path("ca.pem"));
        Self { pod, log, authority, front, secrets }
    }

    /// The same, and an agent has delivered over a connection that it keeps.
    fn delivering() -> (Self, Agent) {
        let mut scene = Self::new();
        scene.pod.ledger.append(&scene.log, 100);
        let agent = scene.pod.start();
        scene.pod.expect_all();
        (scene, agent)
    }

    /// A new certificate for connections from now on; those that are there are closed.
    fn present(&self, pair: &Pair) {
        self.front.present(pair, None);
        self.front.cut();
    }

    /// Nothing arrives while the server is so, and the log says why; then with `good` all does.
    fn refuses(self, pair: &Pair, why: &str, good: &Pair) {
        let Self { mut pod, log, front, .. } = self;
        front.present(pair, None);
        pod.ledger.append(&log, 100);
        let agent = pod.start();

        pod.wait_for_log(FAILED, 1);
        let text = pod.agent_log();
        assert!(text.contains(why), "{why}:\n{text}");
        assert_eq!((front.handshakes(), pod.mock.store().line_count()), (0, 0));
        front.present(good, None);

        assert_eq!(pod.finish(agent), 0);
    }

    /// What `check --connect` says about a server with this certificate.
    fn diagnosis(&self, pair: &Pair) -> String {
        self.front.present(pair, None);
        let (code, _, complaint) = run(&["check", "--connect"], &self.pod.environment());
        assert_eq!(code, 78, "{complaint}");
        complaint
    }
}

#[test]
fn n12_a_private_authority_is_trusted_by_its_file_and_only_so() {
    let (scene, agent) = Scene::delivering();
    assert_eq!(scene.front.handshakes(), 1, "over one connection");
    assert_eq!(scene.pod.finish(agent), 0);

    let mut env = scene.pod.environment();
    let (code, out, _) = run(&["check", "--connect"], &env);
    assert_eq!(code, 0);
    assert!(out.contains("it takes logs"), "{out}");
    env.remove("LOGFERRY_CA_FILE");
    let (code, _, complaint) = run(&["check", "--connect"], &env);
    assert_eq!(code, 78);
    assert!(complaint.contains("TLS: the certificate is not trusted"), "{complaint}");
    assert!(complaint.contains("LOGFERRY_CA_FILE"), "{complaint}");
}

#[test]
fn n12_an_expired_certificate_keeps_the_lines_until_it_is_renewed() {
    let scene = Scene::new();
    let expired = scene.authority.expired(&["127.0.0.1"]);
    let complaint = scene.diagnosis(&expired);
    assert!(complaint.contains("TLS: the certificate has expired"), "{complaint}");
    assert!(complaint.contains("renew the certificate"), "{complaint}");

    let renewed = scene.authority.server(&["127.0.0.1"]);
    scene.refuses(&expired, "expired", &renewed);
}

#[test]
fn n12_a_certificate_for_another_name_is_not_believed() {
    let scene = Scene::new();
    let wrong = scene.authority.server(&["127.0.0.2", "sls.example.com"]);
    let complaint = scene.diagnosis(&wrong);
    assert!(complaint.contains("TLS: the certificate is for another name"), "{complaint}");

    let right = scene.authority.server(&["127.0.0.1"]);
    scene.refuses(&wrong, "not valid for name", &right);
}

#[test]
fn n12_an_unknown_authority_is_not_believed() {
    let scene = Scene::new();
    let forged = Authority::new("first").server(&["127.0.0.1"]);

    let right = scene.authority.server(&["127.0.0.1"]);
    scene.refuses(&forged, "invalid peer certificate", &right);
}

#[test]
fn n12_a_port_that_speaks_no_tls_is_told_from_others() {
    let mut scene = Scene::new();
    scene.pod.set("LOGFERRY_ENDPOINT", &format!("https://{}", scene.pod.mock.address()));

    let (code, _, complaint) = run(&["check", "--connect"], &scene.pod.environment());

    assert_eq!(code, 78);
    assert!(complaint.contains("TLS: ") && complaint.contains("write http://"), "{complaint}");
}

#[test]
fn n12_a_servers_certificate_is_replaced_while_the_agent_runs() {
    let (mut scene, agent) = Scene::delivering();
    scene.present(&scene.authority.server(&["127.0.0.1", "new.example.com"]));
    scene.pod.ledger.append(&scene.log, 100);

    scene.pod.expect_all();

    assert!(scene.front.handshakes() >= 2);
    scene.pod.finish(agent);
}

/// By the links of a mounted secret, twice; nobody restarts anything.
#[test]
fn n12_an_authority_is_replaced_on_disk_while_the_agent_runs() {
    let (mut scene, agent) = Scene::delivering();
    for name in ["second", "third"] {
        let next = Authority::new(name);
        scene.secrets.publish(&[("ca.pem", &next.pem())]);
        scene.present(&next.server(&["127.0.0.1"]));
        scene.pod.ledger.append(&scene.log, 100);

        scene.pod.expect_all();
    }
    assert!(scene.pod.agent_log().contains("certificates read again"));
    scene.pod.finish(agent);
}

#[test]
fn n12_a_bad_file_keeps_the_last_good_authority_and_is_told_once() {
    let (mut scene, agent) = Scene::delivering();
    scene.secrets.publish(&[("ca.pem", "half a certificate")]);
    let kept = "keeping the last good certificates";
    let deliver = |pod: &mut Pod| {
        scene.front.cut();
        pod.ledger.append(&scene.log, 10);
        pod.expect_all();
    };
    // It is looked at when something is to be sent, once a second at most.
    wait_for("the complaint", || {
        deliver(&mut scene.pod);
        scene.pod.times_logged(kept) > 0
    });
    let looked_again = clock::now() + 2 * LOOK_INTERVAL;
    wait_for("another look", || {
        deliver(&mut scene.pod);
        clock::now() > looked_again
    });

    assert_eq!(scene.pod.times_logged(kept), 1);
    scene.pod.finish(agent);
}

#[test]
fn n12_a_client_certificate_is_shown_and_rotated() {
    let mut scene = Scene::new();
    let (first, second) = (scene.authority.client("pod-1"), scene.authority.client("pod-2"));
    let server = scene.authority.server(&["127.0.0.1"]);
    scene.front.present(&server, Some(&scene.authority));

    let (code, _, complaint) = run(&["check", "--connect"], &scene.pod.environment());
    assert_eq!(code, 78, "without one");
    assert!(complaint.contains("TLS: our certificate is missing or not accepted"), "{complaint}");
    assert!(complaint.contains("LOGFERRY_CLIENT_CERT_FILE"), "{complaint}");

    let root = scene.pod.path("client");
    let mut client = Secrets::new(root, &[("tls.crt", &first.cert), ("tls.key", &first.key)]);
    scene.pod.set("LOGFERRY_CLIENT_CERT_FILE", &client.path("tls.crt"));
    scene.pod.set("LOGFERRY_CLIENT_KEY_FILE", &client.path("tls.key"));
    scene.pod.ledger.append(&scene.log, 100);
    let agent = scene.pod.start();
    scene.pod.expect_all();
    assert!(scene.front.has_seen(&first) && !scene.front.has_seen(&second));

    client.publish(&[("tls.crt", &second.cert), ("tls.key", &second.key)]);
    wait_for("the new certificate", || {
        scene.pod.ledger.append(&scene.log, 10);
        scene.pod.expect_all();
        scene.front.has_seen(&second)
    });

    scene.pod.finish(agent);
    for key in [&first.key, &second.key] {
        let secret = key.lines().nth(1).unwrap();
        assert!(!scene.pod.agent_log().contains(secret));
    }
}

#[test]
fn n12_certificates_that_cannot_be_used_stop_the_start() {
    let (mut pod, _) = Pod::with_log();
    pod.set("LOGFERRY_CA_FILE", "/nowhere/ca.pem");

    let (code, _, complaint) = run(&["check"], &pod.environment());

    assert_eq!(code, 78);
    assert!(complaint.contains("ca_file") && complaint.contains("/nowhere/ca.pem"), "{complaint}");
}

/// What is wrong with a certificate, each by its own name and with its own remedy.
#[test]
fn n12_each_flaw_of_a_certificate_has_its_own_remedy() {
    let scene = Scene::new();
    let first = &scene.authority;
    for (name, pair, what, remedy) in [
        (
            "signed by itself",
            self_signed(false),
            "TLS: the certificate is not trusted",
            "this very certificate",
        ),
        (
            "an authority's",
            self_signed(true),
            "TLS: the server shows the certificate of an authority",
            "CA:FALSE",
        ),
        (
            "for clients",
            first.client("127.0.0.1"),
            "TLS: the certificate is for another purpose",
            "serverAuth",
        ),
        (
            "with an unknown critical extension",
            first.odd(&["127.0.0.1"]),
            "TLS: the certificate has an unknown critical extension",
            "without that extension",
        ),
        (
            "from an authority of the same name",
            Authority::new("first").server(&["127.0.0.1"]),
            "TLS: the certificate is not trusted",
            "the same name and another key",
        ),
        (
            "from a stranger",
            Authority::new("stranger").server(&["127.0.0.1"]),
            "\"stranger\" is neither among those who are trusted nor sent by the server",
            "add that authority",
        ),
        ("expired", first.expired(&["127.0.0.1"]), "TLS: the certificate has expired", "renew"),
        (
            "from tomorrow",
            first.not_yet_valid(&["127.0.0.1"]),
            "TLS: the certificate is not valid yet",
            "set the clock",
        ),
        (
            "without a name",
            first.server(&[]),
            "TLS: the certificate is for another name",
            "name the host",
        ),
    ] {
        let complaint = scene.diagnosis(&pair);
        assert!(complaint.contains(what), "{name}: {what}: {complaint}");
        assert!(complaint.contains(remedy), "{name}: {remedy}: {complaint}");
    }
}

/// The remedy helps, and what does not help is not advised.
#[test]
fn n12_what_is_advised_for_a_certificate_helps() {
    let mut scene = Scene::new();
    let own = self_signed(false);
    scene.secrets.publish(&[("ca.pem", &own.cert)]);
    scene.front.present(&own, None);
    let (code, out, complaint) = run(&["check", "--connect"], &scene.pod.environment());
    assert_eq!(code, 0, "a self-signed certificate in ca_file: {out}{complaint}");

    let authority = self_signed(true);
    scene.secrets.publish(&[("ca.pem", &authority.cert)]);
    let complaint = scene.diagnosis(&authority);
    assert!(complaint.contains("certificate of its own (CA:FALSE)"), "{complaint}");

    let leaf = scene.authority.server(&["127.0.0.1"]);
    scene.secrets.publish(&[("ca.pem", &leaf.cert)]);
    let complaint = scene.diagnosis(&leaf);
    assert!(complaint.contains("TLS: ca_file does not hold an authority"), "{complaint}");
    assert!(complaint.contains("it is signed by \"first\""), "{complaint}");
    assert!(complaint.contains("instead of the server's own"), "{complaint}");
    let first = scene.authority.pem();
    scene.secrets.publish(&[("ca.pem", &first)]);
    let (code, out, complaint) = run(&["check", "--connect"], &scene.pod.environment());
    assert_eq!(code, 0, "{out}{complaint}");
}

/// The agent's log says what `check --connect` says.
#[test]
fn n12_the_log_names_the_flaw_and_the_remedy() {
    let scene = Scene::new();
    let wrong = scene.authority.client("127.0.0.1");
    scene.front.present(&wrong, None);
    let Scene { mut pod, log, front, authority, .. } = scene;
    pod.ledger.append(&log, 100);
    let agent = pod.start();

    pod.wait_for_log(FAILED, 1);
    let text = pod.agent_log();
    assert!(text.contains("is a certificate for another use"), "{text}");
    assert!(text.contains("serverAuth"), "{text}");
    front.present(&authority.server(&["127.0.0.1"]), None);

    assert_eq!(pod.finish(agent), 0);
}

/// Certificates that the library of the tests does not make: openssl's.
#[test]
fn n12_keys_and_signatures_of_another_time_are_named() {
    for (name, made, what, remedy) in [
        ("a short key", ["rsa:1024", "-sha256"], "TLS: a key is too short", "2048 bits or more"),
        ("SHA-1", ["rsa:2048", "-sha1"], "signature is not safe", "with SHA-256"),
    ] {
        let mut scene = Scene::new();
        let Some(server) = OpenSsl::start(scene.pod.path("openssl"), made) else { return };
        scene.pod.set("LOGFERRY_ENDPOINT", &format!("https://127.0.0.1:{}", server.port));
        scene.pod.set("LOGFERRY_CA_FILE", &server.ca);

        let (code, _, complaint) = run(&["check", "--connect"], &scene.pod.environment());

        assert_eq!(code, 78, "{name}: {complaint}");
        assert!(complaint.contains(what) && complaint.contains(remedy), "{name}: {complaint}");
    }
}
