//! The state directory in trouble: shipping goes on, it is said, and saving goes on by itself when
//! it can.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use logferry::checkpoint::{format, store};
use logferry_mock::{Fault, Kind};

use crate::support::disk::Disk;
use crate::support::observe::{free_address, get, metric};
use crate::support::special::skipped;
use crate::support::strace::{self, Injection};
use crate::support::{Agent, Pod, append_to, run, wait_for};

const FILES: [&str; 3] = ["checkpoint.now", "checkpoint.0", "checkpoint.1"];
const COMPLAINT: &str = "cannot save the checkpoint";
const RELIEF: &str = "the checkpoint can be saved again";

/// A pod whose agent does not wait long.
fn pod() -> (Pod, PathBuf) {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_BATCH_LINGER", "50ms").set("LOGFERRY_READ_LINGER", "20ms");
    (pod, log)
}

/// The same, and it serves its status.
fn served() -> (Pod, PathBuf, String) {
    let address = free_address();
    let (mut pod, log) = pod();
    pod.set("LOGFERRY_LISTEN", &address);
    (pod, log, address)
}

/// Waits until the state directory holds that all of the log was delivered.
fn wait_until_saved(pod: &Pod, log: &Path) {
    wait_for("the checkpoint", || {
        let state = &pod.environment()["LOGFERRY_STATE_DIR"];
        let saved = store::peek(state.as_ref()).checkpoints;
        saved.iter().any(|one| one.offset == fs::metadata(log).unwrap().len())
    });
}

/// An agent that has delivered something, and saved that it has.
fn settled(pod: &mut Pod, log: &Path) -> Agent {
    pod.ledger.append(log, 100);
    let agent = pod.start();
    pod.expect_all();
    wait_until_saved(pod, log);
    agent
}

/// What holds in every trouble: new lines arrive, and the log and a metric say what is wrong.
fn ships_on_and_says_so(pod: &mut Pod, log: &Path, address: &str) {
    pod.ledger.append(log, 100);
    assert_eq!(pod.expect_all(), 0);
    wait_for("the complaint", || pod.agent_log().contains(COMPLAINT));
    wait_for("the metric", || {
        let (_, metrics) = get(address, "/metrics");
        let name = "\nlogferry_checkpoint_errors_total ";
        metrics.split(name).nth(1).is_some_and(|text| !text.starts_with("0\n"))
    });
}

/// What holds after every trouble: all is saved without a restart, so that a kill repeats nothing.
fn has_recovered(pod: &mut Pod, log: &Path, agent: Agent) {
    wait_for("the relief", || pod.agent_log().contains(RELIEF));
    wait_until_saved(pod, log);
    let (code, complaint) = pod.run_beside();
    assert_eq!(code, 73, "a second agent is refused: {complaint}");
    agent.kill();
    pod.ledger.append(log, 100);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

/// A limit of file sizes, which by default ends whoever passes it.
#[test]
fn c05_a_limit_of_file_sizes() {
    const RELIEF_ALONE: &str = "warn,logferry::collector=info,logferry::collector::opening=warn";
    let (mut pod, log, address) = served();
    // The agent's own log stays far below the limit.
    pod.set("LOGFERRY_LOG", RELIEF_ALONE);
    for number in 0..100 {
        pod.ledger.append(&log.with_file_name(format!("{number}.log")), 1);
    }
    let agent = settled(&mut pod, &log);

    agent.limit("--fsize=8192:unlimited");

    ships_on_and_says_so(&mut pod, &log, &address);
    let complaint = pod.agent_log();
    assert!(complaint.contains("File too large") && complaint.contains("ulimit -f"), "{complaint}");
    agent.limit("--fsize=unlimited:unlimited");
    has_recovered(&mut pod, &log, agent);
}

/// It is there from the start, and nothing at all may be written. (The log goes through a pipe.)
#[test]
fn c05_a_limit_of_file_sizes_at_the_start() {
    let (mut pod, log, address) = served();
    let mut command = Command::new("bash");
    let script = "exec 2> >(exec cat >&2); ulimit -S -f 0; exec \"$0\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_logferry")]);
    let agent = pod.start_with(command);
    ships_on_and_says_so(&mut pod, &log, &address);

    agent.limit("--fsize=unlimited:unlimited");

    has_recovered(&mut pod, &log, agent);
}

