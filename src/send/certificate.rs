//! What is wrong with a server's certificate, in words that tell what to do.
//!
//! Pure. Whether a certificate is believed is the TLS library's decision, and its alone; here its verdict
//! is looked at together with the certificates, because "unknown issuer" has several reasons, and each
//! another remedy. The certificates are the peer's: anything may stand in them.

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error};

use super::cause::{Cause, Flaw};

/// RSA keys below this are broken, and not believed (RFC 8301 and others).
const RSA_BITS_MIN: usize = 2048;

/// What a server shows, and whom `ca_file` adds to those who are trusted.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The server's own certificate.
    pub server: &'a CertificateDer<'a>,
    /// The certificates that the server sent with its own.
    pub between: &'a [CertificateDer<'a>],
    /// The certificates of `ca_file`.
    pub trusted: &'a [CertificateDer<'static>],
}

/// What is wrong, if it can be told more closely than the library does.
#[must_use]
pub fn flaw(error: &Error, shown: Shown<'_>) -> Option<Flaw> {
    use CertificateError as Bad;
    let Error::InvalidCertificate(bad) = error else { return None };
    let server = Facts::of(shown.server)?;
    let name = name_of(server.subject);
    let (cause, text) = match bad {
        Bad::UnknownIssuer => unknown_issuer(&server, shown),
        Bad::BadSignature => bad_signature(&server, shown),
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            (Cause::WrongPurpose, format!("{name} is a certificate for another use: {bad}"))
        }
        #[expect(deprecated, reason = "the library may still say so")]
        Bad::UnsupportedSignatureAlgorithm
        | Bad::UnsupportedSignatureAlgorithmContext { .. }
        | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => unknown_signature(shown),
        Bad::UnhandledCriticalExtension => unknown_extension(&name),
        Bad::BadEncoding => (Cause::BadChain, format!("{name} cannot be decoded")),
        Bad::Other(other) => match other.0.downcast_ref::<webpki::Error>()? {
            webpki::Error::CaUsedAsEndEntity => (
                Cause::AuthorityAsServer,
                format!(
                    "{name} is the certificate of an authority (CA:TRUE), not that of a server"
                ),
            ),
            webpki::Error::UnsupportedCriticalExtension => unknown_extension(&name),
            other => (Cause::BadChain, format!("{name} is not valid: {other:?}")),
        },
        _ => return None,
    };
    Some(Flaw { cause, text })
}

/// What is wrong with the key that a server has signed the handshake with.
#[must_use]
pub fn flaw_of_key(error: &Error, server: &CertificateDer<'_>) -> Option<Flaw> {
    let is_bad = matches!(error, Error::InvalidCertificate(CertificateError::BadSignature));
    let facts = Facts::of(server).filter(|_| is_bad)?;
    weak_key(&facts)
}

fn unknown_issuer(server: &Facts<'_>, shown: Shown<'_>) -> (Cause, String) {
    let (name, issuer) = (name_of(server.subject), name_of(server.issuer));
    let is_own = server.subject == server.issuer;
    if shown.trusted.contains(shown.server) && !is_own {
        let text = format!(
            "ca_file holds {name}, which is the server's own certificate; it is signed by {issuer}"
        );
        return (Cause::ServerInCaFile, text);
    }
    if is_own {
        return (Cause::SelfSigned, format!("{name} is signed by itself, and not in ca_file"));
    }
    // The last that is known on the way up.
    let last = shown.between.iter().filter_map(Facts::of);
    let missing =
        last.fold(
            server.issuer,
            |missing, facts| {
                if facts.subject == missing { facts.issuer } else { missing }
            },
        );
    let missing = name_of(missing);
    let text = format!(
        "{name} is signed by {issuer}; {missing} is neither among those who are trusted nor sent by \
         the server"
    );
    (Cause::Untrusted, text)
}

fn bad_signature(server: &Facts<'_>, shown: Shown<'_>) -> (Cause, String) {
    let others = || shown.between.iter().chain(shown.trusted).filter_map(Facts::of);
    let signers = [server.issuer].into_iter().chain(others().map(|facts| facts.issuer));
    let signers: Vec<&[u8]> = signers.collect();
    let weak = others().filter(|facts| signers.contains(&facts.subject)).find_map(|f| weak_key(&f));
    if let Some(Flaw { cause, text }) = weak {
        return (cause, text);
    }
    let (name, issuer) = (name_of(server.subject), name_of(server.issuer));
    let text = format!(
        "{name} is signed by {issuer}, and not with the key that {issuer} has where it is trusted"
    );
    (Cause::OtherKey, text)
}

fn weak_key(facts: &Facts<'_>) -> Option<Flaw> {
    let bits = facts.rsa_bits().filter(|bits| *bits < RSA_BITS_MIN)?;
    let name = name_of(facts.subject);
    let text = format!("the RSA key of {name} has {bits} bits; at least {RSA_BITS_MIN} are needed");
    Some(Flaw { cause: Cause::WeakKey, text })
}

