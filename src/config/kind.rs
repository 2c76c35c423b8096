//! What may be written for a key, what it means, and what would be right when it means nothing.
//!
//! Pure: text in, meaning out. Rules between keys are [`super::check`]'s.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Component, PathBuf};
use std::time::Duration;

use config::ValueKind;

use super::{endpoint, patterns};
use crate::base::units::{ByteSize, Cores, Time};
use crate::send::Endpoint;

/// What may be written for a key.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Address of the service.
    Endpoint,
    /// Name of a project or logstore.
    Name { what: &'static str, most: usize, underscore: bool },
    /// Absolute globs.
    Patterns { least: usize },
    /// Absolute directories.
    Directories,
    /// Names of tags.
    Tags,
    /// Any text of at most this many bytes, without control characters.
    Text { most: usize },
    /// An absolute path.
    Path,
    /// Address and port, or nothing.
    Listen,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Bytes; `zero` is allowed beside the range.
    Size { least: u64, most: u64, zero: bool },
    /// A whole number.
    Count { least: u64, most: u64, unit: &'static str },
    /// A time with its unit.
    Time { least: Duration, most: Duration },
    /// A number of cores.
    Cores { least: f64, most: f64 },
    /// `true` or `false`.
    Switch,
    /// A filter of log lines.
    Filter,
}

/// What a value means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    Endpoint(Endpoint),
    Text(String),
    Patterns(Vec<String>),
    Path(PathBuf),
    Directories(Vec<PathBuf>),
    Tags(Vec<String>),
    Listen(Option<SocketAddr>),
    Size(u64),
    Count(u64),
    Time(Duration),
    Cores(Cores),
    Switch(bool),
}

impl Kind {
    /// Whether an empty text is a value rather than none.
    pub(crate) fn takes_empty(&self) -> bool {
        let is_list = matches!(self, Self::Patterns { least: 0 } | Self::Directories | Self::Tags);
        is_list || matches!(self, Self::Listen | Self::Text { .. })
    }

    /// Finds out what `value` means.
    ///
    /// # Errors
    /// What would be right, and why this is not, for a person.
    pub(crate) fn read(&self, value: &ValueKind) -> Result<Meaning, String> {
        self.meaning(value).map_err(|why| match why {
            Some(why) => format!("{why}; expected {self}"),
            None => format!("expected {self}"),
        })
    }

    fn meaning(&self, value: &ValueKind) -> Result<Meaning, Option<String>> {
        let text = || scalar(value).ok_or(None);
        match self {
            Self::Endpoint => endpoint::parse(text()?.trim()).map(Meaning::Endpoint).map_err(Some),
            Self::Name { most, underscore, .. } => {
                name(text()?.trim(), *most, *underscore).map(Meaning::Text)
            }
            Self::Patterns { least } => patterns_of(value, *least).map(Meaning::Patterns),
            Self::Directories => directories(value).map(Meaning::Directories),
            Self::Tags => tags(value).map(Meaning::Tags),
            Self::Text { most } => plain_text(&text()?, *most).map(Meaning::Text),
            Self::Path => absolute_path(text()?.trim()).map(Meaning::Path),
            Self::Listen => listen(text()?.trim()).map(Meaning::Listen),
            Self::OneOf(words) => one_of(text()?.trim(), words),
            Self::Size { least, most, zero } => {
                let size: ByteSize = text()?.parse().map_err(because)?;
                let fits = (*least..=*most).contains(&size.0) || (*zero && size.0 == 0);
                fits.then_some(Meaning::Size(size.0)).ok_or(None)
            }
            Self::Count { least, most, .. } => {
                let count: u64 = text()?.trim().parse().map_err(|_| None)?;
                (*least..=*most).contains(&count).then_some(Meaning::Count(count)).ok_or(None)
            }
            Self::Time { least, most } => {
                let time: Time = text()?.parse().map_err(because)?;
                (*least..=*most).contains(&time.0).then_some(Meaning::Time(time.0)).ok_or(None)
            }
            Self::Cores { least, most } => {
                let cores: Cores = text()?.parse().map_err(|_| None)?;
                let fits = (*least..=*most).contains(&cores.count());
                fits.then_some(Meaning::Cores(cores)).ok_or(None)
            }
            Self::Switch => match text()?.trim().to_ascii_lowercase().as_str() {
                "true" => Ok(Meaning::Switch(true)),
                "false" => Ok(Meaning::Switch(false)),
                _ => Err(None),
            },
            Self::Filter => filter(text()?.trim()).map(Meaning::Text),
        }
    }
}

impl fmt::Display for Kind {
    /// Writes what would be right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint => f.write_str(
                "http:// or https:// and a host with an optional port, or a bare host name, such \
                 as https://cn-hangzhou.log.aliyuncs.com",
            ),
            Self::Name { what, most, underscore } => write!(
                f,
                "the name of a {what}: 1 to {most} lower-case letters, digits{} and hyphens, with \
                 a letter or digit at both ends",
                if *underscore { ", underscores" } else { "" }
            ),
            Self::Patterns { least: 0 } => f.write_str("absolute globs of files, or nothing"),
            Self::Patterns { .. } => {
                f.write_str("absolute globs of files, such as /share/logs/**/*.log")
            }
            Self::Directories => f.write_str("absolute directories, such as /data, or nothing"),
            Self::Tags => f.write_str("names of tags, such as _pod_name_,__path__, or nothing"),
            Self::Text { most } => {
                write!(f, "a text of at most {most} bytes without control characters")
            }
            Self::Path => f.write_str("an absolute path"),
            Self::Listen => {
                f.write_str("an IP address and a port, such as 127.0.0.1:9465, or nothing")
            }
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Size { least, most, zero } => {
                let (least, most) = (ByteSize(*least), ByteSize(*most));
                write!(f, "{}a size from {least} to {most}", if *zero { "0 or " } else { "" })
            }
            Self::Count { least, most, unit } => {
                write!(f, "a whole number of {unit} from {least} to {most}")
            }
            Self::Time { least, most } => {
                write!(f, "a time from {} to {}", Time(*least), Time(*most))
            }
            Self::Cores { least, most } => {
                write!(f, "a decimal number of cores from {least} to {most}")
            }
            Self::Switch => f.write_str("true or false"),
            Self::Filter => f.write_str(
                "a level (off, error, warn, info, debug, trace) or part=level, separated by commas",
            ),
        }
    }
}

