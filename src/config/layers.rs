//! Where values come from, and who wins.
//!
//! ```text
//!  defaults < the file of ALIYUN_LOGTAIL_CONFIG < the file of --config, or else of LOGFERRY_CONFIG
//!           < bare variables (cpu_usage_limit, …) < LOGFERRY_… variables < flags
//! ```
//!
//! A later layer replaces a value as a whole, lists too. Each layer is a [`config::Source`] that
//! holds only keys of the table, with the origin of each value; everything else is noted as a
//! mistake on the way in. An empty variable counts as not set, except where empty is a value
//! (`listen`, `topic`, `exclude`, `link_roots`).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::Path;

use config::{ConfigError, FileFormat, Format as _, Map, Source, Value, ValueKind};

use super::keys::{self, KEYS, Key, VARIABLE_PREFIX};
use super::mistake::{CREDENTIALS_WAYS, Mistake, Mistakes, quoted, shown, sounds_secret};
use super::{logtail, suggest};

/// The environment, read once in `main`.
pub type Environment = BTreeMap<OsString, OsString>;

/// Settings given as flags: name of the key (`batch_bytes`), or [`FILE_FLAG`], and value.
pub type Flags = BTreeMap<String, OsString>;

/// The flag that names the settings file.
pub const FILE_FLAG: &str = "config";

/// The variable that names the settings file.
pub(super) const FILE_VARIABLE: &str = "LOGFERRY_CONFIG";
/// The variable that names an existing logtail file.
pub(super) const LOGTAIL_VARIABLE: &str = "ALIYUN_LOGTAIL_CONFIG";
/// Where the path comes from if that flag names it.
pub(super) const FLAG_ORIGIN: &str = "flag --config";
/// A settings file is some KiB; more is another file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the layers say about a key.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: ValueKind,
    pub(super) origin: String,
}

/// Reads and merges all layers.
pub(super) fn merge(
    env: &Environment,
    flags: &Flags,
    mistakes: &mut Mistakes,
) -> BTreeMap<String, Found> {
    let merged = config::Config::builder()
        .add_source(defaults())
        .add_source(logtail_file(env, mistakes))
        .add_source(settings_file(env, flags, mistakes))
        .add_source(bare_variables(env, mistakes))
        .add_source(variables(env, mistakes))
        .add_source(flag_values(flags, mistakes))
        .build()
        .and_then(|config| config.collect())
        .expect("collecting a layer cannot fail, and its keys are plain words");
    merged
        .into_iter()
        .map(|(name, value)| {
            let origin = value.origin().unwrap_or("unknown").to_owned();
            (name, Found { value: value.kind, origin })
        })
        .collect()
}

/// The value of a variable that is set and not empty; an error where it is no UTF-8.
pub(super) fn variable<'a>(env: &'a Environment, name: &str) -> Option<Result<&'a str, &'a OsStr>> {
    let value = env.get(OsStr::new(name)).filter(|value| !value.is_empty())?;
    Some(value.to_str().ok_or(value.as_os_str()))
}

/// Reads a small text file.
///
/// # Errors
/// What is wrong, for a person, without the path.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot read the file: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("the file is larger than 64KiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())
}

/// One layer: keys of the table and what it says about them.
#[derive(Clone, Debug, Default)]
struct Layer(Map<String, Value>);

impl Layer {
    fn set(&mut self, key: &Key, value: impl Into<ValueKind>, origin: &str) {
        self.0.insert(key.name.to_owned(), Value::new(Some(&origin.to_owned()), value));
    }

