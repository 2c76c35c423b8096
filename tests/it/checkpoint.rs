//! `logferry checkpoint`: what the state directory holds, forgetting a file, taking over from
//! logtail.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use logferry::checkpoint::logtail::Signature;
use logferry_mock::{Fault, Kind};
use serde_json::{Value, json};

use crate::support::{Pod, append_to, run, wait_for};

/// Runs `logferry checkpoint …` in the pod: exit code, standard output, standard error.
fn checkpoint(pod: &Pod, args: &[&str]) -> (i32, String, String) {
    run(&[&["checkpoint"], args].concat(), &pod.environment())
}

fn show(pod: &Pod) -> Value {
    let (code, out, complaint) = checkpoint(pod, &["show", "--json"]);
    assert_eq!(code, 0, "{complaint}");
    serde_json::from_str(&out).unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn assert_line(text: &str, words: &[&str]) {
    let is_it = |line: &str| words.iter().all(|word| line.contains(word));
    assert!(text.lines().any(is_it), "no line with {words:?} in:\n{text}");
}

// === show

#[test]
fn show_tells_what_is_delivered_beside_an_agent_and_after_it() {
    let (mut pod, log) = Pod::with_log();
    let (code, out, _) = checkpoint(&pod, &["show"]);
    assert_eq!(code, 0);
    assert_line(&out, &["state is not there", "nothing known"]);

    pod.ledger.append(&log, 300);
    let agent = pod.start();
    let size = pod.ledger.bytes();
    wait_for("all of it in the checkpoint", || show(&pod)["files"][0]["offset"] == size);
    let beside = show(&pod);
    assert_eq!(pod.finish(agent), 0);
    let after = show(&pod);

    for holding in [&beside, &after] {
        let file = &holding["files"][0];
        assert_eq!(file["path"], text(&pod.path("share/logs/app.log")));
        assert_eq!(file["found_at"], text(&fs::canonicalize(&log).unwrap()));
        assert_eq!(file["inode"], fs::metadata(&log).unwrap().ino());
        assert_eq!((&file["size"], &file["in_paths"]), (&size.into(), &true.into()));
    }
    let (_, out, _) = checkpoint(&pod, &["show"]);
    assert_line(&out, &[&text(&pod.path("share/logs/app.log")), &size.to_string(), "ago"]);
}

/// State that nothing will use again unasked: of a file that is gone, of one that the patterns do
/// not find any more, and batches that the service refused.
#[test]
fn c12_orphaned_state_is_listed() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 300);
    let text_of_one = pod.ledger.lines[123].clone();
    pod.mock.faults().set(vec![Fault::new(Kind::Poison { text: text_of_one })]);
    let agent = pod.start();
    wait_for("the other lines", || pod.mock.store().line_count() >= 299);
    pod.wait_for_log("is set aside", 1);
    assert_eq!(agent.stop().0, 0);
    let gone = pod.path("data/pod/logs/gone.log");
    pod.ledger.append(&gone, 100);
    let agent = pod.start();
    wait_for("those of another file", || pod.mock.store().line_count() >= 399);
    assert_eq!(agent.stop().0, 0);
    fs::remove_file(&gone).unwrap();
    pod.set("LOGFERRY_PATHS", &text(&pod.path("share/logs/other/*.log")));

    let holding = show(&pod);
    let (code, out, _) = checkpoint(&pod, &["show"]);

    assert_eq!(code, 0);
    let files = holding["files"].as_array().unwrap();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| file["in_paths"] == false), "{holding}");
    assert_line(&out, &["app.log", "`paths` does not find this name"]);
    assert_line(&out, &["gone.log", "not there any more"]);
    let parked = fs::read_dir(pod.path("state/parked")).unwrap().next().unwrap().unwrap();
    let bytes = parked.metadata().unwrap().len();
    assert_eq!(holding["parked"]["batches"], 1);
    assert_eq!(holding["parked"]["bytes"], bytes);
    assert_line(&out, &["set aside: 1 batches", &text(&pod.path("state/parked"))]);
}

// === reset

