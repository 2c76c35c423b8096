//! Links (F23 to F29): a file under several names is shipped once, a link that is pointed elsewhere
//! is followed, one that leads out of the allowed directories is not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Agent, Pod, append_to, pause, wait_for};

/// The agent says that a link is not followed.
const REFUSED: &str = "a link leads out of the allowed directories; it is not followed";

/// `ln -sfn TARGET LINK`, by the tool: the link is gone for a moment.
fn ln_sfn(target: &Path, link: &Path) {
    assert!(Command::new("ln").arg("-sfn").args([target, link]).status().unwrap().success());
}

/// Points a link elsewhere in one step.
fn swap(target: &Path, link: &Path) {
    let mut next = link.as_os_str().to_owned();
    next.push(".next");
    symlink(target, &next).unwrap();
    fs::rename(&next, link).unwrap();
}

/// A link beside its target, and a hard link: all three match, and the lines come once, under the
/// first pattern that finds them.
#[test]
fn f23_a_file_under_several_names_is_shipped_once() {
    let orders: [(&[&str], &str); 4] = [
        (&["share/logs/*.log"], "share/logs/app.log"),
        (&["share/logs/c*.log", "share/logs/*.log"], "share/logs/current.log"),
        (&["share/logs/h*.log", "share/logs/*.log"], "share/logs/hard.log"),
        (&["share/logs/app.log", "share/logs/c*.log"], "share/logs/app.log"),
    ];
    for (patterns, path) in orders {
        let (mut pod, log) = Pod::with_log();
        pod.patterns(patterns);
        symlink("app.log", log.with_file_name("current.log")).unwrap();
        pod.ledger.append(&log, 100);
        fs::hard_link(&log, log.with_file_name("hard.log")).unwrap();
        let agent = pod.start();
        pod.expect_all();
        pod.ledger.append(&log.with_file_name("hard.log"), 100);
        assert_eq!(pod.finish(agent), 0, "{patterns:?}");
        let agent = pod.start();
        pod.ledger.append(&log, 100);

        assert_eq!(pod.finish(agent), 0, "{patterns:?}, after a restart");
        assert_eq!(pod.shipped_paths(), [path.to_owned()].into(), "{patterns:?}");
    }
}

/// An app that writes by the second name is noticed by the notification of that name, not by the
/// next look at everything, which would take the file system for one without notifications.
#[test]
fn f23_what_is_written_by_the_second_name_is_noticed() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 10);
    let second = log.with_file_name("second.log");
    fs::hard_link(&log, &second).unwrap();
    let agent = pod.start();
    pod.expect_all();
    // Three looks at everything, and some.
    let until = logferry::base::clock::now() + Duration::from_secs(18);
    while logferry::base::clock::now() < until {
        pod.ledger.append(&second, 1);
        pause(Duration::from_millis(500));
    }

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged("without notifications"), 0, "{}", pod.agent_log());
    assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
}

/// The links come and go while the agent runs; the file stays the same.
#[test]
fn f23_names_that_come_and_go_repeat_nothing() {
    let (mut pod, log) = Pod::with_log();
    let other = |name: &str| log.with_file_name(name);
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    pod.expect_all();
    for round in 0..3 {
        symlink("app.log", other("a-link.log")).unwrap();
        fs::hard_link(&log, other("a-hard.log")).unwrap();
        pod.ledger.append(&other("a-hard.log"), 10);
        pod.expect_all();
        fs::remove_file(other("a-link.log")).unwrap();
        // The first name goes, and the hard link takes its place.
        fs::remove_file(&log).unwrap();
        pod.ledger.append(&other("a-hard.log"), 10);
        pod.expect_all();
        fs::rename(other("a-hard.log"), &log).unwrap();
        pod.ledger.append(&log, 10 + round);
    }

    assert_eq!(pod.finish(agent), 0);
}

