//! House rules that a compiler does not check: imports go one way, pure files stay pure, comments say
//! what they are about, documents name what is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "tidy/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sources::{Source, Sources};

/// Who may import whom: a file imports those before it in this table, and no others. So no two files
/// need each other, not even in one folder. A new file needs a place here.
const TABLE: &[(Level, &str)] = &[
    // What the service and the agent speak, and values that all share.
    (Level::Pure, "logferry_wire logferry_wire::host logferry_wire::sign logferry_wire::sls_logs"),
    (Level::Edge, "logferry_clock logferry_trim"),
    (Level::Pure, "base base::escape base::exit base::fingerprint base::span base::units"),
    (Level::Pure, "base::report base::sealed send::secret send::endpoint plan"),
    (Level::Edge, "access"),
    // Decisions: time comes in, facts come out. In the order of a line's journey, backwards.
    (Level::Pure, "checkpoint checkpoint::format checkpoint::watermark checkpoint::murmur3"),
    (Level::Pure, "checkpoint::logtail"),
    (Level::Pure, "limit::bucket limit::flood limit::pacer limit::repeat limit::slack limit"),
    (Level::Pure, "limit::memory"),
    (
        Level::Pure,
        "tail tail::catalog::names tail::catalog::judge tail::catalog::index tail::pattern tail::roots tail::crowd",
    ),
    (Level::Pure, "tail::tracked tail::registry tail::schedule tail::filled tail::served"),
    (Level::Pure, "tail::catalog::entry tail::catalog::originals tail::catalog"),
    (Level::Pure, "line line::split enrich batch::compress batch::log_group batch::pack_id"),
    (Level::Pure, "batch::policy batch batch::rewrite pipeline"),
    (Level::Pure, "send::answer send::verdict send::backoff"),
    (Level::Pure, "send::window send::package_list send::passage send::limiter send::limiters"),
    (Level::Pure, "send::queue send::dispatch"),
    (Level::Pure, "send::cause send::certificate send::proxy send::options send::request"),
    (Level::Pure, "send::skew send::encoding send::advice"),
    // Edges: each the only door to one part of the system.
    (Level::Edge, "handoff signals"),
    (Level::Edge, "checkpoint::error checkpoint::files checkpoint::hold checkpoint::parked"),
    (Level::Edge, "checkpoint::store checkpoint::keep"),
    (Level::Edge, "limit::cgroup enrich::host"),
    // The seam, the system below it, and those who ask the system through it.
    (Level::Asks, "tail::os"),
    (Level::Edge, "tail::os::kernel"),
    (Level::Asks, "tail::own tail::trace tail::walk tail::walk::links tail::discover tail::watch"),
    (Level::Asks, "tail::gzip tail::reader tail::scout tail::copies tail::missed"),
    (Level::Edge, "send::watched send::credentials send::tls send::lookup send::http send::brake"),
    (Level::Edge, "send::journal send send::connect send::replay"),
    // Loops: they meet in `handoff` and nowhere else.
    (Level::Pure, "collector::timers collector::news collector::refusals collector::streams"),
    (Level::Pure, "collector::said"),
    (
        Level::Asks,
        "collector::fruitless collector::left collector::once collector::drain collector::intake",
    ),
    (Level::Asks, "collector::stamp collector::ledger collector::notices"),
    (
        Level::Asks,
        "collector::readers collector::packed collector::expected collector::look collector::report collector",
    ),
    (Level::Asks, "collector::missing collector::refused collector::overwritten"),
    (Level::Asks, "collector::rereading collector::reopening collector::copies collector::idle"),
    (Level::Asks, "collector::adopting collector::opening collector::closing collector::files"),
    (Level::Asks, "collector::unpacking"),
    (Level::Asks, "collector::reading collector::stopping collector::step"),
    (Level::Pure, "admin"),
    (Level::Edge, "admin::status admin::connections admin::process admin::metrics admin::server"),
    // Settings, from text to meaning.
    (Level::Pure, "config::suggest config::logtail config::endpoint config::patterns"),
    (Level::Pure, "config::mistake config::kind config::keys config::reference"),
    (Level::Edge, "config::checked config::layers config::credentials config::meaning"),
    (Level::Edge, "config::proxy config::tls config::check config"),
    // Wiring: knows every module's options; none of them knows it.
    (Level::Edge, "shutdown app telemetry::writer telemetry"),
    // What people type, and the endpoint for development.
    (Level::Pure, "logferry_mock::accepted logferry_mock::fault"),
    (Level::Edge, "logferry_mock::answer logferry_mock::group logferry_mock::journal"),
    (Level::Edge, "logferry_mock::store logferry_mock::faults logferry_mock::connection"),
    (Level::Edge, "logferry_mock::request logferry_mock logferry_mock::put logferry_mock::read"),
    (Level::Edge, "logferry_mock::verify logferry_mock::endpoint logferry_mock::guard"),
    (Level::Edge, "logferry_mock::page logferry_mock::server"),
    (Level::Pure, "command command::table"),
    (Level::Edge, "command::check command::demo command::mock"),
    (Level::Edge, "command::checkpoint::state command::checkpoint::find"),
    (Level::Edge, "command::checkpoint::import command::checkpoint::reset command::status::saved"),
    (Level::Edge, "command::checkpoint::show command::checkpoint"),
    (Level::Edge, "command::parked::pieces command::parked::list command::parked::replay"),
    (Level::Edge, "command::parked::show command::parked"),
    (Level::Edge, "command::status::ask command::status::text command::status"),
    (Level::Edge, "cli lib main"),
];

