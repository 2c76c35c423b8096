//! Files that may be replaced at any time: what was read from them last.
//!
//! They are looked at no more than once a second, and only when somebody asks; they are read when
//! the time of change, the inode or the size of one is another, so files that are replaced (a
//! mounted secret is: by a link to another directory) are taken up within a second. While they
//! cannot be read, or are half written, the last good reading stays in use.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was read from some files that belong together.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    /// The last good reading.
    good: Option<T>,
    /// The files that `good` was read from; `None` if they changed meanwhile.
    stamps: Option<Vec<Stamp>>,
    looked_at: Option<Instant>,
    /// The files have been bad since they were good last, and somebody has been told.
    is_bad: bool,
}

/// What a look has come to.
#[derive(Debug)]
pub(crate) enum Look<E> {
    /// Nothing new, or nothing that would be better.
    Same,
    /// Something new.
    Fresh,
    /// The files have turned bad: said once, until they are good again.
    Bad(E),
}

/// Tells one state of a file, behind all links, from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds, here and below.
    modified: (i64, i64),
    /// A copy may keep the time of modification; nothing keeps this.
    changed: (i64, i64),
}

/// Least time between two looks.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl<T: PartialEq> Watched<T> {
    /// Nothing has been read yet.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, good: None, stamps: None, looked_at: None, is_bad: false }
    }

    /// The last good reading.
    pub(crate) fn good(&self) -> Option<&T> {
        self.good.as_ref()
    }

    /// Looks at the files if it is time to, and reads them with `read` if they have changed.
    ///
    /// # Errors
    /// What `read` says, if they have not been good even once.
    pub(crate) fn look<E>(
        &mut self,
        now: Instant,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Look<E>, E> {
        let is_due = self.looked_at.is_none_or(|at| now >= at + LOOK_INTERVAL);
        if self.good.is_some() && !is_due {
            return Ok(Look::Same);
        }
        self.looked_at = Some(now);
        let stamps = self.stamps_now();
        if self.good.is_some() && stamps.is_some() && stamps == self.stamps {
            return Ok(Look::Same);
        }
        match read() {
            Ok(fresh) => {
                // Changed while they were read: the next look reads them again.
                self.stamps = stamps.filter(|stamps| self.stamps_now().as_ref() == Some(stamps));
                self.is_bad = false;
                let is_fresh = self.good.as_ref() != Some(&fresh);
                self.good = Some(fresh);
                Ok(if is_fresh { Look::Fresh } else { Look::Same })
            }
            Err(error) if self.good.is_none() => Err(error),
            Err(_) if self.is_bad => Ok(Look::Same),
            Err(error) => {
                self.is_bad = true;
                Ok(Look::Bad(error))
            }
        }
    }

    fn stamps_now(&self) -> Option<Vec<Stamp>> {
        self.paths.iter().map(|path| Stamp::of(path)).collect()
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        watched: Watched<String>,
        now: Instant,
        reads: usize,
    }

    impl Fixture {
        fn new(names: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let paths = names.iter().map(|name| directory.path().join(name)).collect();
            let now = crate::base::clock::now();
            Self { directory, watched: Watched::new(paths), now, reads: 0 }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// All files together; `bad` in one of them makes them bad.
        fn look_after(&mut self, wait: Duration) -> Result<&'static str, String> {
            self.now += wait;
            let paths = self.watched.paths.clone();
            let look = self.watched.look(self.now, || {
                self.reads += 1;
                let read = |path| fs::read_to_string(path).map_err(|error| error.to_string());
                let text = paths.iter().map(read).collect::<Result<String, String>>()?;
                if text.contains("bad") { Err("bad".to_owned()) } else { Ok(text) }
            })?;
            Ok(match look {
                Look::Same => "same",
                Look::Fresh => "fresh",
                Look::Bad(_) => "bad",
            })
        }
    }

    #[test]
    fn unchanged_files_are_read_once() {
        let mut files = Fixture::new(&["a", "b"]);
        fs::write(files.path("a"), "1").unwrap();
        fs::write(files.path("b"), "2").unwrap();

        assert_eq!(files.look_after(Duration::ZERO), Ok("fresh"));
        for _ in 0..5 {
            assert_eq!(files.look_after(LOOK_INTERVAL), Ok("same"));
        }

        assert_eq!(files.reads, 1);
        assert_eq!(files.watched.good().unwrap(), "12");
    }

    #[test]
    fn a_change_of_any_file_is_taken_up_after_a_second() {
        let mut files = Fixture::new(&["a", "b"]);
        fs::write(files.path("a"), "1").unwrap();
        fs::write(files.path("b"), "2").unwrap();
        files.look_after(Duration::ZERO).unwrap();

        fs::write(files.path("b"), "3").unwrap();

        assert_eq!(files.look_after(Duration::from_millis(900)), Ok("same"));
        assert_eq!(files.look_after(Duration::from_millis(100)), Ok("fresh"));
        assert_eq!(files.watched.good().unwrap(), "13");
    }

    /// As the kubelet does it: a new directory, then the link to it is renamed into place.
    #[test]
    fn files_behind_a_link_to_another_directory_are_noticed() {
        let mut files = Fixture::new(&["a"]);
        let root = files.directory.path().to_owned();
        let publish = |name: &str, text: &str| {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("a"), text).unwrap();
            symlink(name, root.join("..data_tmp")).unwrap();
            fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        };
        publish("..1", "1");
        symlink("..data/a", root.join("a")).unwrap();
        assert_eq!(files.look_after(Duration::ZERO), Ok("fresh"));

        publish("..2", "2");

        assert_eq!(files.look_after(LOOK_INTERVAL), Ok("fresh"));
        assert_eq!(files.watched.good().unwrap(), "2");
    }

    #[test]
    fn bad_files_are_told_once_and_the_last_good_reading_stays() {
        let mut files = Fixture::new(&["a"]);
        assert!(files.look_after(Duration::ZERO).is_err(), "never good");
        fs::write(files.path("a"), "1").unwrap();
        assert_eq!(files.look_after(Duration::ZERO), Ok("fresh"), "at once");

        fs::write(files.path("a"), "bad").unwrap();
        assert_eq!(files.look_after(LOOK_INTERVAL), Ok("bad"));
        assert_eq!(files.look_after(LOOK_INTERVAL), Ok("same"));
        fs::remove_file(files.path("a")).unwrap();
        assert_eq!(files.look_after(LOOK_INTERVAL), Ok("same"));
        assert_eq!(files.watched.good().unwrap(), "1");

        fs::write(files.path("a"), "1").unwrap();
        assert_eq!(files.look_after(LOOK_INTERVAL), Ok("same"), "as good as before");
        fs::write(files.path("a"), "bad again").unwrap();
        assert_eq!(files.look_after(LOOK_INTERVAL), Ok("bad"), "and told again");
    }
}