    /// Sets what a variable or flag says, unless it is no text.
    fn set_text(&mut self, key: &Key, value: &OsStr, origin: &str, mistakes: &mut Mistakes) {
        match value.to_str() {
            Some(text) => self.set(key, text, origin),
            None => mistakes.push(not_utf8(key.name, value).origin(origin)),
        }
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn defaults() -> Layer {
    let mut layer = Layer::default();
    for (key, default) in KEYS.iter().filter_map(|key| Some((key, key.default?))) {
        layer.set(key, default, "default");
    }
    layer
}

/// The file of an existing logtail set-up, or what its directory's name says when it is missing.
fn logtail_file(env: &Environment, mistakes: &mut Mistakes) -> Layer {
    let mut layer = Layer::default();
    let Some(path) = path_variable(env, LOGTAIL_VARIABLE, mistakes) else { return layer };
    let mistake =
        |why: String| Mistake::new(LOGTAIL_VARIABLE, why).value(quoted(path)).origin("environment");
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let directory = Path::new(path).parent().and_then(Path::file_name);
            let directory = directory.and_then(OsStr::to_str).unwrap_or_default();
            let endpoint = keys::find("endpoint").zip(logtail::endpoint_of_directory(directory));
            match endpoint {
                Some((key, endpoint)) => {
                    let origin = format!("{LOGTAIL_VARIABLE}, directory name {directory}");
                    layer.set(key, endpoint, &origin);
                }
                None => mistakes.push(mistake(format!(
                    "the file is missing and its directory {} is not named \
                     <region>-<network_type>, such as cn-hangzhou-intranet",
                    quoted(directory)
                ))),
            }
        }
        _ => match read_text(Path::new(path)).and_then(|text| logtail::from_json(&text)) {
            Ok(values) => {
                let origin = format!("{LOGTAIL_VARIABLE}, file {path}");
                for (name, value) in values {
                    if let Some(key) = keys::find(name) {
                        take(&mut layer, key, value, &origin, mistakes);
                    }
                }
            }
            Err(why) => mistakes.push(mistake(why).unread()),
        },
    }
    layer
}

/// The settings file, TOML or YAML.
fn settings_file(env: &Environment, flags: &Flags, mistakes: &mut Mistakes) -> Layer {
    let mut layer = Layer::default();
    let (path, named_by) = match flags.get(FILE_FLAG) {
        Some(path) => (path_text(FILE_VARIABLE, path, FLAG_ORIGIN, mistakes), FLAG_ORIGIN),
        None => (path_variable(env, FILE_VARIABLE, mistakes), "environment"),
    };
    let Some(path) = path else { return layer };
    let entries = match parse_settings(Path::new(path)) {
        Ok(entries) => entries.into_iter().collect::<BTreeMap<_, _>>(),
        Err(why) => {
            let mistake = Mistake::new(FILE_VARIABLE, why);
            mistakes.push(mistake.value(quoted(path)).origin(named_by).unread());
            return layer;
        }
    };
    let origin = format!("file {path}");
    for (name, value) in entries {
        match keys::find(&name) {
            Some(key) => take(&mut layer, key, value.kind, &origin, mistakes),
            None => {
                let near = suggest::nearest(&name, KEYS.iter().map(|key| key.name));
                let shown = shown(&value.kind);
                mistakes.push(unknown(&name, shown, near.map(str::to_owned)).origin(&origin));
            }
        }
    }
    layer
}

/// Puts a typed value into a layer. A table is no value of any key; nothing (`key:` in YAML) is as
/// good as not written.
fn take(layer: &mut Layer, key: &Key, value: ValueKind, origin: &str, mistakes: &mut Mistakes) {
    match value {
        ValueKind::Nil => {}
        ValueKind::Table(_) => mistakes.push(
            Mistake::new(key.name, format!("expected {}", key.kind))
                .value(shown(&value))
                .origin(origin),
        ),
        _ => layer.set(key, value, origin),
    }
}

fn parse_settings(path: &Path) -> Result<Map<String, Value>, String> {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let format = match extension.to_ascii_lowercase().as_str() {
        "toml" => FileFormat::Toml,
        "yaml" | "yml" => FileFormat::Yaml,
        _ => return Err("the name of the file must end in .toml, .yaml or .yml".to_owned()),
    };
    let text = read_text(path)?;
    if format == FileFormat::Yaml {
        refuse_deep_yaml(&text)?;
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Map::new());
        }
    }
    format.parse(None, &text).map_err(|error| parser_message(&error.to_string()))
}