/// Pairs that need each other for now, the first of which stands first in the table. Each goes when one
/// of the two stops importing the other.
const CIRCLES: &[(&str, &str)] =
    &[("tail::walk", "tail::discover"), ("tail::walk::links", "tail::discover")];

/// Who never hears of whom, wherever they stand in the table.
const STRANGERS: &[(&str, &str)] = &[
    ("tail", "send"),
    ("send", "tail line batch checkpoint enrich collector admin"),
    ("collector", "send admin"),
    ("admin", "send tail checkpoint batch collector"),
];

/// The only ones who know the endpoint for development.
const MOCK_USERS: [&str; 4] = ["command::mock", "command::demo", "cli", "main"];

/// What no pure file names: it would read a file, a socket, the environment or a clock, or wait.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os::fd",
    "std::os::unix::fs",
    "std::os::unix::net",
    "std::os::unix::process",
    "std::process::Command",
    "std::process::abort",
    "std::process::exit",
    "std::process::id",
    "std::sync::Barrier",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "std::thread",
    "std::time::Instant::now",
    "std::time::SystemTime",
    "fastrand::Rng::default",
    "fastrand::Rng::new",
    "logferry_lease",
    "logferry_trim",
    "nix",
    "reqwest",
    "rustix",
    "tokio",
];

/// What those who ask through the seam name of files at the edge: values, and the two other doors of the
/// collector.
const SEAM_NAMES: &[&str] = &[
    "crate::checkpoint::keep::Keep",
    "crate::checkpoint::store::Loaded",
    "crate::handoff::CollectorEnd",
    "crate::handoff::Mail",
    "crate::limit::cgroup::Limits",
    // Numbers of errors, and the type of a descriptor that is waited for.
    "rustix::io::Errno",
    "std::os::fd::BorrowedFd",
];

/// Methods by which a path asks the file system.
const PATH_ASKS: &[&str] = &[
    "canonicalize",
    "exists",
    "is_dir",
    "is_file",
    "is_symlink",
    "metadata",
    "read_dir",
    "read_link",
    "symlink_metadata",
    "try_exists",
];

/// Macros that print.
const PRINTING: &[&str] = &["dbg!", "eprint!", "eprintln!", "print!", "println!"];

/// How no doc comment begins: in a list, in an editor or in a search it stands alone.
const LEANING: &[&str] =
    &["The same", "That", "It", "And", "They", "These", "Those", "Its", "Their"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Takes the time as an argument, and names no file, socket, clock or thread.
    Pure,
    /// Asks the system through `tail::os`, and in no other way.
    Asks,
    /// Asks the system.
    Edge,
}

#[test]
fn every_module_has_its_place_and_says_what_it_is_for() {
    for source in Sources::all().iter() {
        let Source { module, has_doc, is_generated, .. } = source;
        assert!(place(module).is_some(), "{module} has no place in TABLE");
        assert!(*is_generated || *has_doc, "{module} does not begin with `//!`");
    }
}