/// A running agent's directory gets into a trouble that lasts until it is repaired.
fn lasting(pod: &mut Pod, log: &Path, address: &str, ruin: impl Fn(), repair: impl Fn()) {
    let agent = settled(pod, log);

    ruin();

    ships_on_and_says_so(pod, log, address);
    let status = || run(&["status"], &pod.environment()).1;
    wait_for("the status to say so", || {
        status().lines().any(|line| {
            line.starts_with("checkpoint: saved") && !line.ends_with("last error: none")
        })
    });
    assert!(!pod.agent_log().contains(RELIEF));
    repair();
    has_recovered(pod, log, agent);
}

/// A running agent's directory gets into a trouble that it can get out of by itself.
fn passing(ruin: impl Fn(&Pod)) {
    let (mut pod, log, address) = served();
    let agent = settled(&mut pod, &log);

    ruin(&pod);

    ships_on_and_says_so(&mut pod, &log, &address);
    has_recovered(&mut pod, &log, agent);
}

#[test]
fn c05_a_disk_that_becomes_full() {
    let (mut pod, log, address) = served();
    let state = pod.path("state");
    let Some(disk) = Disk::tmpfs(&state, "size=1m") else { return };
    let repair = || {
        assert!(!state.join("checkpoint.tmp").exists(), "a failed save takes up no room");
        disk.empty();
    };
    lasting(&mut pod, &log, &address, || disk.fill(), repair);
}

#[test]
fn c05_a_disk_that_becomes_read_only() {
    let (mut pod, log, address) = served();
    let Some(disk) = Disk::tmpfs(&pod.path("state"), "size=1m") else { return };
    lasting(&mut pod, &log, &address, || disk.remount("ro"), || disk.remount("rw"));
}

#[test]
fn c05_a_file_in_the_place_of_the_directory() {
    let (mut pod, log, address) = served();
    let state = pod.path("state");
    let ruin = || {
        fs::remove_dir_all(&state).unwrap();
        fs::write(&state, "in the way").unwrap();
    };
    let repair = || {
        assert_eq!(fs::read(&state).unwrap(), b"in the way", "it is somebody's");
        fs::remove_file(&state).unwrap();
    };
    lasting(&mut pod, &log, &address, ruin, repair);
}

#[test]
fn c05_a_directory_that_is_deleted() {
    passing(|pod| fs::remove_dir_all(pod.path("state")).unwrap());
}

#[test]
fn c05_a_directory_that_is_moved_away_and_replaced() {
    passing(|pod| {
        fs::rename(pod.path("state"), pod.path("old")).unwrap();
        fs::create_dir(pod.path("state")).unwrap();
    });
}

