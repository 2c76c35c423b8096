//! Checkpoints belong to a collection: that of another one is no place to go on from, and is kept.

use std::path::Path;

use logferry::checkpoint::format::Checkpoint;
use logferry::checkpoint::store::{self, Store};

use crate::support::Pod;

const DAY: u64 = 24 * 3600;

/// A pod whose log was delivered; the agent has ended.
fn delivered_pod() -> Pod {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 300);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    pod
}

fn saved(state: &Path) -> Vec<Checkpoint> {
    store::peek(state).checkpoints
}

/// Changes each checkpoint, as if another agent had written it.
fn rewrite(pod: &Pod, change: impl FnMut(&mut Checkpoint)) {
    let (mut store, loaded) = Store::open(&pod.path("state")).expect("no agent has it");
    let mut checkpoints = loaded.checkpoints;
    checkpoints.iter_mut().for_each(change);
    store.save(&checkpoints, true).expect("the disk has room");
}

fn owners(pod: &Pod) -> Vec<Option<String>> {
    let owner = |one: Checkpoint| one.owner.map(|owner| owner.to_string());
    let mut owners: Vec<_> = saved(&pod.path("state")).into_iter().map(owner).collect();
    owners.sort();
    owners
}

fn default() -> Option<String> {
    Some("default".to_owned())
}

fn other() -> Option<String> {
    Some("other".to_owned())
}

#[test]
fn a_checkpoint_of_another_collection_is_not_adopted_and_is_kept() {
    let pod = delivered_pod();
    assert_eq!(owners(&pod), [default()]);
    rewrite(&pod, |one| one.owner = Some("other".into()));
    let foreign = saved(&pod.path("state"));

    // What the other one has delivered, this one has not.
    for _ in 0..2 {
        let agent = pod.start();
        assert_eq!(pod.finish(agent), 300, "all of it a second time, and once");
    }

    assert_eq!(owners(&pod), [default(), other()]);
    let kept = saved(&pod.path("state")).into_iter().find(|one| one.owner == foreign[0].owner);
    assert_eq!(kept.as_ref(), foreign.first(), "as it was");
    assert!(pod.agent_log().contains("belong to collections that are not configured"));
}

#[test]
fn a_checkpoint_of_another_collection_goes_after_30_days() {
    for (days, expected) in [(29, vec![default(), other()]), (31, vec![default()])] {
        let pod = delivered_pod();
        rewrite(&pod, |one| {
            one.owner = Some("other".into());
            one.seen_unix -= days * DAY;
        });
        // The first run notes when an agent ran last.
        for _ in 0..2 {
            let agent = pod.start();
            pod.finish(agent);
        }

        assert_eq!(owners(&pod), expected, "{days} days");
    }
}

/// As version 1 of the format, and what is taken over from logtail, has it.
#[test]
fn a_checkpoint_without_an_owner_is_of_the_collection_that_finds_its_path() {
    let mut pod = delivered_pod();
    rewrite(&pod, |one| one.owner = None);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0, "it is adopted");
    assert_eq!(owners(&pod), [default()]);

    // The same where the file is not met again.
    std::fs::remove_file(pod.path("share/logs/app.log")).unwrap();
    rewrite(&pod, |one| one.owner = None);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    assert_eq!(owners(&pod), [default()]);

    pod.patterns(&["share/logs/another.log"]);
    rewrite(&pod, |one| one.owner = None);
    let agent = pod.start();
    assert_eq!(agent.stop().0, 0);
    assert_eq!(owners(&pod), [None], "nobody finds it");
}