/// The link's target is renamed and the link follows: `app.log -> app.1.log`, then `-> app.2.log`.
#[test]
fn f23_a_link_to_the_newest_generation_repeats_nothing() {
    let (mut pod, log) = Pod::with_log();
    let agent = pod.start();
    for generation in 1..=4 {
        let target = log.with_file_name(format!("app.{generation}.log"));
        pod.ledger.append(&target, 100);
        ln_sfn(Path::new(target.file_name().unwrap()), &log);
        pod.expect_all();
        pod.ledger.append(&log, 100);
    }

    assert_eq!(pod.finish(agent), 0);
}

/// `ln -sfn v2/app.log current.log` while the old target is still written to.
#[test]
fn f24_both_files_are_read_when_a_link_to_a_file_is_pointed_elsewhere() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/current.log"]);
    let current = log.with_file_name("current.log");
    let target = |version: &str| log.with_file_name(version).join("app.log");
    for version in ["v1", "v2", "v3"] {
        fs::create_dir(log.with_file_name(version)).unwrap();
    }
    let mut old = append_to(&target("v1"));
    symlink("v1/app.log", &current).unwrap();
    pod.ledger.write(&mut old, 100);
    let agent = pod.start();
    pod.expect_all();
    for version in ["v2", "v3"] {
        let mut new = append_to(&target(version));
        ln_sfn(&Path::new(version).join("app.log"), &current);
        for _ in 0..10 {
            pod.ledger.write(&mut old, 10);
            pod.ledger.write(&mut new, 10);
            pause(Duration::from_millis(50));
        }
        pod.expect_all();
        old = new;
    }

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/logs/current.log".to_owned()].into());
}

/// The switch is noticed by a notification, not by the next look at everything: of five switches
/// at least one is in the agent's hands within a second, however busy the machine is.
#[test]
fn f24_a_switch_is_noticed_within_a_second() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs-0");
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_ready();
    let mut times = Vec::new();
    for version in 1..=5 {
        let dir = format!("data/pod/logs-{version}");
        let log = pod.path(&dir).join("app.log");
        fs::create_dir_all(pod.path(&dir)).unwrap();
        pod.ledger.append(&log, 1);
        let started = logferry::base::clock::now();
        pod.link(&dir);
        agent.wait_until_open(&log);
        times.push(logferry::base::clock::now() - started);
    }
    assert!(times.iter().any(|time| *time < Duration::from_secs(1)), "{times:?}");

    assert_eq!(pod.finish(agent), 0);
}

/// The restarted app points the link elsewhere while the old one still writes.
#[test]
fn f25_both_files_are_read_when_the_link_is_pointed_elsewhere() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let agent = pod.start();
    let mut old = append_to(&pod.path("data/pod/logs/app.log"));
    pod.ledger.write(&mut old, 100);
    pod.expect_all();

    pod.link("data/pod/logs-2");
    let mut new = append_to(&pod.path("data/pod/logs-2/app.log"));
    for _ in 0..20 {
        pod.ledger.write(&mut old, 10);
        pod.ledger.write(&mut new, 10);
        pause(Duration::from_millis(50));
    }

    assert_eq!(pod.finish(agent), 0);
}

/// The link is pointed elsewhere while no agent runs: the rest of the old file is found by what
/// the checkpoint remembers of it.
#[test]
fn f25_the_rest_of_the_old_file_is_read_when_the_link_moved_while_the_agent_was_away() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let old = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&old, 100);
    let agent = pod.start();
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);

    pod.ledger.append(&old, 50);
    pod.link("data/pod/logs-2");
    let new = pod.path("data/pod/logs-2/app.log");
    pod.ledger.append(&new, 50);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
}

