//! Rotation while the agent runs (F01, F02, F30, F32, F33): what was in a file that was open is
//! delivered, whatever becomes of its name.

use std::fs::{self, File};
use std::time::Duration;

use logferry_mock::{Fault, Kind};

use crate::support::observe::{metric, wait_for_metric};
use crate::support::{
    Meanwhile, Pod, append_to, compressed, each, logrotate, numbered, pairs, pause, rotate,
    wait_for,
};

/// 1000 lines, `mv`, 500 more through the old descriptor, 500 into the new file.
#[test]
fn f01_lines_follow_a_renamed_file() {
    for pattern in ["share/logs/app.log*", "share/logs/**/*.log"] {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&[pattern]);
        let agent = pod.start();
        let mut old = append_to(&log);
        pod.ledger.write(&mut old, 1000);
        agent.wait_until_open(&log);

        fs::rename(&log, numbered(&log, 1)).unwrap();
        let mut new = append_to(&log);
        for _ in 0..5 {
            pod.ledger.write(&mut old, 100);
            pod.ledger.write(&mut new, 100);
        }

        assert_eq!(pod.finish(agent), 0, "{pattern}");
        assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into(), "{pattern}");
    }
}

/// The same by the real logrotate, five times; older generations are renamed each time.
#[test]
fn f01_lines_follow_what_logrotate_creates() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/app.log*"]);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    for _ in 1..=5 {
        agent.wait_until_open(&log);
        let mut old = append_to(&log);
        pod.ledger.write(&mut old, 300);
        if !logrotate(&pod, &log, "rotate 9\ncreate 0644") {
            return;
        }
        pod.ledger.write(&mut old, 200);
        pod.ledger.append(&log, 200);
    }

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
}

/// The new name is found by the patterns too; the writer keeps its descriptor.
#[test]
fn f01_a_file_renamed_within_the_patterns_is_not_mistaken_for_one_without_notifications() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 100);
    pod.expect_all();
    fs::rename(&log, pod.path("data/pod/logs/app-1.log")).unwrap();
    let mut next = append_to(&log);
    pod.ledger.write(&mut next, 10);
    pod.expect_all();
    for _ in 0..4 {
        let started = logferry::base::clock::now();
        pod.ledger.write(&mut writer, 10);
        pod.expect_all();
        let took = logferry::base::clock::now() - started;
        assert!(took < Duration::from_millis(2500), "{took:?}");
    }

    assert!(!pod.agent_log().contains("without notifications"), "{}", pod.agent_log());
    assert_eq!(pod.finish(agent), 0);
}

/// Renamed back, as a person does who rotated too early: the same file, under its own name.
#[test]
fn f01_a_file_that_gets_its_name_back_goes_on() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 100);
    pod.expect_all();
    fs::rename(&log, numbered(&log, 1)).unwrap();
    pod.ledger.write(&mut writer, 100);
    pod.wait_for_log("reading it to its end", 1);
    fs::rename(numbered(&log, 1), &log).unwrap();
    pod.ledger.write(&mut writer, 100);

    assert_eq!(pod.finish(agent), 0);
}

/// `olddir`: into a directory below, which the patterns reach too, or beside, where they do not.
#[test]
fn f01_lines_follow_a_file_that_logrotate_moves_elsewhere() {
    for olddir in ["data/pod/logs/old", "data/pod/old"] {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/**/app.log*"]);
        fs::create_dir_all(pod.path(olddir)).unwrap();
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        for _ in 0..3 {
            agent.wait_until_open(&log);
            let mut old = append_to(&log);
            pod.ledger.write(&mut old, 300);
            let directives =
                format!("rotate 9\ncreate 0644\nolddir {}", pod.path(olddir).display());
            if !logrotate(&pod, &log, &directives) {
                return;
            }
            pod.ledger.write(&mut old, 200);
            pod.ledger.append(&log, 200);
        }

        assert_eq!(pod.finish(agent), 0, "{olddir}");
        pod.ledger.append(&log, 10);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{olddir}, after a restart");
    }
}

