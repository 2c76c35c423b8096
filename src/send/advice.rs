//! What a person can do about a failure. Pure: words only, and none of them secret.

use super::cause::Cause;
use super::verdict::FailureKind;
use super::{CredentialsSource, Options};
use crate::plan::Destination;

/// One sentence for the person who reads the log: what to check or change.
#[must_use]
pub fn advice(kind: FailureKind, code: Option<&str>, destination: &Destination) -> String {
    let Destination { endpoint, project, logstore, credentials, .. } = destination;
    match kind {
        FailureKind::Network => format!(
            "check that {endpoint} can be reached from here (name resolution, network policy, proxy, \
             certificates); `logferry check --connect` tells which"
        ),
        FailureKind::Server => "nothing to do here: the service is unwell".to_owned(),
        FailureKind::Quota => format!("raise the quota of project {project}"),
        FailureKind::ShardQuota => {
            format!("split a shard of logstore {logstore}, or let the service do so by itself")
        }
        FailureKind::Credentials => format!(
            "{}, and that the key may write to logstore {logstore} of project {project}",
            credentials_advice(credentials)
        ),
        FailureKind::Missing => missing_advice(code, destination),
        FailureKind::Clock => "set the clock of this machine".to_owned(),
        FailureKind::Unverified => format!(
            "find out who answers for {endpoint}: a proxy or a sign-in page, not the service; or, \
             if that endpoint is meant, set LOGFERRY_VERIFY_RESPONSE=false"
        ),
        FailureKind::Other => {
            "go by the service's message: a setting or the version may not fit".to_owned()
        }
    }
}

/// What to do about a request that got no answer, as far as its cause is known.
#[must_use]
pub fn advice_on(cause: Cause, options: &Options, destination: &Destination) -> String {
    let Destination { endpoint, project, .. } = destination;
    match cause {
        Cause::NameNotFound => format!(
            "check LOGFERRY_ENDPOINT ({endpoint}) and LOGFERRY_PROJECT ({project}), which stands in \
             front of it: a project has a name only in its own region"
        ),
        Cause::NameService => {
            "check the name servers in /etc/resolv.conf, and that they can be reached".to_owned()
        }
        Cause::NoThread => {
            "raise the limit of processes (the pod's pids limit, RLIMIT_NPROC), or find \
                            out who uses it up"
                .to_owned()
        }
        Cause::Refused => format!(
            "check the host and the port of LOGFERRY_ENDPOINT ({endpoint}), or those of the proxy"
        ),
        Cause::Unreachable | Cause::TooLate => format!(
            "check that packets to {endpoint} and back are let through: route, network policy, \
             firewall; or set HTTPS_PROXY or HTTP_PROXY if a proxy is the way out"
        ),
        Cause::Untrusted if options.tls.ca.is_some() => format!(
            "add that authority to the file of LOGFERRY_CA_FILE ({}), or let {endpoint} send the \
             certificates between it and an authority that is there; or find out who answers in its \
             place",
            ca_file(options)
        ),
        Cause::Untrusted => format!(
            "set LOGFERRY_CA_FILE to the authority that has signed the certificate of {endpoint}, \
             or find out who answers in its place"
        ),
        Cause::SelfSigned => format!(
            "set LOGFERRY_CA_FILE to a file with this very certificate of {endpoint}, if it is meant; \
             or give {endpoint} one that an authority has signed"
        ),
        Cause::OtherKey => format!(
            "put the present certificate of that authority into LOGFERRY_CA_FILE ({}): the one there \
             has the same name and another key; or find out who answers in place of {endpoint}",
            ca_file(options)
        ),
        Cause::ServerInCaFile => format!(
            "put the certificate of the authority that has signed it into LOGFERRY_CA_FILE ({}), \
             instead of the server's own",
            ca_file(options)
        ),
        Cause::AuthorityAsServer => format!(
            "give {endpoint} a certificate of its own (CA:FALSE), signed by that authority, which \
             stays in LOGFERRY_CA_FILE; a self-signed one has to be made with \
             `openssl req -x509 -addext basicConstraints=critical,CA:FALSE`"
        ),
        Cause::WeakKey => format!(
            "have the certificate of {endpoint}, or of the authority that is named, made anew with a \
             key of RSA with 2048 bits or more, or of ECDSA; trusting it here changes nothing"
        ),
        Cause::WeakSignature => format!(
            "have the certificate of {endpoint} signed anew, with SHA-256; trusting it here changes \
             nothing"
        ),
        Cause::WrongPurpose => format!(
            "give {endpoint} a certificate whose extended key usage holds serverAuth; trusting it \
             here changes nothing"
        ),
        Cause::CriticalExtension => format!(
            "have the certificate of {endpoint} made anew without that extension, or with it not \
             critical; trusting it here changes nothing"
        ),
        Cause::BadChain => format!(
            "have the certificate of {endpoint}, or those between it and its authority, made anew; \
             `openssl verify -x509_strict` names what is wrong"
        ),
        Cause::Expired => {
            format!("renew the certificate of {endpoint}, or set the clock of this machine")
        }
        Cause::NotYetValid => {
            format!("set the clock of this machine, or wait for the certificate of {endpoint}")
        }
        Cause::WrongName => format!(
            "name the host in LOGFERRY_ENDPOINT ({endpoint}) as its certificate does, or have the \
             name added to the certificate"
        ),
        Cause::ClientCertificate => {
            "set LOGFERRY_CLIENT_CERT_FILE and LOGFERRY_CLIENT_KEY_FILE to a certificate that the \
             other side accepts and that has not expired"
                .to_owned()
        }
        Cause::Tls => format!(
            "check that {endpoint} speaks TLS on this port; if it does not, write http:// in \
             LOGFERRY_ENDPOINT"
        ),
        Cause::Proxy => {
            "check HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: an http:// or https:// proxy, \
                         its user and password, and that it lets the endpoint through; or name the \
                         endpoint in NO_PROXY"
                .to_owned()
        }
        Cause::LargeHead => format!(
            "find out who adds headers to the answers of {endpoint}: more than 20,000 of them, or \
             400 KB, cannot be read, and lines go again whose acknowledgement cannot; for fewer there is \
             room from now on"
        ),
        Cause::Other => format!("check what answers at {endpoint}"),
    }
}