/// The app restarts with `ln -s` and without `-n`: each new link lands inside the first directory,
/// named as the directory it leads to. The agent sees it happen, then finds it so when it starts.
#[test]
fn f25_a_link_that_lands_inside_the_old_directory_is_followed() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let restart_app = |pod: &Pod, name: &str| {
        let (dir, link) = (pod.path("data/pod").join(name), pod.path("share/logs"));
        fs::create_dir(&dir).unwrap();
        assert!(Command::new("ln").arg("-s").args([&dir, &link]).status().unwrap().success());
        assert!(pod.path("data/pod/logs").join(name).is_symlink(), "it lands inside");
        append_to(&dir.join("app.log"))
    };
    let mut first = append_to(&pod.path("data/pod/logs/app.log"));
    let agent = pod.start();
    pod.ledger.write(&mut first, 100);
    pod.expect_all();

    let mut second = restart_app(&pod, "logs-2");
    pod.ledger.write(&mut second, 100);
    pod.ledger.write(&mut first, 10);
    pod.expect_all();
    assert_eq!(agent.stop().0, 0);
    let mut third = restart_app(&pod, "logs-3");
    pod.ledger.write(&mut third, 100);
    pod.ledger.write(&mut second, 10);
    let agent = pod.start();

    assert_eq!(pod.finish(agent), 0);
    let paths = ["", "logs-2/", "logs-3/"].map(|dir| format!("share/logs/{dir}app.log"));
    assert_eq!(pod.shipped_paths(), paths.into());
}

/// `releases/current/log/*.log`, and `current` moves: twice forward, once back.
#[test]
fn f25_a_link_in_the_middle_of_the_path_is_pointed_elsewhere() {
    let mut pod = Pod::new();
    pod.patterns(&["share/releases/current/log/*.log"]);
    let release = |version: usize| pod.path(&format!("share/releases/{version}"));
    for version in 1..=3 {
        fs::create_dir_all(release(version).join("log")).unwrap();
    }
    let logs: Vec<_> = (1..=3).map(|version| release(version).join("log/app.log")).collect();
    let current = pod.path("share/releases/current");
    symlink("1", &current).unwrap();
    let agent = pod.start();
    let mut old = append_to(&logs[0]);
    pod.ledger.write(&mut old, 100);
    pod.expect_all();
    for version in [2, 3, 1] {
        ln_sfn(Path::new(&version.to_string()), &current);
        let mut new = append_to(&logs[version - 1]);
        for _ in 0..5 {
            pod.ledger.write(&mut new, 10);
            pod.ledger.write(&mut old, 10);
        }
        pod.expect_all();
        old = new;
    }

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/releases/current/log/app.log".to_owned()].into());
}

/// A directory that leads to itself, and two that lead to each other, are entered once; what is in
/// them comes once.
#[test]
fn f25_directories_that_contain_themselves_are_entered_once() {
    let (mut pod, log) = Pod::with_log();
    let dir = log.parent().unwrap();
    for name in ["a", "b"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    symlink(".", dir.join("self")).unwrap();
    symlink("../b", dir.join("a/b")).unwrap();
    symlink("../a", dir.join("b/a")).unwrap();
    symlink("loop.log", dir.join("loop.log")).unwrap();
    pod.ledger.append(&log, 10);
    pod.ledger.append(&dir.join("a/one.log"), 10);
    pod.ledger.append(&dir.join("b/two.log"), 10);
    let agent = pod.start();
    pod.expect_all();
    pod.ledger.append(&dir.join("b/two.log"), 10);

    assert_eq!(pod.finish(agent), 0);
}

/// The orchestrator's volumes: `app.log -> ..data/app.log`, `..data -> ..version`, and `..data` is
/// replaced in one step; the old version is deleted.
#[test]
fn f26_a_volume_that_is_swapped_behind_two_links() {
    let (mut pod, log) = Pod::with_log();
    pod.patterns(&["share/logs/*.log"]);
    let dir = log.parent().unwrap();
    let version = |number: usize| dir.join(format!("..2026_11_2{number}"));
    fs::create_dir(version(0)).unwrap();
    symlink(version(0).file_name().unwrap(), dir.join("..data")).unwrap();
    symlink("..data/app.log", &log).unwrap();
    let mut old = append_to(&log);
    let agent = pod.start();
    for number in 1..=3 {
        pod.ledger.write(&mut old, 100);
        pod.expect_all();
        pod.ledger.write(&mut old, 100);
        fs::create_dir(version(number)).unwrap();
        let mut new = append_to(&version(number).join("app.log"));
        pod.ledger.write(&mut new, 50);
        swap(Path::new(version(number).file_name().unwrap()), &dir.join("..data"));
        fs::remove_dir_all(version(number - 1)).unwrap();
        pod.ledger.write(&mut old, 10);
        pod.ledger.write(&mut new, 50);
        agent.wait_until_open(&version(number).join("app.log"));
        old = new;
    }

    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.shipped_paths(), ["share/logs/app.log".to_owned()].into());
}

