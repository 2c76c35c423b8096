//! C09: the power goes. What was not synced is gone or torn; nothing that was delivered and saved
//! through to the disk is.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logferry::base::clock;
use logferry::checkpoint::{format, store};
use logferry_mock::Fault;

use crate::support::disk::Disk;
use crate::support::{Pod, pause, wait_for};

/// What may have become of a file that was not synced.
type Loss = (&'static str, fn(&Path));

const LOSSES: [Loss; 5] = [
    ("its name", |path| fs::remove_file(path).unwrap()),
    ("its bytes", |path| fs::write(path, b"").unwrap()),
    ("half of them", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("its blocks", |path| {
        let len = fs::metadata(path).unwrap().len();
        fs::write(path, vec![0; usize::try_from(len).unwrap()]).unwrap();
    }),
    ("its second block", |path| {
        let mut bytes = fs::read(path).unwrap();
        let half = bytes.len() / 2;
        fastrand::Rng::with_seed(7).fill(&mut bytes[half..]);
        fs::write(path, bytes).unwrap();
    }),
];

/// Everywhere: killed, and then the one file that is not synced loses something.
#[test]
fn c09_what_was_not_synced_costs_repeats_and_no_loss() {
    for (what, lose) in LOSSES {
        let (mut pod, log) = Pod::with_log();
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 0);
        pod.ledger.append(&log, 100);
        let agent = pod.start();
        pod.expect_all();
        let now = pod.path("state/checkpoint.now");
        let len = fs::metadata(&log).unwrap().len();
        let state = pod.path("state");
        wait_for("a save", || store::peek(&state).checkpoints.iter().any(|c| c.offset == len));
        agent.kill();

        lose(&now);

        pod.ledger.append(&log, 100);
        let agent = pod.start();
        let repeats = pod.finish(agent);
        assert!(repeats <= 100, "{what}: {repeats} repeats; the first 100 were synced");
    }
}

/// The disk of the state directory as a power cut leaves it: a copy of the blocks that the kernel
/// has written, without those it still keeps. What a save promised to have synced must be there,
/// right after it was promised.
#[test]
fn c09_what_was_synced_is_there_after_a_power_cut() {
    let Some((mut pod, log, _disk)) = on_a_disk_of_its_own() else { return };
    for round in 0..3 {
        pod.ledger.append(&log, if round == 1 { 1 } else { 100 });
        let refused = Fault { times: Some(1), ..Fault::error("PostBodyInvalid") };
        pod.mock.faults().set(if round == 1 { vec![refused] } else { Vec::new() });
        let agent = pod.start();
        if round == 1 {
            wait_for("a batch set aside", || pod.agent_log().contains("is set aside"));
        } else {
            pod.await_records(100 * (round + 1).min(2));
        }
        assert_eq!(agent.stop().0, 0);
        let image = cut(&pod);
        let _after = Disk::ext4(&image, &pod.path("after")).unwrap();

        let (there, cut) = (pod.path("disk/state"), pod.path("after/state"));
        let files = |dir: &Path| -> Vec<_> {
            let entries = fs::read_dir(dir.join("parked")).into_iter().flatten().flatten();
            entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
        };
        assert_eq!(store::peek(&cut).checkpoints, store::peek(&there).checkpoints);
        let damaged = store::peek(&cut).damaged;
        assert!(damaged.iter().all(|(path, _)| path.ends_with("checkpoint.now")), "{damaged:?}");
        assert_eq!(files(&cut), files(&there));
        assert_eq!(files(&cut).len(), usize::from(round >= 1));
    }
}

/// The power goes at any moment of work: with what had arrived by then, and what an agent sends
/// that starts from what is left, all is there.
#[test]
fn c09_a_power_cut_at_any_moment_loses_nothing() {
    const CUTS: usize = 4;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let Some((mut pod, log, _disk)) = on_a_disk_of_its_own() else { return };
    pod.set("LOGFERRY_BATCH_LINES", "20").set("LOGFERRY_READ_LINGER", "5ms");
    let agent = pod.start();
    let mut cuts = Vec::new();
    for _ in 0..CUTS {
        let until = clock::now() + Duration::from_millis(rng.u64(500..2500));
        while clock::now() < until {
            pod.ledger.append(&log, 20);
            pause(Duration::from_millis(rng.u64(1..20)));
        }
        let synced = oldest_synced(&pod.path("disk/state"));
        let image = cut(&pod);
        // After the copy: what it says to be delivered was stored before.
        cuts.push((image, pod.mock.store().groups().len(), synced));
    }
    pod.finish(agent);

    let state = pod.path("after/state");
    pod.set("LOGFERRY_STATE_DIR", state.to_str().unwrap());
    for (image, arrived, synced) in cuts {
        let _after = Disk::ext4(&image, &pod.path("after")).unwrap();
        assert!(newest(&state) >= synced, "a synced save is gone");
        let before = pod.mock.store().groups().len();
        pod.ledger.append(&log, 1);
        let agent = pod.start();
        let missing = || {
            let groups = pod.mock.store().groups();
            let there = groups[..arrived].iter().chain(&groups[before..]);
            let there: HashSet<_> =
                there.flat_map(|group| group.logs()).map(logferry_mock::Entry::line).collect();
            let lines = pod.ledger.lines.iter();
            lines.filter(|line| !there.contains(line.as_bytes())).count()
        };
        wait_for("all that had not arrived", || missing() == 0);
        assert_eq!(agent.stop().0, 0);
    }
}

/// A pod with its state on a file system in `disk.img`. `None`, said aloud, without the rights.
fn on_a_disk_of_its_own() -> Option<(Pod, PathBuf, Disk)> {
    let (mut pod, log) = Pod::with_log();
    let image = pod.path("disk.img");
    let disk = Disk::new_ext4(&image, 16, &pod.path("disk"))?;
    let state = pod.path("disk/state").display().to_string();
    pod.set("LOGFERRY_STATE_DIR", &state).set("LOGFERRY_BATCH_LINGER", "50ms");
    Some((pod, log, disk))
}

/// Copies the blocks as they are. Mounted, the copy brings its journal in order.
fn cut(pod: &Pod) -> PathBuf {
    let image = pod.path(&format!("cut-{:x}.img", fastrand::u64(..)));
    fs::copy(pod.path("disk.img"), &image).unwrap();
    image
}

/// The generation of the newest state.
fn newest(state: &Path) -> u64 {
    generations(state).into_iter().max().unwrap_or(0)
}

/// The generation that was surely synced: of the two that are written in turn, the older.
fn oldest_synced(state: &Path) -> u64 {
    let synced = generations(state).into_iter().take(2);
    synced.min().unwrap_or(0)
}

/// Of the two synced files, and of the one that is not.
fn generations(state: &Path) -> [u64; 3] {
    ["checkpoint.0", "checkpoint.1", "checkpoint.now"].map(|name| {
        let bytes = fs::read(state.join(name)).unwrap_or_default();
        format::decode(&bytes).map_or(0, |(generation, _)| generation)
    })
}
