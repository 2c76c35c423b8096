//! SIGTERM: what is on disk is delivered, or said to be left (P01 to P05, P08).

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use logferry::base::clock;
use logferry::signals::ONE_STOP;
use logferry_mock::{Fault, Kind};
use rustix::process::Signal;

use crate::support::observe::wait_for_metric;
use crate::support::signals::{HANGUP, QUIT, TERM, kill, meaningless};
use crate::support::special::{make_node, skipped};
use crate::support::strace::{self, Injection};
use crate::support::{Agent, Pod, append_to, append_unfinished, each, pairs, pause, wait_for};

fn write_50_mb(pod: &mut Pod) {
    let log = pod.path("data/pod/logs/app.log");
    let target = pod.ledger.bytes() + (50 << 20);
    while pod.ledger.bytes() < target {
        pod.ledger.append(&log, 20_000);
    }
}

#[test]
fn p01_with_50_mb_unread_everything_is_delivered() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    write_50_mb(&mut pod);
    // Slow answers keep the backlog from being gone before the signal.
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 100 })]);
    // The endpoint of a debug build takes long to verify it all.
    pod.set("LOGFERRY_DRAIN_DEADLINE", "120s");
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

/// Mail is taken in the middle of a discovery too: what it says is not forgotten at its end.
#[test]
fn p16_a_stop_that_comes_during_a_discovery_begins_after_it() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "600s");
    for number in 0..12_000 {
        let dir = pod.path(&format!("data/pod/logs/{}", number / 200));
        fs::create_dir_all(&dir).unwrap();
        File::create(dir.join(format!("{number}.log"))).unwrap();
    }
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    pod.expect_all();
    // Nothing wakes it by itself then for a while.
    wait_for("a rest", || {
        let before = agent.cpu_time();
        pause(Duration::from_secs(7));
        agent.cpu_time() == before
    });
    // Makes it look at all of them, which takes a few tenths of a second.
    fs::create_dir(pod.path("data/pod/logs/new")).unwrap();
    pause(Duration::from_millis(10));

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
}

#[test]
fn p03_with_the_endpoint_down_it_ends_in_time_and_the_next_start_delivers() {
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

/// Whichever of the two signals each of them is.
#[test]
fn p04_a_second_signal_ends_it_at_once_and_safely() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT)] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_DRAIN_DEADLINE", "60s");
        pod.mock.stop();
        pod.ledger.append(&log, 5000);
        let agent = pod.start();
        pod.wait_for_log("shipping a file", 1);
        agent.signal(first);
        pod.wait_for_log("stopping: delivering", 1);

        // Those of one second are one.
        pause(ONE_STOP);
        agent.signal(second);

        let asked_at = clock::now();
        assert_eq!(agent.exit_code(), 75);
        let took = clock::now() - asked_at;
        assert!(took < Duration::from_secs(30), "{took:?}, and the deadline is 60 s");
        pod.mock.resume().unwrap();
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0);
    }
}

/// `timeout` and init shims send it to the process and to its group, others send several kinds.
#[test]
fn p11_one_stop_that_comes_as_several_signals_is_one() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "60s");
    pod.ledger.append(&log, 1000);
    let agent = pod.start();
    pod.expect_all();
    pod.mock.stop();
    pod.ledger.append(&log, 1000);

    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::TERM] {
        agent.signal(signal);
    }
    pod.wait_for_log("stopping: delivering", 1);
    agent.signal(Signal::TERM);
    pod.wait_for_log("is the same stop", 1);
    pod.mock.resume().unwrap();

    assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert!(!pod.agent_log().contains("a second signal"), "{}", pod.agent_log());
}

