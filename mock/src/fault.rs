//! A fault, in words: what it does, to which requests, how often; and how it is written, in JSON
//! and on the command line.
//!
//! Pure. When it plays is decided in [`super::faults`].

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One fault: what it does, to which requests, how often. In JSON:
/// `{"kind": {"error": {"code": "ServerBusy"}}, "times": 3}`; on the command line:
/// `error:code=ServerBusy,times=3`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What it does.
    pub kind: Kind,
    /// Which requests it looks at. Default: those that write.
    #[serde(default)]
    pub on: On,
    /// Only requests to this logstore.
    #[serde(default)]
    pub logstore: Option<String>,
    /// Leaves the first so many requests it looks at alone.
    #[serde(default)]
    pub after: u64,
    /// Plays at most so often; without it, for ever.
    #[serde(default)]
    pub times: Option<u64>,
    /// Plays on each so-manyth request it looks at (after `after`): 3 plays on the third, the
    /// sixth…
    #[serde(default)]
    pub every: Option<NonZeroU64>,
    /// Plays with this probability, 0 to 1, drawn from `seed`.
    #[serde(default)]
    pub probability: Option<f64>,
    /// Seed of `probability`.
    #[serde(default)]
    pub seed: u64,
}

impl Fault {
    /// A fault that plays on every request that writes.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            on: On::Put,
            logstore: None,
            after: 0,
            times: None,
            every: None,
            probability: None,
            seed: 0,
        }
    }

    /// An error answer with the documented status of `code`.
    #[must_use]
    pub fn error(code: &str) -> Self {
        Self::new(Kind::Error { code: code.to_owned(), status: None, retry_after: None })
    }

    /// Says what is wrong with its numbers.
    ///
    /// # Errors
    /// A sentence for a person: a probability or a status out of range.
    pub fn check(&self) -> Result<(), String> {
        if self.probability.is_some_and(|chance| !(0.0..=1.0).contains(&chance)) {
            return Err("probability must lie between 0 and 1".to_owned());
        }
        if let Kind::Error { status: Some(status), .. } = &self.kind
            && !(400..=599).contains(status)
        {
            return Err(format!("status {status} is no HTTP error; use 400 to 599"));
        }
        Ok(())
    }
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Answers with an error code; nothing is stored.
    Error {
        /// The service's `errorCode`.
        code: String,
        /// HTTP status; by default the documented one of the code.
        #[serde(default)]
        status: Option<u16>,
        /// Seconds for a header `Retry-After`.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Waits before it goes on.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Never answers; nothing is stored.
    Hang,
    /// Stores, and never answers.
    HangAfter,
    /// Closes the connection without an answer; nothing is stored.
    CutBefore,
    /// Stores, and closes the connection without an answer.
    CutAfter,
    /// Answers 200 with a page and without `x-log-requestid`, as a captive portal or a wrong proxy
    /// does; nothing is stored.
    CaptivePortal,
    /// Refuses as malformed what holds a text, in any of its lines or tags.
    Poison {
        /// The text.
        text: String,
    },
    /// Refuses what is compressed so, as the service refuses what it does not know.
    RefuseCompression {
        /// `lz4` or `zstd`.
        name: String,
    },
    /// Refuses several LogGroups in one request, as what knows no `x-log-mode` would.
    RefuseLists,
    /// Answers 413 with a page and without `x-log-requestid`, as a proxy does to a body that it
    /// finds too large.
    BodyLimit {
        /// Most bytes of a body as it is sent.
        bytes: u64,
    },
    /// Refuses what goes beyond a rate, counted in whole seconds.
    Quota {
        /// Raw bytes of LogGroups in a second.
        #[serde(default)]
        bytes_per_second: Option<u64>,
        /// Requests in a second.
        #[serde(default)]
        requests_per_second: Option<u64>,
        /// `WriteQuotaExceed` by default; `ShardWriteQuotaExceed`…
        #[serde(default)]
        code: Option<String>,
    },
}

