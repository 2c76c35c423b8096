//! The service's read operations, as far as its SDKs use them on one shard or one logstore.
//!
//! A cursor is the number of a LogGroup, in base64 as the service's are. Refuses SQL: a query is
//! one word or phrase that some value must contain.

use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::accepted::Group;
use super::answer::{Answer, Refusal};
use super::request::{Asked, Reading};
use super::store::{Place, Store};

/// Most LogGroups in an answer to PullLogs.
const PULL_GROUPS_MAX: usize = 1000;
/// An answer to PullLogs ends with the group that passes this many raw bytes.
const PULL_BYTES_ENOUGH: usize = 5 << 20;
/// Most logs in an answer to GetLogs.
const QUERY_LINES_MAX: usize = 100;

/// Answers a read of `project`. `allowed`: the logstores that exist by decree.
pub(super) fn answer(
    asked: &Asked,
    project: &str,
    reading: Reading,
    store: &Store,
    allowed: Vec<String>,
    unix_seconds: i64,
) -> Result<Answer, Refusal> {
    match reading {
        Reading::Shard { logstore, shard: number } => {
            shard(asked, project, &logstore, &number, store, unix_seconds)
        }
        Reading::Shards { .. } => Ok(shards(store)),
        Reading::Logstore { logstore } if asked.parameter("type") == Some("log") => {
            logs(asked, project, &logstore, store)
        }
        Reading::Logstore { logstore: name } => Ok(logstore(&name, store)),
        Reading::Query { logstore } => query(asked, project, &logstore, store),
        Reading::Logstores if allowed.is_empty() => Ok(logstores(asked, store.logstores(project))),
        Reading::Logstores => Ok(logstores(asked, allowed)),
    }
}

/// GetCursor, cursor time, PullLogs: `/logstores/{logstore}/shards/{shard}?type=…`.
fn shard(
    asked: &Asked,
    project: &str,
    logstore: &str,
    shard: &str,
    store: &Store,
    unix_seconds: i64,
) -> Result<Answer, Refusal> {
    let shard =
        shard.parse().ok().filter(|number| *number < store.shards()).ok_or_else(|| {
            Refusal::new("ShardNotExist", format!("Shard {shard} does not exist."))
        })?;
    let place = Place { project, logstore, shard: Some(shard) };
    match asked.parameter("type") {
        Some("cursor") => cursor(asked, place, store),
        Some("cursor_time") => cursor_time(asked, place, store, unix_seconds),
        Some("log") => pull(asked, place, store),
        other => Err(invalid("type", other)),
    }
}

fn cursor(asked: &Asked, place: Place<'_>, store: &Store) -> Result<Answer, Refusal> {
    let number = match asked.parameter("from") {
        Some("begin") => 0,
        Some("end") => store.next_number(),
        Some(text) => {
            let seconds = text.parse().map_err(|_| invalid("from", Some(text)))?;
            store.number_at(place, Duration::from_secs(seconds))
        }
        None => return Err(invalid("from", None)),
    };
    Ok(Answer::json(&json!({"cursor": write_cursor(number)})))
}

fn cursor_time(
    asked: &Asked,
    place: Place<'_>,
    store: &Store,
    unix_seconds: i64,
) -> Result<Answer, Refusal> {
    let number = read_cursor(asked, "cursor")?;
    let group = store.since(place, number).into_iter().next();
    let time = group.map_or_else(|| unix_seconds.unsigned_abs(), |group| group.received.as_secs());
    Ok(Answer::json(&json!({"cursor_time": time})))
}

