//! SIGTERM: what is on disk is delivered, or said to be left.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use logferry::mock::{Fault, Kind};
use rustix::process::Signal;

use crate::support::special::make_node;
use crate::support::{Pod, append_to, pause, wait_for};

fn write_40_mb(pod: &mut Pod) {
    let log = pod.path("data/pod/logs/app.log");
    let target = pod.ledger.bytes() + (40 << 20);
    while pod.ledger.bytes() < target {
        pod.ledger.append(&log, 20_000);
    }
}

#[test]
fn with_40_mb_unread_everything_is_delivered() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    write_40_mb(&mut pod);
    // Slow answers keep the backlog from being gone before the signal.
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 100 })]);
    let agent = pod.start();
    wait_for("the first lines", || pod.mock.store().line_count() > 0);
    pod.mock.faults().clear();
    let before = pod.mock.store().line_count();
    assert!(before < pod.ledger.lines.len() as u64 / 2, "{before} lines were read already");

    let (code, _) = agent.stop();

    assert_eq!(code, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    assert!(pod.agent_log().contains("stopped: everything was delivered"));
}

#[test]
fn with_the_endpoint_down_it_ends_in_time_and_the_next_start_delivers() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "4s");
    pod.ledger.append(&log, 1000);
    let agent = pod.start();
    pod.expect_all();
    pod.mock.stop();
    pod.ledger.append(&log, 5000);

    let (code, took) = agent.stop();

    assert_eq!(code, 75, "{}", pod.agent_log());
    assert!(took < Duration::from_secs(4), "{took:?} of 4 s");
    assert!(pod.agent_log().contains("undelivered_bytes="), "{}", pod.agent_log());
    pod.mock.resume().unwrap();
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn a_second_signal_ends_it_at_once_and_safely() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "60s");
    pod.mock.stop();
    pod.ledger.append(&log, 5000);
    let agent = pod.start();
    wait_for("the first attempt", || pod.agent_log().contains("shipping a file"));
    agent.terminate();
    wait_for("the drain", || pod.agent_log().contains("stopping: delivering"));

    let (code, took) = agent.stop();

    assert_eq!(code, 75);
    assert!(took < Duration::from_secs(5), "{took:?}");
    pod.mock.resume().unwrap();
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

#[test]
fn without_anything_to_do_it_ends_at_once() {
    let pod = Pod::new();
    let agent = pod.start();
    wait_for("its start", || pod.agent_log().contains("logferry starts"));
    let (code, took) = agent.stop();
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Awaiting the last acknowledgements there is nothing to do: neither an unfinished line that has
/// been quiet long enough nor a pause of the pacer that is over may keep the agent busy.
#[test]
fn waiting_for_the_endpoint_costs_no_cpu() {
    for cores in ["2", "0.05"] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_DRAIN_DEADLINE", "6s").set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "1s");
        pod.set("cpu_usage_limit", cores);
        let agent = pod.start();
        pod.ledger.append(&log, 10);
        pod.expect_all();
        pod.mock.stop();
        pod.ledger.append(&log, 40_000);
        append_to(&log).write_all(b"unfinished").unwrap();
        agent.terminate();
        wait_for("the drain", || pod.agent_log().contains("stopping: delivering"));
        pause(Duration::from_millis(1500));

        let before = agent.cpu_time();
        pause(Duration::from_secs(3));
        let used = agent.cpu_time() - before;

        assert!(used < Duration::from_millis(300), "{used:?} of 3 s with {cores} cores");
        assert_eq!(agent.exit_code(), 75);
    }
}

#[test]
fn a_second_signal_ends_a_drain_that_the_rate_limit_stretches() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "40s").set("max_bytes_per_sec", "10000");
    pod.ledger.append(&log, 20_000);
    let agent = pod.start();
    wait_for("the first lines", || pod.mock.store().line_count() > 0);
    agent.terminate();
    wait_for("the drain", || pod.agent_log().contains("stopping: delivering"));
    pause(Duration::from_secs(1));

    let (code, took) = agent.stop();

    assert_eq!(code, 75);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// A directory that cannot be searched (the `lost+found` of a disk, here a link to itself) holds no
/// file that was found.
#[test]
fn a_directory_that_cannot_be_searched_is_nothing_undelivered() {
    let (mut pod, _) = Pod::with_log();
    let paths = pod.path("share/logs/*/app.log").display().to_string();
    pod.set("LOGFERRY_PATHS", &paths);
    std::os::unix::fs::symlink("loop", pod.path("data/pod/logs/loop")).unwrap();
    fs::create_dir(pod.path("data/pod/logs/sub")).unwrap();
    let log = pod.path("data/pod/logs/sub/app.log");
    pod.ledger.append(&log, 10);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    assert!(pod.agent_log().contains("cannot look at it"), "{}", pod.agent_log());
}

/// The signal comes while the settings are being read: the agent starts, and stops when all is
/// delivered.
#[test]
fn a_signal_before_the_settings_are_read_is_a_drain() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 100);
    let settings = pod.path("logferry.toml");
    assert!(make_node("mkfifo", &settings, &[]));
    pod.set("LOGFERRY_CONFIG", settings.to_str().unwrap());
    let agent = pod.start();
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut pipe: Option<File> = None;
    wait_for("the agent to read its settings", || {
        let opened = fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&settings);
        pipe = opened.ok();
        pipe.is_some()
    });

    agent.signal(Signal::TERM);

    pipe.unwrap().write_all(b"batch_lines = 10\n").unwrap();
    assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
}

/// At any moment of the start, from the first at which the signal can be caught.
#[test]
fn however_early_the_signal_comes_everything_is_delivered() {
    let (mut pod, log) = Pod::with_log();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..30 {
        pod.ledger.append(&log, 10);
        let agent = pod.start();
        while !agent.awaits_term() {
            pause(Duration::from_micros(100));
        }
        pause(Duration::from_micros(rng.u64(0..10_000)));

        agent.signal(Signal::TERM);

        assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
        assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    }
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}