#[test]
fn nothing_in_the_table_is_gone() {
    let sources = Sources::all();
    let modules: BTreeSet<&str> = sources.iter().map(|source| source.module.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (_, module) in places() {
        assert!(modules.contains(module), "{module} is in TABLE, and there is no such file");
        assert!(seen.insert(module), "{module} is in TABLE twice");
    }
}

#[test]
fn imports_go_one_way() {
    let sources = Sources::all();
    let mut circles = BTreeSet::new();
    for source in sources.iter() {
        let module = source.module.as_str();
        let own = place(module).map(|(at, _)| at);
        let folder = first(module);
        for import in sources.imports(source) {
            let place = place(import);
            assert!(place.is_some(), "{module} imports {import}, which has no place in TABLE");
            if CIRCLES.contains(&(module, import)) {
                circles.insert((module.to_owned(), import.to_owned()));
            } else {
                let is_before = place.map(|(at, _)| at) < own;
                assert!(is_before, "{module} must not import {import}, which stands behind it");
            }
            let strangers = STRANGERS.iter().find(|(who, _)| *who == folder);
            let is_strange =
                strangers.is_some_and(|(_, whom)| whom.split(' ').any(|one| one == first(import)));
            assert!(!is_strange, "{module} must not know {import}");
            let is_mock = |module| first(module) == "logferry_mock";
            assert!(
                !is_mock(import) || is_mock(module) || MOCK_USERS.contains(&module),
                "{module} must not know the endpoint for development"
            );
        }
    }
    for (module, import) in CIRCLES {
        let is_there = circles.contains(&((*module).to_owned(), (*import).to_owned()));
        assert!(is_there, "{module} no longer imports {import}: take the pair out of CIRCLES");
    }
}

#[test]
fn pure_files_read_nothing() {
    let sources = Sources::all();
    for source in sources.iter().filter(|source| level(&source.module) == Some(Level::Pure)) {
        let module = &source.module;
        for import in sources.imports(source) {
            assert!(level(import) == Some(Level::Pure), "{module} is pure, and imports {import}");
        }
        let impure = impure(source, |_| false);
        assert!(impure.is_empty(), "{module} is pure, and names {impure:?}");
    }
}

/// Nothing in `tail` and `collector` but `tail::os::kernel` asks the system: the simulation has another
/// world below the seam, and what went past it would not be in that world.
#[test]
fn what_reads_logs_asks_through_the_seam() {
    let sources = Sources::all();
    // A value, a constant of it, or its default.
    let is_constant = |rest: &str| !rest.contains(char::is_lowercase) || rest == "::default";
    let is_value = |name: &str| {
        SEAM_NAMES.iter().any(|value| name.strip_prefix(value).is_some_and(is_constant))
    };
    let asking = |module: &str| ["tail", "collector"].contains(&first(module));
    for source in sources.iter().filter(|source| asking(&source.module)) {
        let module = source.module.as_str();
        let is_kernel = module == "tail::os::kernel";
        assert_eq!(level(module) == Some(Level::Edge), is_kernel, "{module} asks the system");
        if level(module) != Some(Level::Asks) {
            continue;
        }
        let impure = impure(source, is_value);
        assert!(impure.is_empty(), "{module} asks through the seam, and names {impure:?}");
        for name in sources.names_of(source, |import| level(import) == Some(Level::Edge)) {
            assert!(is_value(&name), "{module} asks through the seam, and names {name}");
        }
    }
}

/// What a file names or calls by which the system is asked, but for what `is_allowed`.
fn impure(source: &Source, is_allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let is_impure = |name: &String| {
        let is_in = |word: &&str| {
            name.strip_prefix(*word).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let asks = name.strip_prefix("std::path::").and_then(|name| name.split("::").nth(1));
        let is_asking = asks.is_some_and(|name| PATH_ASKS.contains(&name));
        (IMPURE.iter().any(is_in) || is_asking) && !is_allowed(name)
    };
    let names = source.named().map(|path| path.join("::")).filter(is_impure);
    let is_impure = |call: &&String| PATH_ASKS.iter().chain(PRINTING).any(|name| name == call);
    names.chain(source.calls.iter().filter(is_impure).cloned()).collect()
}

#[test]
fn a_doc_comment_reads_alone() {
    for source in Sources::all().iter() {
        for doc in source.docs.iter().map(|doc| doc.trim()) {
            let what = format!("{}: {doc:?}", source.path.display());
            assert!(!doc.starts_with(char::is_lowercase), "{what} begins with a small letter");
            let is_leaning = |word: &&&str| {
                let behind = doc.strip_prefix(**word);
                behind.is_some_and(|behind| !behind.starts_with(char::is_alphanumeric))
            };
            let leaning = LEANING.iter().find(is_leaning);
            assert!(leaning.is_none(), "{what} does not say whom it is about");
        }
    }
}

fn places() -> impl Iterator<Item = (Level, &'static str)> {
    TABLE.iter().flat_map(|(level, row)| row.split(' ').map(|place| (*level, place)))
}

fn place(module: &str) -> Option<(usize, Level)> {
    let place = places().enumerate().find(|(_, (_, place))| *place == module);
    place.map(|(at, (level, _))| (at, level))
}

fn level(module: &str) -> Option<Level> {
    place(module).map(|(_, level)| level)
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

/// Every test that SPECIFICATION.md names is there: `it::drain::…` in `tests/it`, others in `src`;
/// `…name` stands in the module named before it.
#[test]
fn the_tests_behind_the_promises_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
    let mut module = String::new();
    let mut count = 0;
    for span in text.split('`').skip(1).step_by(2) {
        let name = match span.strip_prefix('…') {
            Some(name) => name.trim_start_matches("::"),
            None if span.contains("::") && !span.ends_with('…') => {
                let (path, name) = span.rsplit_once("::").unwrap();
                let is_module = file_of(root, span).is_some();
                module = if is_module { span } else { path }.to_owned();
                if is_module { "" } else { name }
            }
            None => continue,
        };
        count += 1;
        let file = file_of(root, &module);
        let file = file.unwrap_or_else(|| panic!("{span}: there is no module {module}"));
        let is_there = std::fs::read_to_string(&file).unwrap().contains(&format!("fn {name}"));
        assert!(is_there, "{span}: no such test in {}", file.display());
    }
    assert!(count > 30, "the promises are found");
}

/// Each rule by which a file is known is a row of a table, and has a test of its name; and no test there
/// is without a row.
#[test]
fn the_rules_of_the_tables_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let tests = read("src/tail/rules_tests.rs");
    for (path, module) in
        [("src/tail/catalog/mod.rs", "judgements"), ("src/tail/copies.rs", "originals")]
    {
        let text = read(path);
        let doc = text.lines().map_while(|line| line.strip_prefix("//!"));
        let table = doc.map(str::trim).skip_while(|line| !line.starts_with("| rule |"));
        let rows = table.skip(2).map_while(|line| line.strip_prefix("| "));
        let rules = rows.map(|row| row.split(" |").next().unwrap_or_default().replace(' ', "_"));
        let rules: BTreeSet<String> = rules.collect();
        let (_, module) = tests.split_once(&format!("\nmod {module} {{")).unwrap();
        let module = module.split("\n}").next().unwrap();
        let names = module.split("#[test]\n    fn ").skip(1);
        let names = names.map(|name| name.split('(').next().unwrap_or_default().to_owned());
        assert!(rules.len() > 5, "{path}: the table is found");
        assert_eq!(rules, names.collect(), "the rows of {path}, and the tests");
    }
}

/// A link in a document leads to a file that is there, and each decision is in the list of decisions.
#[test]
fn links_in_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for folder in [root.to_owned(), root.join("docs"), root.join("docs/decisions")] {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
                let target = link.0.split('#').next().unwrap_or_default();
                if !target.is_empty() && !target.contains("://") {
                    let is_there = folder.join(target).exists();
                    assert!(is_there, "{} links to {target}", path.display());
                    count += 1;
                }
            }
        }
    }
    assert!(count > 50, "the links are found");
    let decisions = root.join("docs/decisions");
    let list = std::fs::read_to_string(decisions.join("README.md")).unwrap();
    for entry in std::fs::read_dir(&decisions).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let is_listed = name == "README.md" || list.contains(&format!("]({name})"));
        assert!(is_listed, "{name} is not in docs/decisions/README.md");
    }
}

