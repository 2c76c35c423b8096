//! `config/reference.toml`: every key with its documentation and default, written from the table.

use super::keys::{KEYS, Key};
use super::kind::Kind;

const HEAD: &str = "\
# Every setting of logferry, with its default.
#
# Point LOGFERRY_CONFIG at a file like this one (.toml, or the same keys in .yaml). Later wins:
# built-in defaults, the file that ALIYUN_LOGTAIL_CONFIG names, this file, the environment, flags.
# `logferry check` shows each value in effect and where it came from.
#
# This file is generated from the program's own table of keys; a test keeps it true.
";

/// The text of the file.
#[must_use]
pub fn reference() -> String {
    KEYS.iter().fold(HEAD.to_owned(), |text, key| text + &entry(key))
}

fn entry(key: &Key) -> String {
    let mut text = String::from("\n");
    for line in wrap(key.doc, 98) {
        text += &format!("# {line}\n");
    }
    let default = match key.default {
        Some("") => "Default: empty. ".to_owned(),
        Some(default) => format!("Default: {default}. "),
        None => String::new(),
    };
    for line in wrap(&format!("{default}Expected: {}.", key.kind), 98) {
        text += &format!("# {line}\n");
    }
    let bare = if key.bare { format!(", or {}", key.name) } else { String::new() };
    text += &format!("# Environment: {}{bare}. Flag: --{}.\n", key.variable(), key.flag());
    let comment = if key.default.is_none() { "# " } else { "" };
    text += &format!("{comment}{} = {}\n", key.name, toml(key));
    text
}

/// The default, or the example where there is none, as TOML.
fn toml(key: &Key) -> String {
    let value = key.default.unwrap_or(key.example);
    let is_bare = match key.kind {
        Kind::Count { .. } | Kind::Cores { .. } | Kind::Switch => true,
        Kind::Size { .. } => value == "0",
        _ => false,
    };
    match key.kind {
        Kind::Patterns { .. } | Kind::Directories if value.is_empty() => "[]".to_owned(),
        Kind::Patterns { .. } => format!("[{value:?}]"),
        _ if is_bare => value.to_owned(),
        _ => format!("{value:?}"),
    }
}

/// Breaks a text into lines of at most `width` characters, where a word allows it.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
            } else if line.chars().count() + 1 + word.chars().count() <= width {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
    }
    lines
}
