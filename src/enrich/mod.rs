//! Context onto groups: the tags that every LogGroup of a file carries.
//!
//! A [`TagPlan`] is built once, from facts that [`host::gather`] and the settings have collected;
//! from then on it is pure. Values are kept as the bytes they are: nothing is trimmed, decoded or
//! escaped.

pub mod host;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// Most bytes of `__path__`, as the service's own agent cuts it.
const PATH_BYTES_MAX: usize = 511;
/// Most bytes of `__user_defined_id__`, as the service's own agent cuts it.
const USER_DEFINED_ID_BYTES_MAX: usize = 99;

/// What [`host::gather`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The host's name; in a pod, the pod's.
    pub name: Vec<u8>,
    /// The address that the pod is reached under.
    pub address: String,
}

/// Which tags a group gets, and its `Source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPlan {
    hostname: Vec<u8>,
    /// Empty for none.
    user_defined_id: String,
    env_tags: Vec<(String, Vec<u8>)>,
    source: String,
}

impl TagPlan {
    /// Puts the plan together. `user_defined_ids` is the comma-separated list as the user wrote it.
    #[must_use]
    pub fn new(host: Host, user_defined_ids: &str, env_tags: Vec<(String, Vec<u8>)>) -> Self {
        Self {
            hostname: host.name,
            user_defined_id: user_defined_id(user_defined_ids),
            env_tags,
            source: host.address,
        }
    }

    /// `Source` of every group: the pod's address.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The tags of a file's groups in the order of the wire, except `__pack_id__`, which the
    /// batcher appends because it counts. `path` is the path as configured, links not resolved.
    ///
    /// *Cost*: allocates; call it once for each file.
    #[must_use]
    pub fn tags_for(&self, path: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut tags = Vec::with_capacity(4 + self.env_tags.len());
        tags.push(("__hostname__".to_owned(), self.hostname.clone()));
        tags.push(("__path__".to_owned(), cut(path, PATH_BYTES_MAX).to_owned()));
        if !self.user_defined_id.is_empty() {
            let value = self.user_defined_id.clone().into_bytes();
            tags.push(("__user_defined_id__".to_owned(), value));
        }
        tags.extend_from_slice(&self.env_tags);
        tags
    }
}