/// The whole directory is renamed and made anew, as a deployment does; the writer of the old one
/// goes on.
#[test]
fn f01_lines_follow_a_renamed_directory() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let mut old = append_to(&log);
    pod.ledger.write(&mut old, 100);
    pod.expect_all();

    fs::rename(pod.path("data/pod/logs"), pod.path("data/pod/logs.old")).unwrap();
    fs::create_dir(pod.path("data/pod/logs")).unwrap();
    let mut new = append_to(&log);
    for _ in 0..3 {
        pod.ledger.write(&mut old, 100);
        pod.ledger.write(&mut new, 100);
        pod.expect_all();
    }

    assert_eq!(pod.finish(agent), 0);
}

/// `mv app.log app.log.1`, which no pattern finds; the writer keeps its descriptor for a while, as
/// apps do. Again and again.
#[test]
fn f02_a_renamed_file_that_no_pattern_finds_is_read_to_its_end() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    for _ in 1..=5 {
        let mut writer = append_to(&log);
        pod.ledger.write(&mut writer, 1000);
        agent.wait_until_open(&log);
        rotate(&log, 9);
        pod.ledger.write(&mut writer, 500);
        let mut next = append_to(&log);
        pod.ledger.write(&mut next, 500);
        pause(Duration::from_millis(250));
        pod.ledger.write(&mut writer, 10);
    }

    assert_eq!(pod.finish(agent), 0);
}

/// All was read and acknowledged when it was renamed; some seconds later the app still writes.
#[test]
fn f02_late_writers_of_a_file_that_no_pattern_finds_are_heard() {
    for target in ["data/pod/logs/app.log.1", "data/archive/app.log", "data/pod/logs/out/app.log"] {
        let (mut pod, log) = Pod::with_log();
        let exclude = pod.path("share/logs/out/**").display().to_string();
        pod.set("LOGFERRY_EXCLUDE", &exclude);
        let target = pod.path(target);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let agent = pod.start();
        let mut writer = append_to(&log);
        pod.ledger.write(&mut writer, 100);
        pod.expect_all();

        fs::rename(&log, &target).unwrap();
        for _ in 0..4 {
            pod.ledger.write(&mut writer, 10);
            pod.expect_all();
            pause(Duration::from_millis(300));
        }

        assert_eq!(pod.finish(agent), 0, "{}", target.display());
    }
}

#[test]
fn f30_a_deleted_file_is_read_to_its_end() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    pod.expect_all();

    pod.mock.stop();
    let mut writer = append_to(&log);
    pod.ledger.write(&mut writer, 20_000);
    pause(Duration::from_millis(300));
    fs::remove_file(&log).unwrap();
    pod.ledger.write(&mut writer, 10);
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// 24 MB, of which the agent holds some in memory; the rest is only in the deleted file. The app
/// has closed it, so our descriptor alone keeps it.
#[test]
fn f30_a_deleted_file_is_read_to_its_end_from_a_slow_endpoint() {
    let (mut pod, log) = Pod::with_log();
    pod.keep_memory_small();
    pod.set("send_request_concurrency", "2");
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 10 })]);
    pod.ledger.write_kib(&mut append_to(&log), 24 << 10);
    let agent = pod.start();
    agent.wait_until_open(&log);
    fs::remove_file(&log).unwrap();
    let before = pod.mock.store().line_count();
    assert!(before < 12 << 10, "{before} lines had arrived already");

    assert_eq!(pod.finish(agent), 0);
}

/// The directory goes with the file, as at the end of a pod.
#[test]
fn f30_a_file_is_read_to_its_end_when_its_directory_is_deleted() {
    let (mut pod, log) = Pod::with_log();
    pod.mock.stop();
    pod.ledger.append(&log, 5000);
    let agent = pod.start();
    agent.wait_until_open(&log);
    fs::remove_dir_all(pod.path("data/pod/logs")).unwrap();
    pod.mock.resume().unwrap();
    pod.expect_all();
    fs::create_dir(pod.path("data/pod/logs")).unwrap();
    pod.ledger.append(&log, 100);

    assert_eq!(pod.finish(agent), 0);
}

/// A new file takes the place of the old one in one step, as editors and `rename(2)` do it.
#[test]
fn f32_a_file_renamed_over_the_path_is_read_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    let next = pod.path("data/pod/logs/app.log.tmp");
    for count in [300, 300, 10, 900] {
        pod.ledger.write_fixed(&mut File::create(&next).unwrap(), count);
        fs::rename(&next, &log).unwrap();
        pod.expect_all();
    }

    assert_eq!(pod.finish(agent), 0);
}

