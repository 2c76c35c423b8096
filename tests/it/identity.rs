//! Which file is which (F14, F16, F17, F20, F21, F35, F36, F37): a used inode is another file, a copy is
//! another file, a small file is a file, and a disk that was mounted elsewhere holds the same ones.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::disk::Disk;
use crate::support::special::skipped;
use crate::support::{Pod, Volume, append_to, numbered, pairs, wait_for};

/// Lines in the file before it is deleted.
const BEFORE: usize = 100;

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").ino()
}

/// Deletes a log and makes it anew, with the same inode: an ext4 gives the first free one away.
/// `None`, said aloud, if this one does not.
fn recreate_with_same_inode(log: &Path) -> Option<File> {
    let before = inode(log);
    fs::remove_file(log).unwrap();
    // Others that take the inode stand in the way only until they are closed and deleted.
    let file = append_to(log);
    if inode(log) != before {
        skipped("the file system does not use an inode again at once");
        return None;
    }
    Some(file)
}

/// A pod whose logs are on an ext4 of its own, where nobody else takes the inode that is free.
fn pod_with_volume() -> Option<(Pod, Volume)> {
    let pod = Pod::new();
    let volume = Volume::new(&pod)?;
    Some((pod_on(pod, &volume), volume))
}

fn pod_on(pod: Pod, volume: &Volume) -> Pod {
    fs::create_dir(volume.path("logs")).unwrap();
    symlink(volume.path_inside("logs"), pod.path("share/logs")).unwrap();
    pod
}

/// Deleted and made anew at once while the agent runs, again and again: each is read whole.
#[test]
fn f16_a_file_made_anew_in_place_of_a_deleted_one_is_read_from_its_first_byte() {
    let Some((mut pod, volume)) = pod_with_volume() else { return };
    let log = volume.path("logs/app.log");
    let agent = pod.start_with_volume(&volume);
    for count in [100, 100, 10, 300, 1] {
        pod.ledger.write_fixed(&mut append_to(&log), count);
        pod.expect_all();
        fs::remove_file(&log).unwrap();
    }
    // Unread when it is deleted, and the next one is there at once.
    for generation in 6..=10 {
        let mut writer = append_to(&log);
        pod.wait_for_log("shipping a file", generation);
        pod.ledger.write_fixed(&mut writer, 50);
        fs::remove_file(&log).unwrap();
    }
    pod.ledger.write_fixed(&mut append_to(&log), 50);

    assert_eq!(pod.finish(agent), 0);
}

/// Deleted and made anew with the same inode while no agent runs: smaller than the old offset, as
/// large, larger; with the same head, and with all bytes up to the old offset the same.
#[test]
fn f17_a_used_inode_is_another_file_when_the_agent_comes_back() {
    let Some((mut pod, volume)) = pod_with_volume() else { return };
    check_used_inodes(&mut pod, &volume, &[0, 16, BEFORE]);
}

/// `heads`: how many lines of the new file are those of the old one.
fn check_used_inodes(pod: &mut Pod, volume: &Volume, heads: &[usize]) {
    for (index, &same) in heads.iter().enumerate() {
        for count in [40, BEFORE, BEFORE + 50] {
            let log = volume.path(&format!("logs/{index}-{count}.log"));
            let first = pod.ledger.lines.len();
            pod.ledger.write_fixed(&mut append_to(&log), BEFORE);
            let agent = pod.start_with_volume(volume);
            pod.expect_all();
            assert_eq!(agent.stop().0, 0);

            let Some(mut writer) = recreate_with_same_inode(&log) else { return };
            let again = same.min(count);
            pod.ledger.write_again(&mut writer, first..first + again);
            pod.ledger.write_fixed(&mut writer, count - again);
            let agent = pod.start_with_volume(volume);

            let repeats = pod.finish(agent);
            assert_eq!(repeats, 0, "{again} of {count} lines as before");
        }
    }
}

/// An ext4 without birth times: the bytes decide.
#[test]
fn f17_a_used_inode_is_another_file_where_files_have_no_birth_time() {
    let pod = Pod::new();
    let Some(volume) = Volume::without_birth_times(&pod) else { return };
    let mut pod = pod_on(pod, &volume);
    check_used_inodes(&mut pod, &volume, &[0, 16]);
}

