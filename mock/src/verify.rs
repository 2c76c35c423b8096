//! Is this request one that the service would look at? Version, content type, date, signature,
//! digest, project, logstore: in the order in which the service finds fault.
//!
//! Pure: the caller brings the time. The body's meaning is `put`'s business.

use sha2::Digest as _;

use super::answer::Refusal;
use super::request::{Asked, Operation};
use super::{Access, Key};
use logferry_wire::sign::{self, Parts};
use logferry_wire::{API_VERSION, CONTENT_TYPE, content_md5, hex_lower};

/// How far a request's date may be off, in seconds.
const SKEW_SECONDS_MAX: u64 = 15 * 60;

/// Checks everything about a request but the meaning of its body.
pub(super) fn head(
    asked: &Asked,
    operation: &Operation,
    project: &str,
    access: &Access,
    unix_seconds: i64,
) -> Result<(), Refusal> {
    api_version(asked)?;
    content_type(asked, operation)?;
    let authorization = Authorization::of(asked)?;
    date(asked, &authorization, unix_seconds)?;
    signature(asked, &authorization, &access.keys)?;
    digest(asked, &authorization)?;
    resource(operation, project, access)
}

fn api_version(asked: &Asked) -> Result<(), Refusal> {
    match asked.header("x-log-apiversion") {
        Some(API_VERSION) => Ok(()),
        Some(version) => Err(Refusal::new(
            "InvalidAPIVersion",
            format!("x-log-apiversion {version} is unsupported."),
        )),
        None => Err(Refusal::new(
            "MissingAPIVersion",
            "x-log-apiversion does not exist in http header.",
        )),
    }
}

fn content_type(asked: &Asked, operation: &Operation) -> Result<(), Refusal> {
    if asked.body.is_empty() {
        return Ok(());
    }
    let expected = match operation {
        Operation::Put { .. } => CONTENT_TYPE,
        _ => super::answer::JSON,
    };
    match asked.header("content-type") {
        Some(value) if value.split(';').next().is_some_and(|kind| kind.trim() == expected) => {
            Ok(())
        }
        Some(value) => {
            Err(Refusal::new("InvalidContentType", format!("Content-Type {value} is unsupported.")))
        }
        None => Err(Refusal::new(
            "MissingContentType",
            "Content-Type does not exist in http header when body is not empty.",
        )),
    }
}

/// A request's claim to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Authorization {
    Unsigned,
    V1 { id: String },
    V4 { id: String, date: String, region: String },
}

impl Authorization {
    /// Reads the header `Authorization`; what is neither form is refused even where signatures are
    /// not checked.
    fn of(asked: &Asked) -> Result<Self, Refusal> {
        let Some(value) = asked.header("authorization") else { return Ok(Self::Unsigned) };
        let malformed = || {
            Refusal::new(
                "Unauthorized",
                "Authorization is neither `LOG <id>:<signature>` nor \
                 `SLS4-HMAC-SHA256 Credential=<id>/<scope>,Signature=<signature>`.",
            )
        };
        let claim = if let Some(rest) = value.strip_prefix("LOG ") {
            Self::v1(rest)
        } else {
            value.strip_prefix("SLS4-HMAC-SHA256 ").and_then(Self::v4)
        };
        match claim.ok_or_else(malformed)? {
            Self::V1 { id } | Self::V4 { id, .. } if id.is_empty() => Err(Refusal::new(
                "MissAccessKeyId",
                "the AccessKeyId does not exist in Authorization.",
            )),
            claim => Ok(claim),
        }
    }

    fn v1(text: &str) -> Option<Self> {
        let (id, signature) = text.rsplit_once(':')?;
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, signature).ok()?;
        (bytes.len() == 20).then(|| Self::V1 { id: id.to_owned() })
    }

    fn v4(text: &str) -> Option<Self> {
        let (credential, signature) = text.split_once(',')?;
        let signature = signature.trim().strip_prefix("Signature=")?;
        let scope: Vec<&str> = credential.trim().strip_prefix("Credential=")?.split('/').collect();
        let [id, date, region, "sls", "aliyun_v4_request"] = scope.as_slice() else { return None };
        let is_hex =
            signature.len() == 64 && signature.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| Self::V4 {
            id: (*id).to_owned(),
            date: (*date).to_owned(),
            region: (*region).to_owned(),
        })
    }
}

fn date(asked: &Asked, authorization: &Authorization, unix_seconds: i64) -> Result<(), Refusal> {
    let value = asked
        .header("x-log-date")
        .or_else(|| asked.header("date"))
        .ok_or_else(|| Refusal::new("MissingDate", "Date does not exist in http header."))?;
    let is_v4 = matches!(authorization, Authorization::V4 { .. });
    let sent = if is_v4 { compact_date(value) } else { rfc822_date(value) };
    let sent = sent.ok_or_else(|| {
        let form = if is_v4 { "be YYYYMMDDTHHMMSSZ" } else { "follow RFC822" };
        Refusal::new("InvalidDateFormat", format!("Date {value} must {form}."))
    })?;
    if sent.abs_diff(unix_seconds) > SKEW_SECONDS_MAX {
        return Err(Refusal::new(
            "RequestTimeExpired",
            format!("Request time {sent} has been expired while server time is {unix_seconds}."),
        ));
    }
    Ok(())
}

