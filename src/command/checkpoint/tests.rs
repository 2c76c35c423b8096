//! The commands against directories of their own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;
use crate::base::exit::ExitCode;
use crate::base::fingerprint::Fingerprint;
use crate::checkpoint::format::Checkpoint;
use crate::checkpoint::logtail::Signature;
use crate::checkpoint::store::Store;
use crate::config;

/// A disk with log files, logtail's checkpoint of them, and a state directory.
struct Disk {
    dir: tempfile::TempDir,
    entries: serde_json::Map<String, serde_json::Value>,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        Self { dir, entries: serde_json::Map::new() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        self.path(path).display().to_string()
    }

    fn kept(&self) -> Kept {
        let vars = [
            ("LOGFERRY_STATE_DIR", self.text("state")),
            ("LOGFERRY_PATHS", self.text("logs/**/*.log")),
        ];
        let env = vars.map(|(name, value)| (name.into(), value.into())).into();
        config::load_kept(&env, &config::Flags::new()).unwrap()
    }

    fn run(&self, action: &Action) -> Result<String, Error> {
        let mut out = Vec::new();
        run(action, &self.kept(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn show(&self) -> String {
        self.run(&Action::Show { json: false }).unwrap()
    }

    fn show_json(&self) -> serde_json::Value {
        serde_json::from_str(&self.run(&Action::Show { json: true }).unwrap()).unwrap()
    }

    fn reset(&self, path: &str) -> Result<String, Error> {
        self.run(&Action::Reset { path: self.path(path) })
    }

    fn import(&self) -> Result<String, Error> {
        let json = serde_json::json!({"version": 200, "check_point": self.entries});
        fs::write(self.path("logtail_check_point"), json.to_string()).unwrap();
        self.run(&Action::Import { file: self.path("logtail_check_point") })
    }

    /// Writes a log file, of which logtail has read `offset` bytes.
    fn log(&mut self, name: &str, bytes: &str, offset: u64) {
        let path = self.path(&format!("logs/{name}"));
        fs::write(&path, bytes).unwrap();
        let (found, signature) =
            (fs::metadata(&path).unwrap(), Signature::of_head(bytes.as_bytes()));
        let entry = serde_json::json!({
            "file_name": path, "real_file_name": path, "resolved_file_name": "",
            "dev": found.dev(), "inode": found.ino(), "offset": offset.to_string(), "sig": "",
            "sig_size": signature.map_or(0, |one| one.len),
            "sig_hash": signature.map_or(0, |one| one.hash),
        });
        self.entries.insert(name.to_owned(), entry);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// The checkpoint that the state directory has of a file, by the file's inode.
    fn checkpoint(&self, path: &str) -> Option<Checkpoint> {
        let inode = fs::metadata(self.path(path)).unwrap().ino();
        let loaded = crate::checkpoint::store::peek(&self.path("state"));
        loaded.checkpoints.into_iter().find(|one| one.inode == inode)
    }
}

fn assert_line(text: &str, words: &[&str]) {
    let is_it = |line: &str| words.iter().all(|word| line.contains(word));
    assert!(text.lines().any(is_it), "no line with {words:?} in:\n{text}");
}

// === import

#[test]
fn what_logtail_had_read_becomes_a_checkpoint() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\ntwo\nthree\n", 8);

    let text = disk.import().unwrap();

    assert_line(&text, &["imported", "app.log", "from byte 8 of 14 on"]);
    assert_line(&text, &["1 imported, 0 already known, 0 skipped"]);
    let checkpoint = disk.checkpoint("logs/app.log").unwrap();
    let found = fs::metadata(disk.path("logs/app.log")).unwrap();
    assert_eq!((checkpoint.device, checkpoint.offset), (found.dev(), 8));
    assert_eq!(checkpoint.path, disk.path("logs/app.log"));
    assert_eq!(checkpoint.resolved, fs::canonicalize(disk.path("logs/app.log")).unwrap());
    assert_eq!(checkpoint.head, Fingerprint::of(b"one\ntwo\nthree\n"));
    assert_eq!(checkpoint.tail, Fingerprint::of(b"one\ntwo\n"));
    assert!(checkpoint.seen_unix > 0);
}

#[test]
fn the_tail_is_that_of_the_agent() {
    let mut disk = Disk::new();
    let text = "0123456789abcdef".repeat(100);
    disk.log("app.log", &text, 1500);
    disk.import().unwrap();
    let checkpoint = disk.checkpoint("logs/app.log").unwrap();
    assert_eq!(checkpoint.head, Fingerprint::of_head(text.as_bytes()));
    assert_eq!(checkpoint.tail, Fingerprint::of_tail(&text.as_bytes()[..1500]));
}

#[test]
fn a_renamed_file_is_found_by_its_inode_and_keeps_its_configured_path() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\ntwo\n", 4);
    disk.rename("logs/app.log", "logs/app.log.1");
    fs::write(disk.path("logs/app.log"), "new\n").unwrap();

    let text = disk.import().unwrap();

    assert_line(&text, &["imported", "app.log", "app.log.1)"]);
    let checkpoint = disk.checkpoint("logs/app.log.1").unwrap();
    assert_eq!((checkpoint.path, checkpoint.offset), (disk.path("logs/app.log"), 4));
    assert_eq!(disk.checkpoint("logs/app.log"), None);
}

#[test]
fn another_device_number_needs_the_signature() {
    let mut disk = Disk::new();
    disk.log("signed.log", "one\n", 4);
    disk.log("unsigned.log", "one\n", 4);
    disk.log("neither.log", "one\n", 4);
    disk.entries["signed.log"]["dev"] = 7.into();
    disk.entries["unsigned.log"]["sig_size"] = 0.into();
    disk.entries["neither.log"]["sig_size"] = 0.into();
    disk.entries["neither.log"]["dev"] = 7.into();

    let text = disk.import().unwrap();

    assert_line(&text, &["imported", "/signed.log"]);
    assert_line(&text, &["imported", "unsigned.log"]);
    assert_line(&text, &["skipped", "neither.log", "no signature"]);
}

#[test]
fn each_entry_that_is_left_out_has_its_reason() {
    let mut disk = Disk::new();
    disk.log("good.log", "one\n", 4);
    disk.log("gone.log", "one\n", 4);
    disk.log("replaced.log", "one\n", 4);
    disk.log("rewritten.log", "one\ntwo\n", 4);
    disk.log("truncated.log", "one\ntwo\n", 8);
    disk.log("moved.log", "one\n", 4);
    disk.log("nonsense.log", "one\n", 4);
    // Elsewhere rather than deleted, so that nothing uses their inodes again.
    disk.rename("logs/gone.log", "gone.log");
    fs::write(disk.path("logs/other"), "other").unwrap();
    disk.rename("logs/replaced.log", "replaced.log");
    disk.rename("logs/other", "logs/replaced.log");
    fs::write(disk.path("logs/rewritten.log"), "ONE\nTWO\n").unwrap();
    disk.entries["truncated.log"]["sig_size"] = 4.into();
    disk.entries["truncated.log"]["sig_hash"] = Signature::of_head(b"one\n").unwrap().hash.into();
    fs::write(disk.path("logs/truncated.log"), "one\n").unwrap();
    disk.entries["moved.log"]["sig_size"] = 0.into();
    disk.rename("logs/moved.log", "logs/moved.log.1");
    disk.entries["nonsense.log"]["offset"] = "all".into();

    let text = disk.import().unwrap();

    assert_line(&text, &["imported", "good.log"]);
    assert_line(&text, &["skipped", "gone.log", "not there any more"]);
    assert_line(&text, &["skipped", "replaced.log", "another file is at"]);
    assert_line(&text, &["skipped", "rewritten.log", "first 8 bytes are not those"]);
    assert_line(&text, &["skipped", "truncated.log", "had read 8 bytes, and it has 4"]);
    assert_line(&text, &["skipped", "moved.log", "no signature", "renamed"]);
    assert_line(&text, &["skipped", "nonsense.log", "its offset is not a whole number"]);
    assert_line(&text, &["1 imported, 0 already known, 6 skipped"]);
}

#[test]
fn what_is_known_already_is_left_as_it_is() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\ntwo\n", 8);
    disk.import().unwrap();
    disk.log("app.log", "one\ntwo\n", 4);
    disk.log("more.log", "one\n", 4);

    let text = disk.import().unwrap();

    assert_line(&text, &["already known", "app.log", "up to byte 8"]);
    assert_line(&text, &["1 imported, 1 already known, 0 skipped"]);
    assert_eq!(disk.checkpoint("logs/app.log").unwrap().offset, 8);
    assert_eq!(disk.checkpoint("logs/more.log").unwrap().offset, 4);
}

#[test]
fn of_two_entries_for_a_file_the_lower_one_counts() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\ntwo\n", 8);
    let mut other = disk.entries["app.log"].clone();
    other["offset"] = "4".into();
    disk.entries.insert("other configuration".to_owned(), other);

