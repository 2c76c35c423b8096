//! Exactly once: whatever dies, and whatever answer is lost, each line arrives once.
//!
//! The endpoint keeps to the service's rule for sequence ids, so a batch that comes again under
//! another id would be stored again, and one under the id of another would be lost.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logferry::checkpoint::format::{Checkpoint, RangeState};
use logferry::checkpoint::store;
use logferry_mock::{Fault, Kind};
use rustix::process::Signal;

use crate::crash::kills;
use crate::support::{
    FIXED, Ledger, Pod, append_to, compress, copytruncate, each, numbered, pause, rotate, run,
    wait_for,
};

/// A pod whose agents ship exactly once; some requests are under way at a time, of few lines.
fn pod() -> (Pod, PathBuf) {
    let (mut pod, log) = Pod::with_log();
    pod.set("LOGFERRY_EXACTLY_ONCE", "true").set("send_request_concurrency", "3");
    pod.set("LOGFERRY_BATCH_LINES", "50").set("LOGFERRY_READ_LINGER", "20ms");
    (pod, log)
}

fn faults(pod: &Pod, kinds: &[(Kind, f64)]) {
    let fault = |(index, (kind, chance)): (usize, &(Kind, f64))| Fault {
        probability: Some(*chance),
        seed: fastrand::u64(..) + index as u64,
        ..Fault::new(kind.clone())
    };
    pod.mock.faults().set(kinds.iter().enumerate().map(fault).collect());
}

/// So many answers come until as many requests may be under way as there are slots.
const WARM: usize = 3;

/// From then on no answer comes.
fn hang(pod: &Pod, kind: &Kind) {
    let fault = Fault { after: WARM as u64, ..Fault::new(kind.clone()) };
    pod.mock.faults().set(vec![fault]);
}

/// The agent is killed when so many batches more than [`WARM`] were stored, whose answers never come.
fn kill_with_stored(pod: &Pod, stored: usize) {
    hang(pod, &Kind::HangAfter);
    let before = pod.mock.store().groups().len();
    let agent = pod.start();
    let count = before + WARM + stored;
    wait_for("batches to be stored", || pod.mock.store().groups().len() == count);
    wait_for("the answers to be saved", || assigned(pod) == stored);
    agent.kill();
    pod.mock.faults().clear();
}

fn saved(pod: &Pod) -> Vec<Checkpoint> {
    store::peek(&pod.path("state")).checkpoints
}

/// How many ranges the state directory holds that may have arrived.
fn assigned(pod: &Pod) -> usize {
    let is_open = |state| matches!(state, RangeState::Assigned { .. });
    let ranges = saved(pod).into_iter().flat_map(|one| one.ranges);
    ranges.filter(|range| is_open(range.state)).count()
}

/// Kills at random moments (60, or `LOGFERRY_KILLS`) of an agent at full work on three files, two of
/// which are rotated, while one answer in ten is lost.
#[test]
fn n04_kills_under_load_with_lost_answers_lose_and_repeat_nothing() {
    let kills = kills(60);
    let (mut pod, log) = pod();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    faults(&pod, &[(Kind::CutAfter, 0.07), (Kind::HangAfter, 0.03), (Kind::CutBefore, 0.02)]);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (ledger, is_over) = (Arc::clone(&ledger), Arc::clone(&is_over));
        let logs = ["app.log", "b.log", "c.log"].map(|name| log.with_file_name(name));
        move || {
            let mut files = logs.each_ref().map(|log| append_to(log));
            for turn in 1.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                for (index, (log, file)) in logs.iter().zip(&mut files).enumerate() {
                    ledger.lock().unwrap().write(file, 3 + 5 * index);
                    if index < 2 && turn % 150 == 50 * index {
                        fs::rename(log, numbered(log, turn)).unwrap();
                        *file = append_to(log);
                    }
                }
                pause(Duration::from_millis(20));
            }
        }
    });

    for _ in 0..kills {
        let agent = pod.start();
        let before = pod.mock.store().line_count();
        if rng.u8(..4) > 0 {
            wait_for("lines to arrive", || pod.mock.store().line_count() > before);
        }
        pause(Duration::from_millis(rng.u64(0..250)));
        agent.kill();
    }
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    pod.ledger = Arc::into_inner(ledger).unwrap().into_inner().unwrap();
    let played = pod.mock.store().counts().faults;
    pod.mock.faults().clear();
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0, "seed {seed}: nothing comes twice");
    let refused = pod.mock.store().refused_sequences();
    let (lines, groups) = (pod.ledger.lines.len(), pod.mock.store().groups().len());
    println!("{kills} kills, {lines} lines in {groups} groups, {} ids were old", refused.len());
    println!("{played:?}");
    assert!(!refused.is_empty(), "some answers were lost");
    expect_ids(&pod);
}

