//! Agents under special circumstances: with limits of their own, in a mount namespace of their own,
//! without root's way around permissions, with another clock, held up by signals.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::names::with_files;
use super::{Agent, Pod, program};

const BINARY: &str = env!("CARGO_BIN_EXE_logferry");

/// Says aloud what the running test cannot check here, and why. Not eprintln: the test harness would
/// keep it to itself.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(std::io::stderr(), "{test} skipped: {why}").expect("standard error");
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The library that gives a process another clock. `None`, said aloud, where it is not.
fn faketime() -> Option<&'static str> {
    const PLACES: [&str; 3] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib64/faketime/libfaketimeMT.so.1",
    ];
    let library = PLACES.into_iter().find(|place| Path::new(place).exists());
    if library.is_none() {
        skipped("libfaketime is not here (Debian: apt-get install faketime)");
    }
    library
}

impl Pod {
    /// Gives the agents a clock that is so many seconds ahead, from now on; [`Self::set_clock`] sets it
    /// again. `None`, said aloud, where that cannot be.
    pub(crate) fn fake_clock(&mut self, ahead: i64) -> Option<()> {
        let library = faketime()?;
        let clock = self.path("clock").display().to_string();
        self.set_clock(ahead);
        self.set("LD_PRELOAD", library).set("FAKETIME_TIMESTAMP_FILE", &clock);
        self.set("FAKETIME_NO_CACHE", "1").set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        self.set("DONT_FAKE_MONOTONIC", "1").set("NO_FAKE_STAT", "1");
        Some(())
    }

    /// Sets the clock of the agents.
    pub(crate) fn set_clock(&self, ahead: i64) {
        let next = self.path("clock.next");
        std::fs::write(&next, format!("{ahead:+}")).expect("the clock can be set");
        std::fs::rename(next, self.path("clock")).expect("the clock can be set");
    }

    /// Starts an agent by way of another program, which must end in `exec "$@"`. `None` if that
    /// program cannot do here what it should.
    pub(super) fn start_by(&self, wrap: impl Fn() -> Command) -> Option<Agent> {
        let can = wrap().arg("true").stdin(Stdio::null()).output();
        if !can.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let mut command = wrap();
        command.arg(BINARY);
        Some(Agent::spawn(command, &self.environment(), &self.path("agent.log")))
    }

    /// Lets all users into the pod's root; what is below it has modes of its own.
    pub(crate) fn let_all_in(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(""), mode).expect("the root is ours");
    }

    /// Starts an agent as user and group 65532, as its image does. `None`, said aloud, if this
    /// process is not root's.
    pub(crate) fn start_as_the_image_does(&self) -> Option<Agent> {
        let command = as_the_image_does()?;
        Some(Agent::spawn(command, &self.environment(), &self.path("agent.log")))
    }

    /// Starts an agent as a user of its own, who may have so many threads and sees these files in
    /// place of the system's. `None`, said aloud, where that cannot be: no such limit holds for root.
    pub(crate) fn start_with_threads(
        &self,
        count: u64,
        files: &HashMap<&'static str, String>,
    ) -> Option<Agent> {
        let can = || with_files(self, files).arg("true").status();
        if !is_root() || !can().is_ok_and(|status| status.success()) {
            skipped("only root can give an agent a user and files of its own");
            return None;
        }
        // The limit is of all threads of a user, so each agent is another one's.
        static AGENTS: AtomicU32 = AtomicU32::new(0);
        let user = 40_000 + (std::process::id() * 8 + AGENTS.fetch_add(1, Relaxed)) % 20_000;
        self.let_all_in();
        std::fs::create_dir_all(self.path("state")).expect("the state directory");
        chown(self.path("state"), Some(user), Some(user)).expect("root may");
        let script = format!(
            "exec 3<\"$0\" setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all \
             --bounding-set=-all prlimit --nproc={count}:1000 /proc/self/fd/3"
        );
        let mut command = with_files(self, files);
        command.args(["sh", "-c", &script, BINARY]);
        Some(Agent::spawn(command, &self.environment(), &self.path("agent.log")))
    }

    /// Runs a command of the binary as user and group 65532: exit code, standard output, standard
    /// error.
    pub(crate) fn run_as_the_image_does(&self, args: &[&str]) -> Option<(i32, String, String)> {
        let mut command = as_the_image_does()?;
        let output = command.args(args).env_clear().envs(self.environment()).output();
        let output = output.expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().expect("it ends by itself");
        Some((code, text(output.stdout), text(output.stderr)))
    }

    /// Runs an agent that waits a second for its state directory: exit code and standard error.
    pub(crate) fn run_beside(&self) -> (i32, String) {
        let mut env = self.environment();
        env.insert("LOGFERRY_DRAIN_DEADLINE".to_owned(), "1s".to_owned());
        let (code, _, complaint) = super::run(&["run"], &env);
        (code, complaint)
    }

    /// Starts an agent in a user namespace with a limit of its own (namespaces(7),
    /// `/proc/sys/user`). `None`, said aloud, where the system does not allow such a namespace.
    pub(crate) fn start_with_user_limit(&self, limit: &str, value: u32) -> Option<Agent> {
        let script = format!("echo {value} > /proc/sys/user/{limit} && exec \"$@\"");
        let agent = self.start_by(|| {
            let mut command = program("unshare");
            command.args(["-r", "sh", "-c", &script, "sh"]);
            command
        });
        if agent.is_none() {
            skipped("no user namespace with limits of its own can be had here");
        }
        agent
    }

    /// Starts an agent that sees, at `at`, an overlay of `lower`. `None`, said aloud, where none
    /// can be mounted.
    pub(crate) fn start_over_overlay(&self, lower: &str, at: &str) -> Option<Agent> {
        for dir in [lower, at, "upper", "work"] {
            std::fs::create_dir_all(self.path(dir)).expect("the layers");
        }
        let path = |dir: &str| self.path(dir).display().to_string();
        let layers =
            format!("lowerdir={},upperdir={},workdir={}", path(lower), path("upper"), path("work"));
        let script = format!("mount -t overlay overlay -o {layers} {} && exec \"$@\"", path(at));
        let agent = self.start_by(|| apart(&script));
        if agent.is_none() {
            skipped("no overlay can be mounted here");
        }
        agent
    }

    /// Starts an agent in a mount namespace of its own, to which [`Agent::run_inside`] can add
    /// volumes. `None`, said aloud, where the system does not allow that.
    pub(crate) fn start_with_mounts(&self) -> Option<Agent> {
        let agent = self.start_by(|| apart("exec \"$@\""));
        if agent.is_none() {
            skipped("no mount namespace can be had here");
        }
        agent
    }

    /// Starts an agent for which the permissions of files hold: as root without the capabilities
    /// that pass them over. `None`, said aloud, where root cannot give them up.
    pub(crate) fn start_bound_by_permissions(&self) -> Option<Agent> {
        if !is_root() {
            return Some(self.start());
        }
        let agent = self.start_by(|| {
            let mut command = program("setpriv");
            command.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
            command
        });
        if agent.is_none() {
            skipped("setpriv cannot take root's capabilities away here");
        }
        agent
    }
}