#[test]
fn c05_a_directory_that_is_emptied() {
    passing(|pod| {
        for entry in fs::read_dir(pod.path("state")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    });
}

/// Nothing is written and nothing arrives: it is made again all the same, with what was known.
#[test]
fn c05_a_directory_that_is_deleted_while_there_is_nothing_to_do() {
    let (mut pod, log, _) = served();
    let agent = settled(&mut pod, &log);

    fs::remove_dir_all(pod.path("state")).unwrap();

    wait_for("the complaint", || pod.agent_log().contains(COMPLAINT));
    has_recovered(&mut pod, &log, agent);
}

/// Full before the first start: there is no checkpoint, no lock file, and no room for either.
#[test]
fn c05_a_disk_that_is_full_at_the_start() {
    let (mut pod, log, address) = served();
    let Some(disk) = Disk::tmpfs(&pod.path("state"), "size=1m") else { return };
    disk.fill();
    let agent = pod.start();
    ships_on_and_says_so(&mut pod, &log, &address);
    let (code, complaint) = pod.run_beside();
    assert_eq!(code, 73, "a second agent is refused without a lock file: {complaint}");

    disk.empty();

    has_recovered(&mut pod, &log, agent);
}

/// Full, and not even the directory is there.
#[test]
fn c05_a_directory_that_cannot_be_made_on_a_full_disk() {
    let (mut pod, log, address) = served();
    let volume = pod.path("volume");
    let Some(_disk) = Disk::tmpfs(&volume, "size=1m,nr_inodes=16") else { return };
    pod.set("LOGFERRY_STATE_DIR", volume.join("state").to_str().unwrap());
    let fillers: Vec<_> = (0..16).map(|number| volume.join(number.to_string())).collect();
    fillers.iter().find(|path| fs::write(path, b"").is_err()).expect("it is full");
    let agent = pod.start();
    ships_on_and_says_so(&mut pod, &log, &address);

    for filler in fillers.iter().filter(|path| path.exists()) {
        fs::remove_file(filler).unwrap();
    }

    has_recovered(&mut pod, &log, agent);
}

/// It has worked before, so it will again; one that never has is a mistake to be told of.
#[test]
fn c05_a_disk_that_is_read_only_at_the_start() {
    let (mut pod, log, address) = served();
    let Some(disk) = Disk::tmpfs(&pod.path("state"), "size=1m") else { return };
    disk.remount("ro");
    let (code, _, complaint) = run(&["run"], &pod.environment());
    assert_eq!(code, 73, "{complaint}");
    assert!(complaint.contains("Read-only"), "{complaint}");
    disk.remount("rw");
    settled(&mut pod, &log).kill();
    disk.remount("ro");

    let agent = pod.start();

    ships_on_and_says_so(&mut pod, &log, &address);
    disk.remount("rw");
    has_recovered(&mut pod, &log, agent);
}

#[test]
fn c05_a_directory_that_may_not_be_written() {
    let (mut pod, log, address) = served();
    let state = pod.path("state");
    let may = |mode| fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
    pod.ledger.append(&log, 100);
    let Some(agent) = pod.start_bound_by_permissions() else { return };
    pod.expect_all();
    wait_until_saved(&pod, &log);

    may(0o500);

    ships_on_and_says_so(&mut pod, &log, &address);
    may(0o700);
    has_recovered(&mut pod, &log, agent);
}

/// The lock is not the file: deleting it lets nobody in.
#[test]
fn c05_a_lock_file_that_is_deleted() {
    let (mut pod, log, address) = served();
    let agent = settled(&mut pod, &log);
    let lock = pod.path("state/lock");
    fs::remove_file(&lock).unwrap();

    let (code, complaint) = pod.run_beside();

    assert_eq!(code, 73, "{complaint}");
    ships_on_and_says_so(&mut pod, &log, &address);
    assert_eq!(fs::read_to_string(&lock).unwrap(), format!("{}\n", agent.id()));
    has_recovered(&mut pod, &log, agent);
}

/// Another agent is faster to take the new directory: it is theirs, and ours is without.
#[test]
fn c05_a_directory_that_another_agent_takes() {
    let (mut pod, log, address) = served();
    let agent = settled(&mut pod, &log);
    let other = tempfile::tempdir().unwrap();
    let mut theirs = pod.environment();
    theirs.insert("LOGFERRY_PATHS".to_owned(), pod.path("nothing").display().to_string());
    theirs.insert("LOGFERRY_LISTEN".to_owned(), String::new());
    theirs.insert("LOGFERRY_STATE_DIR".to_owned(), other.path().display().to_string());
    let intruder = Agent::start(&theirs, &pod.path("intruder.log"));
    wait_for("the other's checkpoint", || other.path().join("checkpoint.0").exists());
    let link = pod.path("link");
    symlink(other.path(), &link).unwrap();
    // At once, or ours could make a directory in between.
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, &link, here, pod.path("state"), exchange).unwrap();

    ships_on_and_says_so(&mut pod, &log, &address);

    wait_for("the reason", || pod.agent_log().contains("in use by another agent"));
    assert!(store::peek(other.path()).checkpoints.is_empty(), "nothing is written into it");
    assert!(!other.path().join("checkpoint.now").exists());
    assert_eq!(intruder.stop().0, 0);
    has_recovered(&mut pod, &log, agent);
}