#[test]
fn f27_a_link_that_appears_two_seconds_after_the_agent_is_followed() {
    let mut pod = Pod::new();
    let agent = pod.start();
    pause(Duration::from_secs(2));

    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 100);

    assert_eq!(pod.expect_all(), 0);
    let path = pod.path("share/logs/app.log").display().to_string();
    let group = &pod.mock.store().groups()[0];
    assert_eq!(group.tag("__path__"), Some(path), "as configured, the link not resolved");
    assert_eq!(agent.stop().0, 0);
}

#[test]
fn f27_a_dangling_link_is_followed_when_its_target_is_made() {
    let mut pod = Pod::new();
    symlink(pod.path("data/later/logs"), pod.path("share/logs")).unwrap();
    let agent = pod.start();
    pause(Duration::from_millis(500));

    fs::create_dir_all(pod.path("data/later/logs/deep")).unwrap();
    let log = pod.path("data/later/logs/deep/app.log");
    pod.ledger.append(&log, 10);

    assert_eq!(pod.finish(agent), 0);
}

/// A link to a file that is not there yet, deleted and made again: at most one warning, and what
/// is written arrives without waiting for the next look at everything.
#[test]
fn f27_a_link_whose_target_comes_and_goes_is_waited_for_quietly() {
    let (mut pod, log) = Pod::with_log();
    let link = log.with_file_name("link.log");
    let target = pod.path("data/pod/real/app.txt");
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    symlink(&target, &link).unwrap();
    let admin = pod.admin();
    let agent = pod.start();
    admin.wait_until_ready();
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = logferry::base::clock::now();
        pod.ledger.append(&target, 100);
        agent.wait_until_open(&target);
        times.push(logferry::base::clock::now() - started);
        pod.expect_all();
        fs::remove_file(&target).unwrap();
        pause(Duration::from_millis(200));
    }

    assert!(times.iter().any(|time| *time < Duration::from_secs(1)), "{times:?}");
    assert_eq!(pod.finish(agent), 0);
    let warnings = pod.agent_log().lines().filter(|line| line.contains(" WARN ")).count();
    assert!(warnings <= 1, "{}", pod.agent_log());
}

/// The secret that a link leads to: it must never arrive.
fn write_secret(pod: &Pod) -> std::path::PathBuf {
    let secret = pod.path("secret/shadow.log");
    fs::create_dir_all(secret.parent().unwrap()).unwrap();
    fs::write(&secret, "root:secret\n".repeat(50)).unwrap();
    secret
}

/// Makes the agent discover so many times more, and waits until it has.
fn discover_again(pod: &mut Pod, log: &Path, times: usize) {
    for _ in 0..times {
        let number = pod.ledger.lines.len();
        pod.ledger.append(&log.with_file_name(format!("more-{number}.log")), 1);
        pod.expect_all();
    }
}

fn holds_descriptor_of(agent: &Agent, path: &Path) -> bool {
    agent.open_paths().contains(&path.display().to_string())
}