/// Each stored batch has an id of its own, and those of a key grow by one; a refused one was stored.
fn expect_ids(pod: &Pod) {
    let mut last: HashMap<u128, u64> = HashMap::new();
    for group in pod.mock.store().groups() {
        let (key, sequence) = (group.key.expect("a key"), group.sequence.expect("an id"));
        let before = last.insert(key, sequence).unwrap_or(0);
        assert_eq!(sequence, before + 1, "of {key:032x}");
    }
    for (key, sequence) in pod.mock.store().refused_sequences() {
        assert!(last.get(&key).is_some_and(|last| sequence <= *last), "{key:032x} {sequence}");
    }
}

#[test]
fn a_batch_whose_answer_is_lost_goes_again_under_the_same_id() {
    let (mut pod, log) = pod();
    pod.ledger.append(&log, 50 * (WARM + 1));
    kill_with_stored(&pod, 1);
    let stored = pod.mock.store().groups()[WARM].clone();
    assert_eq!(assigned(&pod), 1);
    let (code, text, _) = run(&["checkpoint", "show"], &pod.environment());
    assert_eq!(code, 0);
    assert!(text.contains("1 requests assigned, up to byte"), "{text}");

    let agent = pod.start();
    pod.wait_for_log("sending again under the same id", 1);
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
    let id = (stored.key.unwrap(), stored.sequence.unwrap());
    assert_eq!(pod.mock.store().refused_sequences(), [id]);
    assert_eq!(assigned(&pod), 0);
    let new = pod.mock.store().groups()[WARM + 1].clone();
    assert!(new.key != stored.key && new.sequence == Some(1), "a run has keys of its own");
}

/// Two restarts in a row without an answer, then one with: the id is the same each time.
#[test]
fn an_id_outlives_many_restarts() {
    let (mut pod, log) = pod();
    pod.ledger.append(&log, 50 * (WARM + 3) - 30);
    kill_with_stored(&pod, 3);
    for restarts in 1..=2 {
        pod.mock.faults().set(vec![Fault::new(Kind::HangAfter)]);
        let agent = pod.start();
        wait_for("one to be refused", || pod.mock.store().refused_sequences().len() == restarts);
        agent.kill();
        assert_eq!(assigned(&pod), 3);
    }
    pod.mock.faults().clear();

    let agent = pod.start();
    wait_for("all to be refused", || pod.mock.store().refused_sequences().len() == 2 + 3);

    assert_eq!(pod.finish(agent), 0);
    let mut refused = pod.mock.store().refused_sequences();
    refused.sort_unstable();
    refused.dedup();
    assert_eq!(refused.len(), 3);
    expect_ids(&pod);
}

/// A later batch was acknowledged and an earlier one not: it is passed over at the restart.
#[test]
fn what_was_acknowledged_out_of_order_does_not_go_again() {
    let (mut pod, log) = pod();
    let one = Fault { after: WARM as u64, times: Some(1), ..Fault::new(Kind::Hang) };
    pod.mock.faults().set(vec![one]);
    pod.ledger.append(&log, 50 * (WARM + 1));
    let agent = pod.start();
    wait_for("one to hang", || pod.mock.store().counts().faults.contains_key("hang"));
    pod.ledger.append(&log, 100);
    wait_for("the others to be saved", || {
        let ranges = saved(&pod).into_iter().flat_map(|one| one.ranges);
        let done = ranges.filter(|range| range.state == RangeState::Done);
        done.map(|range| range.records).sum::<u32>() >= 100
    });
    agent.kill();
    assert_eq!(assigned(&pod), 1);

    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged("sending again under the same id"), 1);
    assert_eq!(pod.mock.store().refused_sequences(), [], "it had not been stored");
}