/// A way to spoil a file of the state directory.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 11] = [
    ("gone", |path| fs::remove_file(path).unwrap()),
    ("empty", |path| fs::write(path, b"").unwrap()),
    ("half", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("one byte more", |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.push(0);
        fs::write(path, bytes).unwrap();
    }),
    ("a flipped byte", |path| {
        let mut bytes = fs::read(path).unwrap();
        let at = fastrand::usize(..bytes.len());
        println!("byte {at} of {}", bytes.len());
        bytes[at] ^= 0x40;
        fs::write(path, bytes).unwrap();
    }),
    ("zeros", |path| {
        let len = fs::metadata(path).unwrap().len();
        fs::write(path, vec![0; usize::try_from(len).unwrap()]).unwrap();
    }),
    ("another version", |path| {
        let mut bytes = format::encode(u64::MAX, &[]);
        bytes[8] = 99;
        let body = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
        fs::write(path, bytes).unwrap();
    }),
    ("a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        fs::write(path.join("somebody's"), b"").unwrap();
    }),
    ("a link to nowhere", |path| {
        fs::remove_file(path).unwrap();
        symlink("nowhere", path).unwrap();
    }),
    ("a pipe", |path| {
        fs::remove_file(path).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    }),
    ("of endless size", |path| {
        fs::File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    }),
];

/// The newest of the files is damaged while no agent runs: the one before it holds the same.
#[test]
fn c03_an_older_checkpoint_is_used_for_a_damaged_one() {
    for (name, damage) in DAMAGES {
        let (mut pod, log) = pod();
        assert_eq!(settled(&mut pod, &log).stop().0, 0);
        damage(&newest(&pod.path("state")));
        pod.ledger.append(&log, 100);

        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "{name}: nothing comes twice");
        let is_named = pod.agent_log().contains("a checkpoint file is damaged");
        assert_eq!(is_named, name != "gone", "{name}:\n{}", pod.agent_log());
    }
}

/// All of them are: everything comes again, once.
#[test]
fn c03_without_an_intact_checkpoint_everything_is_sent_again() {
    for (name, damage) in DAMAGES {
        let (mut pod, log) = pod();
        assert_eq!(settled(&mut pod, &log).stop().0, 0);
        for file in files(&pod.path("state")) {
            damage(&file);
        }

        let agent = pod.start();

        wait_for("it all again", || pod.mock.store().line_count() == 200);
        wait_until_saved(&pod, &log);
        agent.kill();
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 100, "{name}");
    }
}

/// They are, and the lock file with them, while the agent runs: it has no need of them.
#[test]
fn c03_files_damaged_under_a_running_agent_are_written_again() {
    for (name, damage) in DAMAGES {
        let (mut pod, log) = pod();
        let agent = settled(&mut pod, &log);
        for file in files(&pod.path("state")) {
            damage(&file);
        }
        damage(&pod.path("state/lock"));

        pod.ledger.append(&log, 100);

        pod.expect_all();
        wait_until_saved(&pod, &log);
        agent.kill();
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0, "{name}: nothing comes twice");
    }
}

/// Files of another owner, which the agent may not read: as good as damaged, and replaced.
#[test]
fn c03_files_that_may_not_be_read() {
    let (mut pod, log) = pod();
    assert_eq!(settled(&mut pod, &log).stop().0, 0);
    let mut all = files(&pod.path("state"));
    all.push(pod.path("state/lock"));
    for file in &all {
        fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
        // As far as the one who runs this test can give it away.
        let _ = std::os::unix::fs::chown(file, Some(65534), Some(65534));
    }

    let Some(agent) = pod.start_bound_by_permissions() else { return };

    wait_for("it all again", || pod.mock.store().line_count() == 200);
    assert!(pod.agent_log().contains("Permission denied"), "{}", pod.agent_log());
    // Its own: the test may read the old ones, which say the same.
    wait_for("its own checkpoint", || {
        let path = pod.path("state/checkpoint.now");
        let is_own = fs::metadata(&path).is_ok_and(|it| it.permissions().mode() & 0o777 == 0o600);
        let saved = format::decode(&fs::read(&path).unwrap_or_default());
        let size = fs::metadata(&log).unwrap().len();
        is_own && saved.is_ok_and(|(_, all)| all.iter().any(|one| one.offset == size))
    });
    agent.kill();
    pod.ledger.append(&log, 100);
    let agent = pod.start_bound_by_permissions().unwrap();
    assert_eq!(pod.finish(agent), 100);
}

