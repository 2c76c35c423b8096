//! The limits of discovery and of the kernel's notifications, by the ids of the catalogue of
//! failures (A3).

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use logferry_mock::{self as mock, Fault, Kind};

use crate::support::observe::{metric, wait_for_metric};
use crate::support::special::skipped;
use crate::support::strace::{self, Injection};
use crate::support::volume::Served;
use crate::support::{Pod, append_to, pause, rotate, wait_for};

const APP: &str = "share/logs/app.log";

// === K01: notifications that do not come

/// The lower layer of an overlay is written to by somebody who does not see the overlay.
#[test]
fn k01_what_is_written_below_an_overlay_arrives_without_notifications() {
    let mut pod = Pod::new();
    let log = pod.path("lower/app.log");
    fs::create_dir_all(pod.path("lower")).unwrap();
    pod.ledger.append(&log, 10);
    let Some(agent) = pod.start_over_overlay("lower", "share/logs") else { return };
    for _ in 0..4 {
        assert_eq!(pod.expect_all(), 0);
        pod.ledger.append(&log, 10);
    }

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged("grows without notifications"), 1, "{}", pod.agent_log());
}

/// No file of it lives long enough to be seen to grow without notifications.
#[test]
fn k01_a_rotation_that_nothing_tells_of_is_noticed() {
    if !strace::is_there() {
        return skipped("strace cannot trace here");
    }
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let (source, log) = (pod.path("source"), pod.path("source/app.log"));
    fs::create_dir(&source).unwrap();
    let agent = pod.start();
    // The kernel does not say what kind of file system is mounted then.
    let injection = Injection { call: "statfs".into(), when: "1+".into(), harm: "error=ENOSYS" };
    let out = pod.path("strace");
    let _strace = strace::Attached::to(agent.id(), "collect", &injection, &[], &out);
    let Some(_volume) = Served::mount(&source, &pod.path("data/pod/logs")) else { return };
    pod.ledger.append(&log, 10);
    assert_eq!(pod.expect_all(), 0);
    let mut lines = 0..;
    wait_for("it to be noticed", || {
        rotate(&log, 3);
        // No two of them are equal: one of those may be a copy of the other.
        writeln!(append_to(&log), "line {}", lines.next().unwrap_or(0)).unwrap();
        pause(Duration::from_millis(200));
        pod.agent_log().contains("polling files each second")
    });

    assert!(strace::has_failed_a_call(&out));
    let agent_log = pod.agent_log();
    assert!(agent_log.contains("app.log was made without notifications"), "{agent_log}");
    assert_eq!(agent.stop().0, 0, "{agent_log}");
}

/// It is polled from the start: what is written below comes without any event.
#[test]
fn k01_a_served_file_system_is_polled_from_the_first_look() {
    let mut pod = Pod::new();
    let address = pod.listen();
    pod.link("data/pod/logs");
    let (source, log) = (pod.path("source"), pod.path("source/app.log"));
    fs::create_dir(&source).unwrap();
    let Some(_volume) = Served::mount(&source, &pod.path("data/pod/logs")) else { return };
    let agent = pod.start();
    wait_for("the metric", || metric(&address, "logferry_polling") == Some(1));
    for _ in 0..3 {
        pod.ledger.append(&log, 10);
        assert_eq!(pod.expect_all(), 0);
    }

    let agent_log = pod.agent_log();
    assert_eq!(pod.times_logged("is on FUSE, which does not tell"), 1, "{agent_log}");
    assert_eq!(pod.times_logged("grows without notifications"), 0, "{agent_log}");
    assert_eq!(pod.finish(agent), 0);
}

/// The first write from within the overlay copies the file up: another file from then on, which
/// bears the same number or not, with the same bytes.
#[test]
fn k01_a_file_that_an_overlay_copies_up_is_read_on() {
    let mut pod = Pod::new();
    fs::create_dir_all(pod.path("lower")).unwrap();
    pod.ledger.append(&pod.path("lower/app.log"), 500);
    let Some(agent) = pod.start_over_overlay("lower", "share/logs") else { return };
    assert_eq!(pod.expect_all(), 0);
    let log = pod.path(APP);
    for _ in 0..3 {
        // What the app of the pod writes, which stands where the agent stands.
        let text = pod.ledger.compose(&append_to(&pod.path("lower/app.log")), 10);
        agent.run_inside(&format!("cat >> {}", log.display()), text.as_bytes());
        assert_eq!(pod.expect_all(), 0);
    }
    assert!(pod.path("upper/app.log").exists(), "it was copied up");

    assert_eq!(pod.finish(agent), 0);
}