/// What happens to the file while the agent is dead.
#[test]
fn a_range_is_found_wherever_its_bytes_are() {
    type Happen = fn(&mut Pod, &PathBuf);
    let cases: [(&str, Happen); 5] = [
        ("nothing", |_, _| {}),
        ("renamed", |_, log| rotate(log, 3)),
        ("copied and emptied", |_, log| copytruncate(log, 3)),
        ("compressed", |pod, log| {
            rotate(log, 3);
            compress(&numbered(log, 1));
            pod.ledger.append(log, 1);
        }),
        ("renamed, and its name used again", |pod, log| {
            rotate(log, 3);
            pod.ledger.append(log, 200);
        }),
    ];
    for (what, happen) in cases {
        for kind in [Kind::HangAfter, Kind::Hang] {
            let (mut pod, log) = pod();
            pod.patterns(&["share/logs/**/app.log*"]);
            pod.ledger.append(&log, 75);
            let agent = pod.start();
            pod.expect_all();
            pod.mock.faults().set(vec![Fault::new(kind.clone())]);
            pod.ledger.append(&log, 125);
            wait_for("the rest to be under way", || assigned(&pod) >= 3);
            agent.kill();
            pod.mock.faults().clear();

            happen(&mut pod, &log);
            let agent = pod.start();
            pod.ledger.append(&log, 10);

            assert_eq!(pod.finish(agent), 0, "{what}, {kind:?}");
            assert_eq!(pod.times_logged("sending again under the same id"), 3, "{what}");
        }
    }
}

/// Other lines stand where the range was: they are new, and not taken for the old ones.
#[test]
fn a_file_that_was_cut_within_a_range_is_read_as_what_it_is() {
    for (more, written) in [(10, 200), (10, 0), (0, 40), (25, 100)] {
        let kept = 50 * WARM + more;
        let (mut pod, log) = pod();
        pod.ledger.write_fixed(&mut append_to(&log), 50 * (WARM + 1));
        kill_with_stored(&pod, 1);

        let file = File::options().write(true).open(&log).unwrap();
        file.set_len((FIXED * kept) as u64).unwrap();
        pod.ledger.write_fixed(&mut append_to(&log), written);
        let agent = pod.start();

        pod.expect_all();
        assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
        // The lines that were kept came with those that are gone, under an id that says nothing of
        // them by themselves.
        let repeats = pod.ledger.check(&pod.mock);
        assert_eq!(repeats, kept - 50 * WARM, "{kept} kept, {written} new");
    }
}

#[test]
fn a_range_that_ends_in_an_unfinished_line_goes_again_as_it_was() {
    let (mut pod, log) = pod();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "100ms");
    append_to(&log).write_all(b"one\ntwo\npart").unwrap();
    pod.mock.faults().set(vec![Fault::new(Kind::HangAfter)]);
    let agent = pod.start();
    wait_for("all of it to be stored", || pod.mock.store().line_count() == 3);
    agent.kill();
    append_to(&log).write_all(b"ial\nthree\n").unwrap();
    pod.mock.faults().clear();

    let agent = pod.start();

    pod.await_records(5);
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    let mut lines = pod.mock.store().lines();
    lines.sort_unstable();
    assert_eq!(lines, [&b"ial"[..], b"one", b"part", b"three", b"two"]);
}

#[test]
fn holes_and_long_lines_within_a_range_change_nothing() {
    let (mut pod, log) = pod();
    pod.set("LOGFERRY_LINE_BYTES_MAX", "1KiB").set("LOGFERRY_COMPRESSION", "none");
    let mut file = append_to(&log);
    let long: String = (0..400).map(|number| format!("{number:08} ")).collect();
    let text = [b"a\n", &[0; 70][..], b"b\n", long.as_bytes(), b"\nc\r\n", &[0; 9][..], b"\nd\n"];
    file.write_all(&text.concat()).unwrap();
    let records = 4 + long.len().div_ceil(1024);
    for (lines, line_max) in [("3", "1KiB"), ("4000", "4KiB"), ("1", "2KiB")] {
        pod.set("LOGFERRY_BATCH_LINES", lines).set("LOGFERRY_LINE_BYTES_MAX", line_max);
        pod.mock.faults().set(vec![Fault::new(Kind::HangAfter)]);
        let agent = pod.start();
        wait_for("something to be under way", || assigned(&pod) >= 1);
        pause(Duration::from_millis(300));
        agent.kill();
    }
    pod.mock.faults().clear();

    let agent = pod.start();

    wait_for("all to be acknowledged", || saved(&pod)[0].offset == text.concat().len() as u64);
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    let lines = pod.mock.store().lines();
    assert!(lines.len() <= records, "{} of {records}", lines.len());
    let mut bytes: Vec<u8> = lines.concat();
    bytes.sort_unstable();
    let mut expected = [b"a", b"b", long.as_bytes(), b"c", b"d"].concat();
    expected.sort_unstable();
    assert_eq!(bytes, expected);
}

