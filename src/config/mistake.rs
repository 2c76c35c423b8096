//! What is wrong with the settings, for the person who wrote them: all of it at once.

use std::fmt;

use config::ValueKind;

/// What to do about missing credentials.
pub(super) const CREDENTIALS_WAYS: &str = "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or \
                    credentials_file (LOGFERRY_CREDENTIALS_FILE) to a JSON file with \
                    access_key_id and access_key_secret";

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key or environment variable.
    pub key: String,
    /// The value as written, shortened, with secrets as `***`; `None` where there is none.
    pub value: Option<String>,
    /// Where the value came from; `None` where there is none.
    pub origin: Option<String>,
    /// What is wrong and what would be right.
    pub advice: String,
    /// A file could not be read: what it sets is not known.
    pub is_unread: bool,
}

impl Mistake {
    pub(super) fn new(key: &str, advice: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: None,
            origin: None,
            advice: advice.into(),
            is_unread: false,
        }
    }

    pub(super) fn value(self, value: String) -> Self {
        Self { value: Some(value), ..self }
    }

    pub(super) fn unread(self) -> Self {
        Self { is_unread: true, ..self }
    }

    pub(super) fn origin(self, origin: &str) -> Self {
        Self { origin: Some(origin.to_owned()), ..self }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, ", from {origin}")?;
        }
        write!(f, ": {}", self.advice)
    }
}

/// All mistakes; never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    pub(super) fn push(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    /// Whether the file that this variable names could not be read.
    pub(super) fn is_unread(&self, variable: &str) -> bool {
        self.0.iter().any(|mistake| mistake.is_unread && mistake.key == variable)
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 mistake in the settings:")?,
            count => write!(f, "{count} mistakes in the settings:")?,
        }
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// A value as a message shows it: quoted, without control characters, and short.
pub(super) fn shown(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => quoted(text),
        ValueKind::Array(values) => {
            let mut items: Vec<_> = values.iter().take(5).map(|value| shown(&value.kind)).collect();
            if values.len() > items.len() {
                items.push("…".to_owned());
            }
            format!("[{}]", items.join(", "))
        }
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_) => value.to_string(),
    }
}

pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let short: String = text.chars().take(CHARS_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}

/// Whether a name that we do not know may well belong to a secret.
pub(super) fn sounds_secret(name: &str) -> bool {
    const WORDS: [&str; 9] = ["secret", "token", "pass", "key", "cred", "auth", "sign", "ak", "sk"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}