/// A volume that is mounted over the directory of the logs, and taken away: no event says so.
#[test]
fn k01_a_volume_mounted_over_the_directory_is_found() {
    let (mut pod, log) = Pod::with_log();
    let Some(agent) = pod.start_with_mounts() else { return };
    pod.ledger.append(&log, 10);
    assert_eq!(pod.expect_all(), 0);
    let dir = log.parent().unwrap().display().to_string();
    let first = pod.ledger.lines.len();
    pod.ledger.append(&pod.path("written"), 10);
    let text = pod.ledger.lines[first..].join("\n") + "\n";
    let mount = format!("mount -t tmpfs tmpfs {dir} && cat >> {}", log.display());
    agent.run_inside(&mount, text.as_bytes());
    assert_eq!(pod.expect_all(), 0);
    // Below the volume, the app of before still writes.
    pod.ledger.append(&log, 10);
    assert_eq!(pod.expect_all(), 0);
    agent.run_inside(&format!("umount -l {dir}"), b"");
    pod.ledger.append(&log, 10);
    pod.ledger.append(&log.with_file_name("new.log"), 10);

    assert_eq!(pod.finish(agent), 0);
}

/// An app that maps its log and writes into space allocated ahead: no event, the size stays the
/// same, and on some file systems the time of modification too.
#[test]
fn k01_lines_written_through_a_mapping_arrive() {
    const APP_SCRIPT: &str = "import mmap, sys\n\
        file = open(sys.argv[1], 'r+b')\n\
        map = mmap.mmap(file.fileno(), 0)\n\
        while line := sys.stdin.buffer.readline(): map.write(line)\n";
    if !Command::new("python3").arg("-c").arg("import mmap").status().is_ok_and(|s| s.success()) {
        return skipped("python3 is not here");
    }
    // A volume in memory, and one on the disk of the tests.
    for volume in [tempfile::tempdir_in("/dev/shm").unwrap(), tempfile::tempdir().unwrap()] {
        let pod = Pod::new();
        std::os::unix::fs::symlink(volume.path(), pod.path("share/logs")).unwrap();
        let log = volume.path().join("app.log");
        append_to(&log).set_len(64 << 10).unwrap();
        let agent = pod.start();
        let mut app = Command::new("python3")
            .args(["-c", APP_SCRIPT])
            .arg(&log)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = app.stdin.take().unwrap();
        let mut expected = Vec::new();
        for number in 0..4 {
            let line = format!("line {number} through a mapping");
            lines.write_all(format!("{line}\n").as_bytes()).unwrap();
            expected.push(line);
            pod.await_records(expected.len());
        }
        drop(lines);
        assert!(app.wait().unwrap().success());

        pod.finish_records(agent, &expected);
    }
}

// === K02: no watches, no instances

#[test]
fn k02_without_an_instance_it_polls() {
    let mut pod = Pod::new();
    let agent = pod.start_with_user_limit("max_inotify_instances", 0);
    let Some(agent) = agent else { return };
    wait_for("the agent's start", || pod.agent_log().contains("logferry starts"));
    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    for _ in 0..3 {
        pod.ledger.append(&log, 10);
        assert_eq!(pod.expect_all(), 0);
    }

    let log = pod.agent_log();
    assert_eq!(pod.times_logged("polling files each second"), 1, "{log}");
    assert!(log.contains("fs.inotify.max_user_instances"), "{log}");
    assert_eq!(pod.finish(agent), 0);
}

/// Three watches for ten directories: all are shipped, also what comes later, and one warning says
/// what to raise.
#[test]
fn k02_with_too_few_watches_it_polls_and_names_the_limit() {
    let (mut pod, log) = Pod::with_log();
    let dir = log.parent().unwrap().to_owned();
    let in_dir = |number: usize| dir.join(format!("{number}/app.log"));
    for number in 0..10 {
        fs::create_dir(dir.join(number.to_string())).unwrap();
        pod.ledger.append(&in_dir(number), 10);
    }
    let Some(agent) = pod.start_with_user_limit("max_inotify_watches", 3) else { return };
    assert_eq!(pod.expect_all(), 0);
    for _ in 0..2 {
        for number in 0..10 {
            pod.ledger.append(&in_dir(number), 10);
        }
        assert_eq!(pod.expect_all(), 0);
    }
    fs::create_dir(dir.join("later")).unwrap();
    pod.ledger.append(&dir.join("later/app.log"), 10);
    fs::rename(in_dir(3), dir.join("3/app.log.1")).unwrap();
    pod.ledger.append(&in_dir(3), 10);

    assert_eq!(pod.finish(agent), 0);
    let log = pod.agent_log();
    let warnings: Vec<&str> =
        log.lines().filter(|line| line.contains("fs.inotify.max_user_watches")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("polling files each second"), "{}", warnings[0]);
}