/// A stranger reads it in one sitting.
#[test]
fn the_architecture_is_short() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let words = std::fs::read_to_string(path).unwrap().split_whitespace().count();
    assert!(words <= 1500, "ARCHITECTURE.md has {words} words; decisions go to docs/decisions");
}

/// Every scenario with containers that SPECIFICATION.md names is one of `tests/pod/play.py`.
#[test]
fn the_scenarios_with_containers_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SPECIFICATION.md")).unwrap();
    let script = std::fs::read_to_string(root.join("tests/pod/play.py")).unwrap();
    let mut count = 0;
    for named in text.split('`').filter_map(|span| span.strip_prefix("tests/pod/run ")) {
        for name in named.split(' ').filter(|name| *name != "NAME") {
            assert!(script.contains(&format!("\"{name}\": ")), "there is no scenario {name}");
            count += 1;
        }
    }
    assert!(count > 10, "the scenarios are found");
}

/// The image, the manifests and the documents name the version that `Cargo.toml` has.
#[test]
fn images_have_the_version_of_the_package() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files =
        vec![root.join("Dockerfile"), root.join("README.md"), root.join("docs/kubernetes.md")];
    let mut directories = vec![root.join("examples")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut directories } else { &mut files }.push(path);
        }
    }
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for before in ["logferry:", "logferry-sample-app:", "newTag: ", "ARG VERSION="] {
            for (at, _) in text.match_indices(before) {
                let version: String = text[at + before.len()..]
                    .chars()
                    .take_while(|character| character.is_ascii_digit() || *character == '.')
                    .collect();
                if !version.is_empty() {
                    assert_eq!(version, env!("CARGO_PKG_VERSION"), "{}: {before}", file.display());
                    count += 1;
                }
            }
        }
    }
    assert!(count > 15, "the versions are found");
}

