//! The globs that say which of the matching files are left out.

use std::path::Path;

use globset::{GlobSet, GlobSetBuilder};

use super::pattern::{self, PatternError};

/// What of that which matches is left out.
#[derive(Debug)]
pub(super) struct Exclude {
    files: GlobSet,
    /// Directories of which all is left out.
    trees: GlobSet,
    /// Whether more is left out than whole directories.
    pub(super) has_names: bool,
}

impl Exclude {
    /// Understands the globs.
    ///
    /// # Errors
    /// Names the first that is none, with the reason.
    pub(super) fn new(texts: &[String]) -> Result<Self, (String, PatternError)> {
        for text in texts {
            pattern::check(text).map_err(|error| (text.clone(), error))?;
        }
        let tree = |text| str::strip_suffix(text, "/**/*").or_else(|| text.strip_suffix("/**"));
        let files: Vec<&str> = texts.iter().map(String::as_str).collect();
        let trees: Vec<&str> = files.iter().filter_map(|text| tree(text)).collect();
        let has_names = trees.len() < files.len();
        Ok(Self { files: set(&files)?, trees: set(&trees)?, has_names })
    }

    /// Whether a file is left out.
    pub(super) fn has_file(&self, path: &Path) -> bool {
        !self.files.is_empty() && self.files.is_match(path)
    }

    /// Whether all that is in a directory is left out.
    pub(super) fn has_tree(&self, path: &Path) -> bool {
        !self.trees.is_empty() && self.trees.is_match(path)
    }
}

fn set(texts: &[&str]) -> Result<GlobSet, (String, PatternError)> {
    let mut set = GlobSetBuilder::new();
    let no_glob =
        |text: String, error: globset::Error| (text, PatternError::Glob(error.kind().to_string()));
    for text in texts {
        set.add(pattern::glob(text).map_err(|error| no_glob((*text).to_owned(), error))?);
    }
    set.build().map_err(|error| no_glob(texts.join(","), error))
}