/// The replaced file has no name any more; what was not read of it is in our descriptor only.
#[test]
fn f32_the_rest_of_a_replaced_file_is_read() {
    let (mut pod, log) = Pod::with_log();
    pod.mock.stop();
    let next = pod.path("data/pod/logs/app.log.tmp");
    let agent = pod.start();
    for _ in 1..=5 {
        let mut writer = File::create(&next).unwrap();
        pod.ledger.write_fixed(&mut writer, 500);
        fs::rename(&next, &log).unwrap();
        agent.wait_until_open(&log);
        pod.ledger.write_fixed(&mut writer, 500);
    }
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// What stood there is a directory for a while, then a pipe, then a file again.
#[test]
fn f32_a_path_that_is_no_file_for_a_while_is_read_again() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    pod.ledger.append(&log, 100);
    pod.expect_all();
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    pod.ledger.append(&log.join("inner.log"), 10);
    pod.expect_all();
    fs::remove_dir_all(&log).unwrap();
    let mkfifo = std::process::Command::new("mkfifo").arg(&log).status();
    assert!(mkfifo.unwrap().success());
    pod.ledger.append(&log.with_file_name("other.log"), 10);
    pod.expect_all();
    fs::remove_file(&log).unwrap();
    pod.ledger.append(&log, 100);

    assert_eq!(pod.finish(agent), 0);
}

/// Of 50 MB most are unread when the file is deleted: it was open by then, so all of it arrives.
#[test]
fn f33_a_short_lived_file_that_was_opened_arrives_whole() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_ready();

    let log = pod.path("data/pod/logs/short.log");
    let mut writer = append_to(&log);
    agent.wait_until_open(&log);
    pod.ledger.write_kib(&mut writer, 50 << 10);
    drop(writer);
    fs::remove_file(&log).unwrap();

    assert_eq!(pod.finish(agent), 0);
}

/// Made, written, closed and deleted without a pause: what the agent could open arrives whole, what
/// it could not is not there at all.
#[test]
fn f33_of_short_lived_files_nothing_arrives_in_part() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_READ_LINGER", "1ms");
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_ready();
    let mut written = Vec::new();
    for number in 0..20 {
        let path = log.with_file_name(format!("short-{number:02}.log"));
        let first = pod.ledger.lines.len();
        let mut writer = append_to(&path);
        pod.ledger.write_kib(&mut writer, 1024);
        drop(writer);
        fs::remove_file(&path).unwrap();
        written.push((path, first..pod.ledger.lines.len()));
    }
    let last = log.with_file_name("last.log");
    pod.ledger.append(&last, 1);
    let mark = pod.ledger.lines.last().cloned().unwrap();
    wait_for("the last file", || !pod.ledger.missing(&pod.mock).contains(&&*mark));
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());

    let log_text = pod.agent_log();
    let missing = pod.ledger.missing(&pod.mock);
    for (path, lines) in written {
        let name = path.file_name().unwrap().to_str().unwrap();
        let opened = |line: &str| line.contains("shipping a file") && line.contains(name);
        let was_opened = log_text.lines().any(opened);
        let lost = pod.ledger.lines[lines].iter().filter(|line| missing.contains(&line.as_str()));
        let lost = lost.count();
        assert_eq!(lost, if was_opened { 0 } else { 1024 }, "{name}, opened: {was_opened}");
    }
    assert_eq!(pod.ledger.check(&pod.mock), 0);
    pod.expect_sound();
}

/// Files that live for a moment, beside one that is written to all the time: each is delivered whole or
/// counted, and most live long enough.
#[test]
fn f33_short_lived_files_are_opened_or_counted() {
    const FILES: usize = 200;
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_LOG", "info");
    let address = pod.listen();
    let agent = pod.start();
    pod.ledger.append(&log, 1);
    pod.expect_all();
    let mut writer = append_to(&log);
    for number in 0..FILES {
        pod.ledger.write(&mut writer, 1);
        let path = log.with_file_name(format!("short-{number}.log"));
        pod.ledger.append(&path, 1);
        pause(Duration::from_millis([2, 10, 20, 50][number % 4]));
        pod.ledger.write(&mut writer, 1);
        fs::remove_file(&path).unwrap();
    }
    let vanished = || metric(&address, "logferry_file_events_total{event=\"vanished\"}");
    let mut lost = 0;
    wait_for("each file to be delivered or counted", || {
        lost = pod.ledger.missing(&pod.mock).len();
        // What came and went during a discovery has no event of its own.
        vanished().is_some_and(|counted| counted + (FILES / 10) as u64 >= lost as u64)
    });
    println!("{lost} of {FILES} files were gone before they could be opened");

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.check(&pod.mock), 0, "nothing comes twice");
    pod.expect_sound();
}