/// The binary is opened before root is given up: that user need not find it.
fn as_the_image_does() -> Option<Command> {
    if !is_root() {
        skipped("only root can start an agent as another user");
        return None;
    }
    let script = "exec 3<\"$0\" setpriv --reuid 65532 --regid 65532 --clear-groups \
                  --inh-caps=-all --bounding-set=-all /proc/self/fd/3 \"$@\"";
    let mut command = program("sh");
    command.args(["-c", script, BINARY]).stdin(Stdio::null());
    Some(command)
}

/// Runs a script, which must end in `exec "$@"`, in a mount namespace of its own.
pub(super) fn apart(script: &str) -> Command {
    let mut command = program("unshare");
    command.args([if is_root() { "-m" } else { "-rm" }, "sh", "-c", script, "sh"]);
    command
}

impl Agent {
    /// SIGSTOP: it does not run until [`Self::resume`].
    pub(crate) fn suspend(&self) {
        self.signal(rustix::process::Signal::STOP);
        super::wait_for("the agent to stand still", || {
            let stat = format!("/proc/{}/stat", self.id());
            let stat = std::fs::read_to_string(stat).expect("the agent lives");
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
        });
    }

    /// Sets a limit of the running agent, as an option of prlimit(1) says it. Whose agent it is may.
    pub(crate) fn limit(&self, option: &str) {
        let owner = std::fs::metadata(format!("/proc/{}", self.id())).expect("it runs");
        let mut command = Command::new("prlimit");
        command.uid(owner.uid()).gid(owner.gid());
        let status = command.args(["--pid", &self.id().to_string(), option]).status();
        assert!(status.expect("prlimit runs").success(), "{option}");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// The names of its threads beside the first, in their order.
    pub(crate) fn threads(&self) -> Vec<String> {
        let first = self.id().to_string();
        let tasks = std::fs::read_dir(format!("/proc/{first}/task")).expect("it runs");
        let others = tasks.flatten().filter(|task| *task.file_name() != *first);
        let names = others.map(|task| std::fs::read_to_string(task.path().join("comm")));
        let mut names: Vec<_> = names.flatten().map(|name| name.trim().to_owned()).collect();
        names.sort();
        names
    }

    /// Most memory that was ever resident, in bytes.
    pub(crate) fn resident_bytes_peak(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let text = text.expect("the agent runs");
        let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("kB");
        kib * 1024
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("the agent runs").count()
    }

    /// Runs a shell script where the agent is: in its mount and user namespaces.
    pub(crate) fn run_inside(&self, script: &str, input: &[u8]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id().to_string(), "--mount"]);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        let mut child = command
            .args(["sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        child.stdin.take().expect("piped").write_all(input).expect("the script reads");
        let output = child.wait_with_output().expect("the script ends");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// Makes a special file with mkfifo(1) or mknod(1). Says whether it could be made.
pub(crate) fn make_node(program: &str, path: &Path, kind: &[&str]) -> bool {
    let status = Command::new(program).arg(path).args(kind).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
