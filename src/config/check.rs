//! From what each key means to a [`Config`]: the rules between keys. All mistakes are collected; nothing
//! stops at the first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::checked::{Config, Effective};
use super::keys;
use super::layers::{
    Environment, FILE_FLAG, FILE_VARIABLE, FLAG_ORIGIN, Flags, Found, LOGTAIL_VARIABLE, not_utf8,
    variable,
};
use super::meaning::Meanings;
use super::mistake::{Mistake, Mistakes, quoted};
use super::{credentials, endpoint, proxy, tls};
use crate::enrich::{self, TagPlan};
use crate::limit::cgroup;
use crate::limit::memory::{self, GROUP_OVERHEAD_BYTES_MAX};
use crate::plan::{Destination, Plan};
use crate::send::CredentialsSource;
use crate::tail::discover;
use crate::tail::os::kernel::Kernel;
use crate::{batch, limit, send, tail};
use logferry_wire::{Compression, GROUP_BYTES_MAX};

/// Time to connect, TLS included. Not a setting: nobody who waits longer is better off.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole attempt, and what its bytes take, as the service's own agent has it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of all tags from the environment, so that a group stays within the service's limit.
const ENV_TAGS_BYTES_MAX: usize = 32 << 10;

const ENV_TAGS: &str = "ALIYUN_LOG_ENV_TAGS";
const USER_DEFINED_ID: &str = "ALIYUN_LOGTAIL_USER_DEFINED_ID";
const USER_ID: &str = "ALIYUN_LOGTAIL_USER_ID";
const POD_IP: &str = "POD_IP";

/// Checks the rules between keys and puts the `Config` together. `None`: there are mistakes.
pub(super) fn compose(
    env: &Environment,
    flags: &Flags,
    found: &BTreeMap<String, Found>,
    container: cgroup::Limits,
    mistakes: &mut Mistakes,
) -> Option<Config> {
    let mut meanings = Meanings::read(found, mistakes);
    let cpu_cores_max = meanings.cores("cpu_usage_limit");
    meanings.lower_to(container);
    find_region(&mut meanings, env);
    // What is not set, or does not go together, may be set otherwise in a file that cannot be read:
    // such rules wait for it.
    let is_whole = !mistakes.is_unread(FILE_VARIABLE);
    if is_whole {
        check_required(found, mistakes);
        check_project_not_in_endpoint(&meanings, mistakes);
        check_group_fits(&meanings, mistakes);
        check_one_route(&meanings, mistakes);
        check_state_apart(&meanings, mistakes);
    }
    let credentials = credentials(env, found, &meanings, mistakes);
    let (mut tls, mut signature) = (None, None);
    if is_whole {
        if let (Some(source), Some(endpoint)) = (&credentials, meanings.endpoint()) {
            credentials::check_unsigned(source, &endpoint, mistakes);
        }
        tls = tls::files(&meanings, mistakes);
        signature = tls::signature(&meanings, mistakes);
    }
    let proxies = proxy::find(env, &meanings, mistakes);
    let mut notes = Vec::new();
    let tags = tags(env, &meanings, mistakes, &mut notes);
    if !is_whole {
        return None;
    }
    let compression = match meanings.text("compression").as_deref() {
        Some("zstd") => Compression::Zstd,
        Some("none") => Compression::None,
        _ => Compression::Lz4,
    };
    let memory = divide_memory(&meanings, compression, mistakes);
    if !mistakes.0.is_empty() {
        return None;
    }

    let state_dir = meanings.state_dir();
    let credentials = credentials?;
    let mut effective = effective(env, flags, &meanings, &credentials);
    effective.extend(proxies.rows);
    let destination = Destination {
        endpoint: meanings.endpoint()?,
        project: meanings.text("project")?,
        logstore: meanings.text("logstore")?,
        credentials,
        signature: signature?,
        compression,
        exactly_once: meanings.switch("exactly_once"),
    };
    let plan = Plan::flat(meanings.patterns("paths"), meanings.patterns("exclude"), destination);
    Some(Config {
        plan: plan.into(),
        send: send::Options {
            concurrency_max: meanings.count("send_request_concurrency"),
            together: send::queue::Together {
                raw_bytes_max: meanings.count("batch_bytes"),
                lines_max: u32::try_from(meanings.number("batch_lines")).ok()?,
            },
            in_order: meanings.switch("ordered_delivery"),
            verify_response: meanings.switch("verify_response"),
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            tls: tls?,
            proxy: proxies.proxy,
        },
        tail: tail::Options {
            link_roots: meanings.directories("link_roots"),
            read_linger: meanings.time("read_linger"),
            line_bytes_max: meanings.count("line_bytes_max"),
            partial_line_timeout: meanings.time("partial_line_timeout"),
            held_deleted_bytes_max: meanings.number("held_deleted_bytes_max"),
        },
        batch: batch::Options {
            batch_bytes: meanings.count("batch_bytes"),
            batch_lines: u32::try_from(meanings.number("batch_lines")).ok()?,
            batch_linger: meanings.time("batch_linger"),
            topic: meanings.text("topic")?,
        },
        limit: limit::Options {
            cpu_cores: meanings.cores("cpu_usage_limit"),
            cpu_cores_max,
            memory_bytes: meanings.number("mem_usage_limit") << 20,
            bytes_per_second: meanings.number("max_bytes_per_sec"),
        },
        memory: memory?,
        state_dir,
        named_files: named_files(env, flags, &meanings),
        listen: meanings.listen(),
        drain_deadline: meanings.time("drain_deadline"),
        drain_quiet: meanings.time("drain_quiet"),
        drain_partial_lines: meanings.switch("drain_partial_lines"),
        exit_when: meanings.path("exit_when"),
        log_filter: meanings.text("log")?,
        log_format: meanings.log_format(),
        shard_hash_keys: meanings.tags("shard_hash_keys"),
        tags: tags?,
        effective,
        notes,
    })
}

