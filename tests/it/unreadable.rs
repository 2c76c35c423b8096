//! What matches and cannot be read, by the ids of the catalogue of failures (A2): pipes, sockets,
//! devices, directories; files and directories whose permission comes later.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::observe::{metric, wait_for_metric};
use crate::support::special::{make_node, skipped};
use crate::support::volume::Served;
use crate::support::{Agent, Pod, append_to, compress, run, wait_for, write_large_gz};

const WARNING: &str = "it matches the patterns and is no regular file; it is skipped";
const APP: &str = "share/logs/app.log";

/// A pipe, a socket, a device, a directory: one warning each, and nobody waits for them.
#[test]
fn l15_what_is_no_regular_file_is_skipped_with_one_warning() {
    let (mut pod, log) = Pod::with_log();
    let dir = pod.path("data/pod/logs");
    assert!(make_node("mkfifo", &dir.join("pipe.log"), &[]));
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket.log")).unwrap();
    fs::create_dir(dir.join("dir.log")).unwrap();
    let mut names = vec!["pipe.log", "socket.log", "dir.log"];
    if make_node("mknod", &dir.join("device.log"), &["c", "1", "5"]) {
        names.push("device.log");
    } else {
        skipped("its part with a device: mknod is not allowed here");
    }
    // A directory is no file, and the files in it are.
    pod.ledger.append(&dir.join("dir.log/inner.log"), 10);
    let agent = pod.start();
    for _ in 0..3 {
        pod.ledger.append(&log, 10);
        // A new name: discovery runs again.
        pod.ledger.append(&dir.join(format!("{}.log", pod.ledger.lines.len())), 10);
        assert_eq!(pod.expect_all(), 0);
    }

    // Nobody has opened the pipe: a writer that does not wait is told so (fifo(7)).
    let writer = {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
        fs::OpenOptions::new().write(true).custom_flags(flags).open(dir.join("pipe.log"))
    };
    let no_reader = rustix::io::Errno::NXIO.raw_os_error();
    assert_eq!(writer.unwrap_err().raw_os_error(), Some(no_reader), "the pipe is open");
    assert_eq!(pod.finish(agent), 0);
    let warnings: Vec<String> =
        pod.agent_log().lines().filter(|line| line.contains(WARNING)).map(str::to_owned).collect();
    for name in &names {
        let count = warnings.iter().filter(|line| line.contains(*name)).count();
        assert_eq!(count, 1, "{name}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), names.len(), "{warnings:#?}");
}

/// A person who names the directory is told; one who asks for all that is below it is not.
#[test]
fn l15_a_pattern_that_names_a_directory_is_warned_of() {
    for (pattern, warnings) in [("share/logs/sub", 1), ("share/logs/*", 0), ("share/logs/**", 0)] {
        let (mut pod, log) = Pod::with_log();
        let sub = log.with_file_name("sub");
        fs::create_dir(&sub).unwrap();
        let paths =
            [pattern, "share/logs/app.log"].map(|path| pod.path(path).display().to_string());
        pod.set("LOGFERRY_PATHS", &paths.join(","));
        pod.ledger.append(&log, 10);
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0);
        let log = pod.agent_log();
        let count = log.lines().filter(|line| line.contains(WARNING) && line.contains("sub"));
        assert_eq!(count.count(), warnings, "{pattern}: {log}");
    }
}

/// A pipe makes way for a file.
#[test]
fn l15_a_file_that_takes_the_place_of_a_pipe_is_shipped() {
    let (mut pod, log) = Pod::with_log();
    assert!(make_node("mkfifo", &log, &[]));
    let agent = pod.start();
    wait_for("the warning", || pod.agent_log().contains(WARNING));
    fs::remove_file(&log).unwrap();
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
}

/// The file, and then the directory above another one, may be read later.
#[test]
fn l16_what_may_not_be_read_is_shipped_once_it_may() {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut pod, log) = Pod::with_log();
    let dir = pod.path("data/pod/logs/sub");
    fs::create_dir(&dir).unwrap();
    let open = pod.path("data/pod/logs/open.log");
    pod.ledger.append(&log, 10);
    pod.ledger.append(&dir.join("deep.log"), 10);
    let hidden = pod.ledger.lines.len();
    pod.ledger.append(&open, 10);
    let permit = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    permit(&log, 0o000);
    permit(&dir, 0o000);
    let Some(agent) = pod.start_bound_by_permissions() else { return };
    wait_for("what may be read", || pod.ledger.missing(&pod.mock).len() == hidden);
    for number in 0..3 {
        // A new name: discovery runs again.
        pod.ledger.append(&open.with_file_name(format!("open-{number}.log")), 10);
        wait_for("what may be read", || pod.ledger.missing(&pod.mock).len() == hidden);
    }
    for path in [APP, "share/logs/sub"] {
        let path = format!("{} ", pod.path(path).display());
        let log = pod.agent_log();
        let warnings = log.lines().filter(|line| line.contains("it; trying again"));
        assert_eq!(warnings.filter(|line| line.contains(&path)).count(), 1, "{path}: {log}");
    }

    permit(&log, 0o600);
    permit(&dir, 0o700);

    assert_eq!(pod.finish(agent), 0);
}

/// What it holds is not known, so not everything was delivered.
#[test]
fn l16_a_file_that_may_never_be_read_is_not_everything_delivered() {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut pod, log) = Pod::with_log();
    let closed = log.with_file_name("closed.log");
    pod.ledger.append(&log, 10);
    let readable = pod.ledger.lines.len();
    pod.ledger.append(&closed, 10);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let Some(agent) = pod.start_bound_by_permissions() else { return };
    pod.await_records(readable);

    assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());
    let text = pod.agent_log();
    let left = text.lines().find(|line| line.contains("a file is left for the next start"));
    let left = left.unwrap_or_else(|| panic!("{text}"));
    assert!(left.contains("closed.log") && left.contains("with mode 0000"), "{left}");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

