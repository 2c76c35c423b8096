//! The agent as its image runs it, user 65532, before paths that are somebody else's: it says whose
//! they are, who it is, and what would be right.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::support::disk::Disk;
use crate::support::{Pod, wait_for};

const ME: &str = "the agent runs as user 65532 and group 65532";
const WARNING: &str = "it; trying again";

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A pod into which that user may look.
fn pod() -> Pod {
    let pod = Pod::new();
    pod.let_all_in();
    pod
}

/// What the kubelet makes for a `subPath` is root's, 0750.
#[test]
fn a_state_directory_of_somebody_else_is_refused_with_what_would_be_right() {
    for (made, mode, named) in [
        (Some("state"), 0o750, "state"),
        (Some("state"), 0o755, "state"),
        (Some("parent"), 0o750, "parent"),
        (None, 0, ""),
    ] {
        let mut pod = pod();
        if let Some(made) = made {
            fs::DirBuilder::new().mode(mode).create(pod.path(made)).unwrap();
            permit(&pod.path(made), mode);
        }
        let state = if made == Some("parent") { "parent/pod/state" } else { "state" };
        let path = pod.path(state).display().to_string();
        pod.set("LOGFERRY_STATE_DIR", &path);
        let Some((code, _, complaint)) = pod.run_as_the_image_does(&["run"]) else { return };

        assert_eq!(code, 73, "{complaint}");
        let blamed = pod.path(named).display().to_string();
        let blamed = blamed.trim_end_matches('/');
        for words in [
            &path,
            &format!("{blamed} belongs to user 0 and group 0 with mode 0"),
            ME,
            &format!("chown -R 65532:65532 {path} "),
            "init container",
        ] {
            assert!(complaint.contains(words), "{words:?} in {complaint}");
        }
        let (code, note, _) = pod.run_as_the_image_does(&["check"]).unwrap();
        assert_eq!(code, 0);
        assert!(
            note.contains(&format!("note: the state directory {path} cannot be used")),
            "{note}"
        );

        let pass =
            format!("chmod a+x {} && mkdir -p {path} && chown", pod.path("parent").display());
        assert_eq!(complaint.contains(&pass), made == Some("parent"), "{complaint}");

        // As the message has it.
        fs::create_dir_all(&path).unwrap();
        chown(&path, Some(65532), Some(65532)).unwrap();
        if made == Some("parent") {
            permit(&pod.path("parent"), 0o751);
        }
        let agent = pod.start_as_the_image_does().unwrap();
        assert_eq!(pod.finish(agent), 0);
    }
}

#[test]
fn a_state_directory_on_a_disk_that_is_mounted_read_only() {
    let pod = pod();
    let Some(disk) = Disk::tmpfs(&pod.path("state"), "size=1m,mode=0777") else { return };
    disk.remount("ro");
    let Some((code, _, complaint)) = pod.run_as_the_image_does(&["run"]) else { return };

    assert_eq!(code, 73, "{complaint}");
    for words in [&*pod.path("state").display().to_string(), "mounted read-only", "mount a volume"]
    {
        assert!(complaint.contains(words), "{words:?} in {complaint}");
    }
}

/// An older agent ran as root: its checkpoints are not this one's to read.
#[test]
fn a_state_that_somebody_else_left_is_named() {
    let mut pod = pod();
    pod.link("data/pod/logs");
    pod.ledger.append(&pod.path("data/pod/logs/app.log"), 100);
    let root = pod.start();
    assert_eq!(pod.finish(root), 0);
    chown(pod.path("state"), Some(65532), Some(65532)).unwrap();
    let Some(agent) = pod.start_as_the_image_does() else { return };

    pod.wait_for_log("a checkpoint file is damaged", 1);
    let log = pod.agent_log();
    let line = log.lines().find(|line| line.contains("a checkpoint file is damaged")).unwrap();
    let state = pod.path("state").display().to_string();
    for words in ["belongs to user 0", ME, &format!("chown -R 65532:65532 {state}")] {
        assert!(line.contains(words), "{words:?} in {line}");
    }
    drop(agent);
}

/// A file, or the directory that it is in: named once, shown while it is so, shipped as soon as it
/// may be read.
#[test]
fn l16_logs_of_somebody_else_are_named_once_and_shipped_when_they_may_be_read() {
    for (shut, mode, open) in [("app.log", 0o640, 0o644), ("sub", 0o750, 0o755)] {
        let mut pod = pod();
        pod.link("data/pod/logs");
        let dir = pod.path("data/pod/logs");
        for dir in ["data", "data/pod", "data/pod/logs", "share"] {
            permit(&pod.path(dir), 0o755);
        }
        fs::create_dir(dir.join("sub")).unwrap();
        let name = if shut == "sub" { "sub/app.log" } else { shut };
        pod.ledger.append(&dir.join(name), 100);
        pod.ledger.append(&dir.join("open.log"), 1);
        permit(&dir.join(shut), mode);
        fs::create_dir(pod.path("state")).unwrap();
        chown(pod.path("state"), Some(65532), Some(65532)).unwrap();
        let admin = pod.admin();
        let Some(agent) = pod.start_as_the_image_does() else { return };

        let path = pod.path("share/logs").join(shut).display().to_string();
        let told = |text: &str| {
            text.contains(&path)
                && text.contains(&format!("belongs to user 0 and group 0 with mode {mode:04o}"))
                && text.contains(ME)
        };
        wait_for("the warning", || pod.agent_log().lines().any(|l| l.contains(WARNING) && told(l)));
        if shut == "app.log" {
            admin.expect_metric("logferry_failing_files", 1);
            let files = admin.status()["files"].to_string();
            assert!(files.contains("\"unopened\"") && told(&files), "{files}");
        }
        let (code, check, _) = pod.run_as_the_image_does(&["check"]).unwrap();
        assert!(code == 0 && told(&check), "{check}");
        permit(&dir.join(shut), open);

        assert_eq!(pod.finish(agent), 0);
        assert_eq!(pod.times_logged(WARNING), 1, "{}", pod.agent_log());
    }
}