fn ca_file(options: &Options) -> String {
    options.tls.ca.as_ref().map_or_else(|| "not set".to_owned(), |path| path.display().to_string())
}

fn credentials_advice(source: &CredentialsSource) -> String {
    match source {
        CredentialsSource::Unsigned => {
            "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET: requests go \
             unsigned"
                .to_owned()
        }
        CredentialsSource::Fixed(credentials) => {
            let token = if credentials.security_token.is_some() {
                ", and ALIBABA_CLOUD_SECURITY_TOKEN, which may have expired"
            } else {
                ""
            };
            format!("check ALIBABA_CLOUD_ACCESS_KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_SECRET{token}")
        }
        CredentialsSource::File(path) => {
            format!("check the access key in {} (LOGFERRY_CREDENTIALS_FILE)", path.display())
        }
    }
}

fn missing_advice(code: Option<&str>, destination: &Destination) -> String {
    let Destination { endpoint, project, logstore, .. } = destination;
    match code {
        Some("LogStoreNotExist") => {
            format!("create logstore {logstore} in project {project}, or correct LOGFERRY_LOGSTORE")
        }
        Some("ShardNotExist" | "LogStoreWithoutShard") => {
            format!("give logstore {logstore} of project {project} a shard")
        }
        Some("ProjectForbidden" | "ProjectInRecycleBin") => {
            format!("open project {project} again: its account is overdue or it was deleted")
        }
        _ => format!(
            "create project {project} in the region of {endpoint}, or correct LOGFERRY_PROJECT or \
             LOGFERRY_ENDPOINT"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Credentials, Endpoint, Secret};
    use super::*;

    fn to(credentials: CredentialsSource) -> Destination {
        let host = "cn-hangzhou.log.aliyuncs.com".to_owned();
        let endpoint = Endpoint { tls: true, host, port: 443 };
        Destination { endpoint, credentials, ..Destination::sample() }
    }

    #[test]
    fn names_the_thing_to_change() {
        let unsigned = to(CredentialsSource::Unsigned);
        for (kind, code, wanted) in [
            (FailureKind::Missing, Some("LogStoreNotExist"), "LOGFERRY_LOGSTORE"),
            (FailureKind::Missing, Some("LogStoreNotExist"), "create logstore orders"),
            (FailureKind::Missing, Some("ProjectNotExist"), "create project shop"),
            (FailureKind::Missing, None, "LOGFERRY_PROJECT"),
            (FailureKind::Credentials, None, "set ALIBABA_CLOUD_ACCESS_KEY_ID"),
            (FailureKind::Network, None, "https://cn-hangzhou.log.aliyuncs.com"),
            (FailureKind::Unverified, None, "LOGFERRY_VERIFY_RESPONSE"),
        ] {
            let advice = advice(kind, code, &unsigned);
            assert!(advice.contains(wanted), "{advice}");
        }
    }

    #[test]
    fn sends_the_person_to_where_the_credentials_come_from() {
        let file = to(CredentialsSource::File(PathBuf::from("/run/key.json")));
        assert!(advice(FailureKind::Credentials, None, &file).contains("/run/key.json"));

        let fixed = to(CredentialsSource::Fixed(Credentials {
            access_key_id: "id".to_owned(),
            access_key_secret: Secret::new("s3cret".to_owned()),
            security_token: Some(Secret::new("t0ken".to_owned())),
        }));
        let advice = advice(FailureKind::Credentials, None, &fixed);
        assert!(advice.contains("ALIBABA_CLOUD_SECURITY_TOKEN"), "{advice}");
        assert!(!advice.contains("s3cret") && !advice.contains("t0ken"), "{advice}");
    }
}