/// A link to a file and one to a directory, both out of the pod's logs: one warning each, a metric,
/// and neither is opened. Put right, they are followed.
#[test]
fn f29_a_link_that_leads_out_is_refused_until_it_is_put_right() {
    let (mut pod, log) = Pod::with_log();
    let secret = write_secret(&pod);
    let (file, dir) = (log.with_file_name("file.log"), log.with_file_name("dir"));
    symlink(&secret, &file).unwrap();
    symlink(secret.parent().unwrap(), &dir).unwrap();
    pod.ledger.append(&log, 100);
    let admin = pod.admin();
    let agent = pod.start();
    pod.expect_all();
    discover_again(&mut pod, &log, 3);

    admin.expect_metric("logferry_links_refused", 2);
    assert_eq!(pod.times_logged(REFUSED), 2, "{}", pod.agent_log());
    for part in ["file.log", "dir", "LOGFERRY_LINK_ROOTS", &secret.display().to_string()] {
        let lines = pod.agent_log();
        let mut lines = lines.lines().filter(|line| line.contains(REFUSED));
        assert!(lines.any(|line| line.contains(part)), "{part} is named");
    }
    assert!(!holds_descriptor_of(&agent, &secret), "it was opened");

    let inside = pod.path("data/pod/inside");
    fs::create_dir(&inside).unwrap();
    pod.ledger.append(&inside.join("one.txt"), 10);
    pod.ledger.append(&inside.join("two.log"), 10);
    swap(&inside.join("one.txt"), &file);
    swap(&inside, &dir);
    pod.expect_all();
    admin.expect_metric("logferry_links_refused", 0);
    assert_eq!(pod.times_logged(REFUSED), 2);
    assert_eq!(pod.finish(agent), 0);
}

/// An app may make links by the thousand. They are counted, the first are named, and one that comes
/// later or is put right is seen among them.
#[test]
fn f29_thousands_of_links_that_lead_out_cost_some_lines_and_no_memory() {
    const LINKS: u64 = 4000;
    let (mut pod, log) = Pod::with_log();
    let target = pod.path(&format!("secret/{}", ["a-long-name"; 100].join("/")));
    for number in 0..LINKS {
        symlink(&target, log.with_file_name(format!("{number:05}.log"))).unwrap();
    }
    pod.ledger.append(&log, 10);
    let admin = pod.admin();
    let agent = pod.start();
    pod.expect_all();
    admin.expect_metric("logferry_links_refused", LINKS);
    pod.wait_for_log("more links lead out", 1);
    let said = pod.times_logged(REFUSED);
    assert!((1..=20).contains(&said), "{said} lines");

    symlink(&target, log.with_file_name("later.log")).unwrap();
    admin.expect_metric("logferry_links_refused", LINKS + 1);
    let inside = log.with_file_name("inside.txt");
    pod.ledger.append(&inside, 10);
    swap(&inside, &log.with_file_name("00777.log"));
    pod.expect_all();
    admin.expect_metric("logferry_links_refused", LINKS);

    assert!(agent.resident_bytes_peak() < 48 << 20, "{}", agent.resident_bytes_peak());
    let said = pod.agent_log().len();
    assert!(said < 64 << 10, "{said} bytes of log");
    assert_eq!(pod.finish(agent), 0);
}