/// Directories that are deleted and made anew, and trees that are moved in with all that is in them.
#[test]
fn k02_directories_that_come_and_go_are_watched_anew() {
    let (mut pod, log) = Pod::with_log();
    let logs = log.parent().unwrap().to_owned();
    let agent = pod.start();
    for number in 0..3 {
        fs::remove_dir_all(&logs).unwrap();
        fs::create_dir_all(logs.join("sub")).unwrap();
        pod.ledger.append(&log, 10);
        pod.ledger.append(&logs.join("sub/app.log"), 10);
        let tree = pod.path(&format!("tree-{number}"));
        fs::create_dir_all(tree.join("deep/deeper")).unwrap();
        pod.ledger.append(&tree.join("deep/deeper/app.log"), 10);
        fs::rename(&tree, logs.join(format!("tree-{number}"))).unwrap();
        assert_eq!(pod.expect_all(), 0);
        pod.ledger.append(&logs.join(format!("tree-{number}/deep/deeper/app.log")), 10);
        pod.ledger.append(&logs.join("sub/app.log"), 10);
        assert_eq!(pod.expect_all(), 0);
    }

    assert_eq!(pod.finish(agent), 0);
}

// === K03: the queue of notifications is full

/// While the agent stands still there are more events than the kernel keeps; those behind them,
/// of new, renamed and deleted files, are lost.
#[test]
fn k03_when_notifications_are_lost_everything_is_looked_at() {
    const MOST: usize = 1 << 20;
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    if queue > MOST {
        return skipped(&format!("the kernel keeps {queue} events here"));
    }
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    let other = log.with_file_name("other.log");
    pod.ledger.append(&log, 10);
    pod.ledger.append(&other, 10);
    let agent = pod.start();
    pod.expect_all();

    agent.suspend();
    let (mut one, mut two) = (append_to(&log), append_to(&other));
    // In turn: like events that follow each other are one for the kernel.
    for _ in 0..queue / 2 + 100 {
        pod.ledger.write(&mut one, 1);
        pod.ledger.write(&mut two, 1);
    }
    let deep = log.with_file_name("new/deep");
    fs::create_dir_all(&deep).unwrap();
    pod.ledger.append(&deep.join("app.log"), 10);
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    pod.ledger.write(&mut one, 10);
    pod.ledger.append(&log, 10);
    fs::remove_file(&other).unwrap();
    pod.ledger.write(&mut two, 10);
    pod.ledger.append(&other, 10);
    agent.resume();

    assert_eq!(pod.expect_all(), 0);
    let overflows = || metric(&address, "logferry_watch_overflows_total");
    wait_for("the metric", || overflows().is_some_and(|count| count > 0));
    assert_eq!(pod.times_logged("the kernel dropped notifications"), 1);
    // Notifications work again.
    pod.ledger.append(&deep.join("app.log"), 10);
    assert_eq!(pod.finish(agent), 0);
}

// === K06: many files

/// 10,000 files at once, while the endpoint is away.
#[test]
fn k06_ten_thousand_files_that_appear_during_an_outage_all_arrive() {
    many_files(10_000, 12_000, true);
}

/// Files give their descriptors up for those that wait.
#[test]
fn k06_more_files_than_descriptors_all_arrive() {
    many_files(3000, 1024, false);
}

fn many_files(count: usize, descriptors: u32, is_outage: bool) {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if most.is_some_and(|most| most < descriptors.into()) {
        return skipped(&format!("no {descriptors} descriptors can be had"));
    }
    let mut pod = Pod::new();
    pod.set("mem_usage_limit", "128").set("LOGFERRY_LOG", "info");
    pod.link("data/pod/logs");
    let agent = pod.start_with_descriptors(descriptors);
    wait_for("its start", || pod.agent_log().contains("logferry starts"));
    if is_outage {
        pod.mock.stop();
    }
    let started = logferry::base::clock::now();
    let path = |number: usize| format!("data/pod/logs/{:02}/{number:05}.log", number % 50);
    for number in 0..50 {
        fs::create_dir(pod.path(&format!("data/pod/logs/{number:02}"))).unwrap();
    }
    for number in 0..count {
        let path = pod.path(&path(number));
        pod.ledger.append(&path, 2);
    }
    if is_outage {
        pod.mock.resume().unwrap();
    }
    pod.await_records(pod.ledger.lines.len());
    assert_eq!(pod.expect_all(), 0);
    let took = logferry::base::clock::now() - started;
    let (resident, open) = (agent.resident_bytes_peak(), agent.descriptors());
    println!("{count} files: {took:?}, {} MiB resident, {open} descriptors", resident >> 20);
    assert!(resident < 128 << 20, "{resident} bytes resident");
    assert!(open <= descriptors as usize);
    // Files that wait for their turn are no news each.
    assert!(pod.times_logged("RLIMIT_NOFILE") <= 10, "{}", pod.times_logged("RLIMIT_NOFILE"));

    // Those that were read long ago go on too.
    for number in (0..count).step_by(100) {
        let path = pod.path(&path(number));
        pod.ledger.append(&path, 1);
    }
    assert_eq!(pod.finish(agent), 0);
}