/// Settings are flat. The parser recurses once a level and copies what an anchor names, so nesting
/// and anchors beyond any use are refused before it sees them. Wider than YAML's own rules: a text
/// with a lone `&` before a word needs other words.
fn refuse_deep_yaml(text: &str) -> Result<(), String> {
    const INDICATORS_MAX: usize = 8;
    const OPENED_MAX: usize = 64;
    let line_ends = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    for line in text.split(line_ends) {
        let indicators = line.split_whitespace().filter(|word| matches!(*word, "-" | "?" | ":"));
        let is_anchor = |pair: &[u8]| pair[1] == b'&' && !pair[0].is_ascii_alphanumeric();
        if indicators.count() > INDICATORS_MAX
            || line.starts_with('&')
            || line.replace("& ", "").as_bytes().windows(2).any(is_anchor)
        {
            return Err("nesting and anchors (&) are not supported in settings".to_owned());
        }
    }
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > OPENED_MAX {
        return Err("there are too many brackets for settings".to_owned());
    }
    Ok(())
}

/// The parser's words on one line, without the line of the file that it quotes: that line may hold
/// what should not have been there.
fn parser_message(text: &str) -> String {
    let is_quote = |line: &str| {
        line.trim_start()
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start()
            .starts_with('|')
    };
    let lines: Vec<_> = text.lines().filter(|line| !is_quote(line)).map(str::trim).collect();
    lines.join(": ")
}

fn bare_variables(env: &Environment, mistakes: &mut Mistakes) -> Layer {
    let mut layer = Layer::default();
    for key in KEYS.iter().filter(|key| key.bare) {
        if let Some(value) = env.get(OsStr::new(key.name)).filter(|value| !value.is_empty()) {
            layer.set_text(key, value, &format!("environment {}", key.name), mistakes);
        }
    }
    layer
}

fn variables(env: &Environment, mistakes: &mut Mistakes) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in env {
        let shown_name = name.to_string_lossy();
        let Some(rest) = shown_name.strip_prefix(VARIABLE_PREFIX) else { continue };
        if shown_name == FILE_VARIABLE || is_service_link(rest, value) {
            continue;
        }
        match KEYS.iter().find(|key| key.variable() == shown_name) {
            Some(key) if value.is_empty() && !key.kind.takes_empty() => {}
            Some(key) => {
                layer.set_text(key, value, &format!("environment {shown_name}"), mistakes);
            }
            None => {
                let near = suggest::nearest(rest, KEYS.iter().map(|key| key.name));
                let near = near.and_then(keys::find).map(Key::variable);
                let value = quoted(&value.to_string_lossy());
                mistakes.push(unknown(&shown_name, value, near).origin("environment"));
            }
        }
    }
    layer
}

fn flag_values(flags: &Flags, mistakes: &mut Mistakes) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in flags.iter().filter(|(name, _)| *name != FILE_FLAG) {
        match keys::find(name) {
            Some(key) => {
                layer.set_text(key, value, &format!("flag --{}", key.flag()), mistakes);
            }
            None => {
                mistakes.push(unknown(name, quoted(&value.to_string_lossy()), None).origin("flag"))
            }
        }
    }
    layer
}

/// Whether Kubernetes put this variable there for a Service whose name begins with `logferry`:
/// `…SERVICE_HOST`, `…SERVICE_PORT`, `…SERVICE_PORT_HTTP`, `…PORT=tcp://…`, `…PORT_9465_TCP_ADDR`.
fn is_service_link(rest: &str, value: &OsStr) -> bool {
    let rest = format!("_{rest}");
    let is_port = || {
        let value = value.to_string_lossy();
        ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
    };
    let is_port_field = || {
        let Some((_, field)) =
            rest.rsplit_once("_PORT_").filter(|(_, f)| f.contains('_')).or_else(|| {
                // `…_PORT_9465_TCP_PORT` has the word twice.
                rest.strip_suffix("_PORT").and_then(|rest| rest.rsplit_once("_PORT_"))
            })
        else {
            return false;
        };
        let mut parts = field.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || (rest.ends_with("_PORT") && is_port())
        || is_port_field()
}

fn path_variable<'a>(env: &'a Environment, name: &str, mistakes: &mut Mistakes) -> Option<&'a str> {
    let value = env.get(OsStr::new(name)).filter(|value| !value.is_empty())?;
    path_text(name, value, "environment", mistakes)
}