/// The file vanished while no agent ran; its inode is used by a file that comes much later.
#[test]
fn f17_what_is_remembered_of_a_vanished_file_does_not_meet_a_new_one() {
    let Some((mut pod, volume)) = pod_with_volume() else { return };
    let log = volume.path("logs/app.log");
    pod.ledger.write_fixed(&mut append_to(&log), BEFORE);
    let agent = pod.start_with_volume(&volume);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    let before = inode(&log);
    fs::remove_file(&log).unwrap();

    let admin = pod.admin();
    let agent = pod.start_with_volume(&volume);
    admin.wait_until_ready();
    let other = volume.path("logs/other.log");
    let mut writer = append_to(&other);
    if inode(&other) != before {
        return skipped("the file system does not use an inode again at once");
    }
    pod.ledger.write_fixed(&mut writer, BEFORE + 50);

    assert_eq!(pod.finish(agent), 0);
    let paths = ["share/logs/app.log".to_owned(), "share/logs/other.log".to_owned()];
    assert_eq!(pod.shipped_paths(), paths.into());
}

/// Deleted while no agent runs, and a file of somebody else, whose name no pattern finds, has its
/// inode: that is no rewritten log.
#[test]
fn f17_a_used_inode_outside_the_patterns_is_not_shipped() {
    let makes: [fn(&Pod) -> Option<Volume>; 2] = [Volume::new, Volume::without_birth_times];
    for (make, lines) in pairs(&makes, &[BEFORE, 0]) {
        let pod = Pod::new();
        let Some(volume) = make(&pod) else { return };
        let mut pod = pod_on(pod, &volume);
        pod.patterns(&["share/logs/app.log"]);
        let log = volume.path("logs/app.log");
        pod.ledger.append(&log, lines);
        let agent = pod.start_with_volume(&volume);
        pod.expect_all();
        pod.wait_for_log("shipping a file", 1);
        assert_eq!(agent.stop().0, 0);
        let before = inode(&log);
        fs::remove_file(&log).unwrap();
        let other = log.with_file_name("other.txt");
        fs::write(&other, "of somebody else\n".repeat(BEFORE)).unwrap();
        if inode(&other) != before {
            return skipped("the file system does not use an inode again at once");
        }
        pod.ledger.append(&log, BEFORE);
        let agent = pod.start_with_volume(&volume);

        assert_eq!(pod.finish(agent), 0);
    }
}

/// Rewritten and renamed out of the patterns while no agent runs, and the disk has another number.
#[test]
fn f35_a_file_rewritten_and_renamed_on_a_disk_that_moved_is_read_from_its_first_byte() {
    let Some((mut pod, volume)) = pod_with_volume() else { return };
    pod.patterns(&["share/logs/app.log"]);
    let log = volume.path("logs/app.log");
    pod.ledger.append(&log, BEFORE);
    let agent = pod.start_with_volume(&volume);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    pod.ledger.write(&mut File::create(&log).unwrap(), 2 * BEFORE);
    fs::rename(&log, log.with_extension("log.bak")).unwrap();
    volume.remount();
    let agent = pod.start_with_volume(&volume);
    assert_eq!(pod.finish(agent), 0);
    let agent = pod.start_with_volume(&volume);

    assert_eq!(pod.finish(agent), 0);
}

/// Without times of birth its name, that of a generation, says that it is ours.
#[test]
fn f14_a_generation_rewritten_where_files_have_no_birth_time_is_read_from_its_first_byte() {
    let pod = Pod::new();
    let Some(volume) = Volume::without_birth_times(&pod) else { return };
    let mut pod = pod_on(pod, &volume);
    pod.patterns(&["share/logs/app.log"]);
    let log = volume.path("logs/app.log");
    pod.ledger.append(&log, BEFORE);
    let agent = pod.start_with_volume(&volume);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    pod.ledger.write(&mut File::create(&log).unwrap(), 2 * BEFORE);
    fs::rename(&log, numbered(&log, 1)).unwrap();
    let agent = pod.start_with_volume(&volume);

    assert_eq!(pod.finish(agent), 0);
}

/// One short line that never grows: shipped at once, and not again.
#[test]
fn f20_a_file_of_one_short_line_is_shipped_at_once() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    pod.wait_for_log("logferry starts", 1);
    pod.ledger.append(&log, 1);
    assert_eq!(pod.finish(agent), 0);
    for _ in 0..2 {
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0);
    }
}