/// Finds the region where it is needed and nobody has set it.
fn find_region(meanings: &mut Meanings, env: &Environment) {
    let is_needed = meanings.text("signature").as_deref() == Some("v4");
    if !is_needed || meanings.text("region").is_some() {
        return;
    }
    if let Some((region, origin)) = tls::region(meanings, env) {
        meanings.supply("region", region, origin);
    }
}

fn named_files(env: &Environment, flags: &Flags, meanings: &Meanings) -> Vec<PathBuf> {
    let keys = ["credentials_file", "ca_file", "client_cert_file", "client_key_file"];
    let keys = keys.iter().filter_map(|key| meanings.path(key));
    let variables = [FILE_VARIABLE, LOGTAIL_VARIABLE].into_iter();
    let variables = variables.filter_map(|name| variable(env, name)?.ok().map(PathBuf::from));
    keys.chain(variables).chain(flags.get(FILE_FLAG).map(PathBuf::from)).collect()
}

fn check_required(found: &BTreeMap<String, Found>, mistakes: &mut Mistakes) {
    for (name, more) in [
        ("endpoint", ", or ALIYUN_LOGTAIL_CONFIG to an ilogtail_config.json that names it"),
        ("project", ""),
        ("logstore", ""),
    ] {
        // What somebody tried to set is no less wrong for not being there.
        let is_said = mistakes.0.iter().any(|mistake| mistake.key == name)
            || (name == "endpoint" && mistakes.is_unread(LOGTAIL_VARIABLE));
        let key = keys::find(name).filter(|key| !is_said && !found.contains_key(key.name));
        if let Some(key) = key {
            let (variable, flag) = (key.variable(), key.flag());
            mistakes.push(Mistake::new(
                name,
                format!("not set; set {variable} or --{flag} to {}{more}", key.kind),
            ));
        }
    }
}

/// The service's own pages show `project.endpoint`; with the project in front twice there is no
/// such host.
fn check_project_not_in_endpoint(meanings: &Meanings, mistakes: &mut Mistakes) {
    let (Some(endpoint), Some(project)) = (meanings.endpoint(), meanings.text("project")) else {
        return;
    };
    let region = endpoint.host.strip_prefix(&format!("{project}."));
    if let Some(region) = region.filter(|region| region.ends_with(".log.aliyuncs.com")) {
        mistakes.push(
            Mistake::new("endpoint", format!("the project is not part of it; write {region}"))
                .value(quoted(&endpoint::print(&endpoint)))
                .origin(meanings.origin("endpoint")),
        );
    }
}

