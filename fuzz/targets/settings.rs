//! The settings: whatever the file and the environment hold, the answer is a configuration or a
//! list of mistakes that are named, and no secret is in it.
//!
//! Input: the text of the file, then `NAME=VALUE` for the environment, all ended by a 0xff byte. It
//! is taken as TOML if its length is even, else as YAML.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use logferry::config::{self, Environment, Flags, Mistakes};

const SECRET: &str = "fuzz-secret-that-is-nowhere-else";

/// A directory in memory, for the settings file.
static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    dir.expect("a directory")
});

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == 0xff);
    let text = parts.next().unwrap_or_default();
    let extension = if data.len() % 2 == 0 { "toml" } else { "yaml" };
    let file: PathBuf = DIR.path().join("settings").with_extension(extension);
    std::fs::write(&file, text).expect("the settings file");

    let mut env: Environment = parts.filter_map(variable).collect();
    // These name files, which are not the input.
    env.retain(|name, _| name != "ALIYUN_LOGTAIL_CONFIG" && name != "LOGFERRY_CREDENTIALS_FILE");
    env.insert("LOGFERRY_CONFIG".into(), file.into());
    env.insert("ALIBABA_CLOUD_ACCESS_KEY_ID".into(), "fuzz".into());
    env.insert("ALIBABA_CLOUD_ACCESS_KEY_SECRET".into(), SECRET.into());
    let flags = Flags::new();
    match config::load(&env, &flags) {
        Ok(config) => {
            let text = logferry::command::check::tables(&config);
            assert!(!text.contains(SECRET) && !format!("{config:?}").contains(SECRET));
        }
        Err(mistakes) => check(&mistakes),
    }
    if let Err(mistakes) = config::load_kept(&env, &flags) {
        check(&mistakes);
    }
});

fn variable(part: &[u8]) -> Option<(std::ffi::OsString, std::ffi::OsString)> {
    let at = part.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    Some((text(&part[..at]), text(&part[at + 1..])))
}

fn check(mistakes: &Mistakes) {
    assert!(!mistakes.0.is_empty(), "a refusal names its reason");
    for mistake in &mistakes.0 {
        assert!(!mistake.key.is_empty() && !mistake.advice.is_empty(), "{mistake:?}");
    }
    assert!(!mistakes.to_string().contains(SECRET));
}