/// The tags that `ALIYUN_LOG_ENV_TAGS` asks for: each name is an environment variable and the key
/// of the tag. A variable that is not set gives a tag with an empty value, as the service's own
/// agent does; an empty name gives none.
#[must_use]
pub fn env_tags(
    names: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<(String, Vec<u8>)> {
    names
        .split('|')
        .filter(|name| !name.is_empty())
        .map(|name| (name.to_owned(), variable(name).unwrap_or_default().into_vec()))
        .collect()
}

/// The hash key that leads to a file's shard: the MD5 of what the named tags hold, joined with `_`;
/// one that there is not is empty. `__source__` and `__topic__` are the fields of the group. `None`
/// without names: then any shard will do.
#[must_use]
pub fn hash_key(
    names: &[String],
    tags: &[(String, Vec<u8>)],
    source: &str,
    topic: &str,
) -> Option<u128> {
    use md5::Digest as _;
    let value = |name: &String| match name.as_str() {
        "__source__" => source.as_bytes(),
        "__topic__" => topic.as_bytes(),
        name => tags.iter().find(|(key, _)| key == name).map_or(&b""[..], |(_, value)| value),
    };
    let joined = names.iter().map(value).collect::<Vec<_>>().join(&b'_');
    let digest: [u8; 16] = md5::Md5::digest(joined).into();
    (!names.is_empty()).then_some(u128::from_be_bytes(digest))
}

/// A set of identifiers out of a comma-separated list: sorted, joined with one space, cut.
fn user_defined_id(list: &str) -> String {
    let ids: BTreeSet<&str> = list.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    let joined = ids.into_iter().collect::<Vec<_>>().join(" ");
    String::from_utf8_lossy(cut(joined.as_bytes(), USER_DEFINED_ID_BYTES_MAX)).into_owned()
}

/// The first `bytes_max` bytes, or up to three fewer so as not to cut a character of UTF-8 apart.
fn cut(bytes: &[u8], bytes_max: usize) -> &[u8] {
    if bytes.len() <= bytes_max {
        return bytes;
    }
    let is_inside_character = |at: usize| bytes[at] & 0b1100_0000 == 0b1000_0000;
    let end = (bytes_max.saturating_sub(3)..=bytes_max).rev().find(|&at| !is_inside_character(at));
    &bytes[..end.unwrap_or(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(user_defined_ids: &str, env_tags: Vec<(String, Vec<u8>)>) -> TagPlan {
        let host = Host { name: b"pod-1".to_vec(), address: "10.7.0.37".to_owned() };
        TagPlan::new(host, user_defined_ids, env_tags)
    }

    fn keys(tags: &[(String, Vec<u8>)]) -> Vec<&str> {
        tags.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn tags_stand_in_the_order_of_the_wire() {
        let env = env_tags("_pod_name_|_node_ip_", |name| Some(format!("{name}!").into()));

        let tags = plan("b,a", env).tags_for(b"/share/logs/app.log");

        assert_eq!(
            keys(&tags),
            ["__hostname__", "__path__", "__user_defined_id__", "_pod_name_", "_node_ip_"]
        );
        assert_eq!(tags[0].1, b"pod-1");
        assert_eq!(tags[1].1, b"/share/logs/app.log");
        assert_eq!(tags[2].1, b"a b");
        assert_eq!(tags[3].1, b"_pod_name_!");
    }

    #[test]
    fn no_user_defined_id_gives_no_tag() {
        assert_eq!(keys(&plan(" , ,", vec![]).tags_for(b"/a")), ["__hostname__", "__path__"]);
    }

    #[test]
    fn user_defined_ids_are_a_sorted_set_of_at_most_99_bytes() {
        assert_eq!(user_defined_id(" web , db,web,,  cache "), "cache db web");
        assert_eq!(user_defined_id(&"x".repeat(120)).len(), 99);
        assert_eq!(user_defined_id(&"é".repeat(60)), "é".repeat(49));
    }

    #[test]
    fn an_unset_variable_still_gives_its_tag_and_bytes_stay_as_they_are() {
        let raw = OsString::from_vec(vec![b' ', 0xff, b'\n']);
        let tags = env_tags("gone||_raw_", |name| (name == "_raw_").then(|| raw.clone()));

        assert_eq!(
            tags,
            [("gone".to_owned(), vec![]), ("_raw_".to_owned(), vec![b' ', 0xff, b'\n'])]
        );
    }

    #[test]
    fn the_hash_key_is_the_digest_of_the_joined_values() {
        let names = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
        let tags = plan("", env_tags("_pod_name_", |_| Some("pod-1".into()))).tags_for(b"/a.log");
        let key = |list: &str| hash_key(&names(list), &tags, "10.7.0.37", "topic").unwrap();

        // md5sum(1) of "pod-1_/a.log_", "10.7.0.37_topic" and of nothing.
        assert_eq!(
            format!("{:032x}", key("_pod_name_,__path__,gone")),
            "c51c0fe423877c78a3ed41b510c56a45"
        );
        assert_eq!(
            format!("{:032x}", key("__source__,__topic__")),
            "1ccc497460e81bb4aa4cd440f5525a5f"
        );
        assert_eq!(format!("{:032x}", key("gone")), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hash_key(&[], &tags, "", ""), None);
    }

    #[test]
    fn a_long_path_is_cut_to_511_bytes_but_not_within_a_character() {
        let plan = plan("", vec![]);
        let path_of = |path: &[u8]| plan.tags_for(path)[1].1.len();

        assert_eq!(path_of(&[b'a'; 511]), 511);
        assert_eq!(path_of(&[b'a'; 600]), 511);
        assert_eq!(path_of("日".repeat(200).as_bytes()), 510);
        assert_eq!(path_of(&[0x80; 600]), 511);
    }
}