/// A hundred small files that are all the same, each its own; each grows across restarts.
#[test]
fn f20_small_files_with_the_same_bytes_are_told_apart() {
    let (mut pod, log) = Pod::with_log();
    let files: Vec<_> =
        (0..50).map(|number| log.with_file_name(format!("{number:02}.log"))).collect();
    pod.ledger.write_fixed(&mut append_to(&files[0]), 1);
    for file in &files[1..] {
        pod.ledger.write_again(&mut append_to(file), 0..1);
    }
    for _ in 0..3 {
        let agent = pod.start();
        pod.expect_all();
        // Those in the middle, so that neighbours differ.
        for file in &files[10..30] {
            pod.ledger.write_fixed(&mut append_to(file), 1);
        }
        assert_eq!(pod.finish(agent), 0);
        for file in &files[20..40] {
            pod.ledger.write_fixed(&mut append_to(file), 1);
        }
    }
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// From one line to more than a head of 1 KiB, a line at a time and a restart now and then.
#[test]
fn f20_a_file_that_grows_beyond_its_first_fingerprint_stays_the_same() {
    let (mut pod, log) = Pod::with_log();
    let mut agent = pod.start();
    for round in 0..30 {
        pod.ledger.write_fixed(&mut append_to(&log), 1);
        if round % 6 == 5 {
            assert_eq!(pod.finish(agent), 0);
            agent = pod.start();
        }
    }

    assert_eq!(pod.finish(agent), 0);
}

/// Empty when it is first seen, and when the agent stops.
#[test]
fn f20_an_empty_file_is_followed() {
    let (mut pod, log) = Pod::with_log();
    let mut writer = append_to(&log);
    let agent = pod.start();
    agent.wait_until_open(&log);
    assert_eq!(agent.stop().0, 0);
    let agent = pod.start();
    agent.wait_until_open(&log);
    pod.ledger.write(&mut writer, 10);

    assert_eq!(pod.finish(agent), 0);
}

/// Names that are no text, that look like patterns, and like what the kernel says of deleted files.
#[test]
fn f20_strange_names_are_names() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/*"]);
    let names: [&[u8]; 8] = [
        b"not \xff\xfe text.log",
        b"two\nlines.log",
        b"[x]{y,z}*?.log",
        b"gone.log (deleted)",
        b"-rf",
        b".hidden",
        b"%s%n",
        b"\xe6\x97\xa5\xe5\xbf\x97.log",
    ];
    let path = |name: &[u8]| log.with_file_name(std::ffi::OsStr::from_bytes(name));
    for name in names {
        pod.ledger.append(&path(name), 10);
    }
    let agent = pod.start();
    pod.expect_all();
    for name in names {
        pod.ledger.append(&path(name), 10);
    }
    assert_eq!(pod.finish(agent), 0);

    for name in names {
        pod.ledger.append(&path(name), 10);
        // To a name that the pattern finds too.
        fs::rename(path(name), path(&[name, b".1"].concat())).unwrap();
        pod.ledger.append(&path(name), 10);
    }
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    let groups = pod.mock.store().groups();
    for name in names {
        let path = pod.path("share/logs").join(std::ffi::OsStr::from_bytes(name));
        let path = path.as_os_str().as_bytes();
        let is_there = |tags: &[(String, Vec<u8>)]| {
            tags.iter().any(|(key, value)| key == "__path__" && value == path)
        };
        let found = groups.iter().any(|group| is_there(&group.tags));
        assert!(found, "{} is a `__path__`, byte for byte", path.escape_ascii());
    }
}

/// `cp app.log app2.log`: another file, whose lines are shipped too; both go on by themselves.
#[test]
fn f21_a_copy_under_another_name_is_another_file() {
    for is_running in [true, false] {
        let (mut pod, log) = Pod::with_log();
        let copy = log.with_file_name("app2.log");
        pod.ledger.append(&log, 300);
        let mut cp = Command::new("cp");
        let mut make_copy = || assert!(cp.args([&log, &copy]).status().unwrap().success());
        let agent = pod.start();
        pod.expect_all();
        let agent = if is_running {
            make_copy();
            agent
        } else {
            assert_eq!(agent.stop().0, 0);
            make_copy();
            pod.start()
        };
        pod.ledger.note_copy(0..300, &copy);
        pod.expect_all();
        pod.ledger.append(&copy, 20);
        pod.ledger.append(&log, 10);
        assert_eq!(pod.finish(agent), 0);
        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "both are known");
        let paths = ["share/logs/app.log".to_owned(), "share/logs/app2.log".to_owned()];
        assert_eq!(pod.shipped_paths(), paths.into());
    }
}

/// Two apps that write the same from the start.
#[test]
fn f21_files_that_are_the_same_all_the_way_are_both_shipped() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 300);
    pod.ledger.write_again(&mut append_to(&log.with_file_name("twin.log")), 0..300);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// The disk is mounted as another device, as a reboot may do it: the same inodes and bytes.
#[test]
fn f35_a_disk_that_got_another_device_number_is_known_again() {
    let Some((mut pod, volume)) = pod_with_volume() else { return };
    for number in 0..5 {
        pod.ledger.append(&volume.path(&format!("logs/{number}.log")), 100 + number);
    }
    let agent = pod.start_with_volume(&volume);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);

    volume.remount();
    // One of them was rotated meanwhile.
    let log = volume.path("logs/3.log");
    pod.ledger.append(&log, 10);
    fs::rename(&log, numbered(&log, 1)).unwrap();
    for number in 0..5 {
        pod.ledger.append(&volume.path(&format!("logs/{number}.log")), 10);
    }
    let agent = pod.start_with_volume(&volume);

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

/// The state and the logs on another file system: other device numbers and other inodes, the same
/// paths and bytes.
#[test]
fn f35_a_disk_that_moved_is_known_again() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 500);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);

    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(device(elsewhere.path()), device(&log), "/dev/shm is another file system");
    fs::copy(&log, elsewhere.path().join("app.log")).unwrap();
    fs::remove_dir_all(pod.path("data/pod/logs")).unwrap();
    symlink(elsewhere.path(), pod.path("data/pod/logs")).unwrap();
    pod.ledger.append(&log, 100);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

/// The same while files wait to be delivered; and the app that is started on the new disk makes a
/// directory of its own, so that no pattern leads to the old one.
#[test]
fn f35_the_rest_on_a_disk_that_moved_is_read_when_the_link_moved_too() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let path = |pod: &Pod, name: &str| pod.path("data/pod/logs").join(name);
    for name in ["app.log", "rotated.log"] {
        pod.ledger.append(&path(&pod, name), 300);
    }
    let agent = pod.start();
    pod.expect_all();
    pod.mock.stop();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s");
    for name in ["app.log", "rotated.log", "later.log"] {
        pod.ledger.append(&path(&pod, name), 100);
    }
    fs::rename(path(&pod, "rotated.log"), path(&pod, "rotated.log.1")).unwrap();
    agent.wait_until_open(&path(&pod, "later.log"));
    wait_for("the rotation", || pod.agent_log().contains("it was renamed"));
    assert_eq!(agent.stop().0, 75);

    let (disk, old) = (pod.path("data/pod"), pod.path("data/old"));
    fs::rename(&disk, &old).unwrap();
    let Some(_disk) = Disk::tmpfs(&disk, "size=8m") else { return };
    // So that no inode has the number that it had.
    (0..9).for_each(|number| drop(File::create(disk.join(number.to_string())).unwrap()));
    assert!(
        Command::new("cp").arg("-a").arg(old.join("logs")).arg(&disk).status().unwrap().success()
    );
    pod.link("data/pod/logs-2");
    // An app that writes the same at each start.
    let new = pod.path("data/pod/logs-2/app.log");
    pod.ledger.write_again(&mut append_to(&new), 0..300);
    pod.ledger.append(&new, 100);
    pod.mock.resume().unwrap();
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

/// Written long before the agent's first start, and never touched since.
#[test]
fn f36_old_files_are_shipped() {
    let (mut pod, log) = Pod::with_log();
    let hour = Duration::from_secs(3600);
    for age in [4 * hour, 24 * 365 * hour, 24 * 365 * 40 * hour] {
        let path = log.with_file_name(format!("{}.log", age.as_secs()));
        let mut writer = append_to(&path);
        pod.ledger.write(&mut writer, 100);
        let long_ago = std::time::UNIX_EPOCH + logferry::base::clock::wall().saturating_sub(age);
        writer.set_modified(long_ago).unwrap();
    }
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// 5 MB that were there before the agent, of which others ship the last.
#[test]
fn f37_a_file_is_shipped_from_its_first_byte_when_it_is_first_seen() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.write_kib(&mut append_to(&log), 5 << 10);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// The same at work: a file that appears with 5 MB in it, renamed in from elsewhere.
#[test]
fn f37_a_file_that_appears_whole_is_shipped_from_its_first_byte() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    pod.wait_for_log("logferry starts", 1);
    let made = pod.path("made");
    pod.ledger.write_kib(&mut append_to(&made), 5 << 10);
    fs::rename(&made, &log).unwrap();
    wait_for("the first lines", || pod.mock.store().line_count() > 0);

    assert_eq!(pod.finish(agent), 0);
}