/// What the base of the pattern led to at first sight is allowed, and what stands beside it; when
/// it is pointed further away it is not followed.
#[test]
fn f29_the_base_may_be_pointed_beside_and_not_out() {
    let mut pod = Pod::new();
    pod.link("data/pod-1/logs");
    let log = |pod: &Pod, number: usize| pod.path(&format!("data/pod-{number}/logs/app.log"));
    let first = log(&pod, 1);
    pod.ledger.append(&first, 100);
    let admin = pod.admin();
    let agent = pod.start();
    pod.expect_all();
    pod.link("data/pod-2/logs");
    let second = log(&pod, 2);
    pod.ledger.append(&second, 100);
    pod.expect_all();
    admin.expect_metric("logferry_links_refused", 0);

    write_secret(&pod);
    pod.link("secret");
    pod.wait_for_log(REFUSED, 1);
    admin.expect_metric("logferry_links_refused", 1);
    // What was open is read on.
    pod.ledger.append(&second, 10);
    pod.expect_all();
    assert!(!holds_descriptor_of(&agent, &pod.path("secret/shadow.log")), "it was opened");

    pod.link("data/pod-3/logs");
    let third = log(&pod, 3);
    pod.ledger.append(&third, 100);
    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged(REFUSED), 1, "{}", pod.agent_log());
}

/// `link_roots` replaces what is automatic: its directories, links resolved, and the bases as they
/// are written.
#[test]
fn f29_link_roots_say_what_is_allowed() {
    let (mut pod, log) = Pod::with_log();
    let allowed = pod.path("elsewhere/allowed");
    fs::create_dir_all(&allowed).unwrap();
    symlink(&allowed, pod.path("elsewhere/alias")).unwrap();
    let alias = pod.path("elsewhere/alias").display().to_string();
    pod.set("LOGFERRY_LINK_ROOTS", &format!("{alias},{}", pod.path("data/pod").display()));
    let secret = write_secret(&pod);
    symlink(&secret, log.with_file_name("secret.log")).unwrap();
    symlink(allowed.join("app.txt"), log.with_file_name("allowed.log")).unwrap();
    // Beside the logs, which would be allowed without the setting.
    let beside = pod.path("data/other");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("app.log"), "of somebody else\n").unwrap();
    symlink(&beside, log.with_file_name("beside")).unwrap();
    pod.ledger.append(&allowed.join("app.txt"), 100);
    pod.ledger.append(&log, 100);
    let admin = pod.admin();
    let agent = pod.start();
    pod.expect_all();

    admin.expect_metric("logferry_links_refused", 2);
    assert_eq!(pod.finish(agent), 0);
    assert_eq!(pod.times_logged(REFUSED), 2, "{}", pod.agent_log());
}

/// The base itself leads out of the listed directories.
#[test]
fn f29_link_roots_hold_for_the_base_too() {
    let (mut pod, log) = Pod::with_log();
    let elsewhere = pod.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    pod.set("LOGFERRY_LINK_ROOTS", &elsewhere.display().to_string());
    fs::write(&log, "not allowed\n").unwrap();
    let agent = pod.start();
    pod.wait_for_log(REFUSED, 1);
    pod.link("elsewhere/logs");
    let allowed = pod.path("elsewhere/logs/app.log");
    pod.ledger.append(&allowed, 100);

    assert_eq!(pod.finish(agent), 0);
}

/// A checkpoint is no permission: what an agent shipped before there was a list, and what was born
/// beside it since, is only shipped if the list allows it.
#[test]
fn f29_link_roots_hold_for_what_a_checkpoint_knows() {
    let mut pod = Pod::new();
    pod.link("data/pod/logs");
    let log = pod.path("data/pod/logs/app.log");
    pod.ledger.append(&log, 100);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    let shipped = pod.mock.store().groups().len();
    pod.ledger.append(&log, 10);
    fs::rename(&log, log.with_extension("log.2")).unwrap();
    pod.ledger.append(&log.with_extension("log.1"), 10);
    pod.ledger.append(&log, 10);

    fs::create_dir(pod.path("elsewhere")).unwrap();
    pod.set("LOGFERRY_LINK_ROOTS", &pod.path("elsewhere").display().to_string());
    let admin = pod.admin();
    let agent = pod.start();
    pod.wait_for_log(REFUSED, 2);
    admin.expect_metric("logferry_links_refused", 2);
    // The directory changes: it is searched again.
    fs::rename(log.with_extension("log.2"), log.with_extension("log.3")).unwrap();
    admin.wait_until_ready();
    assert_eq!(agent.stop().0, 0);
    assert_eq!(pod.mock.store().groups().len(), shipped, "{}", pod.agent_log());
    assert_eq!(pod.times_logged(REFUSED), 2, "{}", pod.agent_log());

    pod.set("LOGFERRY_LINK_ROOTS", &pod.path("data").display().to_string());
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
}