/// Files that are gone before they can be opened are no news.
#[test]
fn k06_files_that_come_and_go_at_once_are_no_trouble() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let until = logferry::base::clock::now() + Duration::from_secs(5);
    let mut names = (0..50).cycle().map(|number| log.with_file_name(format!("{number}.log")));
    while logferry::base::clock::now() < until {
        let (name, next) = (names.next().unwrap(), log.with_extension("next.log"));
        fs::write(&name, "").unwrap();
        fs::rename(&name, &next).unwrap();
        fs::remove_file(&next).unwrap();
    }
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
    assert!(!pod.agent_log().contains("cannot"), "{}", pod.agent_log());
}

/// Files that are delivered, deleted and known to be so make way for new ones before long.
#[test]
fn k06_files_that_come_and_go_use_up_no_descriptors() {
    let mut pod = Pod::new();
    let address = pod.listen();
    pod.link("data/pod/logs");
    let agent = pod.start_with_descriptors(64);
    for round in 0..4 {
        let logs = [(); 20].map(|()| {
            let log = pod.path(&format!("data/pod/logs/{}.log", pod.ledger.lines.len()));
            pod.ledger.append(&log, 1);
            log
        });
        assert_eq!(pod.expect_all(), 0, "{round}");
        logs.iter().for_each(|log| fs::remove_file(log).unwrap());
        wait_for_metric(&address, "logferry_files{state=\"active\"}", 0);
    }

    assert_eq!(pod.finish(agent), 0);
}

/// What waits for a descriptor in an outage is renamed out of the patterns meanwhile.
#[test]
fn k06_files_that_are_renamed_while_they_wait_for_descriptors_arrive() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let agent = pod.start_with_descriptors(64);
    let logs: Vec<PathBuf> =
        (0..50).map(|number| pod.path(&format!("data/pod/logs/{number}.log"))).collect();
    logs.iter().for_each(|log| pod.ledger.append(log, 1));
    assert_eq!(pod.expect_all(), 0);
    pod.mock.stop();
    logs.iter().for_each(|log| pod.ledger.append(log, 1));
    // Long enough for the agent to see that the others have grown too.
    pause(Duration::from_secs(2));
    let open = agent.open_paths();
    let mut waiting =
        logs.iter().filter(|log| !open.contains(&log.display().to_string())).peekable();
    assert!(waiting.peek().is_some(), "more files than descriptors");
    waiting.for_each(|log| rotate(log, 3));
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

// === K07: fairness

/// Fifty files that write a little beside one that always has a megabyte unread: what they write
/// arrives while that is so. Judged by the order of arrival, not by time.
#[test]
fn k07_a_busy_file_does_not_hold_up_slow_ones() {
    const SLOW: usize = 50;
    const UNREAD: usize = 20_000;
    let (mut pod, busy) = Pod::with_log();
    pod.set("max_bytes_per_sec", "600000");
    let (mut busy_lines, mut slow_lines) = (0, 0);
    let mut agent = None;
    for _ in 0..3 {
        for number in 0..SLOW {
            pod.ledger.append(&busy.with_file_name(format!("slow-{number:02}.log")), 2);
            slow_lines += 2;
        }
        wait_for("the slow files' lines", || {
            while busy_lines < arrived_of(&pod, "app.log") + UNREAD {
                pod.ledger.append(&busy, UNREAD / 2);
                busy_lines += UNREAD / 2;
            }
            // With the first round both are there before the agent.
            agent.get_or_insert_with(|| pod.start());
            arrived_of(&pod, "slow-") == slow_lines
        });
    }

    pod.await_records(busy_lines + slow_lines);
    assert_eq!(pod.finish(agent.unwrap()), 0);
}

fn arrived_of(pod: &Pod, name: &str) -> usize {
    let groups = pod.mock.store().groups();
    let of = groups.iter().filter(|group| group.tag("__path__").is_some_and(|p| p.contains(name)));
    of.map(|group| group.line_count as usize).sum()
}