/// The path of a file.
fn path_text<'a>(
    name: &str,
    value: &'a OsStr,
    origin: &str,
    mistakes: &mut Mistakes,
) -> Option<&'a str> {
    match value.to_str() {
        Some(text) if !text.is_empty() && !text.contains('\0') => Some(text),
        Some(_) => {
            let mistake = Mistake::new(name, "expected the path of a file");
            mistakes.push(mistake.origin(origin).unread());
            None
        }
        None => {
            mistakes.push(not_utf8(name, value).origin(origin).unread());
            None
        }
    }
}

pub(super) fn not_utf8(name: &str, value: &OsStr) -> Mistake {
    let value =
        if sounds_secret(name) { "***".to_owned() } else { quoted(&value.to_string_lossy()) };
    Mistake::new(name, "expected text in UTF-8").value(value)
}

fn unknown(name: &str, value: String, near: Option<String>) -> Mistake {
    let is_secret = sounds_secret(name);
    let value = if is_secret { "***".to_owned() } else { value };
    let advice = match near {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None if is_secret => format!("unknown key; for credentials {CREDENTIALS_WAYS}"),
        None => "unknown key; `logferry run --help` lists all keys".to_owned(),
    };
    let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    Mistake::new(&name, advice).value(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_injects_for_a_service_is_no_setting() {
        for (name, value) in [
            ("SERVICE_HOST", "10.96.0.7"),
            ("SERVICE_PORT", "9465"),
            ("SERVICE_PORT_HTTP", "9465"),
            ("PORT", "tcp://10.96.0.7:9465"),
            ("PORT_9465_TCP", "tcp://10.96.0.7:9465"),
            ("PORT_9465_TCP_PROTO", "tcp"),
            ("PORT_9465_TCP_PORT", "9465"),
            ("PORT_9465_TCP_ADDR", "10.96.0.7"),
            ("MOCK_SERVICE_HOST", "10.96.0.8"),
            ("MOCK_PORT", "udp://10.96.0.8:53"),
            ("MOCK_PORT_53_UDP_ADDR", "10.96.0.8"),
        ] {
            assert!(is_service_link(name, OsStr::new(value)), "{name}");
        }
        for (name, value) in [("PORT", "9465"), ("PORT_NUMBER", "1"), ("SERVICE", "x"), ("", "")] {
            assert!(!is_service_link(name, OsStr::new(value)), "{name}");
        }
    }

    #[test]
    fn no_key_looks_like_a_service_link() {
        for key in &KEYS {
            let name = key.name.to_ascii_uppercase();
            assert!(!is_service_link(&name, OsStr::new("tcp://1.2.3.4:5")), "{name}");
        }
    }

    #[test]
    fn parser_messages_keep_the_place_and_drop_the_quoted_line() {
        let text =
            "TOML parse error at line 12, column 7\n   |\n12 | key = s3cret\n   |       ^\nbad\n";
        assert_eq!(parser_message(text), "TOML parse error at line 12, column 7: bad");
    }

    #[test]
    fn deep_yaml_is_refused_before_it_is_parsed() {
        for text in [
            "- ".repeat(30_000),
            format!("a\r{}", "- ".repeat(30_000)),
            format!("--- {}", "? ".repeat(30_000)),
            "[".repeat(5000),
            "a: &a [x, x]\nb: [*a, *a]\n".to_owned(),
            "a: [x,&a y]".to_owned(),
            "&a x".to_owned(),
        ] {
            assert!(refuse_deep_yaml(&text).is_err(), "{}", &text[..5]);
        }
        assert_eq!(refuse_deep_yaml("paths:\n  - /a/*.log\n  - /b & c\ntopic: R&D\n"), Ok(()));
    }
}