fn rfc822_date(value: &str) -> Option<i64> {
    jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(value)
        .ok()
        .map(jiff::Timestamp::as_second)
}

fn compact_date(value: &str) -> Option<i64> {
    let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", value).ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

fn signature(asked: &Asked, authorization: &Authorization, keys: &[Key]) -> Result<(), Refusal> {
    let id = match authorization {
        Authorization::Unsigned if keys.is_empty() => return Ok(()),
        Authorization::Unsigned => {
            return Err(Refusal::new(
                "MissAccessKeyId",
                "Authorization does not exist in http header.",
            ));
        }
        Authorization::V1 { id } => {
            signature_method(asked)?;
            id
        }
        Authorization::V4 { id, date, .. } => {
            if asked.header("x-log-date").and_then(|sent| sent.get(..8)) != Some(date) {
                return Err(Refusal::new(
                    "SignatureNotMatch",
                    "the scope's date is not that of x-log-date.",
                ));
            }
            id
        }
    };
    if keys.is_empty() {
        return Ok(());
    }
    let key = keys
        .iter()
        .find(|key| key.id == *id)
        .ok_or_else(|| Refusal::new("Unauthorized", "The AccessKeyId is unauthorized."))?;
    if asked.header("authorization") == Some(expected(asked, authorization, key).as_str()) {
        Ok(())
    } else {
        Err(Refusal::new("SignatureNotMatch", "The signature of the request does not match."))
    }
}

fn signature_method(asked: &Asked) -> Result<(), Refusal> {
    match asked.header("x-log-signaturemethod") {
        Some("hmac-sha1") => Ok(()),
        Some(method) => Err(Refusal::new(
            "InvalidSignatureMethod",
            format!("signature method {method} is unsupported."),
        )),
        None => Err(Refusal::new(
            "MissingSignatureMethod",
            "x-log-signaturemethod does not exist in http header.",
        )),
    }
}

/// The header `Authorization` that the holder of `key` would have sent.
fn expected(asked: &Asked, authorization: &Authorization, key: &Key) -> String {
    let parts = Parts {
        method: asked.method.as_str(),
        path: &asked.path,
        query: &asked.query,
        headers: &asked.headers,
    };
    match authorization {
        Authorization::V4 { region, .. } => {
            sign::authorization_v4(&parts, region, &key.id, &key.secret)
        }
        Authorization::V1 { .. } | Authorization::Unsigned => {
            sign::authorization_v1(&parts, &key.id, &key.secret)
        }
    }
}

/// The body is the one the head speaks of. Under V1, and unsigned, `Content-MD5` is a must; under
/// V4 the signed `x-log-content-sha256` is.
fn digest(asked: &Asked, authorization: &Authorization) -> Result<(), Refusal> {
    let is_v4 = matches!(authorization, Authorization::V4 { .. });
    if is_v4
        && asked.header("x-log-content-sha256")
            != Some(hex_lower(&sha2::Sha256::digest(&asked.body)).as_str())
    {
        return Err(Refusal::new(
            "SignatureNotMatch",
            "x-log-content-sha256 is not the SHA-256 of the body.",
        ));
    }
    let actual = content_md5(&asked.body);
    match asked.header("content-md5") {
        Some(sent) if sent == actual => Ok(()),
        Some(sent) => Err(Refusal::new(
            "ParameterInvalid",
            format!(
                "Http extend Content-MD5 : {sent} pair is invalid; the body has {actual} \
                 (upper-case hexadecimal)."
            ),
        )),
        None if is_v4 || asked.body.is_empty() => Ok(()),
        None => Err(Refusal::new(
            "ParameterInvalid",
            "Content-MD5 does not exist in http header when body is not empty.",
        )),
    }
}

fn resource(operation: &Operation, project: &str, access: &Access) -> Result<(), Refusal> {
    let is_known =
        |names: &[String], name: &str| names.is_empty() || names.iter().any(|known| known == name);
    if !is_known(&access.projects, project) {
        return Err(Refusal::new(
            "ProjectNotExist",
            format!("The Project does not exist : {project}"),
        ));
    }
    match operation.logstore() {
        Some(logstore) if logstore.is_empty() || !is_known(&access.logstores, logstore) => {
            Err(Refusal::new("LogStoreNotExist", format!("logstore {logstore} does not exist")))
        }
        _ => Ok(()),
    }
}