/// The app has got the signal at the same moment, and still writes, also into a file that it makes
/// after that: all of it is delivered.
#[test]
fn p02_what_the_app_writes_after_the_signal_is_delivered() {
    const QUIET: Duration = Duration::from_secs(3);
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_QUIET", "3s").set("LOGFERRY_DRAIN_DEADLINE", "120s");
    pod.ledger.append(&log, 100);
    let mut agent = pod.start();
    pod.expect_all();
    agent.terminate();
    pod.wait_for_log("stopping: delivering", 1);

    let mut written_at = clock::now();
    let mut longest = Duration::ZERO;
    for round in 0..40 {
        let log = if round < 20 { log.clone() } else { log.with_file_name("last.log") };
        pod.ledger.append(&log, 5);
        let now = clock::now();
        (longest, written_at) = (longest.max(now - written_at), now);
        pause(Duration::from_millis(100));
    }
    if longest > QUIET / 2 {
        return skipped("this machine is too slow to write without a pause");
    }

    assert!(!agent.has_ended(), "it waits for the app to be quiet");
    assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
}

/// Where the kernel tells nothing of writes, the drain looks by itself before it ends.
#[test]
fn p02_it_looks_a_last_time_where_nothing_is_announced() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_QUIET", "1s").set("LOGFERRY_DRAIN_DEADLINE", "60s");
    let Some(agent) = pod.start_with_user_limit("max_inotify_instances", 0) else { return };
    pod.ledger.append(&log, 100);
    pod.expect_all();
    agent.terminate();
    pod.wait_for_log("stopping: delivering", 1);

    pod.ledger.append(&log, 100);

    assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
}

/// The app writes on, whatever the agent does.
fn write_until_it_ends(pod: &mut Pod, log: &Path, agent: &mut Agent) {
    while !agent.has_ended() {
        pod.ledger.append(log, 5);
        pause(Duration::from_millis(20));
    }
}

/// One that never stops writing has the deadline, and the next start goes on there.
#[test]
fn p02_an_app_that_never_stops_has_the_deadline() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_QUIET", "60s").set("LOGFERRY_DRAIN_DEADLINE", "3s");
    let mut agent = pod.start();
    pod.ledger.append(&log, 100);
    pod.expect_all();

    agent.terminate();
    write_until_it_ends(&mut pod, &log, &mut agent);

    // Either is true of the moment at which it ended.
    let code = agent.exit_code();
    assert!([0, 75].contains(&code), "{code}");
    let log_text = pod.agent_log();
    assert!(log_text.contains("the drain deadline is near"), "{log_text}");
    let agent = pod.start();
    pod.finish(agent);
}

/// With nothing to wait for, only what was there at the signal counts.
#[test]
fn p02_without_a_quiet_time_a_busy_app_holds_up_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "60s");
    let mut agent = pod.start();
    pod.ledger.append(&log, 100);
    pod.expect_all();

    agent.terminate();
    write_until_it_ends(&mut pod, &log, &mut agent);

    assert!([0, 75].contains(&agent.exit_code()));
    assert!(!pod.agent_log().contains("the drain deadline is near"));
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

/// Killed while it drains: the next start delivers what is left, and repeats what was in flight.
#[test]
fn p05_a_kill_during_the_drain_loses_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINES", "100").set("LOGFERRY_DRAIN_DEADLINE", "60s");
    pod.ledger.append(&log, 5000);
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 30 })]);
    let agent = pod.start();
    wait_for("the first lines", || pod.mock.store().line_count() > 0);
    agent.terminate();
    pod.wait_for_log("stopping: delivering", 1);
    let before = pod.mock.store().line_count();
    wait_for("some of the drain", || pod.mock.store().line_count() > before);

    agent.kill();

    pod.mock.faults().clear();
    let agent = pod.start();
    let repeats = pod.finish(agent);
    assert!(repeats <= 8 * 100 * 2, "{repeats} lines came again; 8 batches can be in flight");
}

const NEVER: &str = "1h";