fn pull(asked: &Asked, place: Place<'_>, store: &Store) -> Result<Answer, Refusal> {
    let from = read_cursor(asked, "cursor")?;
    let end = match asked.parameter("end_cursor") {
        Some(_) => read_cursor(asked, "end_cursor")?,
        None => u64::MAX,
    };
    let count = match asked.parameter("count").map(str::parse) {
        Some(Ok(count)) if (1..=PULL_GROUPS_MAX).contains(&count) => count,
        _ => return Err(invalid("count", asked.parameter("count"))),
    };

    // Before the groups: one that arrives in between must not be skipped by the next cursor.
    let mut next = end.min(store.next_number()).max(from);
    let mut body = Vec::new();
    let mut pulled = 0;
    for group in store.since(place, from).iter().take_while(|group| group.number < next) {
        if pulled == count || body.len() > PULL_BYTES_ENOUGH {
            next = group.number;
            break;
        }
        append_to_list(&mut body, group.raw());
        pulled += 1;
    }
    let raw_size = body.len();
    let (body, compression) = compress(asked, body);
    let answer = Answer { headers: Vec::new(), body }
        .with(CONTENT_TYPE.as_str(), logferry_wire::CONTENT_TYPE)
        .with("x-log-cursor", write_cursor(next))
        .with("x-log-count", pulled)
        .with("x-log-bodyrawsize", raw_size);
    Ok(match compression {
        Some(name) => answer.with("x-log-compresstype", name),
        None => answer,
    })
}

/// Appends one element of `LogGroupList.logGroupList` (field 1).
fn append_to_list(list: &mut Vec<u8>, group: &[u8]) {
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, list);
    prost::encoding::encode_varint(group.len() as u64, list);
    list.extend_from_slice(group);
}

/// Compresses a body as `Accept-Encoding` allows; an empty one stays.
fn compress(asked: &Asked, body: Vec<u8>) -> (Vec<u8>, Option<&'static str>) {
    let accepted = asked.header("accept-encoding").unwrap_or_default();
    let accepts = |name: &str| accepted.split(',').any(|encoding| encoding.trim() == name);
    if body.is_empty() {
        (body, None)
    } else if accepts("lz4") {
        (lz4_flex::block::compress(&body), Some("lz4"))
    } else if accepts("zstd")
        && let Ok(frame) = zstd::bulk::compress(&body, 1)
    {
        (frame, Some("zstd"))
    } else {
        (body, None)
    }
}

fn write_cursor(number: u64) -> String {
    BASE64_STANDARD.encode(number.to_string())
}

fn read_cursor(asked: &Asked, name: &str) -> Result<u64, Refusal> {
    let text = asked.parameter(name);
    text.and_then(|text| BASE64_STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
        .ok_or_else(|| invalid(name, text))
}

/// GetLogs of the old form: parameters in the query, an array back.
fn logs(asked: &Asked, project: &str, logstore: &str, store: &Store) -> Result<Answer, Refusal> {
    let query = Query::of(&|name| asked.parameter(name).map(str::to_owned))?;
    let found = query.run(Place { project, logstore, shard: None }, store);
    let count = found.len();
    Ok(Answer::json(&Value::Array(found))
        .with("x-log-progress", "Complete")
        .with("x-log-count", count))
}

/// GetLogs of the new form: parameters as JSON, data and metadata back, compressed on request.
fn query(asked: &Asked, project: &str, logstore: &str, store: &Store) -> Result<Answer, Refusal> {
    let parameters: Map<String, Value> = serde_json::from_slice(&asked.body).map_err(|error| {
        Refusal::new("ParameterInvalid", format!("the body is no query: {error}"))
    })?;
    let query = Query::of(&|name| match parameters.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    })?;
    let found = query.run(Place { project, logstore, shard: None }, store);
    let answer = Answer::json(&json!({
        "meta": {
            "progress": "Complete",
            "count": found.len(),
            "processedRows": found.len(),
            "hasSQL": false,
            "whereQuery": query.contains,
            "isAccurate": true,
        },
        "data": found,
    }));
    let raw_size = answer.body.len();
    let (body, compression) = compress(asked, answer.body);
    let answer = Answer { body, ..answer }.with("x-log-bodyrawsize", raw_size);
    Ok(match compression {
        Some(name) => answer.with("x-log-compresstype", name),
        None => answer,
    })
}

/// What a GetLogs looks for.
#[derive(Debug)]
struct Query {
    /// Logs with `from <= Time < to`.
    from: u32,
    to: u32,
    topic: String,
    /// Some value must contain it.
    contains: String,
    offset: usize,
    lines: usize,
    is_reverse: bool,
}