    let text = disk.import().unwrap();

    assert_line(&text, &["1 imported, 0 already known, 1 skipped"]);
    assert_eq!(disk.checkpoint("logs/app.log").unwrap().offset, 4);
}

#[test]
fn a_name_that_paths_does_not_find_is_taken_over_and_said() {
    let mut disk = Disk::new();
    disk.log("audit.txt", "one\n", 4);
    let text = disk.import().unwrap();
    assert_line(&text, &["imported", "audit.txt", "`paths` does not find this name"]);
    assert!(disk.checkpoint("logs/audit.txt").is_some());
}

#[test]
fn what_is_no_checkpoint_file_is_refused_with_what_would_be_right() {
    let disk = Disk::new();
    let file = disk.path("file");
    for (bytes, word) in
        [(&b"{\"check_point"[..], "no JSON"), (b"{}", "check_point"), (b"\0\xff", "no JSON")]
    {
        fs::write(&file, bytes).unwrap();
        let error = disk.run(&Action::Import { file: file.clone() }).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Usage);
        let text = error.to_string();
        assert!(text.contains(word) && text.contains("/tmp/logtail_check_point"), "{text}");
    }
    let error = disk.run(&Action::Import { file: disk.path("missing") }).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Usage);
    assert!(error.to_string().contains("missing: No such file"), "{error}");
    assert!(!disk.path("state").exists(), "nothing was done");
}