/// The next start may find the line finished, so it is left; what is left is named.
#[test]
fn p08_an_unfinished_last_line_is_left_and_named() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    append_to(&log).write_all(b"half").unwrap();
    append_to(&log.with_file_name("b.log")).write_all(b"another half").unwrap();

    let (code, _) = agent.stop();

    assert_eq!(code, 0);
    let text = pod.agent_log();
    assert!(text.contains("stopped: every complete line was delivered"), "{text}");
    assert_eq!(pod.logged_numbers("stopped: every", "unfinished_files"), [2]);
    assert_eq!(pod.logged_numbers("stopped: every", "unfinished_bytes"), [16]);
    let mut bytes = pod.logged_numbers("an unfinished last line is left", "bytes");
    bytes.sort_unstable();
    assert_eq!(bytes, [4, 12]);
    assert!(text.contains("file=") && text.contains("share/logs/b.log"), "{text}");
}

/// Where the settings say that there is no next start, it is sent; and if there is one all the same,
/// nothing comes twice.
#[test]
fn p08_an_unfinished_last_line_is_sent_where_no_start_is_expected() {
    for once in ["false", "true"] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER).set("LOGFERRY_EXACTLY_ONCE", once);
        pod.set("LOGFERRY_DRAIN_PARTIAL_LINES", "true");
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        pod.expect_all();
        append_unfinished(&mut pod, &log, &["the last words"]);
        let renamed = log.with_file_name("b.log");
        append_unfinished(&mut pod, &renamed, &["others"]);
        wait_for("it to be open", || agent.open_paths().contains(&renamed.display().to_string()));
        fs::rename(&renamed, renamed.with_extension("log.1")).unwrap();
        assert_eq!(agent.stop().0, 0);
        assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
        assert!(pod.agent_log().contains("stopped: everything was delivered"));

        append_unfinished(&mut pod, &log, &[", and more"]);
        let agent = pod.start();
        assert_eq!(agent.stop().0, 0);
        assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
        assert_eq!(pod.ledger.check(&pod.mock), 0);
    }
}

/// Its writer ends the line while the agent still waits for the endpoint: that is one line.
#[test]
fn p08_a_line_that_is_finished_during_the_drain_is_one_line() {
    for quiet in ["0s", "500ms"] {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER).set("LOGFERRY_DRAIN_QUIET", quiet);
        pod.set("LOGFERRY_DRAIN_PARTIAL_LINES", "true").set("LOGFERRY_DRAIN_DEADLINE", "60s");
        pod.mock.stop();
        pod.ledger.append(&log, 100);
        let mut writer = append_to(&log);
        let line = pod.ledger.note(&writer, vec!["the last words".to_owned()]);
        let agent = pod.start();
        pod.wait_for_log("shipping a file", 1);
        writer.write_all(&line.as_bytes()[..8]).unwrap();
        agent.terminate();
        pod.wait_for_log("stopping: delivering", 1);
        // It has been read to its end, and would have been sent by now.
        pause(Duration::from_secs(1));
        writer.write_all(&line.as_bytes()[8..]).unwrap();
        pod.mock.resume().unwrap();

        assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
        assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
        assert_eq!(pod.ledger.check(&pod.mock), 0, "{quiet}");
    }
}

/// With the deadline over it is left, named with all else, and the next start delivers it as one.
#[test]
fn p08_an_unfinished_last_line_is_left_at_the_deadline() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER).set("LOGFERRY_DRAIN_DEADLINE", "2s");
    // A quiet that comes too late.
    pod.set("LOGFERRY_DRAIN_PARTIAL_LINES", "true").set("LOGFERRY_DRAIN_QUIET", "60s");
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    let mut writer = append_to(&log);
    let line = pod.ledger.note(&writer, vec!["half a line".to_owned()]);
    writer.write_all(&line.as_bytes()[..4]).unwrap();

    assert_eq!(agent.stop().0, 75);

    let text = pod.agent_log();
    assert!(text.contains("its last line has no line end"), "{text}");
    assert_eq!(pod.logged_numbers("a file is left for the next start", "bytes"), [4]);
    writer.write_all(&line.as_bytes()[4..]).unwrap();
    pod.set("LOGFERRY_DRAIN_QUIET", "0s");
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

