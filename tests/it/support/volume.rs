//! File systems of a test's own: an ext4 in a file, mounted where only this test sees it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::special::skipped;
use super::{Agent, Pod, wait_for};

/// An ext4 that is mounted at `disk` below the pod's root, in a mount namespace of its own. A
/// process of ours holds the namespace; when it ends, however the test does, the mount and the loop
/// device are gone.
pub(crate) struct Volume {
    holder: Child,
    image: PathBuf,
    /// Where it is mounted, as those within the namespace see it.
    inside: PathBuf,
}

impl Volume {
    /// Makes and mounts one. `None`, said aloud, where that is not allowed.
    pub(crate) fn new(pod: &Pod) -> Option<Self> {
        Self::with_inodes_of(pod, 256)
    }

    /// The same with inodes so small that files have no birth time.
    pub(crate) fn without_birth_times(pod: &Pod) -> Option<Self> {
        Self::with_inodes_of(pod, 128)
    }

    fn with_inodes_of(pod: &Pod, bytes: u32) -> Option<Self> {
        let (image, inside) = (pod.path("disk.img"), pod.path("disk"));
        std::fs::create_dir(&inside).expect("the mount point");
        make_ext4(&image, bytes)?;
        // Ends with its standard input, which is ours.
        let script = "mount --make-rprivate / && mount -o loop \"$0\" \"$1\" && echo ok && cat";
        let holder = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .args([&image, &inside])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut holder) = holder else {
            skipped("unshare(1) is not there");
            return None;
        };
        let mut answer = String::new();
        let output = holder.stdout.as_mut().expect("it is a pipe");
        BufReader::new(output).read_line(&mut answer).expect("an answer");
        let volume = Self { holder, image, inside };
        if answer != "ok\n" {
            skipped("no loop device can be mounted here: this needs root");
            return None;
        }
        Some(volume)
    }

    /// A path on the disk, for us who are outside of the namespace.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.inside.strip_prefix("/").expect("it is absolute")).join(path)
    }

    /// The same for those within: what a link has to hold.
    pub(crate) fn path_inside(&self, path: &str) -> PathBuf {
        self.inside.join(path)
    }

    /// Unmounts it and mounts it as another device, as a reboot or another node may do.
    pub(crate) fn remount(&self) {
        let device = |volume: &Self| {
            let metadata = std::fs::metadata(volume.path("")).expect("it is mounted");
            metadata.dev()
        };
        let before = device(self);
        for turn in 0..8 {
            // Another image takes the loop device that becomes free.
            let other = self.image.with_extension(turn.to_string());
            make_ext4(&other, 256).expect("it could be made before");
            let script = "umount \"$1\" && mkdir \"$2.dir\" && mount -o loop \"$2\" \"$2.dir\" && \
                          mount -o loop \"$0\" \"$1\"";
            let output = self
                .enter("sh")
                .args(["-c", script])
                .args([&self.image, &self.inside, &other])
                .output()
                .expect("it runs");
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "the disk is not mounted again: {complaint}");
            if device(self) != before {
                return;
            }
        }
        panic!("the disk always gets the same device");
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.holder.id().to_string(), program]);
        command
    }
}

/// Makes an image of 64 MiB with an ext4.
fn make_ext4(image: &Path, inode_bytes: u32) -> Option<()> {
    let file = std::fs::File::create(image).expect("the image");
    file.set_len(64 << 20).expect("it is sparse");
    let mut mkfs = Command::new("mkfs.ext4");
    let mkfs =
        mkfs.args(["-q", "-F", "-I", &inode_bytes.to_string()]).arg(image).stderr(Stdio::null());
    if !mkfs.status().is_ok_and(|status| status.success()) {
        skipped("mkfs.ext4 is not there");
        return None;
    }
    Some(())
}

impl Pod {
    /// Starts an agent that sees this disk.
    pub(crate) fn start_with_volume(&self, volume: &Volume) -> Agent {
        let command = volume.enter(env!("CARGO_BIN_EXE_logferry"));
        Agent::spawn(command, &self.environment(), &self.path("agent.log"))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A file system that a process serves, mounted over a directory. Its calls fail with ENOTCONN as
/// soon as that process is dead.
pub(crate) struct Served {
    server: Child,
    at: PathBuf,
}

impl Served {
    /// Shows what is in `source` at `at`. `None`, said aloud, where that is not allowed.
    pub(crate) fn mount(source: &Path, at: &Path) -> Option<Self> {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|found| found.dev());
        let before = device(at);
        let mut command = Command::new("bindfs");
        let server = command.arg("-f").args([source, at]).stderr(Stdio::null()).spawn();
        let Ok(server) = server else {
            skipped("bindfs is not there");
            return None;
        };
        let mut served = Self { server, at: at.to_owned() };
        let mut has_failed = false;
        wait_for("the mount", || {
            has_failed = served.server.try_wait().is_ok_and(|status| status.is_some());
            has_failed || device(at) != before
        });
        if has_failed {
            skipped("bindfs may not mount here: this needs root and /dev/fuse");
            return None;
        }
        Some(served)
    }

    /// Takes it away from its place; descriptors still answer.
    pub(crate) fn detach(&self) {
        let status = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(status.expect("umount runs").success());
    }

    pub(crate) fn kill_server(&mut self) {
        self.server.kill().expect("it runs");
        self.server.wait().expect("it ends");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