#[test]
fn a_file_that_is_reset_is_shipped_again_from_its_first_byte_and_no_other() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 300);
    let again = pod.ledger.lines.clone();
    pod.ledger.append(&log.with_file_name("other.log"), 200);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);

    let path = text(&pod.path("share/logs/app.log"));
    let (code, out, complaint) = checkpoint(&pod, &["reset", &path]);

    assert_eq!(code, 0, "{complaint}");
    assert_line(&out, &["forgotten", &path]);
    let agent = pod.start();
    wait_for("the file to arrive again", || pod.mock.store().line_count() >= 800);
    assert_eq!(pod.finish(agent), again.len());
    let arrived = pod.mock.store().lines();
    for line in &again {
        let count = arrived.iter().filter(|found| *found == line.as_bytes()).count();
        assert_eq!(count, 2, "{line}");
    }
}

#[test]
fn beside_an_agent_nothing_is_reset_or_imported() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    wait_for("the checkpoint", || !show(&pod)["files"].as_array().unwrap().is_empty());
    let path = text(&pod.path("share/logs/app.log"));
    let file = write_logtail(&pod, &[]);
    for args in [["reset", &path], ["import", &text(&file)]] {
        let (code, _, complaint) = checkpoint(&pod, &args);
        assert_eq!(code, 73, "{complaint}");
        assert!(complaint.contains(&agent.id().to_string()), "{complaint}");
        assert!(complaint.contains("stop it first"), "{complaint}");
    }
    assert_eq!(pod.finish(agent), 0, "the agent did not notice");
}

#[test]
fn a_path_that_is_not_known_is_answered_with_those_that_are() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    let (code, _, complaint) = checkpoint(&pod, &["reset", "/nowhere/app.log"]);
    assert_eq!(code, 64, "{complaint}");
    assert!(complaint.contains("/nowhere/app.log"), "{complaint}");
    assert!(complaint.contains(&text(&pod.path("share/logs/app.log"))), "{complaint}");
}

// === import

/// Logtail's entry for a file of which it has read `offset` bytes: `path` as configured, `real` as
/// it is now.
fn entry(path: &Path, real: &Path, offset: usize) -> Value {
    let (found, head) = (fs::metadata(real).unwrap(), fs::read(real).unwrap());
    let signature = Signature::of_head(&head[..offset]).unwrap();
    json!({
        "config_name": "##1.0##shop$app", "container_stopped": 0, "dev": found.dev(),
        "file_name": path, "file_open": 1, "idx_in_reader_array": -2, "inode": found.ino(),
        "last_force_read": 0, "offset": offset.to_string(), "real_file_name": real, "sig": "",
        "sig_hash": signature.hash, "sig_size": signature.len, "update_time": 1_700_000_000,
    })
}

/// Writes the file as logtail does.
fn write_logtail(pod: &Pod, entries: &[Value]) -> PathBuf {
    let name = |one: &Value| format!("{}*{}*{}*app", one["file_name"], one["dev"], one["inode"]);
    let entries: serde_json::Map<String, Value> =
        entries.iter().map(|one| (name(one), one.clone())).collect();
    let json = json!({"check_point": entries, "dir_check_point": null, "version": 200});
    let path = pod.path("logtail_check_point");
    fs::write(&path, serde_json::to_string_pretty(&json).unwrap()).unwrap();
    path
}

/// Lines that logtail has sent: they must not arrive, and are not in the ledger. Returns how many
/// bytes they take.
fn sent_by_logtail(path: &Path, count: usize) -> usize {
    let lines: String =
        (0..count).map(|n| format!("sent before {n} {}\n", path.display())).collect();
    append_to(path).write_all(lines.as_bytes()).unwrap();
    lines.len()
}