fn unknown_signature(shown: Shown<'_>) -> (Cause, String) {
    let shown = [shown.server].into_iter().chain(shown.between);
    let old = shown.filter_map(Facts::of).find_map(|facts| {
        let (_, name) = OLD_SIGNATURES.iter().find(|(id, _)| *id == facts.signature)?;
        Some(format!("{} is signed with {name}, which is no longer safe", name_of(facts.subject)))
    });
    let text = old.unwrap_or_else(|| "it is signed in a way that is not known here".to_owned());
    (Cause::WeakSignature, text)
}

fn unknown_extension(name: &str) -> (Cause, String) {
    let text = format!("{name} has an extension that must be understood (critical), and is not");
    (Cause::CriticalExtension, text)
}

/// Object identifiers of signatures (RFC 3279), in DER.
const OLD_SIGNATURES: [(&[u8], &str); 4] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], "SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], "SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x03], "SHA-1"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], "MD5"),
];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// What stands in a certificate (RFC 5280), by reference. Read without believing any of it.
struct Facts<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    /// The object identifier of what it is signed with.
    signature: &'a [u8],
    /// The server's public key, with its algorithm.
    key: &'a [u8],
}

impl<'a> Facts<'a> {
    fn of(certificate: &'a CertificateDer<'_>) -> Option<Self> {
        let mut whole = Der(Der(certificate).content(SEQUENCE)?);
        let mut fields = Der(whole.content(SEQUENCE)?);
        // The version, which the oldest do not have.
        let mut rest = fields;
        if rest.content(0xa0).is_some() {
            fields = rest;
        }
        let _serial = fields.content(INTEGER)?;
        let signature = Der(fields.content(SEQUENCE)?).content(OBJECT)?;
        let issuer = fields.content(SEQUENCE)?;
        let _validity = fields.content(SEQUENCE)?;
        let subject = fields.content(SEQUENCE)?;
        let key = fields.content(SEQUENCE)?;
        Some(Self { issuer, subject, signature, key })
    }

    fn rsa_bits(&self) -> Option<usize> {
        let mut key = Der(self.key);
        if Der(key.content(SEQUENCE)?).content(OBJECT)? != RSA {
            return None;
        }
        let (_unused_bits, numbers) = key.content(BIT_STRING)?.split_first()?;
        let modulus = Der(Der(numbers).content(SEQUENCE)?).content(INTEGER)?;
        let first = modulus.iter().position(|byte| *byte != 0)?;
        let leading = modulus[first].leading_zeros() as usize;
        Some((modulus.len() - first) * 8 - leading)
    }
}

/// The common name in a distinguished name, or else the organization, for a message.
fn name_of(name: &[u8]) -> String {
    let find = |wanted: &[u8]| {
        let mut sets = Der(name);
        std::iter::from_fn(|| sets.content(SET)).find_map(|set| {
            let mut pair = Der(Der(set).content(SEQUENCE)?);
            if pair.content(OBJECT)? != wanted {
                return None;
            }
            let (_, text) = pair.next()?;
            let text = String::from_utf8_lossy(text);
            let text: String = text.chars().take(64).flat_map(char::escape_debug).collect();
            (!text.is_empty()).then_some(text)
        })
    };
    let found = find(COMMON_NAME).or_else(|| find(ORGANIZATION));
    found.map_or_else(|| "a certificate without a name".to_owned(), |name| format!("\"{name}\""))
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Values in DER, one after the other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and the content of the next value.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let mut length = usize::from(*first);
        if length >= 0x80 {
            let (digits, behind) = rest.split_at_checked(length - 0x80)?;
            if digits.len() > 4 {
                return None;
            }
            length = digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((*tag, content))
    }

    /// The content of the next value, if it has this tag.
    fn content(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, content) = self.next()?;
        (tag == wanted).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_are_read_and_can_do_no_harm() {
        for (name, expected) in [
            ("sls.example.com", "\"sls.example.com\""),
            ("a\nb\u{9b}2J\u{202e}", "\"a\\nb\\u{9b}2J\\u{202e}\""),
        ] {
            let der = certificate(name);
            assert_eq!(name_of(Facts::of(&der).unwrap().subject), expected);
        }
        let long = certificate(&"x".repeat(1000));
        assert_eq!(name_of(Facts::of(&long).unwrap().issuer).len(), 66);
        assert_eq!(name_of(b"\x30\x05"), "a certificate without a name");
    }

    #[test]
    fn only_what_can_be_told_more_closely_is() {
        let server = certificate("server");
        let shown = Shown { server: &server, between: &[], trusted: &[] };

        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(flaw(&unknown, shown).unwrap().cause, Cause::SelfSigned);
        assert_eq!(flaw(&Error::InvalidCertificate(CertificateError::Expired), shown), None);
        assert_eq!(flaw(&Error::DecryptError, shown), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_certificate(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            is_real: bool,
        ) {
            if is_real {
                bytes = certificate("server").to_vec();
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let der = CertificateDer::from(bytes);
            let shown = Shown { server: &der, between: &[], trusted: &[] };
            for bad in [CertificateError::UnknownIssuer, CertificateError::BadSignature] {
                let _ = flaw(&Error::InvalidCertificate(bad), shown);
            }
            if let Some(facts) = Facts::of(&der) {
                let _ = facts.rsa_bits();
            }
        }
    }
}
