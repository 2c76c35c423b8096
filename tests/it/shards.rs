//! Which shard requests go to: `shard_hash_keys`.

use std::collections::{BTreeMap, BTreeSet};

use logferry_mock as mock;
use md5::{Digest as _, Md5};

use crate::support::{Pod, run};

fn digest(text: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(text).into())
}

/// The key is the MD5 of the joined values, for each file by itself; the endpoint verifies the
/// signature with the key in it.
#[test]
fn the_values_of_the_named_tags_decide_the_shard() {
    let mut pod = Pod::with_endpoint(mock::Options { shards: 8, ..mock::Options::default() });
    pod.link("data/pod/logs");
    pod.set("ALIYUN_LOG_ENV_TAGS", "_pod_name_").set("_pod_name_", "pod-1");
    pod.set("LOGFERRY_TOPIC", "tea");
    pod.set("LOGFERRY_SHARD_HASH_KEYS", "_pod_name_, __path__,nowhere,__topic__");
    let names: Vec<String> = (0..12).map(|number| format!("{number}.log")).collect();
    for name in &names {
        pod.ledger.append(&pod.path("data/pod/logs").join(name), 3);
    }
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);

    let mut shards: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for group in pod.mock.store().groups() {
        let path = group.tag("__path__").unwrap();
        assert_eq!(group.key, Some(digest(&format!("pod-1_{path}__tea"))), "{path}");
        assert_eq!(group.sequence, None);
        shards.entry(path).or_default().insert(group.shard);
    }
    assert_eq!(shards.len(), names.len());
    assert!(shards.values().all(|shards| shards.len() == 1), "each file has its shard");
    let all: BTreeSet<u32> = shards.into_values().flatten().collect();
    assert!(all.len() > 1, "of twelve files not all have the same");
}

#[test]
fn without_names_the_service_spreads_the_load() {
    let (mut pod, log) = Pod::with_log();
    pod.ledger.append(&log, 3);
    let agent = pod.start();
    assert_eq!(pod.finish(agent), 0);
    assert!(pod.mock.store().groups().iter().all(|group| group.key.is_none()));
}

#[test]
fn together_with_exactly_once_it_is_a_mistake() {
    let (mut pod, _) = Pod::with_log();
    pod.set("LOGFERRY_SHARD_HASH_KEYS", "__path__").set("LOGFERRY_EXACTLY_ONCE", "true");

    let (code, _, complaint) = run(&["check"], &pod.environment());

    assert_eq!(code, 78, "{complaint}");
    assert!(complaint.contains("shard_hash_keys") && complaint.contains("exactly_once"));
}
