//! The ground of a seed: directories, secrets, endpoint, settings.
//!
//! ```text
//! R/share/logs ─▶ R/data/app/logs   the app's: share and data/app, with all that is below
//! R/fair                            another app's, which is honest
//! R/data/other/logs                 a neighbour's: a secret if `link_roots` says so
//! R/agent/… or R/data/agent/…       credentials, certificates, settings, state, the agent's own log
//! R/etc                             the node's
//! O/mounted                         a mounted Secret on another disk; O is on tmpfs and R is not, or
//!                                   the other way round
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use logferry_mock::{self as mock, Access, Background, Key};
use rcgen::{CertificateParams, KeyPair};

use super::pick;
use super::secrets::{MARKER, Vault};

const KEY_ID: &str = "test-access-key-id";
const PROJECT: &str = "test-project";
const LOGSTORE: &str = "app-log";
/// A tmpfs that every Linux has: another disk than that of temporary files, most often.
const MEMORY: &str = "/dev/shm";

/// What `link_roots` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Nothing: where the base leads at first sight is trusted.
    Learnt,
    /// The app's directory on the node.
    App,
    /// The directory of all apps.
    Data,
}

/// What is fixed for a seed.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) roots: Roots,
    /// Below R.
    pub(crate) patterns: &'static [&'static str],
    /// Where the agent keeps what is its own, below R.
    pub(crate) agent: &'static str,
    /// R is on the tmpfs.
    pub(crate) is_in_memory: bool,
    pub(crate) has_certificates: bool,
    pub(crate) has_settings_file: bool,
    pub(crate) is_exactly_once: bool,
    pub(crate) read_linger: &'static str,
}

/// Below the agent's directory.
const OWN_FILES: [&str; 10] = [
    "log/x.log",
    "credentials/credentials.json",
    "credentials/..1/x.log",
    "credentials/..2/x.log",
    "state/x.log",
    "state/checkpoint.0",
    "state/checkpoint.now",
    "tls/client.key",
    "tls/x.log",
    "conf/logferry.toml",
];

/// Patterns whose base may be trusted at first sight.
const PATTERNS: [&[&str]; 5] = [
    &["share/logs/**/*.log"],
    &["share/logs/**"],
    &["share/logs/*.log", "share/logs/*/*.log", "share/logs/*/*.json"],
    &["data/app/logs/**/*.log"],
    &["share/logs/**/*.log", "data/app/logs/**/*.key"],
];
/// Where the app names the file, what is allowed must be listed.
const PATTERNS_LISTED: [&[&str]; 3] = [
    &["share/logs/x0.log", "share/logs/sub/x.log"],
    &["share/**/*.log"],
    &["share/*/sub/*.log", "share/logs/x0.log"],
];

impl Setting {
    pub(crate) fn draw(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let roots = pick(rng, &[Roots::Learnt, Roots::Learnt, Roots::App, Roots::Data]);
        let is_named = roots != Roots::Learnt && rng.u8(..3) == 0;
        let patterns = if is_named { &PATTERNS_LISTED[..] } else { &PATTERNS[..] };
        Self {
            seed,
            roots,
            patterns: pick(rng, patterns),
            agent: pick(rng, &["agent", "agent", "data/agent"]),
            is_in_memory: rng.bool(),
            has_certificates: rng.u8(..3) == 0,
            has_settings_file: rng.u8(..3) == 0,
            is_exactly_once: rng.u8(..5) == 0,
            read_linger: pick(rng, &["1ms", "1ms", "20ms"]),
        }
    }

    /// Whether any name that ends with `.log` in the app's directory is shipped.
    pub(crate) fn finds_all_logs(&self) -> bool {
        let some = [
            "share/logs/**/*.log",
            "share/logs/**",
            "share/logs/*.log",
            "share/**/*.log",
            "data/app/logs/**/*.log",
        ];
        self.patterns.iter().any(|pattern| some.contains(pattern))
    }

    /// The same beside the link.
    pub(crate) fn finds_share(&self) -> bool {
        self.patterns.contains(&"share/**/*.log")
    }

    /// The usual pod.
    pub(crate) fn plain(roots: Roots) -> Self {
        Self {
            seed: 0,
            roots,
            patterns: PATTERNS[0],
            agent: "agent",
            is_in_memory: false,
            has_certificates: true,
            has_settings_file: true,
            is_exactly_once: false,
            read_linger: "1ms",
        }
    }
}