/// Other limits in the next run, and a range that is larger than the buffer that it is read with.
#[test]
fn other_limits_in_the_next_run_change_nothing() {
    each(&[Kind::HangAfter, Kind::Hang], |kind| {
        let (mut pod, log) = pod();
        pod.set("LOGFERRY_BATCH_LINES", "4000").set("LOGFERRY_BATCH_BYTES", "2MiB");
        pod.ledger.write_kib(&mut append_to(&log), 2048 * (WARM + 3));
        hang(&pod, kind);
        let agent = pod.start();
        wait_for("three large batches to be under way", || {
            assigned(&pod) == 3 && pod.mock.store().counts().faults.values().sum::<u64>() == 3
        });
        agent.kill();
        pod.mock.faults().clear();
        pod.set("LOGFERRY_BATCH_LINES", "7").set("LOGFERRY_BATCH_BYTES", "4KiB");
        pod.set("LOGFERRY_LINE_BYTES_MAX", "2KiB").set("LOGFERRY_COMPRESSION", "zstd");
        pod.set("send_request_concurrency", "20");

        let agent = pod.start();

        assert_eq!(pod.finish(agent), 0, "{kind:?}");
        let large = pod.mock.store().groups().iter().filter(|one| one.line_count > 7).count();
        assert_eq!(large, WARM + 3, "{kind:?}");
        expect_ids(&pod);
    });
}

/// The setting is taken back: what is open is still sent under its id.
#[test]
fn ranges_are_honoured_without_the_setting() {
    let (mut pod, log) = pod();
    pod.ledger.append(&log, 50 * (WARM + 3) - 20);
    kill_with_stored(&pod, 3);
    pod.set("LOGFERRY_EXACTLY_ONCE", "false");

    let agent = pod.start();
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.mock.store().refused_sequences().len(), 3);
    let groups = pod.mock.store().groups();
    assert!(groups[WARM + 3..].iter().all(|group| group.sequence.is_none()));
}

#[test]
fn p05_a_kill_in_the_drain_repeats_nothing() {
    let (mut pod, log) = pod();
    for _ in 0..5 {
        faults(&pod, &[(Kind::CutAfter, 0.3), (Kind::Delay { ms: 50 }, 1.0)]);
        pod.ledger.append(&log, 2000);
        let agent = pod.start();
        agent.terminate();
        let before = pod.mock.store().line_count();
        wait_for("the drain to deliver", || pod.mock.store().line_count() > before + 100);
        agent.signal(Signal::KILL);
        let mut agent = agent;
        wait_for("its end", || agent.has_ended());
    }
    pod.mock.faults().clear();
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    expect_ids(&pod);
}

#[test]
fn a_drain_delivers_what_waits_for_an_id() {
    let (mut pod, log) = pod();
    pod.set("send_request_concurrency", "1").set("LOGFERRY_BATCH_LINES", "10");
    pod.mock.faults().set(vec![Fault::new(Kind::Delay { ms: 20 })]);
    pod.ledger.append(&log, 300);
    let agent = pod.start();
    wait_for("the first lines", || pod.mock.store().line_count() > 0);

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.expect_all(), 0);
    expect_ids(&pod);
}

/// Nothing is sent that is not on the disk: not one request, until it can be written again.
#[test]
fn a_state_directory_that_cannot_be_written_holds_sending_up() {
    let (mut pod, log) = pod();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    let (state, away) = (pod.path("state"), pod.path("state.away"));
    fs::rename(&state, &away).unwrap();
    fs::write(&state, "in the way").unwrap();
    let puts = pod.mock.store().counts().puts;
    pod.ledger.append(&log, 500);
    pod.wait_for_log("nothing more is sent until that is possible", 1);
    let before = agent.cpu_time();
    pause(Duration::from_secs(2));

    let used = agent.cpu_time() - before;
    assert!(used < Duration::from_millis(500), "{used:?} of 2 s");
    assert_eq!(pod.mock.store().counts().puts, puts);
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    assert_eq!(pod.finish(agent), 0);
    expect_ids(&pod);
}

/// Lines that nobody else has any more, for their file was emptied, and that still wait here.
#[test]
fn what_waits_for_its_id_is_undelivered_when_the_agent_ends() {
    let (mut pod, log) = pod();
    pod.set("LOGFERRY_DRAIN_DEADLINE", "1s");
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    let state = pod.path("state");
    fs::rename(&state, pod.path("state.away")).unwrap();
    fs::write(&state, "in the way").unwrap();
    pod.ledger.append(&log, 500);
    pod.wait_for_log("nothing more is sent until that is possible", 1);
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    pod.wait_for_log("it was truncated or rewritten", 1);

    assert_eq!(agent.stop().0, 75, "{}", pod.agent_log());
    assert_eq!(pod.mock.store().line_count(), 100);
}

