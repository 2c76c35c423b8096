//! strace(1) as a saboteur: it kills a thread's process at the nth system call of a kind that
//! touches one of some paths, or lets that call fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{program, wait_for};

/// What happens to which call.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    /// Name of the call.
    pub(crate) call: String,
    /// Which of them, counted from 1; strace's `when=`: `3` or `3+`.
    pub(crate) when: String,
    /// `signal=KILL`, or `error=EIO`.
    pub(crate) harm: &'static str,
}

/// Whether processes can be traced here.
pub(crate) fn is_there() -> bool {
    let mut trial = Command::new("strace");
    trial.args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null());
    trial.status().is_ok_and(|status| status.success())
}

/// A command that runs `binary` with all its calls recorded in `out`, paths of descriptors
/// included, contents not.
pub(crate) fn recording(out: &Path, binary: &str) -> Command {
    let mut command = program("strace");
    command.args(["-D", "-f", "-y", "-s", "0", "-o"]).arg(out).arg(binary);
    command
}

/// A command that runs `binary` and harms its first thread.
pub(crate) fn harming(
    injection: &Injection,
    paths: &[PathBuf],
    out: &Path,
    binary: &str,
) -> Command {
    let mut command = program("strace");
    command.arg("-D").args(arguments(injection, paths, out)).arg(binary);
    command
}

fn arguments(injection: &Injection, paths: &[PathBuf], out: &Path) -> Vec<String> {
    let Injection { call, when, harm } = injection;
    let mut args = vec!["-o".to_owned(), out.display().to_string()];
    args.extend(["-e".to_owned(), format!("inject={call}:{harm}:when={when}")]);
    args.extend(paths.iter().flat_map(|path| ["-P".to_owned(), path.display().to_string()]));
    args
}

/// Whether the harm was done, as strace tells in `out`; a process that was killed tells itself.
pub(crate) fn has_failed_a_call(out: &Path) -> bool {
    fs::read_to_string(out).unwrap_or_default().contains("(INJECTED)")
}

/// strace that is attached to a running thread. It ends with the thread, or when dropped.
pub(crate) struct Attached(Child);

impl Attached {
    /// Attaches to the thread of process `id` that has this name, and waits until it is.
    pub(crate) fn to(
        id: u32,
        thread: &str,
        injection: &Injection,
        paths: &[PathBuf],
        out: &Path,
    ) -> Self {
        let said = out.with_extension("said");
        let child = Command::new("strace")
            .args(["-p", &thread_of(id, thread)])
            .args(arguments(injection, paths, out))
            .stdin(Stdio::null())
            .stderr(fs::File::create(&said).expect("a file for it"))
            .spawn()
            .expect("strace starts");
        let attached = Self(child);
        let is_attached = || fs::read_to_string(&said).is_ok_and(|said| said.contains("attached"));
        wait_for("strace", is_attached);
        attached
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn thread_of(id: u32, name: &str) -> String {
    let find = || {
        let threads = fs::read_dir(format!("/proc/{id}/task")).ok()?;
        let mut threads = threads.flatten();
        let thread = threads.find(|thread| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })?;
        thread.file_name().into_string().ok()
    };
    let mut found = None;
    wait_for("the thread", || {
        found = find();
        found.is_some()
    });
    found.expect("it was found")
}
