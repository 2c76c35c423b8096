//! Why no answer came, as far as the errors beneath one another tell.
//!
//! Pure: an error in, one word out. [`super::advice`] says what to do about it.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// What stood between us and an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The name service knows no such name.
    NameNotFound,
    /// The name service does not answer, or not now.
    NameService,
    /// The system refuses the thread that asks the name service.
    NoThread,
    /// Nobody listens there.
    Refused,
    /// There is no way there.
    Unreachable,
    /// No connection, or no answer, in time.
    TooLate,
    /// The server's certificate is from nobody we trust.
    Untrusted,
    /// The certificate is signed by itself.
    SelfSigned,
    /// The certificate is signed in the name of somebody we trust, with another key.
    OtherKey,
    /// The certificate is where the one of its authority belongs.
    ServerInCaFile,
    /// The certificate is that of an authority.
    AuthorityAsServer,
    /// The certificate's key, or that of an authority, is too short.
    WeakKey,
    /// The certificate is signed in a way that is not believed.
    WeakSignature,
    /// The certificate is for clients, or for another use.
    WrongPurpose,
    /// The certificate has a critical extension that nobody here understands.
    CriticalExtension,
    /// Another rule for certificates is broken.
    BadChain,
    /// The server's certificate is no longer valid.
    Expired,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    WrongName,
    /// The server does not like our certificate, or misses one.
    ClientCertificate,
    /// Another trouble with TLS, such as a port that does not speak it.
    Tls,
    /// The proxy does not let us through.
    Proxy,
    /// The head of the answer is larger than there is room for.
    LargeHead,
    /// Any other.
    Other,
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Flaw {
    /// In a word.
    pub cause: Cause,
    /// In a sentence.
    pub(super) text: String,
}

/// How the reason of a [`LookupError`] begins where the resolver could not even be asked.
pub const NO_THREAD: &str = "the system refuses a thread";

/// A name that could not be looked up.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot find the address of {name}: {reason}")]
pub struct LookupError {
    /// The host name.
    pub name: String,
    /// What the name service says.
    pub reason: String,
}

impl LookupError {
    /// The resolver tells by words only whether to ask again (glibc's, then musl's).
    fn cause(&self) -> Cause {
        if self.reason.starts_with(NO_THREAD) {
            return Cause::NoThread;
        }
        let is_passing =
            ["Temporary failure", "Try again"].iter().any(|words| self.reason.contains(words));
        if is_passing { Cause::NameService } else { Cause::NameNotFound }
    }
}

impl Cause {
    /// Finds the cause in an error and those beneath it.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        chain(error).find_map(Self::of_one).unwrap_or(Self::Other)
    }

    /// Whether there is nothing else to look for: the reachability of the endpoint, for one.
    #[must_use]
    pub fn is_certain(self) -> bool {
        !matches!(
            self,
            Self::NameNotFound
                | Self::NameService
                | Self::Refused
                | Self::Unreachable
                | Self::TooLate
                | Self::Other
        )
    }

    fn of_one(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<LookupError>() {
            return Some(error.cause());
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(error));
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return error.is_parse_too_large().then_some(Self::LargeHead);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused => Some(Self::Refused),
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    Some(Self::Unreachable)
                }
                io::ErrorKind::TimedOut => Some(Self::TooLate),
                _ => None,
            };
        }
        // The client has no types for them that could be named here. Endpoints have no other scheme
        // than http and https.
        let words = error.to_string();
        let is_proxy = ["tunnel error", "unsupported scheme"].iter().any(|w| words.starts_with(w));
        is_proxy.then_some(Self::Proxy)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use CertificateError as Bad;
        match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::Expired | Bad::ExpiredContext { .. } => Self::Expired,
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => Self::NotYetValid,
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Self::WrongName,
                _ => flaw_in(error).map_or(Self::Untrusted, |flaw| flaw.cause),
            },
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied,
            ) => Self::ClientCertificate,
            _ => Self::Tls,
        }
    }
}

/// The flaw of a certificate that was found, if the error is one.
pub(super) fn flaw_in(error: &rustls::Error) -> Option<&Flaw> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref::<Flaw>()
        }
        _ => None,
    }
}

/// An error and those beneath it, also what an `io::Error` was made of: its `source` passes that
/// over.
pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| beneath(*error))
}

fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
        io::Error::other(error)
    }

    #[test]
    fn what_lies_deepest_is_found() {
        let lookup = |reason: &str| LookupError { name: "x".to_owned(), reason: reason.to_owned() };
        let bad = |bad| io(io(rustls::Error::InvalidCertificate(bad)));
        let alert = |alert| io(rustls::Error::AlertReceived(alert));
        for (error, expected) in [
            (io(lookup("Name or service not known")), Cause::NameNotFound),
            (io(lookup("Temporary failure in name resolution")), Cause::NameService),
            (io(lookup(NO_THREAD)), Cause::NoThread),
            (io(io::Error::from(io::ErrorKind::ConnectionRefused)), Cause::Refused),
            (io(io::Error::from(io::ErrorKind::HostUnreachable)), Cause::Unreachable),
            (bad(CertificateError::Expired), Cause::Expired),
            (bad(CertificateError::NotValidYet), Cause::NotYetValid),
            (bad(CertificateError::NotValidForName), Cause::WrongName),
            (bad(CertificateError::UnknownIssuer), Cause::Untrusted),
            (alert(AlertDescription::CertificateRequired), Cause::ClientCertificate),
            (alert(AlertDescription::HandshakeFailure), Cause::Tls),
            (io("tunnel error: unsuccessful"), Cause::Proxy),
            (io("unsupported scheme socks5"), Cause::Proxy),
            (io("something else"), Cause::Other),
        ] {
            assert_eq!(Cause::of(&error), expected, "{error}");
        }
    }
}