/// The service refuses a batch for good: its lines are set aside once, and all others arrive once.
#[test]
fn what_is_refused_for_good_is_set_aside_once() {
    let (mut pod, log) = pod();
    let refuse = Fault { times: Some(1), ..Fault::error("PostBodyInvalid") };
    pod.set("LOGFERRY_BATCH_LINES", "1").set("send_request_concurrency", "1");
    pod.mock.faults().set(vec![refuse]);
    pod.ledger.append(&log, 20);
    let agent = pod.start();
    wait_for("the others", || pod.mock.store().line_count() == 19);
    wait_for("all to be saved", || {
        saved(&pod).iter().any(|one| one.offset == pod.ledger.bytes() && one.ranges.is_empty())
    });
    agent.kill();

    let agent = pod.start();
    pod.ledger.append(&log, 10);
    wait_for("what follows", || pod.mock.store().line_count() == 29);

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    let count = |end: &str| {
        let files = fs::read_dir(pod.path("state/parked")).unwrap().flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(end)).count()
    };
    assert_eq!(count(".batch"), 1);
    assert_eq!(pod.ledger.missing(&pod.mock).len(), 1);
    assert_eq!(pod.ledger.check(&pod.mock), 0);
}

/// Batches are taken apart for one bad line each, the agent dies again and again meanwhile, and
/// answers are lost: the good lines arrive once.
#[test]
fn n08_the_parts_of_refused_batches_arrive_once_whatever_dies() {
    const BAD: [usize; 3] = [37, 61, 222];
    let (mut pod, log) = pod();
    pod.ledger.append(&log, 400);
    let poison = |number: usize| (Kind::Poison { text: pod.ledger.lines[number].clone() }, 1.0);
    let [one, two, three] = BAD.map(poison);
    let slow = (Kind::Delay { ms: 10 }, 1.0);
    for _ in 0..10 {
        let lost = (Kind::CutAfter, 0.2);
        faults(&pod, &[slow.clone(), one.clone(), two.clone(), three.clone(), lost]);
        let agent = pod.start();
        agent.wait_until_open(&log);
        pause(Duration::from_millis(fastrand::u64(30..400)));
        agent.kill();
    }
    faults(&pod, &[one, two, three]);
    let agent = pod.start();
    wait_for("the good lines", || pod.ledger.missing_numbers(&pod.mock) == BAD);

    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.ledger.missing_numbers(&pod.mock), BAD);
    assert_eq!(pod.ledger.check(&pod.mock), 0, "nothing came twice");
}

/// A proxy resets what is large. Nobody knows whether the service has it: it is kept whole, that is said,
/// and others go past it.
#[test]
fn n07_what_is_reset_for_its_size_is_kept_whole_and_named() {
    let (mut pod, log) = pod();
    pod.set("LOGFERRY_COMPRESSION", "none").set("LOGFERRY_BATCH_LINES", "4000");
    let wire = pod.wire();
    wire.reset_above(40 << 10);
    let admin = pod.admin();
    let other = pod.path("data/pod/logs/other.log");
    pod.ledger.append(&log, 2000);
    let agent = pod.start();
    wait_for("the resets", || wire.resets() >= 2);
    let held = || admin.metric("logferry_held_whole_batches").unwrap_or(0);
    let mut small = 0;
    wait_for("a batch to be held", || {
        small += 1;
        writeln!(append_to(&other), "small {small}").unwrap();
        held() > 0
    });
    pod.wait_for_log("with exactly_once it is not sent in halves", 1);
    let (_, status, _) = run(&["status"], &pod.environment());
    assert!(status.contains("raise the limit of the proxy on the way"), "{status}");
    let small_ones = || {
        let lines = pod.mock.store().lines();
        lines.iter().filter(|line| line.starts_with(b"small ")).count()
    };
    wait_for("the small ones", || small_ones() == small);

    wire.reset_above(0);
    wait_for("the large one", || pod.ledger.missing(&pod.mock).is_empty());

    assert_eq!(small_ones(), small);
    assert_eq!(agent.stop().0, 0, "{}", pod.agent_log());
    assert_eq!(pod.mock.store().line_count(), (2000 + small) as u64, "nothing came twice");
}

/// Without the setting nothing of it is to be seen.
#[test]
fn without_the_setting_requests_have_no_id_and_checkpoints_no_ranges() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let agent = pod.start();
    pod.expect_all();
    pod.mock.faults().set(vec![Fault::new(Kind::Hang)]);
    pod.ledger.append(&log, 10);
    wait_for("one to hang", || pod.mock.store().counts().faults.contains_key("hang"));
    agent.kill();

    let groups = pod.mock.store().groups();
    assert!(groups.iter().all(|group| group.key.is_none() && group.sequence.is_none()));
    assert!(saved(&pod).iter().all(|one| one.ranges.is_empty()));
}