/// Everything of a seed that lies on a disk or listens.
pub(crate) struct Ground {
    pub(crate) setting: Setting,
    /// R, without links.
    pub(crate) root: PathBuf,
    pub(crate) mock: Background,
    /// What must not be read whatever happens.
    pub(crate) vaults: Vec<Vault>,
    env: BTreeMap<String, String>,
    /// The agent's key, and how often its file was written.
    secret: String,
    version: u32,
    /// O.
    other: Option<tempfile::TempDir>,
    dir: tempfile::TempDir,
}

impl Ground {
    pub(crate) fn new(setting: Setting) -> Self {
        let (dir, other) = disks(setting.is_in_memory);
        let root = dir.path().canonicalize().expect("it was made");
        for name in ["share", "fair", "data/app/logs/sub"] {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        symlink(root.join("data/app/logs"), root.join("share/logs")).expect("the link");
        let elsewhere = other.as_ref().map_or(root.as_path(), tempfile::TempDir::path);
        let elsewhere = elsewhere.canonicalize().expect("it was made");
        let mut vaults = vec![
            Vault::make("mounted", elsewhere.join("mounted"), true),
            Vault::make("here", root.join("here"), true),
            Vault::make("etc", root.join("etc"), false),
        ];
        if setting.roots == Roots::App {
            vaults.push(Vault::make("neighbour", root.join("data/other/logs"), false));
        }
        let secret = format!("{MARKER}key-{}", setting.seed);
        let mock = Background::start(mock::Options {
            access: Access {
                keys: vec![Key { id: KEY_ID.to_owned(), secret: secret.clone() }],
                projects: vec![PROJECT.to_owned()],
                logstores: vec![LOGSTORE.to_owned()],
            },
            ..mock::Options::default()
        });
        let mut ground = Self {
            setting,
            root,
            mock: mock.expect("the endpoint starts"),
            vaults,
            env: BTreeMap::new(),
            secret: String::new(),
            version: 0,
            other,
            dir,
        };
        ground.furnish(&secret);
        ground
    }

    /// Writes what is the agent's own, and its settings.
    fn furnish(&mut self, secret: &str) {
        let agent = self.agent("");
        let credentials = agent.join("credentials");
        fs::create_dir_all(&credentials).expect("a directory");
        self.secret = secret.to_owned();
        self.renew_credentials();
        for name in ["credentials.json", "x.log"] {
            symlink(Path::new("..data").join(name), credentials.join(name)).expect("a link");
        }
        for dir in ["state", "log"] {
            fs::create_dir_all(agent.join(dir)).expect("a directory");
        }
        fs::write(agent.join("state/x.log"), format!("{MARKER}in-the-state\n")).expect("a file");
        fs::write(self.log(), format!("{MARKER}log\n")).expect("a file");
        let mut paths: Vec<PathBuf> =
            self.setting.patterns.iter().map(|pattern| self.root.join(pattern)).collect();
        paths.push(self.root.join("fair/*.log"));
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        let linger = self.setting.read_linger;
        for (name, value) in [
            ("LOGFERRY_ENDPOINT", format!("http://{}", self.mock.address())),
            ("LOGFERRY_PROJECT", PROJECT.to_owned()),
            ("LOGFERRY_LOGSTORE", LOGSTORE.to_owned()),
            ("LOGFERRY_PATHS", paths.join(",")),
            ("LOGFERRY_STATE_DIR", agent.join("state").display().to_string()),
            ("LOGFERRY_LISTEN", String::new()),
            ("LOGFERRY_READ_LINGER", linger.to_owned()),
            ("LOGFERRY_BATCH_LINGER", "10ms".to_owned()),
            ("LOGFERRY_PARTIAL_LINE_TIMEOUT", "100ms".to_owned()),
            ("LOGFERRY_DRAIN_QUIET", "0s".to_owned()),
            ("LOGFERRY_DRAIN_DEADLINE", "20s".to_owned()),
            ("LOGFERRY_COMPRESSION", "none".to_owned()),
            ("LOGFERRY_EXACTLY_ONCE", self.setting.is_exactly_once.to_string()),
            (
                "LOGFERRY_CREDENTIALS_FILE",
                credentials.join("credentials.json").display().to_string(),
            ),
            ("APP_PASSWORD", format!("{MARKER}in-the-environment")),
        ] {
            self.set(name, &value);
        }
        match self.setting.roots {
            Roots::Learnt => {}
            Roots::App => self.set("LOGFERRY_LINK_ROOTS", &self.text("data/app")),
            Roots::Data => self.set("LOGFERRY_LINK_ROOTS", &self.text("data")),
        }
        if self.setting.has_certificates {
            self.certify();
        }
        if self.setting.has_settings_file {
            let conf = self.agent("conf");
            fs::create_dir_all(&conf).expect("a directory");
            let text = format!("# {MARKER}in-the-settings\ntopic = \"hostile\"\n");
            fs::write(conf.join("logferry.toml"), text).expect("a file");
            fs::write(conf.join("x.log"), format!("{MARKER}beside-the-settings\n"))
                .expect("a file");
            self.set("LOGFERRY_CONFIG", &conf.join("logferry.toml").display().to_string());
        }
    }

    /// Writes the agent's credentials, as a mounted Secret is written: all in another directory.
    pub(crate) fn renew_credentials(&mut self) {
        let credentials = self.agent("credentials");
        let before = credentials.join(format!("..{}", self.version));
        self.version += 1;
        let place = credentials.join(format!("..{}", self.version));
        fs::create_dir(&place).expect("a directory");
        let secret = &self.secret;
        let text =
            format!("{{\"access_key_id\":\"{KEY_ID}\",\"access_key_secret\":\"{secret}\"}}\n");
        fs::write(place.join("credentials.json"), text).expect("a file");
        let beside = format!("{MARKER}beside-the-credentials\n");
        fs::write(place.join("x.log"), beside).expect("a file");
        let next = credentials.join("..data.next");
        symlink(place.file_name().expect("a version"), &next).expect("a link");
        fs::rename(next, credentials.join("..data")).expect("a link");
        // There is none before the first.
        let _ = fs::remove_dir_all(before);
    }

    fn certify(&mut self) {
        static PAIR: LazyLock<(String, String)> = LazyLock::new(|| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(["agent".to_owned()]).expect("a name");
            (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
        });
        let tls = self.agent("tls");
        fs::create_dir_all(&tls).expect("a directory");
        fs::write(tls.join("x.log"), format!("{MARKER}beside-the-key\n")).expect("a file");
        let (cert, key) = &*PAIR;
        for (variable, name, pem) in [
            ("LOGFERRY_CA_FILE", "ca.pem", cert),
            ("LOGFERRY_CLIENT_CERT_FILE", "client.pem", cert),
            ("LOGFERRY_CLIENT_KEY_FILE", "client.key", key),
        ] {
            let text = format!("{MARKER}certificate-{name}\n{pem}{MARKER}certificate-end\n");
            fs::write(tls.join(name), text).expect("a file");
            self.set(variable, &tls.join(name).display().to_string());
        }
    }

    /// Sets an environment variable of the agents that are started from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn environment(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// A path below R.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn text(&self, path: &str) -> String {
        self.path(path).display().to_string()
    }

