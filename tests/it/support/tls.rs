//! An authority of a test's own, its certificates, and an endpoint that speaks TLS in front of one
//! that does not.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one, with a name of its own.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a root"))
    }

    /// Its certificate, for those who trust it.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth, 4000)
    }

    /// The same, and its time has not come.
    pub(crate) fn not_yet_valid(&self, names: &[&str]) -> Pair {
        let mut params = params(names, ExtendedKeyUsagePurpose::ServerAuth, 4000);
        params.not_before = date_time_ymd(3000, 1, 1);
        self.signed(params)
    }

    /// A server's, with a critical extension that nobody knows.
    pub(crate) fn odd(&self, names: &[&str]) -> Pair {
        let mut params = params(names, ExtendedKeyUsagePurpose::ServerAuth, 4000);
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4, 5], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
        self.signed(params)
    }

    /// The same, and its time is over.
    pub(crate) fn expired(&self, names: &[&str]) -> Pair {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth, 2020)
    }

    /// A client's certificate.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.sign(&[name], ExtendedKeyUsagePurpose::ClientAuth, 4000)
    }

    fn sign(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, until: i32) -> Pair {
        self.signed(params(names, usage, until))
    }

    fn signed(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        roots
    }
}

fn params(names: &[&str], usage: ExtendedKeyUsagePurpose, until: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.extended_key_usages = vec![usage];
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

/// A server's certificate for 127.0.0.1 that is signed by itself, with or without the right to sign
/// others, as `openssl req -x509` makes it.
pub(crate) fn self_signed(is_authority: bool) -> Pair {
    let mut params = params(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth, 4000);
    params.distinguished_name.push(DnType::CommonName, "self-made");
    params.is_ca = match is_authority {
        true => IsCa::Ca(BasicConstraints::Unconstrained),
        false => IsCa::ExplicitNoCa,
    };
    let key = KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("a certificate");
    Pair { cert: cert.pem(), key: key.serialize_pem() }
}

/// `openssl s_server`, for keys and signatures that no library of the tests makes. Ends when dropped.
pub(crate) struct OpenSsl {
    server: std::process::Child,
    pub(crate) port: u16,
    /// The authority that has signed its certificate.
    pub(crate) ca: String,
}

impl OpenSsl {
    /// With a certificate for 127.0.0.1, made with this key and this digest. `None`, said on standard
    /// error, where there is no openssl.
    pub(crate) fn start(dir: PathBuf, [key, digest]: [&str; 2]) -> Option<Self> {
        fs::create_dir_all(&dir).expect("a directory");
        let path = |name: &str| dir.join(name).display().to_string();
        let openssl = |args: &[&str]| {
            let mut command = std::process::Command::new("openssl");
            command.args(args).current_dir(&dir).env("OPENSSL_CONF", "/dev/null");
            command
        };
        let run = |args: &[&str]| {
            let output = openssl(args).output().expect("openssl runs");
            assert!(output.status.success(), "{args:?}: {output:?}");
        };
        if openssl(&["version"]).output().is_err() {
            eprintln!("skipped: there is no openssl");
            return None;
        }
        fs::write(
            dir.join("server.ext"),
            "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
        )
        .expect("a file");
        fs::write(dir.join("ca.cnf"), CA_CONF).expect("a file");
        run(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "30",
            "-config",
            "ca.cnf",
            "-extensions",
            "ca",
        ]);
        run(&[
            "req",
            "-newkey",
            key,
            "-nodes",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
            "-config",
            "ca.cnf",
            "-subj",
            "/CN=old server",
        ]);
        run(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-set_serial",
            "7",
            "-days",
            "30",
            digest,
            "-extfile",
            "server.ext",
            "-out",
            "server.pem",
        ]);
        let port = free_port();
        let at = port.to_string();
        let server = openssl(&[
            "s_server",
            "-accept",
            &at,
            "-cert",
            "server.pem",
            "-key",
            "server.key",
            "-quiet",
            "-cipher",
            "DEFAULT@SECLEVEL=0",
        ])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("openssl runs");
        let server = Self { server, port, ca: path("ca.pem") };
        super::wait_for("openssl's server", || {
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        Some(server)
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

const CA_CONF: &str = "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=old authority\n[ca]\n\
                       basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n";

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A server that speaks TLS, and passes on what it hears. Everything of it ends when dropped.
pub(crate) struct TlsFront {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Orders {
    config: Arc<ServerConfig>,
    /// How often all connections have been cut.
    cuts: usize,
    is_over: bool,
}

#[derive(Default)]
struct Seen {
    handshakes: AtomicUsize,
    /// The certificates that clients have shown.
    clients: Mutex<Vec<CertificateDer<'static>>>,
}

impl TlsFront {
    /// In front of `target`, with this certificate.
    pub(crate) fn new(target: SocketAddr, pair: &Pair) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("its address");
        let (orders, told) =
            watch::channel(Orders { config: config(pair, None), cuts: 0, is_over: false });
        let seen = Arc::new(Seen::default());
        let of_thread = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime for TLS");
            runtime.block_on(serve(listener, target, told, of_thread));
        });
        Self { address, orders, seen, thread: Some(thread) }
    }

    /// Where the agent connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on with this certificate, and only for clients of that authority.
    pub(crate) fn present(&self, pair: &Pair, clients: Option<&Authority>) {
        let config = config(pair, clients);
        self.orders.send_modify(|orders| orders.config = config);
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// How often a connection has come about.
    pub(crate) fn handshakes(&self) -> usize {
        self.seen.handshakes.load(SeqCst)
    }

    /// Whether a client has shown this certificate.
    pub(crate) fn has_seen(&self, client: &Pair) -> bool {
        let wanted = CertificateDer::from_pem_slice(client.cert.as_bytes()).expect("PEM");
        self.seen.clients.lock().expect("nobody panics with it").contains(&wanted)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.is_over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config(pair: &Pair, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let provider = Arc::clone(&provider);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    // Not asked whether it is a good one.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![cert], key));
    Arc::new(builder.with_cert_resolver(Arc::new(shown)))
}

async fn serve(
    listener: std::net::TcpListener,
    target: SocketAddr,
    mut told: watch::Receiver<Orders>,
    seen: Arc<Seen>,
) {
    let listener = TcpListener::from_std(listener).expect("the listener");
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((agent, _)) = accepted {
                tokio::spawn(carry(agent, target, told.clone(), Arc::clone(&seen)));
            },
            _ = told.changed() => if told.borrow_and_update().is_over {
                return;
            },
        }
    }
}

async fn carry(
    agent: TcpStream,
    target: SocketAddr,
    mut told: watch::Receiver<Orders>,
    seen: Arc<Seen>,
) {
    let Orders { config, cuts, .. } = told.borrow_and_update().clone();
    let talk = async {
        let Ok(mut agent) = TlsAcceptor::from(config).accept(agent).await else { return };
        seen.handshakes.fetch_add(1, SeqCst);
        if let Some(shown) = agent.get_ref().1.peer_certificates() {
            let mut clients = seen.clients.lock().expect("nobody panics with it");
            clients.extend(shown.first().map(|cert| cert.clone().into_owned()));
        }
        let Ok(mut endpoint) = TcpStream::connect(target).await else { return };
        let _ = tokio::io::copy_bidirectional(&mut agent, &mut endpoint).await;
    };
    tokio::select! {
        () = talk => {}
        _ = told.wait_for(|orders| orders.is_over || orders.cuts > cuts) => {}
    }
}

/// Files as a mounted secret shows them: links through `..data`, which is replaced as a whole.
pub(crate) struct Secrets {
    root: PathBuf,
    generation: usize,
}

impl Secrets {
    /// A new directory with these files.
    pub(crate) fn new(root: PathBuf, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(&root).expect("the mount");
        for (name, _) in files {
            symlink(Path::new("..data").join(name), root.join(name)).expect("a link");
        }
        let mut secrets = Self { root, generation: 0 };
        secrets.publish(files);
        secrets
    }

    /// All files anew.
    pub(crate) fn publish(&mut self, files: &[(&str, &str)]) {
        let old = format!("..{}", self.generation);
        self.generation += 1;
        let fresh = format!("..{}", self.generation);
        fs::create_dir(self.root.join(&fresh)).expect("a directory");
        for (name, text) in files {
            fs::write(self.root.join(&fresh).join(name), text).expect("a file");
        }
        symlink(&fresh, self.root.join("..data_tmp")).expect("a link");
        fs::rename(self.root.join("..data_tmp"), self.root.join("..data")).expect("its place");
        let _ = fs::remove_dir_all(self.root.join(old));
    }

    /// The path of a file, for the settings.
    pub(crate) fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }
}