impl Query {
    fn of(parameter: &dyn Fn(&str) -> Option<String>) -> Result<Self, Refusal> {
        let number = |name: &str, default: Option<u32>| match (parameter(name), default) {
            (Some(text), _) => text.parse().map_err(|_| invalid(name, Some(&text))),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(invalid(name, None)),
        };
        let query = parameter("query").unwrap_or_default();
        if query.contains('|') {
            return Err(Refusal::new("ParameterInvalid", "this endpoint has no SQL; drop the `|`"));
        }
        let lines = usize::try_from(number("line", Some(100))?).unwrap_or(usize::MAX);
        if lines > QUERY_LINES_MAX {
            return Err(invalid("line", Some(&lines.to_string())));
        }
        Ok(Self {
            from: number("from", None)?,
            to: number("to", None)?,
            topic: parameter("topic").unwrap_or_default(),
            contains: query.trim().trim_matches('"').trim_matches('*').to_owned(),
            offset: usize::try_from(number("offset", Some(0))?).unwrap_or(usize::MAX),
            lines,
            is_reverse: parameter("reverse").as_deref() == Some("true"),
        })
    }

    fn run(&self, place: Place<'_>, store: &Store) -> Vec<Value> {
        let mut found: Vec<(u32, Value)> = store
            .since(place, 0)
            .iter()
            .filter(|group| self.topic.is_empty() || group.topic == self.topic)
            .flat_map(|group| self.search(group))
            .collect();
        found.sort_by_key(|(time, _)| *time);
        if self.is_reverse {
            found.reverse();
        }
        found.into_iter().skip(self.offset).take(self.lines).map(|(_, log)| log).collect()
    }

    fn search(&self, group: &Group) -> Vec<(u32, Value)> {
        let mut found = Vec::new();
        for log in group.logs() {
            if !(self.from..self.to).contains(&log.time) {
                continue;
            }
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let tags = group.tags.iter().map(|(k, v)| (format!("__tag__:{k}"), text(v)));
            let contents = log.contents.iter().map(|(k, v)| (k.clone(), text(v)));
            let pairs: Vec<(String, String)> = tags.chain(contents).collect();
            if !pairs.iter().any(|(_, value)| value.contains(&self.contains)) {
                continue;
            }
            let mut flat = Map::new();
            flat.insert("__time__".to_owned(), json!(log.time.to_string()));
            flat.insert("__source__".to_owned(), json!(group.source));
            flat.insert("__topic__".to_owned(), json!(group.topic));
            flat.extend(pairs.into_iter().map(|(key, value)| (key, json!(value))));
            found.push((log.time, Value::Object(flat)));
        }
        found
    }
}

/// ListShards: ranges of equal size over the space of 128-bit keys.
fn shards(store: &Store) -> Answer {
    let count = store.shards();
    let bound = |shard: u32| match shard {
        last if last == count => "f".repeat(32),
        shard => format!("{:016x}{:016x}", (u128::from(shard) << 64) / u128::from(count), 0),
    };
    let shards: Vec<Value> = (0..count)
        .map(|shard| {
            json!({
                "shardID": shard,
                "status": "readwrite",
                "inclusiveBeginKey": bound(shard),
                "exclusiveEndKey": bound(shard + 1),
                "createTime": 0,
            })
        })
        .collect();
    Answer::json(&Value::Array(shards))
}

/// GetLogStore: the settings a new logstore has.
fn logstore(name: &str, store: &Store) -> Answer {
    Answer::json(&json!({
        "logstoreName": name,
        "ttl": 30,
        "shardCount": store.shards(),
        "enable_tracking": false,
        "appendMeta": false,
        "autoSplit": false,
        "maxSplitShard": store.shards(),
        "createTime": 0,
        "lastModifyTime": 0,
    }))
}

/// ListLogStores: those allowed by name, else those that have lines.
fn logstores(asked: &Asked, names: Vec<String>) -> Answer {
    let pattern = asked.parameter("logstoreName").unwrap_or_default();
    let number = |name: &str, default: usize| {
        asked.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let names: Vec<String> = names.into_iter().filter(|name| name.contains(pattern)).collect();
    let page: Vec<&String> =
        names.iter().skip(number("offset", 0)).take(number("size", 500)).collect();
    Answer::json(&json!({"count": page.len(), "total": names.len(), "logstores": page}))
}

fn invalid(name: &str, value: Option<&str>) -> Refusal {
    let message = match value {
        Some(value) => format!("parameter {name} : {value} pair is invalid."),
        None => format!("parameter {name} does not exist."),
    };
    Refusal::new("ParameterInvalid", message)
}
