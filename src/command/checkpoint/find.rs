//! Where a file is now: under one of its names, or by its inode in their directories.
//!
//! Opens nothing. Whether the bytes are the right ones is for the caller to say.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Looks for files; reads each directory once.
#[derive(Debug, Default)]
pub struct Finder {
    dirs: HashMap<PathBuf, HashMap<u64, PathBuf>>,
}

/// A regular file with the inode that was looked for.
#[derive(Debug)]
pub struct Found {
    /// One of its paths.
    pub path: PathBuf,
    /// Whether it stands under none of the names that were given.
    pub is_moved: bool,
    /// What stat(2) says.
    pub metadata: Metadata,
}

/// Why a file was not found.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// Nothing has its name.
    #[error("{0} is not there any more, under this name or another one in its directory")]
    Gone(PathBuf),
    /// Something else has its name.
    #[error(
        "another file is at {path} now (inode {found}), and none in its directory is the old one"
    )]
    Replaced {
        /// The name.
        path: PathBuf,
        /// The inode that is there.
        found: u64,
    },
    /// What has its name and its inode cannot be read to an end.
    #[error("{0} is no regular file")]
    Irregular(PathBuf),
    /// What is there cannot be examined.
    #[error("cannot examine {path}: {error}")]
    Unreadable {
        /// The name.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl Finder {
    /// Looks for a file with this inode at `places`, then in the directories of these.
    ///
    /// # Errors
    /// What is at the first place instead.
    ///
    /// # Panics
    /// If `places` is empty.
    pub fn find(&mut self, places: &[&Path], inode: u64) -> Result<Found, NotFound> {
        let mut instead = Vec::new();
        for &path in places {
            match fs::metadata(path) {
                Ok(metadata) if metadata.ino() == inode && metadata.is_file() => {
                    return Ok(Found { path: path.to_owned(), is_moved: false, metadata });
                }
                there => instead.push(not_found(path, inode, there)),
            }
        }
        places
            .iter()
            .find_map(|path| self.find_in(path.parent()?, inode))
            .ok_or_else(|| instead.swap_remove(0))
    }

    fn find_in(&mut self, dir: &Path, inode: u64) -> Option<Found> {
        let names = self.dirs.entry(dir.to_owned()).or_insert_with(|| inodes(dir));
        let path = names.get(&inode)?.clone();
        let metadata = fs::symlink_metadata(&path).ok()?;
        let is_it = metadata.ino() == inode && metadata.is_file();
        is_it.then_some(Found { path, is_moved: true, metadata })
    }
}

fn not_found(path: &Path, inode: u64, there: io::Result<Metadata>) -> NotFound {
    let path = path.to_owned();
    match there {
        Ok(metadata) if metadata.ino() == inode => NotFound::Irregular(path),
        Ok(metadata) => NotFound::Replaced { path, found: metadata.ino() },
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            NotFound::Gone(path)
        }
        Err(error) => NotFound::Unreadable { path, error },
    }
}

/// The names in a directory by their inodes; of several names for one, the first in order.
fn inodes(dir: &Path) -> HashMap<u64, PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return HashMap::new() };
    let mut names = HashMap::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let known = names.entry(entry.ino()).or_insert_with(|| path.clone());
        if path < *known {
            *known = path;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_name_and_else_by_inode_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("app.log"), "x").unwrap();
        fs::create_dir(path("old")).unwrap();
        let inode = fs::metadata(path("app.log")).unwrap().ino();
        let (app, gone) = (path("app.log"), path("gone/app.log"));
        let find = |places: &[&Path]| Finder::default().find(places, inode);

        let found = find(&[&gone, &app]).unwrap();
        assert_eq!((found.path, found.is_moved), (app.clone(), false));

        std::os::unix::fs::symlink(&app, path("link")).unwrap();
        assert_eq!(find(&[&path("link")]).unwrap().path, path("link"), "through a link");

        fs::rename(&app, path("app.log.1")).unwrap();
        let found = find(&[&gone, &app]).unwrap();
        assert_eq!((found.path, found.is_moved), (path("app.log.1"), true));

        fs::write(&app, "another").unwrap();
        assert_eq!(find(&[&app]).unwrap().path, path("app.log.1"));

        fs::rename(path("app.log.1"), path("old/app.log")).unwrap();
        assert!(matches!(find(&[&app]), Err(NotFound::Replaced { .. })));
        fs::remove_file(&app).unwrap();
        assert!(matches!(find(&[&app]), Err(NotFound::Gone(path)) if path == app));
        assert!(matches!(find(&[&app.join("x")]), Err(NotFound::Gone(_))));
    }

    #[test]
    fn what_is_no_regular_file_is_never_found() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let inode = fs::metadata(&pipe).unwrap().ino();
        assert!(matches!(Finder::default().find(&[&pipe], inode), Err(NotFound::Irregular(_))));
        let beside = dir.path().join("gone");
        assert!(matches!(Finder::default().find(&[&beside], inode), Err(NotFound::Gone(_))));
    }
}