fn check_group_fits(meanings: &Meanings, mistakes: &mut Mistakes) {
    const SUM_MAX: usize = GROUP_BYTES_MAX - GROUP_OVERHEAD_BYTES_MAX;
    let (batch, line) = (meanings.count("batch_bytes"), meanings.count("line_bytes_max"));
    if batch.saturating_add(line) > SUM_MAX {
        let size = |bytes: usize| crate::base::units::ByteSize(bytes as u64);
        mistakes.push(
            Mistake::new(
                "batch_bytes",
                format!(
                    "together with line_bytes_max = {} (from {}) it is more than the {} that fit \
                     into one group; lower one of them",
                    size(line),
                    meanings.origin("line_bytes_max"),
                    size(SUM_MAX)
                ),
            )
            .value(size(batch).to_string())
            .origin(meanings.origin("batch_bytes")),
        );
    }
}

/// In a directory of state nobody looks for logs, as far as links lead now. What leads below it later is
/// shipped, but for the agent's own files.
fn check_state_apart(meanings: &Meanings, mistakes: &mut Mistakes) {
    let dir = meanings.state_dir();
    let Some((pattern, real)) = discover::within(&Kernel, &meanings.patterns("paths"), &dir) else {
        return;
    };
    let advice = format!(
        "the files of {} (from {}) lie in it, at {}, and the agent's own must lie apart; give the state \
         a directory of its own: in a pod a volume, or a subPath of one, that the app does not mount",
        quoted(&pattern),
        meanings.origin("paths"),
        quoted(&real.display().to_string()),
    );
    mistakes.push(
        Mistake::new("state_dir", advice)
            .value(quoted(&dir.display().to_string()))
            .origin(meanings.origin("state_dir")),
    );
}

/// Refuses two settings that both say where a request goes.
fn check_one_route(meanings: &Meanings, mistakes: &mut Mistakes) {
    let names = meanings.tags("shard_hash_keys");
    if !names.is_empty() && meanings.switch("exactly_once") {
        let advice = format!(
            "it cannot be together with exactly_once = true (from {}), which has hash keys of its \
             own; leave one of them out",
            meanings.origin("exactly_once")
        );
        mistakes.push(
            Mistake::new("shard_hash_keys", advice)
                .value(quoted(&names.join(",")))
                .origin(meanings.origin("shard_hash_keys")),
        );
    }
}

fn divide_memory(
    meanings: &Meanings,
    compression: Compression,
    mistakes: &mut Mistakes,
) -> Option<memory::Plan> {
    let sizes = memory::Sizes {
        batch_bytes: meanings.count("batch_bytes"),
        line_bytes_max: meanings.count("line_bytes_max"),
        concurrency_max: meanings.count("send_request_concurrency"),
        compression,
    };
    let limit = meanings.number("mem_usage_limit");
    memory::Plan::fit(limit << 20, sizes)
        .map_err(|too_small| {
            mistakes.push(
                Mistake::new(
                    "mem_usage_limit",
                    format!(
                        "{too_small}; raise it (and the container's limit, if that is lower), or \
                         lower batch_bytes or line_bytes_max"
                    ),
                )
                .value(limit.to_string())
                .origin(meanings.origin("mem_usage_limit")),
            );
        })
        .ok()
}

fn credentials(
    env: &Environment,
    found: &BTreeMap<String, Found>,
    meanings: &Meanings,
    mistakes: &mut Mistakes,
) -> Option<CredentialsSource> {
    let file = meanings.path("credentials_file");
    if file.is_none() && found.contains_key("credentials_file") {
        // A path that is none has been noted; what it would have named cannot be judged.
        return None;
    }
    let file = file.map(|path| (path, meanings.origin("credentials_file")));
    credentials::find(env, file, mistakes)
}