// === reset

#[test]
fn reset_forgets_all_generations_of_a_path_and_nothing_else() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\n", 4);
    disk.import().unwrap();
    disk.rename("logs/app.log", "logs/app.log.1");
    disk.log("app.log", "two\n", 4);
    disk.log("other.log", "three\n", 6);
    disk.import().unwrap();

    let text = disk.reset("logs/app.log").unwrap();

    assert_eq!(text.matches("forgotten").count(), 2, "{text}");
    assert_eq!(disk.checkpoint("logs/app.log"), None);
    assert_eq!(disk.checkpoint("logs/app.log.1"), None);
    assert_eq!(disk.checkpoint("logs/other.log").unwrap().offset, 6);
}

#[test]
fn reset_takes_the_real_path_too() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\n", 4);
    disk.entries["app.log"]["file_name"] = "/share/logs/app.log".into();
    disk.import().unwrap();
    assert_eq!(disk.checkpoint("logs/app.log").unwrap().path, Path::new("/share/logs/app.log"));
    disk.reset("logs/app.log").unwrap();
    assert_eq!(disk.checkpoint("logs/app.log"), None);
}

/// The newest file may be damaged later: no older one brings back what was forgotten.
#[test]
fn reset_leaves_no_file_that_remembers() {
    for name in ["checkpoint.0", "checkpoint.1", "checkpoint.now"] {
        let mut disk = Disk::new();
        disk.log("app.log", "one\n", 4);
        disk.import().unwrap();
        disk.reset("logs/app.log").unwrap();
        fs::write(disk.path("state").join(name), "damaged").unwrap();
        assert_eq!(disk.checkpoint("logs/app.log"), None, "{name}");
    }
}

#[test]
fn reset_of_an_unknown_path_lists_what_is_known() {
    let mut disk = Disk::new();
    let error = disk.reset("logs/app.log").unwrap_err();
    assert!(error.to_string().contains("it knows none"), "{error}");
    assert!(!disk.path("state").exists(), "no directory is made to forget something");

    disk.log("app.log", "one\n", 4);
    disk.import().unwrap();
    let error = disk.reset("logs/app").unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Usage);
    assert!(error.to_string().contains(&disk.text("logs/app.log")), "{error}");
    assert!(disk.checkpoint("logs/app.log").is_some());
}

/// What cannot be read is not taken for nothing.
#[test]
fn reset_says_if_the_state_cannot_be_read() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\n", 4);
    disk.import().unwrap();
    for name in ["checkpoint.0", "checkpoint.1", "checkpoint.now"] {
        fs::write(disk.path("state").join(name), "damaged").unwrap();
    }
    let error = disk.reset("logs/app.log").unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Usage);
    assert_line(&error.to_string(), &["damaged", "state/checkpoint.0", "is cut off"]);

    fs::remove_dir_all(disk.path("state")).unwrap();
    fs::write(disk.path("state"), "").unwrap();
    let error = disk.reset("logs/app.log").unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::State);
    assert!(error.to_string().contains("Not a directory"), "{error}");
}

// === the lock

#[test]
fn beside_an_agent_only_show_works() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\n", 4);
    disk.import().unwrap();
    let agent = Store::open(&disk.path("state")).unwrap();
    for outcome in [disk.import(), disk.reset("logs/app.log")] {
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::State);
        let text = error.to_string();
        assert!(
            text.contains(&std::process::id().to_string()) && text.contains("stop it"),
            "{text}"
        );
    }
    assert_line(&disk.show(), &["app.log"]);
    drop(agent);
    disk.reset("logs/app.log").unwrap();
}

// === show