impl fmt::Display for Meaning {
    /// Writes the value as `check` shows it; it would be read back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(address) => f.write_str(&endpoint::print(address)),
            Self::Text(text) => f.write_str(text),
            Self::Patterns(list) | Self::Tags(list) => f.write_str(&list.join(",")),
            Self::Path(path) => path.display().fmt(f),
            Self::Directories(dirs) => {
                let texts: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                f.write_str(&texts.join(","))
            }
            Self::Listen(address) => address.map_or(Ok(()), |address| address.fmt(f)),
            Self::Size(bytes) => ByteSize(*bytes).fmt(f),
            Self::Count(count) => count.fmt(f),
            Self::Time(time) => Time(*time).fmt(f),
            Self::Cores(cores) => cores.fmt(f),
            Self::Switch(on) => on.fmt(f),
        }
    }
}

/// The text of a value that is one: what a typed file says is read like the environment.
fn scalar(value: &ValueKind) -> Option<String> {
    match value {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Boolean(on) => Some(on.to_string()),
        ValueKind::I64(number) => Some(number.to_string()),
        ValueKind::I128(number) => Some(number.to_string()),
        ValueKind::U64(number) => Some(number.to_string()),
        ValueKind::U128(number) => Some(number.to_string()),
        ValueKind::Float(number) => Some(number.to_string()),
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
    }
}

fn because(why: impl fmt::Display) -> Option<String> {
    Some(why.to_string())
}

fn name(text: &str, most: usize, underscore: bool) -> Result<String, Option<String>> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return Err(None) };
    let fits = bytes.len() <= most
        && is_plain(*first)
        && is_plain(*last)
        && bytes.iter().all(|&b| is_plain(b) || b == b'-' || (underscore && b == b'_'));
    fits.then(|| text.to_owned()).ok_or(None)
}

fn patterns_of(value: &ValueKind, least: usize) -> Result<Vec<String>, Option<String>> {
    let list = patterns::check(&texts(value, patterns::split)?).map_err(Some)?;
    if list.len() < least { Err(None) } else { Ok(list) }
}

/// The items of a list, or of a text that `split` takes apart.
fn texts(
    value: &ValueKind,
    split: impl Fn(&str) -> Vec<String>,
) -> Result<Vec<String>, Option<String>> {
    match value {
        ValueKind::Array(values) => {
            let texts = values.iter().map(|value| match &value.kind {
                ValueKind::String(text) => Ok(text.clone()),
                _ => Err(Some("not every item is a text".to_owned())),
            });
            texts.collect()
        }
        ValueKind::String(text) => Ok(split(text)),
        _ => Err(None),
    }
}

fn split_at_commas(text: &str) -> Vec<String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

fn tags(value: &ValueKind) -> Result<Vec<String>, Option<String>> {
    let names = texts(value, split_at_commas)?;
    let odd = names.iter().find(|name| name.is_empty() || name.contains([',', '\0', '\n']));
    odd.map_or(Ok(()), |name| Err(Some(format!("{name:?} is no name"))))?;
    Ok(names)
}

fn directories(value: &ValueKind) -> Result<Vec<PathBuf>, Option<String>> {
    let one = |text: &String| {
        let why = |what: &str| Some(format!("{text:?} {what}"));
        let path = absolute_path(text.trim()).map_err(|_| why("is no absolute path"))?;
        if path.components().any(|component| component == Component::ParentDir) {
            return Err(why("has a part `..`"));
        }
        // Tidied: without doubled slashes, `.` parts and a slash at the end.
        Ok(path.components().collect())
    };
    texts(value, split_at_commas)?.iter().map(one).collect()
}

fn plain_text(text: &str, most: usize) -> Result<String, Option<String>> {
    let fits = text.len() <= most && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or(None)
}

fn absolute_path(text: &str) -> Result<PathBuf, Option<String>> {
    let fits = text.starts_with('/') && text.len() < 4096 && !text.contains('\0');
    fits.then(|| PathBuf::from(text)).ok_or(None)
}

fn listen(text: &str) -> Result<Option<SocketAddr>, Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| None)
}

fn one_of(text: &str, words: &[&str]) -> Result<Meaning, Option<String>> {
    let text = text.to_ascii_lowercase();
    words.contains(&text.as_str()).then_some(Meaning::Text(text)).ok_or(None)
}

/// Filters in the syntax of `tracing_subscriber`, except that a lone word must be a level: there it
/// would be a part of the program that does not exist, and nothing would be logged at all.
fn filter(text: &str) -> Result<String, Option<String>> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_lone_word = |part: &str| !part.contains(['=', '[', '{']);
    for part in text.split(',').map(str::trim).filter(|part| is_lone_word(part)) {
        if !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(Some(format!("{part:?} is no level")));
        }
    }
    tracing_subscriber::EnvFilter::try_new(text).map_err(because)?;
    Ok(text.to_owned())
}