fn tags(
    env: &Environment,
    meanings: &Meanings,
    mistakes: &mut Mistakes,
    notes: &mut Vec<String>,
) -> Option<TagPlan> {
    let names = text_variable(env, ENV_TAGS, mistakes)?;
    let user_defined_ids = text_variable(env, USER_DEFINED_ID, mistakes)?;
    let mistake =
        |advice: String| Mistake::new(ENV_TAGS, advice).value(quoted(names)).origin("environment");
    if let Some(secret) = names.split('|').find(|name| credentials::SECRET_VARIABLES.contains(name))
    {
        mistakes.push(mistake(format!("{secret} is a secret and must not become a tag")));
        return None;
    }
    let value = |name: &str| env.get(std::ffi::OsStr::new(name));
    let is_unset = |name: &&str| !name.is_empty() && value(name).is_none();
    let unset: Vec<_> = names.split('|').filter(is_unset).map(quoted).collect();
    if !unset.is_empty() {
        notes.push(format!(
            "{ENV_TAGS} names variables that are not set, so these tags are empty: {}; set them in the \
             environment of the agent (in a pod: env of its container), or leave them out",
            unset.join(", ")
        ));
    }
    let env_tags = enrich::env_tags(names, |name| value(name).cloned());
    let bytes: usize = env_tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ENV_TAGS_BYTES_MAX {
        mistakes.push(mistake(format!(
            "names and values of these variables are {bytes} bytes; expected at most \
             {ENV_TAGS_BYTES_MAX}"
        )));
        return None;
    }
    let pod_ip = env.get(std::ffi::OsStr::new(POD_IP)).filter(|value| !value.is_empty());
    let pod_ip = pod_ip.map(|value| value.to_string_lossy());
    let pod_ip = pod_ip.as_deref();
    let endpoint = meanings.endpoint();
    let host = enrich::host::gather(pod_ip, endpoint.as_ref().map_or("", |e| e.host.as_str()));
    if let Some(text) = pod_ip.filter(|text| !enrich::host::is_address(text)) {
        notes.push(format!(
            "{POD_IP} = {} is no IP address; the source of the groups is {} instead, as the routes of \
             this machine have it (in a pod, {POD_IP} is the field status.podIP)",
            quoted(text),
            host.address
        ));
    }
    Some(TagPlan::new(host, user_defined_ids, env_tags))
}

/// The text of a variable, empty when it is not set; `None` is a mistake that has been noted.
fn text_variable<'a>(env: &'a Environment, name: &str, mistakes: &mut Mistakes) -> Option<&'a str> {
    match variable(env, name) {
        None => Some(""),
        Some(Ok(text)) => Some(text),
        Some(Err(value)) => {
            mistakes.push(not_utf8(name, value).origin("environment"));
            None
        }
    }
}

/// All values with their origins: the keys, then what else was taken from the environment.
fn effective(
    env: &Environment,
    flags: &Flags,
    meanings: &Meanings,
    credentials: &CredentialsSource,
) -> Vec<Effective> {
    let mut rows = meanings.effective();
    let mut push = |key: &str, value: &str, origin: &str| {
        rows.push(Effective {
            key: key.to_owned(),
            value: value.to_owned(),
            origin: origin.to_owned(),
        });
    };
    let environment = "environment";
    match credentials {
        CredentialsSource::Unsigned => push("credentials", "none", "requests go unsigned"),
        CredentialsSource::File(_) => push("credentials", "***", "credentials_file"),
        CredentialsSource::Fixed(fixed) => {
            push("ALIBABA_CLOUD_ACCESS_KEY_ID", &fixed.access_key_id, environment);
            push("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "***", environment);
            if fixed.security_token.is_some() {
                push("ALIBABA_CLOUD_SECURITY_TOKEN", "***", environment);
            }
        }
    }
    if let Some(path) = flags.get(FILE_FLAG) {
        push(FILE_VARIABLE, &path.to_string_lossy(), FLAG_ORIGIN);
    }
    for name in [FILE_VARIABLE, LOGTAIL_VARIABLE, ENV_TAGS, USER_DEFINED_ID] {
        if name == FILE_VARIABLE && flags.contains_key(FILE_FLAG) {
            continue;
        }
        if let Some(Ok(value)) = variable(env, name) {
            push(name, value, environment);
        }
    }
    if let Some(Ok(value)) = variable(env, USER_ID) {
        push(USER_ID, value, "environment (accepted; not sent)");
    }
    rows
}
