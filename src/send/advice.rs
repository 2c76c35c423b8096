//! What a person can do about a failure. Pure: words only, and none of them secret.

use super::verdict::FailureKind;
use super::{CredentialsSource, Options};

/// One sentence for the person who reads the log: what to check or change.
#[must_use]
pub fn advice(kind: FailureKind, code: Option<&str>, options: &Options) -> String {
    let Options { endpoint, project, logstore, .. } = options;
    match kind {
        FailureKind::Network => format!(
            "check that {endpoint} can be reached from here: name resolution, network policy, proxy"
        ),
        FailureKind::Server => "nothing to do here: the service is unwell".to_owned(),
        FailureKind::Quota => format!("raise the quota of project {project}"),
        FailureKind::ShardQuota => {
            format!("split a shard of logstore {logstore}, or let the service do so by itself")
        }
        FailureKind::Credentials => format!(
            "{}, and that the key may write to logstore {logstore} of project {project}",
            credentials_advice(&options.credentials)
        ),
        FailureKind::Missing => missing_advice(code, options),
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

fn missing_advice(code: Option<&str>, options: &Options) -> String {
    let Options { endpoint, project, logstore, .. } = options;
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
    use std::time::Duration;

    use super::super::{Credentials, Endpoint, Secret};
    use super::*;

    fn options(credentials: CredentialsSource) -> Options {
        let host = "cn-hangzhou.log.aliyuncs.com".to_owned();
        Options {
            endpoint: Endpoint { tls: true, host, port: 443 },
            project: "shop".to_owned(),
            logstore: "orders".to_owned(),
            credentials,
            concurrency_max: 1,
            verify_response: true,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn names_the_thing_to_change() {
        let unsigned = options(CredentialsSource::Unsigned);
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
        let file = options(CredentialsSource::File(PathBuf::from("/run/key.json")));
        assert!(advice(FailureKind::Credentials, None, &file).contains("/run/key.json"));

        let fixed = options(CredentialsSource::Fixed(Credentials {
            access_key_id: "id".to_owned(),
            access_key_secret: Secret::new("s3cret".to_owned()),
            security_token: Some(Secret::new("t0ken".to_owned())),
        }));
        let advice = advice(FailureKind::Credentials, None, &fixed);
        assert!(advice.contains("ALIBABA_CLOUD_SECURITY_TOKEN"), "{advice}");
        assert!(!advice.contains("s3cret") && !advice.contains("t0ken"), "{advice}");
    }
}
