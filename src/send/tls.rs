//! TLS: whom we trust, and how we prove who we are.
//!
//! Trusted are Mozilla's roots, which are inside the binary, and those of a file. Verification
//! cannot be switched off. Files that are replaced are taken up within a second, when something is
//! to be sent (see `watched`). Nothing here prints a part of a key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use tracing::{info, warn};

use super::cause::Flaw;
use super::certificate::{Shown, flaw, flaw_of_key};
use super::options::{ClientFiles, TlsFiles};
use super::watched::{Look, Watched};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} {trouble}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without a word from the file.
        trouble: String,
    },
    /// The library refuses its settings.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    /// The file that is to blame.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. } | Self::Malformed { path, .. } => Some(path),
            Self::Setup(_) => None,
        }
    }
}

/// What connections are made with. Two are equal if the files said the same.
pub struct Tls {
    config: ClientConfig,
    /// The texts of the files.
    texts: Vec<Vec<u8>>,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

/// Without the texts: one is a key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Reads the files and sets TLS up: 1.2 and 1.3, with ring.
///
/// # Errors
/// If a file cannot be read or used.
pub fn read_tls(files: &TlsFiles) -> Result<Tls, TlsError> {
    let mut texts = Vec::new();
    let mut trusted = Vec::new();
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = &files.ca {
        let text = read(path)?;
        trusted = add_roots(&mut roots, path, &text)?;
        texts.push(text);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Explaining::new(roots, trusted, Arc::clone(&provider))?;
    // The library's own verifier, with more words; "dangerous" is what it calls any other.
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &files.client {
        None => builder.with_no_client_auth(),
        Some(ClientFiles { cert, key }) => {
            let (cert_text, key_text) = (read(cert)?, read(key)?);
            let chain = certificates(cert, &cert_text)?;
            let pair = private_key(key, &key_text)?;
            texts.extend([cert_text, key_text]);
            builder.with_client_auth_cert(chain, pair).map_err(|error| misfit(error, cert, key))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { config, texts })
}

/// No file of certificates is longer: Mozilla's roots together take 220 KB.
const FILE_BYTES_MAX: u64 = 4 << 20;

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text))
        .map_err(|error| TlsError::Read { path: path.to_owned(), error })?;
    Ok(text)
}

fn malformed(path: &Path, trouble: impl Into<String>) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), trouble: trouble.into() }
}

/// Adds the certificates of a file to those who are trusted, and gives them.
fn add_roots(
    roots: &mut RootCertStore,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = certificates(path, text)?;
    match roots.add_parsable_certificates(found.iter().cloned()) {
        (0, _) => Err(malformed(path, "holds no certificate that can be used as a root")),
        (_, 0) => Ok(found),
        (_, count) => {
            // A bundle of a system may hold some from another time.
            warn!(file = %path.display(), count, "certificates that cannot be used as roots");
            Ok(found)
        }
    }
}

/// The library's verifier. It decides; what it does not believe is explained.
#[derive(Debug)]
struct Explaining {
    verifier: Arc<WebPkiServerVerifier>,
    /// The certificates of `ca_file`.
    trusted: Vec<CertificateDer<'static>>,
}

impl Explaining {
    fn new(
        roots: RootCertStore,
        trusted: Vec<CertificateDer<'static>>,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier =
            builder.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { verifier, trusted })
    }
}

/// The error with the flaw in its place, if there is one.
fn explained(error: rustls::Error, flaw: Option<Flaw>) -> rustls::Error {
    match flaw {
        Some(flaw) => CertificateError::Other(OtherError(Arc::new(flaw))).into(),
        None => error,
    }
}

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(server, between, name, ocsp_response, now);
        verified.map_err(|error| {
            let flaw = flaw(&error, Shown { server, between, trusted: &self.trusted });
            explained(error, flaw)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verified = self.verifier.verify_tls12_signature(message, server, signature);
        verified.map_err(|error| explained(error.clone(), flaw_of_key(&error, server)))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verified = self.verifier.verify_tls13_signature(message, server, signature);
        verified.map_err(|error| explained(error.clone(), flaw_of_key(&error, server)))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(malformed(path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"))
        }
        Ok(found) => Ok(found),
        Err(_) => Err(malformed(path, "is damaged: its PEM cannot be decoded")),
    }
}

fn private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => malformed(
            path,
            "holds no private key in PEM that is not encrypted (-----BEGIN PRIVATE KEY-----)",
        ),
        _ => malformed(path, "is damaged: its PEM cannot be decoded"),
    })
}