/// No next start finds a file that was deleted.
#[test]
fn p08_the_unfinished_line_of_a_deleted_file_is_sent_at_any_stop() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    append_unfinished(&mut pod, &log, &["the last words"]);
    fs::remove_file(&log).unwrap();

    assert_eq!(agent.stop().0, 0);
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// Deleted while the agent waits for the endpoint, and looks at nothing any more.
#[test]
fn p08_the_unfinished_line_of_a_file_that_is_deleted_during_the_drain_is_sent() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER).set("LOGFERRY_DRAIN_QUIET", "0s");
    let agent = pod.start();
    pod.ledger.append(&log, 100);
    pod.expect_all();
    pod.mock.stop();
    pod.ledger.append(&log, 100);
    append_unfinished(&mut pod, &log, &["the last words"]);
    agent.terminate();
    pod.wait_for_log("stopping: delivering", 1);
    pause(Duration::from_millis(500));
    fs::remove_file(&log).unwrap();
    pod.mock.resume().unwrap();

    assert_eq!(agent.exit_code(), 0);
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
}

/// It was deleted long before, and its app goes on; it may even write while the agent stops.
#[test]
fn p08_an_unfinished_line_behind_a_deletion_is_sent_at_any_stop() {
    each(&pairs(&["0s", "500ms"], &[true, false]), |&(quiet, is_known)| {
        let (mut pod, log) = Pod::with_log();
        pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", NEVER).set("LOGFERRY_DRAIN_QUIET", quiet);
        let address = pod.listen();
        let agent = pod.start();
        let mut app = append_to(&log);
        pod.ledger.write(&mut app, 100);
        pod.expect_all();
        fs::remove_file(&log).unwrap();
        if is_known {
            wait_for_metric(&address, "logferry_files{state=\"deleted\"}", 1);
        }
        let text = pod.ledger.note(&app, vec!["the last words".to_owned()]).replace('\n', "");
        app.write_all(text.as_bytes()).unwrap();

        assert_eq!(agent.stop().0, 0, "{quiet} {is_known}");
        let missing = pod.ledger.missing(&pod.mock);
        assert_eq!(missing, Vec::<&str>::new(), "{quiet} {is_known}\n{}", pod.agent_log());
        assert_eq!(pod.ledger.check(&pod.mock), 0);
    });
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
    each(&["2", "0.05"], |&cores| {
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
    });
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
    after_signals_before_the_settings_are_read(&[TERM]);
    after_signals_before_the_settings_are_read(&[HANGUP, QUIT]);
}

/// One that means nothing is forgotten by then.
#[test]
fn p12_signals_before_the_settings_are_read_that_mean_nothing_end_nothing() {
    let numbers: Vec<i32> = meaningless().chain([HANGUP, TERM]).collect();
    after_signals_before_the_settings_are_read(&numbers);
}

fn after_signals_before_the_settings_are_read(numbers: &[i32]) {
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

    for &number in numbers {
        kill(agent.id(), number);
    }

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

/// A handler is there a moment before anybody knows of it; here that moment is long. A signal that
/// comes then is held back, and not lost.
#[test]
fn a_signal_while_its_handler_is_installed_is_a_drain() {
    if !strace::is_there() {
        return skipped("strace(1) cannot trace here");
    }
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let slow = Injection {
        call: "rt_sigaction".to_owned(),
        when: "1+".to_owned(),
        harm: "delay_exit=20000",
    };
    let agent = pod.start_with(strace::harming(
        &slow,
        &[],
        Path::new("/dev/null"),
        env!("CARGO_BIN_EXE_logferry"),
    ));

    agent.terminate();

    assert_eq!(agent.exit_code(), 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing(&pod.mock), Vec::<&str>::new());
}