/// Deleted, and its app goes on to write once in more than a minute; who writes to it is known here.
#[test]
fn f30_a_deleted_file_is_kept_while_its_app_has_it_open() {
    let (mut pod, log) = Pod::with_log();
    let address = pod.listen();
    let agent = pod.start();
    let mut app = append_to(&log);
    let other = log.with_file_name("other.log");
    pod.ledger.write(&mut app, 10);
    pod.ledger.append(&other, 10);
    pod.expect_all();
    fs::remove_file(&log).unwrap();
    fs::remove_file(&other).unwrap();
    // The other one, which nobody writes to, is closed after a minute.
    wait_for_metric(&address, "logferry_files{state=\"deleted\"}", 2);
    let started = logferry::base::clock::now();
    while metric(&address, "logferry_files{state=\"deleted\"}") == Some(2) {
        let waits = logferry::base::clock::now() - started;
        assert!(waits < Duration::from_secs(120), "{}", pod.agent_log());
        pause(Duration::from_millis(500));
    }
    pod.ledger.write(&mut app, 10);
    pod.expect_all();
    wait_for_metric(&address, "logferry_file_events_total{event=\"left_open\"}", 0);
    drop(app);

    assert_eq!(pod.finish(agent), 0);
}

// === F39: written over after it was renamed, as by shred

const WRITTEN_OVER: &str = "other bytes were written over it";
const OVERWRITTEN: &str = "logferry_skipped_bytes_total{reason=\"overwritten\"}";

/// shred(1) as logrotate calls it, without the deletion: `false`, said aloud, where it is not there.
fn shred(path: &std::path::Path, options: &[&str]) -> bool {
    let status = std::process::Command::new("shred").args(options).arg(path).status();
    let is_done = status.is_ok_and(|status| status.success());
    if !is_done {
        crate::support::special::skipped("shred is not here");
    }
    is_done
}

/// Delivered, renamed out of the patterns or within them, and written over while it is open: once,
/// several times, to its last block, and with the deletion.
#[test]
fn f46_what_shred_writes_over_a_renamed_log_is_not_shipped() {
    let options: [&[&str]; 5] =
        [&["-n", "1"], &[], &["-n", "1", "-z", "-x"], &["-n", "9"], &["-u"]];
    let patterns = ["share/logs/*.log", "share/logs/app.log*", "share/logs/**/*"];
    each(&pairs(&patterns, &options), |&(pattern, options)| {
        let (mut pod, log) = Pod::with_log();
        let address = pod.listen();
        pod.patterns(&[pattern]);
        let agent = pod.start();
        pod.ledger.append(&log, 3000);
        pod.expect_all();
        fs::rename(&log, numbered(&log, 1)).unwrap();
        pod.ledger.append(&log, 10);
        if !shred(&numbered(&log, 1), options) {
            return;
        }
        for _ in 0..3 {
            pod.ledger.append(&log, 10);
            pod.expect_all();
        }
        if *options == ["-n", "1"] {
            pod.wait_for_log(WRITTEN_OVER, 1);
        }
        wait_for_metric(&address, OVERWRITTEN, 0);

        assert_eq!(pod.finish(agent), 0, "{pattern} {options:?}");
        // Nor does the next agent take it for new.
        let agent = pod.start();
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0, "{pattern} {options:?}, after a restart");
    });
}