/// The catalogue of what breaks log shippers: files, lines, the kernel's limits, remembering, stopping,
/// the network, security. Each has a test by its name, and a row in `docs/reliability.md`.
const SCENARIOS: [&str; 7] = [
    "F01 F02 F03 F04 F05 F06 F07 F08 F09 F10 F11 F12 F13 F14 F15 F16 F17 F18 F20 F21 F23 F24 F25 \
     F26 F27 F29 F30 F32 F33 F34 F35 F36 F37 F38 F39 F40 F41 F42 F43 F44 F45 F46",
    "L01 L02 L03 L05 L06 L07 L08 L09 L10 L11 L12 L13 L14 L15 L16",
    "K01 K02 K03 K06 K07 K08 K09 K10 K11 K12",
    "C01 C02 C03 C05 C06 C07 C08 C09 C10 C11 C12",
    "P01 P02 P03 P04 P05 P06 P07 P08 P11 P12 P13 P14 P15 P16",
    "N01 N02 N03 N04 N05 N06 N07 N08 N09 N10 N11 N12 N13 N14 N15 N16 N17 N18 N19",
    "S05 S07 S08",
];

/// A row names its tests as `it::rotation::f01_…`: all in that module whose names begin so.
#[test]
fn each_scenario_has_its_tests_and_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let is_id = |cell: &str| {
        cell.len() == 3
            && cell.starts_with(['F', 'L', 'K', 'C', 'P', 'N', 'S'])
            && cell[1..].parse::<u8>().is_ok()
    };
    let mut rows = Vec::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Some((id, cells)) = row.split_once(" | ").filter(|(id, _)| is_id(id)) else { continue };
        rows.push(id);
        let spans = cells.split('`').skip(1).step_by(2);
        let names: Vec<&str> = spans.filter(|span| span.starts_with("it::")).collect();
        assert!(!names.is_empty(), "{id}: its row names no test");
        let prefix = format!("{}_", id.to_lowercase());
        for name in names {
            let (module, name) = name.rsplit_once("::").unwrap();
            let name = name.trim_end_matches('…');
            assert!(name.starts_with(&prefix), "{id}: {name} is of another scenario");
            let file = file_of(root, module);
            let file = file.unwrap_or_else(|| panic!("{id}: there is no module {module}"));
            let is_there =
                std::fs::read_to_string(&file).unwrap().contains(&format!("\nfn {name}"));
            assert!(is_there, "{id}: no test {name} in {}", file.display());
        }
    }
    let wanted: Vec<&str> = SCENARIOS.iter().flat_map(|ids| ids.split_whitespace()).collect();
    assert_eq!(rows, wanted, "one row each, in their order");
}

fn file_of(root: &Path, module: &str) -> Option<PathBuf> {
    let path = module.trim_end_matches("::tests").replace("::", "/");
    let (first, below) = path.split_once('/').unwrap_or((&path, "lib"));
    let (base, path) = match first {
        "it" | "spec" => (root.join("tests"), path.as_str()),
        // Crates of their own.
        "clock" | "mock" | "wire" => (root.join(first).join("src"), below),
        _ => (root.join("src"), path.as_str()),
    };
    // Long tests stand in a file of their own.
    let names = || [format!("{path}_tests.rs"), format!("{path}/tests.rs")];
    let tests = module.ends_with("::tests").then(names).into_iter().flatten();
    let candidates = tests.chain([format!("{path}.rs"), format!("{path}/mod.rs")]);
    candidates.map(|name| base.join(name)).find(|file| file.is_file())
}