/// What a crash in the middle of a save leaves behind.
#[test]
fn c03_temporary_files_do_no_harm_and_go_away() {
    let (mut pod, log) = pod();
    assert_eq!(settled(&mut pod, &log).stop().0, 0);
    let left = [pod.path("state/checkpoint.tmp"), pod.path("state/parked/batch.tmp")];
    fs::create_dir(pod.path("state/parked")).unwrap();
    for path in &left {
        fs::copy(newest(&pod.path("state")), path).unwrap();
    }
    pod.ledger.append(&log, 100);

    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(left.map(|path| path.exists()), [false; 2]);
}

/// Batches set aside are written and never read: whatever becomes of them, new ones stand beside
/// them.
#[test]
fn c10_damaged_parked_batches_are_left_alone() {
    for (name, damage) in DAMAGES {
        let (mut pod, log) = pod();
        let dir = pod.path("state/parked");
        let refuse = |pod: &mut Pod, count: usize| {
            let fault = Fault { times: Some(1), ..Fault::error("PostBodyInvalid") };
            pod.mock.faults().set(vec![fault]);
            pod.ledger.append(&log, 1);
            let agent = pod.start();
            wait_for("a batch set aside", || {
                pod.agent_log().matches("is set aside").count() == count
            });
            assert_eq!(agent.stop().0, 0);
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        let first = refuse(&mut pod, 1);
        assert_eq!(first.len(), 1);
        damage(&first[0]);
        let before = fs::symlink_metadata(&first[0]).ok().map(|found| (found.ino(), found.len()));

        let both = refuse(&mut pod, 2);

        let after = fs::symlink_metadata(&first[0]).ok().map(|found| (found.ino(), found.len()));
        assert_eq!(before, after, "{name}");
        let second = both.iter().filter(|path| !first.contains(path)).count();
        assert_eq!(second, 1, "{name}");
        assert_eq!(pod.mock.store().line_count(), 0, "{name}: what was set aside does not arrive");
    }
}

/// A file or a link to nowhere has the name of the directory for them: it is put aside. All that
/// comes after a refused batch waits for that.
#[test]
fn c10_what_stands_in_the_place_of_the_directory_of_batches_makes_way() {
    let things: [fn(&Path); 2] = [
        |path| fs::write(path, "somebody's").unwrap(),
        |path| symlink("somebody's", path).unwrap(),
    ];
    for put in things {
        let (mut pod, log) = pod();
        let agent = settled(&mut pod, &log);
        put(&pod.path("state/parked"));
        pod.mock.faults().set(vec![Fault { times: Some(1), ..Fault::error("PostBodyInvalid") }]);
        append_to(&log).write_all(b"refused\n").unwrap();
        pod.wait_for_log("is set aside", 1);

        pod.ledger.append(&log, 100);

        assert_eq!(pod.finish(agent), 0);
        assert_eq!(fs::read_dir(pod.path("state/parked")).unwrap().count(), 1);
        assert!(fs::symlink_metadata(pod.path("state/parked.aside")).is_ok(), "it is kept");
    }
}

/// Nothing more is read while a refused batch cannot be set aside. That is said once, and so is
/// that it is over.
#[test]
fn c10_a_batch_that_cannot_be_set_aside_holds_up_the_rest() {
    const CANNOT: &str = "cannot set a refused batch aside; nothing more is read";
    let (mut pod, log, address) = served();
    let agent = settled(&mut pod, &log);
    // In the way, and it cannot be put aside.
    fs::create_dir(pod.path("state/parked.aside")).unwrap();
    fs::write(pod.path("state/parked"), "in the way").unwrap();
    pod.mock.faults().set(vec![Fault { times: Some(1), ..Fault::error("PostBodyInvalid") }]);
    append_to(&log).write_all(b"refused\n").unwrap();
    pod.wait_for_log(CANNOT, 1);

    pod.ledger.append(&log, 100);

    let errors = || metric(&address, "logferry_checkpoint_errors_total");
    wait_for("it to be tried again", || errors().is_some_and(|count| count >= 3));
    assert_eq!(pod.mock.store().line_count(), 100, "nothing has come since");
    assert_eq!((pod.times_logged(CANNOT), pod.times_logged(RELIEF)), (1, 0));
    fs::remove_file(pod.path("state/parked")).unwrap();
    pod.wait_for_log("is set aside", 1);
    pod.wait_for_log(RELIEF, 1);
    assert_eq!(pod.finish(agent), 0);
}

/// Some file systems cannot sync a directory: that is no reason not to start.
#[test]
fn c05_a_file_system_that_knows_no_sync_of_directories() {
    if !strace::is_there() {
        return skipped("strace cannot trace here");
    }
    let (mut pod, log) = pod();
    pod.ledger.append(&log, 100);
    let (call, when) = ("fsync".to_owned(), "1+".to_owned());
    let injection = Injection { call, when, harm: "error=EINVAL" };
    let out = pod.path("strace.out");
    let binary = env!("CARGO_BIN_EXE_logferry");
    let strace = strace::harming(&injection, &[pod.path("state")], &out, binary);

    let agent = pod.start_with(strace);

    assert_eq!(pod.finish(agent), 0);
    assert!(strace::has_failed_a_call(&out));
    assert!(!pod.agent_log().contains(COMPLAINT), "{}", pod.agent_log());
}

/// The checkpoint files that are there.
fn files(state: &Path) -> Vec<PathBuf> {
    let paths = FILES.map(|name| state.join(name));
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// The one with the newest state.
fn newest(state: &Path) -> PathBuf {
    let generation = |path: &PathBuf| format::decode(&fs::read(path).unwrap()).unwrap().0;
    files(state).into_iter().max_by_key(generation).unwrap()
}

/// Whatever umask the agent is started with, and wherever its directory stands: what it makes is for
/// its user alone, and can be read by that user.
#[test]
fn s07_what_it_writes_is_for_its_user_alone() {
    for (umask, is_made_before) in [("0000", false), ("0000", true), ("0777", false)] {
        let (mut pod, log) = pod();
        for open_to_all in ["share", "."] {
            fs::set_permissions(pod.path(open_to_all), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let state = pod.path("deep/state");
        if is_made_before {
            fs::create_dir_all(state.join("parked")).unwrap();
            for dir in [state.clone(), state.join("parked")] {
                fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
            }
        }
        pod.set("LOGFERRY_STATE_DIR", state.to_str().unwrap());
        pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: "refused".to_owned() })]);
        let mut shell = Command::new("sh");
        let binary = env!("CARGO_BIN_EXE_logferry");
        shell.args(["-c", "umask $0 && exec $1", umask, binary]);
        let agent = pod.start_with(shell);
        append_to(&log).write_all(b"refused\n").unwrap();
        pod.ledger.append(&log, 100);
        pod.expect_all();
        pod.wait_for_log("is set aside", 1);
        assert_eq!(agent.stop().0, 0);

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        if !is_made_before {
            assert_eq!(mode(&state), 0o700, "umask {umask}");
        }
        assert_eq!(mode(&state.join("parked")), 0o700, "umask {umask}");
        let mut files = 0;
        for dir in [state.clone(), state.join("parked")] {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    files += 1;
                    assert_eq!(mode(&path), 0o600, "umask {umask}: {}", path.display());
                }
            }
        }
        assert!(files >= 4, "lock, checkpoints and a piece: {files}");
    }
}