/// A file that stays shut is tried each second for a while, and then less often; its new mode is
/// noticed all the same.
#[test]
fn l16_what_stays_shut_is_tried_less_often() {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let mode = |mode| fs::set_permissions(&log, fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    let admin = pod.admin();
    let Some(agent) = pod.start_bound_by_permissions() else { return };
    admin.wait_until_ready();
    let tries = || admin.metric("logferry_file_errors_total");
    wait_for("some tries", || tries().is_some_and(|count| count > 3));
    let (mut last, mut since) = (tries(), logferry::base::clock::now());
    wait_for("a pause between two tries", || {
        let now = logferry::base::clock::now();
        if tries() != last {
            (last, since) = (tries(), now);
        }
        now - since > Duration::from_secs(3)
    });
    mode(0o644);

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged("cannot open it"), 1, "{}", pod.agent_log());
}

/// The process that serves a volume dies, and the volume is mounted anew: descriptors from before
/// answer nothing any more, so the agent opens the files again, under the rules of any other.
#[test]
fn a_volume_whose_server_died_is_read_on_when_it_is_mounted_again() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let (source, mounted) = (pod.path("source"), pod.path("data/pod/logs"));
    fs::create_dir(&source).unwrap();
    let written = source.join("app.log");
    let Some(mut volume) = Served::mount(&source, &mounted) else { return };
    pod.ledger.append(&written, 100);
    let agent = pod.start();
    pod.expect_all();

    volume.kill_server();
    pod.ledger.append(&written, 100);
    pod.wait_for_log("os error 107", 1);
    drop(volume);
    let Some(_volume) = Served::mount(&source, &mounted) else { return };
    pod.ledger.append(&written, 100);

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
    assert_eq!(pod.shipped_paths(), [APP.to_owned()].into());
    assert!(pod.times_logged("opened it again") >= 1, "{}", pod.agent_log());
}

/// The volume is taken away and mounted anew under another number; what is open stays open, and what
/// answers goes on to answer. Short files and long ones, renamed ones, one that is written to meanwhile.
#[test]
fn a_volume_that_is_mounted_again_while_its_files_are_open_is_read_on() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let (source, mounted) = (pod.path("source"), pod.path("data/pod/logs"));
    fs::create_dir(&source).unwrap();
    let short = source.join("short.log");
    let long = source.join("long.log");
    let renamed = source.join("renamed.log");
    let Some(volume) = Served::mount(&source, &mounted) else { return };
    let mut volumes = vec![volume];
    for (log, lines) in [(&short, 1), (&long, 1000), (&renamed, 1000)] {
        pod.ledger.append(log, lines);
    }
    let agent = pod.start();
    pod.expect_all();
    for round in 0..3 {
        volumes[round].detach();
        if round == 1 {
            fs::rename(&renamed, source.join("renamed-1.log")).unwrap();
            pod.ledger.append(&renamed, 20);
        }
        volumes.extend(Served::mount(&source, &mounted));
        pod.ledger.append(&long, 10);
        pod.wait_for_log("going on there", 3 * (round + 1));
        pod.ledger.append(&short, 10);
        assert_eq!(pod.expect_all(), 0, "{round}: nothing comes twice\n{}", pod.agent_log());
    }

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

