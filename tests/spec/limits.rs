//! What the agent may use and does not exceed: CPU time, memory, bytes a second; and that no file
//! exceeds its share. Upper bounds only: a busy machine lowers what an agent gets.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use logferry::base::clock;
use logferry_mock::{Fault, Kind};

use crate::support::observe::{get, metric};
use crate::support::special::skipped;
use crate::support::{Agent, Pod, append_to, each, pause, wait_for};

const MIB: u64 = 1 << 20;

/// CPU time in seconds so far, by the kernel's own count (proc(5), schedstat).
fn cpu_seconds(agent: &Agent) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.id())).unwrap();
    let used = |task: PathBuf| -> Option<u64> {
        fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    let nanos: u64 = tasks.flatten().filter_map(|task| used(task.path())).sum();
    Duration::from_nanos(nanos).as_secs_f64()
}

/// The most that a process has ever had in memory.
fn resident_bytes_max(agent: &Agent) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Samples of CPU time, each with the moments before and after it was read.
#[derive(Default)]
struct Usage(Vec<(Instant, f64, Instant)>);

impl Usage {
    fn sample(&mut self, agent: &Agent) {
        let before = clock::now();
        let cpu = cpu_seconds(agent);
        self.0.push((before, cpu, clock::now()));
    }

    /// Checks each stretch of ten seconds and more.
    fn check(&self, cores: f64) {
        let mut stretches = 0;
        for (at, &(begin, cpu_before, _)) in self.0.iter().enumerate() {
            for &(_, cpu, end) in &self.0[at..] {
                let seconds = (end - begin).as_secs_f64();
                if seconds < 10.0 {
                    continue;
                }
                stretches += 1;
                let (used, allowed) = (cpu - cpu_before, cores * seconds * 1.1);
                assert!(used <= allowed, "{used} s of CPU in {seconds} s at {cores} cores");
            }
        }
        assert!(stretches > 0, "it was watched for ten seconds");
    }
}

/// 64 MB of different lines.
fn backlog(path: &Path, bytes: u64) -> u64 {
    let mut file = append_to(path);
    let (mut number, mut written) = (0_u64, 0);
    while written < bytes {
        let mut text = String::new();
        for _ in 0..5000 {
            number += 1;
            let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            text.push_str(&format!(
                "line {number:010} {noise:016x} of a request that was handled\n"
            ));
        }
        file.write_all(text.as_bytes()).unwrap();
        written += text.len() as u64;
    }
    number
}

// === CPU

/// A backlog that would keep two cores busy. The admin port answers and lines arrive all the time.
#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn the_cpu_limit_holds_over_any_ten_seconds() {
    each(&[0.05, 0.2], |&cores| {
        let (mut pod, log) = Pod::with_log();
        let address = pod.listen();
        pod.set("cpu_usage_limit", &cores.to_string()).set("LOGFERRY_LOG", "info");
        backlog(&log, 256 * MIB);
        let agent = pod.start();
        wait_for("readiness", || get(&address, "/ready").0 == 200);
        let started = clock::now();
        let mut usage = Usage::default();
        let mut arrived = pod.mock.store().line_count();
        while clock::now() - started < Duration::from_secs(14) {
            usage.sample(&agent);
            pause(Duration::from_millis(500));
        }
        usage.check(cores);
        assert_eq!(get(&address, "/live").0, 200);
        let text = get(&address, "/metrics").1;
        assert!(text.contains(&format!("logferry_cpu_limit_cores {cores}\n")), "{text}");
        wait_for("more lines", || {
            let before = std::mem::replace(&mut arrived, pod.mock.store().line_count());
            arrived > before
        });
        let failures = text.lines().filter(|line| {
            line.starts_with("logferry_request_failures_total") && !line.ends_with(" 0")
        });
        assert_eq!(failures.collect::<Vec<_>>(), Vec::<&str>::new());
    });
}

/// A group below the one that this process is in, for one agent; removed when dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where there is no group of version 1 with this controller, or none can be made.
    fn new(controller: &str) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()? == controller).then(|| parts.next().map(str::to_owned))?
        })?;
        let dir = Path::new("/sys/fs/cgroup").join(controller);
        let dir = dir.join(path.trim_start_matches('/'));
        let dir = dir.join(format!("logferry-test-{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        Some(Self(dir))
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }

    fn start(&self, pod: &Pod) -> Agent {
        let mut shell = Command::new("sh");
        let procs = self.0.join("cgroup.procs");
        let binary = env!("CARGO_BIN_EXE_logferry");
        shell.args(["-c", "echo $$ > $0 && exec $1", &procs.display().to_string(), binary]);
        pod.start_with(shell)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty as soon as the kernel has buried the agent.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            pause(Duration::from_millis(20));
        }
    }
}

