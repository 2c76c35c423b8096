//! Small file systems of a test's own: to be filled, made read-only, or left behind by a power cut.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::special::skipped;

/// A mounted file system. Unmounted when dropped.
pub(crate) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// A tmpfs with these options (`size=1m`) at `at`, which is made. `None`, said aloud, where the
    /// rights for that are not to be had.
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        Self::mount(at, &["-t", "tmpfs", "-o", options, "none"])
    }

    /// The ext4 in an image file at `at`. `None`, said aloud, as above.
    pub(crate) fn ext4(image: &Path, at: &Path) -> Option<Self> {
        Self::mount(at, &["-t", "ext4", "-o", "loop", image.to_str().expect("a path of this test")])
    }

    /// The same, of so many MiB, in a new image file.
    pub(crate) fn new_ext4(image: &Path, mib: u64, at: &Path) -> Option<Self> {
        Self::new_ext4_with(&[], image, mib, at)
    }

    /// The same, whose files have no time of birth.
    pub(crate) fn new_ext4_without_birth_times(image: &Path, mib: u64, at: &Path) -> Option<Self> {
        Self::new_ext4_with(&["-I", "128"], image, mib, at)
    }

    /// What is mounted at one path, at another one too.
    pub(crate) fn bind(from: &Path, at: &Path) -> Option<Self> {
        Self::mount(at, &["--bind", from.to_str().expect("a path of this test")])
    }

    fn new_ext4_with(options: &[&str], image: &Path, mib: u64, at: &Path) -> Option<Self> {
        File::create(image).and_then(|file| file.set_len(mib << 20)).expect("the image");
        let mut mkfs = Command::new("mkfs.ext4");
        let made = mkfs.args(["-q", "-F"]).args(options).arg(image).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            skipped("there is no mkfs.ext4 here");
            return None;
        }
        Self::ext4(image, at)
    }

    fn mount(at: &Path, args: &[&str]) -> Option<Self> {
        fs::create_dir_all(at).expect("the mount point");
        let mounted = Command::new("mount").args(args).arg(at).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self { at: at.to_owned() });
        }
        skipped("no file system can be mounted here");
        None
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.at.join("full")).expect("a file for it");
        // Whole pages, then what is less.
        for piece in [4096, 1] {
            while file.write_all(&vec![b'x'; piece]).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.at.join("full")).expect("it was full");
    }

    /// Mounts it again with another option: `ro`, `rw`.
    pub(crate) fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let mounted = Command::new("mount").args(["-o", &option]).arg(&self.at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount -o {option}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it loses it when he ends.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