// === K08: the state directory is lost

/// The state was on the container's own file system: everything that is there is sent again,
/// rotated files that the patterns find included, and nothing is lost.
#[test]
fn k08_without_its_state_everything_is_sent_again_and_nothing_is_lost() {
    let (mut pod, log) = Pod::with_log();
    let paths = pod.path("share/logs/app*").display().to_string();
    pod.set("LOGFERRY_PATHS", &paths);
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    pod.ledger.append(&log, 500);
    assert_eq!(pod.finish(agent), 0);

    fs::remove_dir_all(pod.path("state")).unwrap();
    pod.ledger.append(&log, 10);
    let agent = pod.start();

    // All but the new lines come a second time.
    pod.await_records(1000 + 1010);
    assert_eq!(pod.finish(agent), 1000);
}

/// Killed, as a container is, in the middle of its work.
#[test]
fn k08_killed_and_without_its_state_nothing_is_lost() {
    let (mut pod, log) = Pod::with_log();
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 20 })]);
    pod.set("LOGFERRY_BATCH_LINES", "100");
    pod.ledger.append(&log, 20_000);
    let agent = pod.start();
    pod.await_records(500);
    agent.kill();
    fs::remove_dir_all(pod.path("state")).unwrap();
    pod.mock.faults().clear();
    let agent = pod.start();

    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
}

// === K09: the wall clock jumps

/// Back by an hour, forward by a day, and right again, while lines come.
#[test]
fn k09_when_the_clock_jumps_everything_arrives_once() {
    let (mut pod, log) = Pod::with_log();
    if pod.fake_clock(0).is_none() {
        return;
    }
    let address = pod.listen();
    let agent = pod.start();
    for offset in [0, -3600, 86_400, 0] {
        pod.set_clock(offset);
        pod.ledger.append(&log, 50);
        pod.expect_all();
        pause(Duration::from_millis(300));
        pod.ledger.append(&log, 50);
        assert_eq!(pod.expect_all(), 0, "{offset}");
    }
    assert!(pod.agent_log().contains("clock"), "it was noticed:\n{}", pod.agent_log());
    wait_for_metric(&address, "logferry_parked_batches_total", 0);

    assert_eq!(pod.finish(agent), 0);
}

/// A clock that is wrong from the start, by more than the service takes for the date of a request
/// and for the time of a line: what was read before that is known arrives too.
#[test]
fn k09_with_a_wrong_clock_everything_arrives_once() {
    const MINUTE: i64 = 60;
    const DAY: i64 = 24 * 60 * MINUTE;
    // How far the endpoint's clock is ahead of the agent's.
    for offset in [-20 * MINUTE, 20 * MINUTE, -DAY, DAY, 8 * DAY] {
        let options = mock::Options { clock_offset_seconds: offset, ..mock::Options::default() };
        let mut pod = Pod::with_endpoint(options);
        pod.link("data/pod/logs");
        let log = pod.path("data/pod/logs/app.log");
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        wait_for(&format!("lines at {offset} s, or none"), || {
            pod.mock.store().line_count() >= 100 || pod.agent_log().contains("set aside")
        });
        assert!(!pod.agent_log().contains("set aside"), "{offset} s: {}", pod.agent_log());
        pod.ledger.append(&log, 100);

        assert_eq!(pod.finish(agent), 0, "{offset} s");
    }
}

// === K10: suspended

/// For some seconds, with requests under way, lines written and files renamed meanwhile.
#[test]
fn k10_after_a_suspension_it_goes_on_and_repeats_nothing() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINES", "100");
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 100 })]);
    let agent = pod.start();
    for number in 0..3 {
        pod.ledger.append(&log, 2000);
        pod.await_records(pod.ledger.lines.len() - 1500);
        agent.suspend();
        let mut writer = append_to(&log);
        fs::rename(&log, log.with_extension(format!("log.{number}"))).unwrap();
        pod.ledger.write(&mut writer, 100);
        pod.ledger.append(&log, 100);
        pause(Duration::from_secs(3));
        agent.resume();
        assert_eq!(pod.expect_all(), 0);
    }

    assert_eq!(pod.finish(agent), 0);
}

/// The endpoint has closed its connections meanwhile, as a balancer does.
#[test]
fn k10_connections_that_were_closed_during_a_suspension_are_made_anew() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    pod.ledger.append(&log, 100);
    pod.expect_all();
    agent.suspend();
    pod.mock.stop();
    pod.ledger.append(&log, 100);
    pod.mock.resume().unwrap();
    agent.resume();

    assert_eq!(pod.finish(agent), 0);
}