/// At the start, and when it is changed later (a pod that is resized in place).
#[test]
fn a_containers_quota_lowers_the_cpu_limit() {
    let Some(group) = Group::new("cpu") else {
        return skipped("no control group of version 1 can be made for the CPU");
    };
    group.set("cpu.cfs_period_us", "100000");
    group.set("cpu.cfs_quota_us", "20000");
    let (mut pod, _log) = Pod::with_log();
    let address = pod.listen();
    let agent = group.start(&pod);
    let limit = || {
        let (_, text) = get(&address, "/metrics");
        let limit = text.lines().find_map(|line| line.strip_prefix("logferry_cpu_limit_cores "));
        limit.map(str::to_owned)
    };
    wait_for("the first report", || limit().is_some_and(|limit| limit != "0.0"));
    assert_eq!(limit().as_deref(), Some("0.2"));

    group.set("cpu.cfs_quota_us", "10000");
    wait_for("the lower quota", || limit().as_deref() == Some("0.1"));
    pod.wait_for_log("the container's CPU quota has changed", 1);
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn a_containers_memory_lowers_the_memory_limit() {
    let Some(group) = Group::new("memory") else {
        return skipped("no control group of version 1 can be made for memory");
    };
    group.set("memory.limit_in_bytes", &(100 * MIB).to_string());
    let (mut pod, _log) = Pod::with_log();
    let address = pod.listen();
    let agent = group.start(&pod);
    let limit = || metric(&address, "logferry_memory_limit_bytes").filter(|bytes| *bytes > 0);
    wait_for("the first report", || limit().is_some());
    assert_eq!(limit(), Some(100 * MIB));

    group.set("memory.limit_in_bytes", &(90 * MIB).to_string());
    pod.wait_for_log("the container's memory limit is now lower", 1);
    assert_eq!(agent.stop().0, 0);
}

// === memory

/// An agent with the least memory, and what it is to be spared of.
fn small(pod: &mut Pod) -> &mut Pod {
    pod.set("mem_usage_limit", "32").set("LOGFERRY_LOG", "warn")
}

fn expect_within(agent: &Agent, mebibytes: u64) {
    let most = resident_bytes_max(agent);
    assert!(most <= mebibytes * MIB, "{:.1} MB of {mebibytes}", most as f64 / MIB as f64);
}

fn long() -> bool {
    std::env::vars_os().any(|(name, _)| name == "LOGFERRY_SPEC_LONG")
}

/// The endpoint is down while 1 GB waits (10 GB in a long run), and comes back.
#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn memory_holds_with_the_endpoint_down() {
    for compression in ["lz4", "zstd", "none"] {
        let (mut pod, log) = Pod::with_log();
        small(&mut pod).set("LOGFERRY_COMPRESSION", compression);
        pod.mock.faults().set(vec![Fault::error("ServerBusy")]);
        let agent = pod.start();
        backlog(&log, if long() { 10_240 } else { 256 } * MIB);
        pause(Duration::from_secs(3));
        expect_within(&agent, 32);
        pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 300 })]);
        wait_for("lines", || pod.mock.store().line_count() > 200_000);
        expect_within(&agent, 32);
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn memory_holds_with_one_endless_line() {
    let (mut pod, log) = Pod::with_log();
    small(&mut pod);
    let agent = pod.start();
    let mut file = append_to(&log);
    let text = "no end of it ".repeat(100_000);
    for _ in 0..200 {
        file.write_all(text.as_bytes()).unwrap();
    }
    wait_for("most of it", || pod.mock.store().counts().raw_bytes > 240 * MIB);
    expect_within(&agent, 32);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn memory_holds_with_ten_thousand_files_at_once() {
    let (mut pod, log) = Pod::with_log();
    small(&mut pod);
    let dir = log.parent().unwrap().to_owned();
    let agent = pod.start();
    for number in 0..10_000 {
        let line = format!("the line of service {number}\n").repeat(10);
        fs::write(dir.join(format!("some-service-{number}.log")), line).unwrap();
    }
    wait_for("all lines", || pod.mock.store().line_count() >= 100_000);
    expect_within(&agent, 32);
}

/// The largest batches of the largest lines, which do not compress, to a slow endpoint.
#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn memory_holds_with_the_largest_batches() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LOG", "warn").set("send_request_concurrency", "32");
    pod.set("LOGFERRY_BATCH_BYTES", "2MiB").set("LOGFERRY_LINE_BYTES_MAX", "768KiB");
    pod.set("mem_usage_limit", "96");
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 500 })]);
    let agent = pod.start();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut file = append_to(&log);
    for _ in 0..400 {
        let line: Vec<u8> = (0..768 << 10).map(|_| rng.u8(32..127)).collect();
        file.write_all(&line).unwrap();
        file.write_all(b"\n").unwrap();
    }
    wait_for("most of it", || pod.mock.store().counts().raw_bytes > 200 * MIB);
    expect_within(&agent, 96);
}