/// Nobody has read all of it, because the endpoint is slow: what was is delivered, the rest counted.
#[test]
fn f46_what_was_not_read_before_it_was_written_over_is_counted() {
    for pattern in ["share/logs/*.log", "share/logs/app.log*"] {
        let (mut pod, log) = Pod::with_log();
        let address = pod.listen();
        pod.keep_memory_small();
        pod.patterns(&[pattern]);
        pod.mock.stop();
        let agent = pod.start();
        pod.ledger.write_kib(&mut append_to(&log), 20_000);
        wait_for("as much as fits to be read", || {
            metric(&address, "logferry_handoff_bytes") > Some(1 << 20)
        });
        fs::rename(&log, numbered(&log, 1)).unwrap();
        if !shred(&numbered(&log, 1), &["-n", "1"]) {
            return;
        }
        pod.mock.resume().unwrap();
        pod.wait_for_log(WRITTEN_OVER, 1);
        let skipped = pod.logged_numbers(WRITTEN_OVER, "skipped");
        wait_for_metric(&address, OVERWRITTEN, skipped[0]);
        assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());

        let lost = pod.ledger.missing(&pod.mock).len() as u64 * 1024;
        assert!(skipped[0] >= lost.saturating_sub(2048) && skipped[0] <= lost + 2048, "{lost}");
        assert_eq!(pod.ledger.check(&pod.mock), 0, "nothing but lines has arrived, each once");
        pod.expect_sound();
    }
}

/// While no agent runs: a checkpoint says what stood there, and under which name.
#[test]
fn f46_what_was_written_over_while_no_agent_ran_is_not_shipped() {
    for pattern in ["share/logs/*.log", "share/logs/app.log*"] {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&[pattern]);
        pod.ledger.append(&log, 3000);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0);
        fs::rename(&log, numbered(&log, 1)).unwrap();
        pod.ledger.append(&log, 10);
        if !shred(&numbered(&log, 1), &["-n", "1"]) {
            return;
        }
        for _ in 0..2 {
            let agent = pod.start();
            pod.ledger.append(&log, 10);
            assert_eq!(pod.finish(agent), 0, "{pattern}");
        }
    }
}

/// An archive that the agent has known by no other name.
#[test]
fn f46_an_archive_that_is_shredded_under_its_own_name_is_not_shipped() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/app.log*"]);
    let archive = log.with_file_name("app.log-20261101");
    pod.ledger.append(&archive, 3000);
    let agent = pod.start();
    pod.expect_all();
    if !shred(&archive, &["-n", "1"]) {
        return;
    }
    pod.wait_for_log(WRITTEN_OVER, 1);
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
}

/// copytruncate, compress and shred, before the agent has met the copy: its text is in the .gz.
#[test]
fn f46_a_copy_that_was_compressed_and_shredded_before_it_was_met_is_not_shipped() {
    each(&Meanwhile::BLIND, |&how| {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(&["share/logs/**/*"]);
        let agent = pod.start();
        pod.ledger.append(&log, 50);
        pod.expect_all();
        let copy = numbered(&log.with_file_name("old").join("app.log"), 1);
        let mut is_shredded = false;
        let agent = pod.meanwhile(agent, how, |pod| {
            fs::create_dir(copy.parent().unwrap()).unwrap();
            pod.ledger.append(&log, 50);
            fs::copy(&log, &copy).unwrap();
            File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
            pod.ledger.append(&log, 10);
            let text = fs::read(&copy).unwrap();
            fs::write(copy.with_extension("1.gz"), compressed(&text)).unwrap();
            is_shredded = shred(&copy, &["-n", "1", "-x"]);
        });
        if is_shredded {
            pod.wait_for_log(WRITTEN_OVER, 1);
            assert_eq!(pod.finish_twice(agent, &log), 0);
        }
    });
}

/// A log that begins anew in its place is another matter, and so is a renamed one that was truncated.
#[test]
fn f46_what_begins_anew_is_read_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/app.log*"]);
    let agent = pod.start();
    pod.ledger.append(&log, 100);
    pod.expect_all();
    let text = pod.ledger.compose(&File::create(&log).unwrap(), 200);
    fs::write(&log, text).unwrap();
    pod.expect_all();
    fs::rename(&log, numbered(&log, 1)).unwrap();
    pod.ledger.append(&log, 10);
    pod.expect_all();
    let file = File::options().write(true).open(numbered(&log, 1)).unwrap();
    file.set_len(0).unwrap();
    pod.wait_for_log("it is shorter than what was read", 1);
    pod.ledger.append(&numbered(&log, 1), 300);

    assert_eq!(pod.finish(agent), 0);
}