#[test]
fn show_says_what_is_there_and_what_is_unusual() {
    let mut disk = Disk::new();
    for name in ["app.log", "moved.log", "short.log", "gone.log", "audit.txt"] {
        disk.log(name, "one\ntwo\n", 8);
    }
    disk.import().unwrap();
    disk.rename("logs/moved.log", "logs/moved.log.1");
    fs::write(disk.path("logs/short.log"), "one\n").unwrap();
    fs::remove_file(disk.path("logs/gone.log")).unwrap();
    let found = fs::metadata(disk.path("logs/app.log")).unwrap();

    let text = disk.show();

    let identity = format!("{}:{}", found.dev(), found.ino());
    assert_line(&text, &["PATH", "DEVICE:INODE", "OFFSET", "SIZE", "SEEN", "WHERE", "NOTE"]);
    let row = text.lines().find(|line| line.starts_with(&disk.text("logs/app.log "))).unwrap();
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words[1..4], [identity.as_str(), "8", "8"], "{row}");
    assert!(words[4].ends_with('s') && words[5] == "ago" && words.len() == 7, "{row}");
    assert_line(&text, &["logs/moved.log ", "logs/moved.log.1"]);
    assert_line(&text, &["logs/short.log ", "shorter than what was delivered"]);
    assert_line(&text, &["logs/gone.log ", "  -  ", "not there any more"]);
    assert_line(&text, &["logs/audit.txt ", "`paths` does not find this name"]);
    assert_line(&text, &["set aside: 0 batches", "state/parked"]);
}

#[test]
fn show_json_has_everything() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\ntwo\n", 4);
    disk.import().unwrap();
    disk.rename("logs/app.log", "logs/app.log.1");

    let json = disk.show_json();

    let file = &json["files"][0];
    assert_eq!(file["path"], disk.text("logs/app.log"));
    assert_eq!(file["found_at"].as_str().unwrap().rsplit_once('/').unwrap().1, "app.log.1");
    assert_eq!((&file["offset"], &file["size"]), (&4.into(), &8.into()));
    let tail = Fingerprint::of(b"one\n");
    assert_eq!((&file["tail"]["len"], &file["tail"]["crc32"]), (&4.into(), &tail.crc32.into()));
    assert_eq!(file["head"]["len"], 8);
    assert_eq!((&file["in_paths"], &file["note"]), (&true.into(), &"".into()));
    assert_eq!((&json["exists"], &json["damaged"]), (&true.into(), &serde_json::json!([])));
}

#[test]
fn show_tells_what_is_done_and_what_is_gone() {
    let mut disk = Disk::new();
    disk.log("done.log", "one\n", 4);
    disk.import().unwrap();
    let done = Checkpoint { is_done: true, ..disk.checkpoint("logs/done.log").unwrap() };
    let gone = Checkpoint { inode: 0, path: disk.path("logs/gone.log"), ..done.clone() };
    Store::open(&disk.path("state")).unwrap().0.save(&[done, gone], true).unwrap();

    let text = disk.show();

    assert_line(&text, &["logs/done.log ", "  delivered and closed"]);
    assert_line(&text, &["logs/gone.log ", ":0 ", "gone; a copy of it would be known"]);
}

#[test]
fn show_names_damaged_files_and_counts_parked_batches() {
    let mut disk = Disk::new();
    disk.log("app.log", "one\n", 4);
    disk.import().unwrap();
    fs::write(disk.path("state/checkpoint.now"), "LFCKPT\r\nnonsense").unwrap();
    fs::create_dir(disk.path("state/parked")).unwrap();
    fs::write(disk.path("state/parked/1-2-3.batch"), [b'x'; 1500]).unwrap();
    fs::write(disk.path("state/parked/1-2-4.batch"), [b'x'; 548]).unwrap();
    fs::write(disk.path("state/parked/1-2-5.tmp"), "half").unwrap();

    let (text, json) = (disk.show(), disk.show_json());

    assert_line(&text, &["damaged: ", "state/checkpoint.now: its check sum"]);
    assert_line(&text, &["set aside: 2 batches, 2.0 KiB, in ", "state/parked"]);
    assert_line(&text, &["logs/app.log"]);
    assert_eq!(json["damaged"][0]["path"], disk.text("state/checkpoint.now"));
    assert_eq!((&json["parked"]["batches"], &json["parked"]["bytes"]), (&2.into(), &2048.into()));
}

#[test]
fn show_of_a_directory_that_holds_nothing_says_so() {
    let disk = Disk::new();
    assert_line(&disk.show(), &["state is not there", "nothing known"]);
    assert_eq!(disk.show_json()["exists"], false);
    assert!(!disk.path("state").exists(), "and makes none");

    fs::create_dir(disk.path("state")).unwrap();
    assert_line(&disk.show(), &["no file is known"]);

    fs::remove_dir(disk.path("state")).unwrap();
    fs::write(disk.path("state"), "").unwrap();
    let error = disk.run(&Action::Show { json: false }).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::State);
    assert!(error.to_string().contains("LOGFERRY_STATE_DIR"), "{error}");
}