/// Logtail has read parts of four files when it ends: one is open, with an unfinished last line;
/// one was renamed to a name that the patterns do not match; one is on a device that has another
/// number now; one is rewritten since, so that its offset means nothing. Of each exactly the rest
/// arrives.
#[test]
fn c08_what_logtail_had_read_does_not_come_again_and_the_rest_does() {
    let (mut pod, open) = Pod::with_log();
    pod.set("LOGFERRY_PARTIAL_LINE_TIMEOUT", "10m");
    let beside = |name: &str| open.with_file_name(name);
    let configured = pod.path("share/logs/app.log");
    let rotated = beside("app.log.1");
    let rotated_offset = sent_by_logtail(&open, 300);
    pod.ledger.append(&open, 100);
    fs::rename(&open, &rotated).unwrap();
    let open_offset = sent_by_logtail(&open, 200);
    pod.ledger.append(&open, 50);
    append_to(&open).write_all(b"begun before the ").unwrap();
    let (moved, rewritten) = (beside("moved.log"), beside("rewritten.log"));
    let moved_offset = sent_by_logtail(&moved, 20);
    let rewritten_offset = sent_by_logtail(&rewritten, 20);
    let mut entries = vec![
        // Logtail may not have noticed the new name yet.
        entry(&configured, &rotated, rotated_offset),
        entry(&configured, &open, open_offset),
        entry(&pod.path("share/logs/moved.log"), &moved, moved_offset),
        entry(&pod.path("share/logs/rewritten.log"), &rewritten, rewritten_offset),
    ];
    entries[0]["real_file_name"] = text(&open).into();
    entries[2]["dev"] = 7.into();
    entries[2]["resolved_file_name"] = text(&moved).into();
    entries[2]["offset"] = moved_offset.into();
    pod.ledger.append(&moved, 10);
    fs::write(&rewritten, "").unwrap();
    pod.ledger.append(&rewritten, 100);

    let file = write_logtail(&pod, &entries);
    let (code, out, complaint) = checkpoint(&pod, &["import", &text(&file)]);

    assert_eq!(code, 0, "{complaint}");
    assert_line(&out, &["imported", "app.log", &rotated_offset.to_string(), "app.log.1"]);
    assert_line(&out, &["imported", "app.log", &open_offset.to_string()]);
    assert_line(&out, &["imported", "moved.log"]);
    assert_line(&out, &["skipped", "rewritten.log", "not those that logtail saw"]);
    assert_line(&out, &["3 imported, 0 already known, 1 skipped"]);
    let agent = pod.start();
    pod.expect_all();
    append_to(&open).write_all(b"agent was replaced\n").unwrap();
    pod.ledger.lines.push("begun before the agent was replaced".to_owned());
    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

#[test]
fn c08_a_second_import_changes_nothing() {
    let (mut pod, log) = Pod::with_log();
    let offset = sent_by_logtail(&log, 100);
    let path = pod.path("share/logs/app.log");
    let file = text(&write_logtail(&pod, &[entry(&path, &log, offset)]));
    assert_eq!(checkpoint(&pod, &["import", &file]).0, 0);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);

    let (code, out, _) = checkpoint(&pod, &["import", &file]);

    assert_eq!(code, 0);
    assert_line(&out, &["already known", "app.log"]);
    assert_line(&out, &["0 imported, 1 already known, 0 skipped"]);
    let agent = pod.start();
    pod.ledger.append(&log, 10);
    assert_eq!(pod.finish(agent), 0, "nothing comes twice");
}

#[test]
fn c08_what_is_no_logtail_checkpoint_is_refused() {
    let pod = Pod::new();
    let path = pod.path("file");
    let ours = [b"LFCKPT\r\n".as_slice(), &[0; 40]].concat();
    for bytes in [&b""[..], b"{\"check_point\": {", b"{\"version\": 200}", &ours] {
        fs::write(&path, bytes).unwrap();
        let (code, _, complaint) = checkpoint(&pod, &["import", &text(&path)]);
        assert_eq!(code, 64, "{complaint}");
        assert!(complaint.contains(&text(&path)), "{complaint}");
        assert!(complaint.contains("/tmp/logtail_check_point"), "{complaint}");
        assert!(!complaint.contains("panicked"), "{complaint}");
    }
    assert_eq!(checkpoint(&pod, &["import", "/nowhere/file"]).0, 64);
    assert!(!pod.path("state").exists(), "nothing was done");
}