/// Deleted past the process that serves it, which knows files by their names: examining it says that
/// there is no such file. What is left of it is read, also what comes later, and the last words.
#[test]
fn a_file_that_is_deleted_below_a_served_volume_is_read_to_its_end() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let (source, mounted) = (pod.path("source"), pod.path("data/pod/logs"));
    fs::create_dir(&source).unwrap();
    let Some(_volume) = Served::mount(&source, &mounted) else { return };
    let log = source.join("app.log");
    let mut app = append_to(&log);
    pod.ledger.write(&mut app, 100);
    let agent = pod.start();
    pod.expect_all();

    pod.ledger.write(&mut app, 100);
    fs::remove_file(&log).unwrap();
    pod.expect_all();
    pod.ledger.write(&mut app, 100);
    pod.expect_all();
    pod.ledger.write(&mut app, 10);

    assert_eq!(pod.finish(agent), 0);
    assert!(!pod.agent_log().contains("cannot examine"), "{}", pod.agent_log());
}

/// The volume comes back with another file under the name, and the old one renamed, and with a
/// link to what must not be read in the place of a third.
#[test]
fn what_stands_in_the_place_of_a_stale_file_is_judged_by_its_bytes_and_by_where_it_is() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let (source, mounted) = (pod.path("source"), pod.path("data/pod/logs"));
    fs::create_dir(&source).unwrap();
    let (written, linked) = (source.join("app.log"), source.join("linked.log"));
    let Some(mut volume) = Served::mount(&source, &mounted) else { return };
    pod.ledger.append(&written, 100);
    pod.ledger.append(&linked, 100);
    let agent = pod.start();
    pod.expect_all();

    volume.kill_server();
    pod.ledger.append(&written, 100);
    fs::rename(&written, source.join("app.log.1")).unwrap();
    pod.ledger.append(&written, 100);
    // The bytes that were shipped, and a secret behind them.
    let secret = pod.path("secret/app.log");
    fs::create_dir(secret.parent().unwrap()).unwrap();
    fs::write(&secret, [fs::read(&linked).unwrap(), b"the secret\n".to_vec()].concat()).unwrap();
    fs::remove_file(&linked).unwrap();
    std::os::unix::fs::symlink(&secret, &linked).unwrap();
    pod.wait_for_log("os error 107", 1);
    drop(volume);
    let Some(_volume) = Served::mount(&source, &mounted) else { return };

    assert_eq!(pod.expect_all(), 0, "nothing comes twice");
    // What became of the third is not known.
    assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());
    pod.ledger.check(&pod.mock);
}

/// An agent that has begun to read a .gz, the first argument, on a served volume. The endpoint is down,
/// so it cannot be read to its end.
fn agent_that_reads_a_served_gz(pod: &mut Pod) -> Option<(PathBuf, Served, Agent)> {
    pod.link("data/pod/logs");
    pod.keep_memory_small();
    pod.patterns(&["share/logs/app.log*", "plain/*.log*"]);
    let (source, mounted) = (pod.path("source"), pod.path("data/pod/logs"));
    fs::create_dir(&source).unwrap();
    let gz = source.join("app.log.1.gz");
    write_large_gz(pod, &gz);
    let volume = Served::mount(&source, &mounted)?;
    pod.mock.stop();
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_reading();
    Some((gz, volume, agent))
}

#[test]
fn an_archive_whose_server_died_is_read_on_when_it_is_mounted_again() {
    let mut pod = Pod::new();
    let Some((gz, mut volume, agent)) = agent_that_reads_a_served_gz(&mut pod) else { return };

    volume.kill_server();
    pod.wait_for_log("os error 107", 1);
    drop(volume);
    // The next rotation.
    fs::rename(&gz, gz.with_file_name("app.log.2.gz")).unwrap();
    let other = gz.with_file_name("app.log");
    pod.ledger.append(&other, 1000);
    let compressed = compress(&other);
    fs::rename(compressed, &gz).unwrap();
    let Some(_volume) = Served::mount(&pod.path("source"), &pod.path("data/pod/logs")) else {
        return;
    };
    pod.mock.resume().unwrap();

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
    assert!(pod.times_logged("opened it again") >= 1, "{}", pod.agent_log());
}

/// It does not come back, and does not count as delivered; the archives of others are read.
#[test]
fn an_archive_that_cannot_be_opened_again_keeps_no_other_waiting() {
    let mut pod = Pod::new();
    let Some((gz, mut volume, agent)) = agent_that_reads_a_served_gz(&mut pod) else { return };
    let kept = pod.path("kept.gz");

    volume.kill_server();
    pod.wait_for_log("os error 107", 1);
    drop(volume);
    fs::rename(&gz, &kept).unwrap();
    let Some(volume) = Served::mount(&pod.path("source"), &pod.path("data/pod/logs")) else {
        return;
    };
    let first = pod.ledger.lines.len();
    let plain = pod.path("plain/app.log");
    fs::create_dir(plain.parent().unwrap()).unwrap();
    pod.ledger.append(&plain, 1000);
    compress(&plain);
    pod.mock.resume().unwrap();
    wait_for("the archive of another app", || {
        pod.ledger.missing_numbers(&pod.mock).iter().all(|&number| number < first)
    });
    assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());
    assert!(!pod.ledger.missing(&pod.mock).is_empty());

    fs::rename(&kept, &gz).unwrap();
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    drop(volume);
}