impl Kind {
    /// The name of the kind, as in JSON and in the counts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Error { .. } => "error",
            Self::Delay { .. } => "delay",
            Self::Hang => "hang",
            Self::HangAfter => "hang_after",
            Self::CutBefore => "cut_before",
            Self::CutAfter => "cut_after",
            Self::CaptivePortal => "captive_portal",
            Self::Poison { .. } => "poison",
            Self::RefuseCompression { .. } => "refuse_compression",
            Self::RefuseLists => "refuse_lists",
            Self::BodyLimit { .. } => "body_limit",
            Self::Quota { .. } => "quota",
        }
    }
}

/// Which requests a fault looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// PutLogs.
    #[default]
    Put,
    /// All the others.
    Read,
    /// All.
    Any,
}

impl std::str::FromStr for Fault {
    type Err = String;

    /// Reads `KIND[:NAME=VALUE[,NAME=VALUE]…]`, or a fault in JSON.
    fn from_str(text: &str) -> Result<Self, String> {
        let value = if text.starts_with('{') {
            serde_json::from_str(text).map_err(|error| error.to_string())?
        } else {
            spec_to_json(text)?
        };
        let fault: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        fault.check()?;
        Ok(fault)
    }
}

/// Turns the short form into the JSON form, which knows the names and types.
fn spec_to_json(text: &str) -> Result<Value, String> {
    const OF_THE_FAULT: [&str; 7] =
        ["on", "logstore", "after", "times", "every", "probability", "seed"];
    const OF_A_KIND: [&str; 9] = [
        "code",
        "status",
        "retry_after",
        "ms",
        "text",
        "name",
        "bytes",
        "bytes_per_second",
        "requests_per_second",
    ];
    const TEXTS: [&str; 5] = ["on", "logstore", "code", "text", "name"];
    const WITH_MORE: [&str; 6] =
        ["error", "delay", "poison", "refuse_compression", "body_limit", "quota"];
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let (mut outer, mut inner) = (Map::new(), Map::new());
    for pair in rest.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is not NAME=VALUE; see `logferry mock --help`"))?;
        let number = serde_json::from_str::<serde_json::Number>(value).ok();
        let value = match number {
            Some(number) if !TEXTS.contains(&name) => Value::Number(number),
            _ => Value::String(value.to_owned()),
        };
        let into = match name {
            name if OF_THE_FAULT.contains(&name) => &mut outer,
            name if OF_A_KIND.contains(&name) => &mut inner,
            name => {
                let known = [&OF_THE_FAULT[..], &OF_A_KIND[..]].concat().join(", ");
                return Err(format!("no fault has a {name:?}; there are {known}"));
            }
        };
        into.insert(name.to_owned(), value);
    }
    let is_bare = inner.is_empty() && !WITH_MORE.contains(&kind);
    let kind = if is_bare {
        Value::String(kind.to_owned())
    } else {
        Value::Object(Map::from_iter([(kind.to_owned(), Value::Object(inner))]))
    };
    outer.insert("kind".to_owned(), kind);
    Ok(Value::Object(outer))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn short_form_and_json_say_the_same() {
        let json = r#"{"kind":{"error":{"code":"404","status":404}},"times":2,"logstore":"7"}"#;
        let short = "error:code=404,status=404,times=2,logstore=7";

        let fault: Fault = short.parse().unwrap();

        assert_eq!(json.parse(), Ok(fault.clone()));
        assert_eq!(serde_json::to_string(&fault).unwrap().parse(), Ok(fault));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("hung", "hung"),
            ("hang:tims=2", "\"tims\"; there are on, logstore"),
            ("error:kode=X", "kode"),
            ("error:ms=3", "ms"),
            ("error", "`code`"),
            ("poison", "`text`"),
            ("hang:times", "NAME=VALUE"),
            ("hang:every=0", "zero"),
            ("hang:probability=1.5", "between 0 and 1"),
            ("error:code=X,status=200", "400 to 599"),
            (r#"{"kind":"hang","often":1}"#, "often"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