/// What the kernel lets a link be: into /proc, through a link that stands outside and leads back
/// in, with `..` in it.
#[test]
fn f29_only_where_a_link_ends_counts() {
    let (mut pod, log) = Pod::with_log();
    write_secret(&pod);
    symlink("/proc/self/environ", log.with_file_name("environ.log")).unwrap();
    symlink("/proc/self/root", log.with_file_name("root")).unwrap();
    symlink("../../../secret/shadow.log", log.with_file_name("dots.log")).unwrap();
    let real = pod.path("data/pod/real.txt");
    pod.ledger.append(&real, 100);
    symlink(&real, pod.path("secret/back")).unwrap();
    symlink(pod.path("secret/back"), log.with_file_name("through.log")).unwrap();
    pod.ledger.append(&log, 100);
    let admin = pod.admin();
    let agent = pod.start();
    pod.expect_all();

    admin.expect_metric("logferry_links_refused", 3);
    assert_eq!(pod.finish(agent), 0);
}

/// The logs of another container of the pod, by way of `/proc/PID/root`; a link among them may not
/// lead out.
#[test]
fn f29_logs_behind_a_link_of_the_kernel_are_shipped() {
    let (mut pod, log) = Pod::with_log();
    let dir = log.parent().unwrap().canonicalize().unwrap();
    let behind = format!("/proc/self/root{}", dir.display());
    pod.set("LOGFERRY_PATHS", &format!("{behind}/*.log"));
    write_secret(&pod);
    symlink("/etc/passwd", log.with_file_name("evil.log")).unwrap();
    symlink(pod.path("secret/shadow.log"), log.with_file_name("other.log")).unwrap();
    pod.ledger.append(&log, 100);
    let admin = pod.admin();
    let agent = pod.start();
    pod.expect_all();
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    pod.ledger.append(&log.with_extension("log.1"), 10);
    pod.ledger.append(&log, 10);
    pod.expect_all();

    admin.expect_metric("logferry_links_refused", 2);
    assert_eq!(pod.finish(agent), 0);
    let agent = pod.start();
    pod.ledger.append(&log, 10);
    assert_eq!(pod.finish(agent), 0, "after a restart");
    let paths: Vec<_> =
        pod.mock.store().groups().iter().map(|group| group.tag("__path__")).collect();
    assert!(paths.iter().all(|path| *path == Some(format!("{behind}/app.log"))), "{paths:?}");
}

/// A link that is pointed in and out as fast as can be: between the look and the opening there is
/// no moment in which the secret gets through.
#[test]
fn f29_a_link_that_changes_all_the_time_never_leads_out() {
    let (mut pod, log) = Pod::with_log();
    let secret = write_secret(&pod);
    let inside = pod.path("data/pod/inside.txt");
    pod.ledger.append(&inside, 100);
    let link = log.with_file_name("link.log");
    symlink(&inside, &link).unwrap();
    pod.set("LOGFERRY_READ_LINGER", "1ms");
    let agent = pod.start();
    let until = logferry::base::clock::now() + Duration::from_secs(3);
    while logferry::base::clock::now() < until {
        for target in [&secret, &inside] {
            swap(target, &link);
            pause(Duration::from_micros(300));
        }
    }

    wait_for("the lines", || pod.ledger.missing(&pod.mock).is_empty());
    assert_eq!(agent.stop().0, 0);
    pod.ledger.check(&pod.mock);
    pod.expect_sound();
}
