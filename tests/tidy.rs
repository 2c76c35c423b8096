//! House rules that a compiler does not check: imports go one way, pure files stay pure, every module
//! says what it is for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Who may import whom: a module imports those above it in this table and those of its own folder.
/// `::*` stands for all files of a folder. A new file needs a place here.
const TABLE: &[(Level, &str)] = &[
    // Values that all share. They read nothing but `clock`, which is the only reader of time.
    (Level::Pure, "base::*"),
    (Level::Edge, "access"),
    // Decisions: time comes in, facts come out. In the order of a line's journey, backwards.
    (Level::Pure, "checkpoint checkpoint::format checkpoint::watermark"),
    (Level::Pure, "checkpoint::logtail checkpoint::murmur3"),
    (Level::Pure, "tail tail::identity tail::generation tail::pattern tail::registry tail::roots"),
    (Level::Pure, "tail::crowd tail::schedule"),
    (Level::Pure, "limit limit::bucket limit::flood limit::memory limit::pacer limit::repeat"),
    (Level::Pure, "limit::slack"),
    (Level::Pure, "line::* enrich batch::* pipeline"),
    (Level::Pure, "send::answer send::verdict send::backoff send::window send::package_list"),
    (Level::Pure, "send::limiter send::limiters send::passage send::queue send::dispatch"),
    (
        Level::Pure,
        "send::request send::skew send::cause send::certificate send::advice send::proxy send::encoding",
    ),
    // Edges: each the only door to one part of the system.
    (
        Level::Edge,
        "handoff signals checkpoint::files checkpoint::hold checkpoint::parked checkpoint::store",
    ),
    (Level::Edge, "limit::cgroup enrich::host"),
    (Level::Edge, "tail::own tail::discover tail::walk tail::walk::links tail::trace tail::watch"),
    (Level::Edge, "tail::gzip tail::reader tail::remembered tail::unseen"),
    (Level::Edge, "send::watched send::endpoint send::credentials send::tls send::lookup"),
    (Level::Edge, "send::http send::brake send::journal send::connect send::replay"),
    // Loops: they meet in `handoff` and nowhere else.
    (Level::Edge, "collector::* send admin::*"),
    // Wiring: knows every module's options; none of them knows it.
    (Level::Edge, "config::* shutdown app command::*"),
    (Level::Edge, "telemetry::* cli lib main"),
];

/// Who never hears of whom, wherever they stand in the table.
const STRANGERS: &[(&str, &str)] = &[
    ("tail", "send"),
    ("send", "tail line batch checkpoint enrich collector admin mock"),
    ("collector", "send admin mock"),
    ("admin", "send tail checkpoint batch collector mock"),
    ("mock", "tail send batch line checkpoint enrich collector admin"),
];

/// What no pure file names: it would read a file, a socket or a clock, or wait.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "tokio",
    "reqwest",
    "rustix",
    " nix::",
    "inotify",
    "Instant::now",
    "SystemTime",
    "clock::",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Pure,
    Edge,
}

/// A source file without its comments and its tests.
struct Source {
    /// As in the table: `tail::registry`, `tail` for `tail/mod.rs`.
    module: String,
    first_line: String,
    code: String,
}

#[test]
fn every_module_has_its_place_and_says_what_it_is_for() {
    for Source { module, first_line, .. } in sources() {
        assert!(place_of_file(&module).is_some(), "{module} has no place in TABLE");
        let is_generated = module == "wire::sls_logs";
        assert!(
            is_generated || first_line.starts_with("//! "),
            "{module} does not begin with `//!`"
        );
    }
}

#[test]
fn nothing_in_the_table_is_gone() {
    let modules: BTreeSet<String> = sources().into_iter().map(|source| source.module).collect();
    for (_, place) in places() {
        let module = place.trim_end_matches("::*");
        assert!(modules.contains(module), "{place} is in TABLE, and there is no such file");
    }
}

#[test]
fn imports_go_one_way() {
    for Source { module, code, .. } in sources() {
        let own = place_of_file(&module).map(|(index, _)| index);
        let folder = first(&module);
        for import in imports(&code) {
            let other = first(&import);
            let place = place_of_import(&import);
            assert!(place.is_some(), "{module} imports {import}, which has no place in TABLE");
            assert!(folder == other || place < own, "{module} must not import {import}");
            let strangers = STRANGERS.iter().find(|(who, _)| *who == folder);
            let is_strange =
                strangers.is_some_and(|(_, whom)| whom.split(' ').any(|one| one == other));
            assert!(!is_strange, "{module} must not know {import}");
        }
    }
}

#[test]
fn pure_files_read_nothing() {
    let is_pure = |module: &str| place_of_file(module).map(|(_, level)| level == Level::Pure);
    for Source { module, code, .. } in sources() {
        if is_pure(&module) != Some(true) {
            continue;
        }
        for sibling in paths_behind("super::", &code) {
            let sibling = format!("{}::{}", first(&module), first(&sibling));
            assert_ne!(is_pure(&sibling), Some(false), "{module} is pure, and imports {sibling}");
        }
        for word in IMPURE {
            assert!(!code.contains(word), "{module} is pure, and names {word}");
        }
    }
}

fn places() -> impl Iterator<Item = (Level, &'static str)> {
    TABLE.iter().flat_map(|(level, row)| row.split(' ').map(|place| (*level, place)))
}

fn place_of_file(module: &str) -> Option<(usize, Level)> {
    let is_it = |place: &str| {
        place == module || place.strip_suffix("::*").is_some_and(|folder| folder == first(module))
    };
    places().enumerate().find(|(_, (_, place))| is_it(place)).map(|(at, (level, _))| (at, level))
}

/// An import names a module, or something in it.
fn place_of_import(import: &str) -> Option<usize> {
    let file = import.splitn(3, "::").take(2).collect::<Vec<_>>().join("::");
    place_of_file(&file).or_else(|| place_of_file(first(import))).map(|(index, _)| index)
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn imports(code: &str) -> Vec<String> {
    paths_behind("crate::", code)
}

/// What follows each `root`, with a list in braces taken apart; modules only.
fn paths_behind(root: &str, code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let path = |text: &str| text.trim().chars().take_while(|&c| is_path(c)).collect::<String>();
    let mut found = Vec::new();
    for after in code.split(root).skip(1) {
        match after.strip_prefix('{').and_then(|list| list.split_once(';')) {
            Some((list, _)) => found.extend(list.split(',').map(path)),
            None => found.push(path(after)),
        }
    }
    found.retain(|path| path.starts_with(char::is_lowercase));
    found
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&root, &mut files);
    assert!(files.len() > 40, "the sources are found");
    files.sort();
    files.iter().map(|file| source(file.strip_prefix(&root).unwrap(), file)).collect()
}

/// All Rust files below, but for those that hold nothing but tests.
fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_tests =
            path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
        if is_tests {
            continue;
        }
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn source(name: &Path, path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap();
    let module = name.with_extension("").to_string_lossy().replace('/', "::");
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let code: Vec<&str> =
        text.lines().filter(is_code).take_while(|line| *line != "#[cfg(test)]").collect();
    Source {
        module: module.trim_end_matches("::mod").to_owned(),
        first_line: text.lines().next().unwrap_or_default().to_owned(),
        code: code.join("\n"),
    }
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
     F26 F27 F29 F30 F32 F33 F34 F35 F36 F37 F38",
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