fn misfit(error: rustls::Error, cert: &Path, key: &Path) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            malformed(key, format!("does not belong to the certificate in {}", cert.display()))
        }
        rustls::Error::InvalidCertificate(_) => malformed(cert, "holds no certificate of a client"),
        _ => malformed(key, "holds a key of a kind that is not known: use ECDSA, Ed25519 or RSA"),
    }
}

/// The TLS in use.
#[derive(Debug)]
pub(super) struct TlsInUse {
    files: TlsFiles,
    watched: Watched<Tls>,
}

impl TlsInUse {
    /// Reads the files for the first time.
    pub(super) fn new(files: TlsFiles, now: Instant) -> Result<Self, TlsError> {
        let TlsFiles { ca, client } = &files;
        let client = client.iter().flat_map(|client| [&client.cert, &client.key]);
        let paths = ca.iter().chain(client).cloned().collect();
        let mut in_use = Self { files, watched: Watched::new(paths) };
        in_use.watched.look(now, || read_tls(&in_use.files))?;
        Ok(in_use)
    }

    /// Looks at the files; says whether there is something new in them.
    pub(super) fn has_changed(&mut self, now: Instant) -> bool {
        match self.watched.look(now, || read_tls(&self.files)) {
            Ok(Look::Same) => false,
            Ok(Look::Fresh) => {
                info!("certificates read again");
                true
            }
            Ok(Look::Bad(error)) | Err(error) => {
                warn!(%error, "keeping the last good certificates");
                false
            }
        }
    }

    /// What connections are made with now.
    pub(super) fn config(&self) -> ClientConfig {
        let tls = self.watched.good().expect("it was read when this was made");
        tls.config.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    /// A certificate signed by itself, and its key.
    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn trouble(files: &TlsFiles) -> String {
        read_tls(files).expect_err("this cannot be used").to_string()
    }

    #[test]
    fn there_are_roots_and_no_http_2() {
        let tls = read_tls(&TlsFiles::default()).unwrap();

        assert_eq!(tls.config.alpn_protocols, [b"http/1.1"]);
        assert!(webpki_roots::TLS_SERVER_ROOTS.len() > 50);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_quoting_it() {
        let files = Fixture::new();
        let (cert, key) = pair();
        let (_, other_key) = pair();
        let secret = key.lines().nth(1).unwrap().to_owned();
        let with = |cert: &str, key: &str| TlsFiles {
            ca: None,
            client: Some(ClientFiles {
                cert: files.write("cert.pem", cert),
                key: files.write("key.pem", key),
            }),
        };
        read_tls(&with(&cert, &key)).unwrap();

        for (cert, key, wanted) in [
            (cert.as_str(), other_key.as_str(), "key.pem does not belong to the certificate in"),
            (&cert, "", "key.pem holds no private key"),
            (&cert, &key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "not encrypted"),
            (&cert, &key[..key.len() / 2], "key.pem"),
            ("", &key, "cert.pem holds no certificate"),
            (&key, &key, "cert.pem holds no certificate"),
        ] {
            let trouble = trouble(&with(cert, key));
            assert!(trouble.contains(wanted), "{wanted}: {trouble}");
            assert!(!trouble.contains(&secret), "{trouble}");
        }

        let ca = TlsFiles { ca: Some(files.write("ca.pem", "nothing")), client: None };
        assert!(trouble(&ca).contains("ca.pem holds no certificate"), "{}", trouble(&ca));
        let missing = TlsFiles { ca: Some("/nowhere/ca.pem".into()), client: None };
        assert!(trouble(&missing).contains("cannot read /nowhere/ca.pem"), "{}", trouble(&missing));
    }

    #[test]
    fn a_key_does_not_show_in_the_debug_form() {
        let files = Fixture::new();
        let (cert, key) = pair();
        let client =
            ClientFiles { cert: files.write("c.pem", &cert), key: files.write("k.pem", &key) };
        let files = TlsFiles { ca: None, client: Some(client) };

        let in_use = TlsInUse::new(files, crate::base::clock::now()).unwrap();

        let shown = format!("{in_use:?}");
        let secret = key.lines().nth(1).unwrap();
        assert!(shown.contains("k.pem") && !shown.contains(secret), "{shown}");
        let digits: Vec<String> =
            key.lines().nth(1).unwrap().bytes().map(|byte| byte.to_string()).collect();
        assert!(!shown.contains(&digits.join(", ")), "{shown}");
    }
}