    /// A path among what is the agent's own.
    pub(crate) fn agent(&self, path: &str) -> PathBuf {
        self.path(self.setting.agent).join(path)
    }

    /// The agent's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.agent("log/x.log")
    }

    /// The directories that hold a file which the settings name, and other files of the agent's own.
    pub(crate) fn own_dirs(&self) -> Vec<PathBuf> {
        let dirs = ["credentials", "credentials/..data", "credentials/..1", "state", "tls", "conf"];
        dirs.map(|dir| self.agent(dir)).into_iter().filter(|dir| dir.is_dir()).collect()
    }

    /// Files of the agent's own: some are not there in every seed.
    pub(crate) fn own_files(&self) -> Vec<PathBuf> {
        OWN_FILES.iter().map(|file| self.agent(file)).collect()
    }

    /// A text with its paths as they are below R and O.
    pub(crate) fn shorten(&self, text: &str) -> String {
        let text = text.replace(&format!("{}/", self.root.display()), "");
        let mounted = self.vaults[0].dir.display().to_string();
        text.replace(&mounted, "O/mounted")
    }

    /// Whether the Secret is on another disk than the app's files.
    pub(crate) fn has_other_disk(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).expect("it was made").dev();
        device(&self.vaults[0].dir) != device(&self.root)
    }

    /// Leaves everything where it is, for a person to look at.
    pub(crate) fn keep(self) -> String {
        let other = self.other.map(tempfile::TempDir::keep);
        format!("{} and {other:?}", self.dir.keep().display())
    }
}

/// R and O, on two disks if there are two.
fn disks(is_in_memory: bool) -> (tempfile::TempDir, Option<tempfile::TempDir>) {
    let here = tempfile::tempdir().expect("a temporary directory");
    match tempfile::tempdir_in(MEMORY) {
        Ok(memory) if is_in_memory => (memory, Some(here)),
        memory => (here, memory.ok()),
    }
}