/// What `check`, `status` and the metric say of a pattern that matches nothing, and the log once, until
/// files come.
fn expect_fruitless(mut pod: Pod, words: &[&str], come: impl FnOnce(&mut Pod)) {
    let address = pod.listen();
    let (code, check, complaint) = run(&["check"], &pod.environment());
    assert_eq!(code, 0, "{complaint}");
    let agent = pod.start();
    wait_for_metric(&address, "logferry_patterns_without_files", 1);
    let (_, status, _) = run(&["status"], &pod.environment());
    let (_, json, _) = run(&["status", "--json"], &pod.environment());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let pattern = pod.environment()["LOGFERRY_PATHS"].clone();
    assert_eq!(json["patterns_without_files"][0]["pattern"], pattern);
    // Discoveries that find the same are no news.
    for number in 0..3 {
        fs::write(pod.path(&format!("share/other-{number}")), "").unwrap();
        std::os::unix::fs::symlink("nowhere", pod.path(&format!("share/link-{number}"))).unwrap();
        let before = metric(&address, "logferry_turns_total");
        wait_for("the agent to look", || metric(&address, "logferry_turns_total") > before);
    }
    let said: Vec<String> = pod
        .agent_log()
        .lines()
        .filter(|line| line.contains("no file matches a pattern"))
        .map(str::to_owned)
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    for text in [&check, &status, &said[0], &json["patterns_without_files"][0].to_string()] {
        for word in words {
            let word = word.replace("POD", pod.path("").to_str().unwrap().trim_end_matches('/'));
            assert!(text.contains(&word), "no {word:?} in:\n{text}");
        }
    }
    assert!(!said[0].contains("WARN"), "an app that starts later is ordinary: {said:?}");

    come(&mut pod);

    pod.expect_all();
    wait_for_metric(&address, "logferry_patterns_without_files", 0);
    let (_, status, _) = run(&["status"], &pod.environment());
    assert!(!status.contains("no file matches"), "{status}");
    assert_eq!(pod.times_logged("a pattern matches files now"), 1);
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn a_base_that_is_missing_is_named_with_what_there_is() {
    let pod = Pod::new();
    fs::write(pod.path("share/lgos"), "").unwrap();
    expect_fruitless(pod, &["POD/share/logs is not there yet", "POD/share", "lgos"], |pod| {
        pod.link("data/pod/logs");
        let log = pod.path("data/pod/logs/app.log");
        pod.ledger.append(&log, 10);
    });
}

/// As of a volume that the agent's container lacks.
#[test]
fn a_link_to_what_is_not_mounted_is_named_with_where_it_leads() {
    let pod = Pod::new();
    let (target, link) = (pod.path("data/pod/logs"), pod.path("share/logs"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let words =
        ["POD/share/logs (it leads to POD/data/pod/logs) is not there yet, or is not mounted here"];
    expect_fruitless(pod, &words, |pod| {
        let log = pod.path("data/pod/logs/app.log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        pod.ledger.append(&log, 10);
    });
}

#[test]
fn names_that_nothing_matches_are_told_beside_those_that_there_are() {
    let (mut pod, _) = Pod::with_log();
    pod.patterns(&["share/logs/*.txt"]);
    for name in ["a.log", "b.log", "c.log", "d.log", "e.log", "f.log", "g.log"] {
        fs::write(pod.path("data/pod/logs").join(name), "").unwrap();
    }
    let words =
        ["POD/data/pod/logs) has such a name", "a.log, b.log, c.log, d.log, e.log and 2 more"];
    expect_fruitless(pod, &words, |pod| {
        let log = pod.path("data/pod/logs/app.txt");
        pod.ledger.append(&log, 10);
    });
}

#[test]
fn a_list_of_exclusions_that_leaves_nothing_is_named() {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_EXCLUDE", "/**");
    pod.ledger.append(&log, 10);
    let address = pod.listen();
    let (code, check, _) = run(&["check"], &pod.environment());
    assert_eq!(code, 0);
    let agent = pod.start();

    wait_for_metric(&address, "logferry_patterns_without_files", 1);

    let log = pod.agent_log();
    for text in [&check, &log, &run(&["status"], &pod.environment()).1] {
        assert!(text.contains("exclude leaves out what would match"), "{text}");
    }
    assert_eq!(agent.stop().0, 0);
}