/// A burst that fills the memory it may have, and then quiet.
#[test]
#[cfg_attr(debug_assertions, ignore = "a number of the release build")]
fn memory_goes_back_after_a_burst() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LOG", "warn");
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    wait_for("the first lines", || pod.mock.store().line_count() == 10);
    pause(Duration::from_secs(4));
    let before = agent.resident_bytes();
    pod.mock.faults().set(vec![Fault::error("ServerBusy")]);
    let lines = backlog(&log, 300 * MIB);
    wait_for("a burst", || agent.resident_bytes() > before + 12 * MIB);
    pod.mock.faults().clear();
    wait_for("all of it", || pod.mock.store().line_count() >= 10 + lines);
    let mut after = 0;
    wait_for("memory to go back", || {
        after = agent.resident_bytes();
        after <= before + 4 * MIB
    });
    println!("{before} before, {after} after");
}

// === rate and fairness

/// A backlog in one second's bursts of lines of all lengths.
#[test]
fn the_rate_limit_holds_over_any_ten_seconds() {
    const RATE: u64 = 200_000;
    let (mut pod, log) = Pod::with_log();
    pod.set("max_bytes_per_sec", &RATE.to_string()).set("LOGFERRY_LOG", "warn");
    let mut file = append_to(&log);
    let mut written = 0;
    for number in 0_usize.. {
        let line = format!("{number} {}\n", "x".repeat(1 << (number % 17)));
        written += line.len() as u64;
        file.write_all(line.as_bytes()).unwrap();
        if written > 20 * RATE {
            break;
        }
    }
    let agent = pod.start();
    let started = clock::now();
    let mut samples = Vec::new();
    while clock::now() - started < Duration::from_secs(13) {
        let before = clock::now();
        let raw = pod.mock.store().counts().raw_bytes;
        samples.push((before, raw, clock::now()));
        pause(Duration::from_millis(250));
    }
    drop(agent);
    let mut stretches = 0;
    for (at, (begin, before, _)) in samples.iter().enumerate() {
        for (_, after, end) in &samples[at..] {
            let seconds = (*end - *begin).as_secs_f64();
            if seconds < 10.0 {
                continue;
            }
            stretches += 1;
            // A second's burst, what was read before and is on its way, and what a group adds to its lines.
            let allowed = RATE as f64 * (seconds + 1.0) * 1.05 + 400_000.0;
            let sent = (after - before) as f64;
            assert!(sent <= allowed, "{sent} bytes in {seconds} s");
        }
    }
    assert!(stretches > 0, "it was watched for ten seconds");
}

/// One file at full speed and 50 slow ones: between two groups of a slow file there are few of the
/// busy one. What is counted: how many of the busy file's groups were taken from the moment when a
/// slow file's line was written until it arrived, against all that came.
#[test]
fn a_busy_file_does_not_starve_slow_ones() {
    let (mut pod, log) = Pod::with_log();
    // So slow that the busy one goes on for long after the slow ones have arrived.
    pod.set("LOGFERRY_LOG", "warn").set("cpu_usage_limit", "0.1");
    backlog(&log, 128 * MIB);
    let slow: Vec<PathBuf> =
        (0..50).map(|number| log.with_file_name(format!("slow-{number}.log"))).collect();
    let agent = pod.start();
    wait_for("the busy one", || pod.mock.store().line_count() > 0);
    for path in &slow {
        append_to(path).write_all(b"slow\n").unwrap();
    }
    let is_slow = |path: Option<String>| path.is_some_and(|path| path.contains("/slow-"));
    let arrived = || {
        let groups = pod.mock.store().groups();
        groups.iter().filter(|group| is_slow(group.tag("__path__"))).count()
    };
    wait_for("the slow ones", || arrived() == slow.len());
    let groups = pod.mock.store().groups();
    let all = pod.mock.store().line_count();
    drop(agent);
    let first = groups.iter().position(|group| is_slow(group.tag("__path__"))).unwrap();
    let last = groups.iter().rposition(|group| is_slow(group.tag("__path__"))).unwrap();
    let between = groups[first..last].iter().filter(|group| !is_slow(group.tag("__path__")));
    assert!(between.count() <= 100, "{first} to {last} of {} groups", groups.len());
    assert!(all < 1_800_000, "the busy one is not done: {all}");
}
