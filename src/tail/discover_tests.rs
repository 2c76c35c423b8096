use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;
use crate::tail::found::{Found, Refused};
use crate::tail::os::kernel::Kernel;

/// A tree of files, each holding its own name.
struct Tree {
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tree {
    fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Self { root: dir.path().canonicalize().unwrap(), _dir: dir };
        files.iter().for_each(|file| tree.file(file));
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn file(&self, file: &str) {
        self.dir(Path::new(file).parent().unwrap().to_str().unwrap());
        fs::write(self.path(file), file).unwrap();
    }

    fn dir(&self, dir: &str) {
        fs::create_dir_all(self.path(dir)).unwrap();
    }

    /// Makes the link, or points it elsewhere.
    fn link(&self, target: &str, link: &str) {
        self.dir(Path::new(link).parent().unwrap().to_str().unwrap());
        symlink(target, self.path("next")).unwrap();
        fs::rename(self.path("next"), self.path(link)).unwrap();
    }

    fn patterns(&self, paths: &[&str], exclude: &[&str], link_roots: &[&str]) -> Patterns {
        let absolute = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| self.path(text).to_str().unwrap().to_owned()).collect()
        };
        let roots: Vec<_> = link_roots.iter().map(|root| self.path(root)).collect();
        let own = vec![self.path("own")];
        Patterns::new(&absolute(paths), &absolute(exclude), own, &roots).unwrap()
    }

    fn scan(&self, paths: &[&str]) -> Scan {
        self.patterns(paths, &[], &[]).scan(&Kernel)
    }

    fn below(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_str().unwrap().to_owned()
    }

    fn files(&self, scan: &Scan) -> Vec<String> {
        scan.files.iter().map(|file| self.below(&file.path)).collect()
    }

    fn check(&self, paths: &[&str], exclude: &[&str], expected: &[&str]) {
        let scan = self.patterns(paths, exclude, &[]).scan(&Kernel);
        assert_eq!(self.files(&scan), expected, "{paths:?}");
    }

    /// Expects these files and refused links (`link -> target`), and that nothing is watched but
    /// `dirs`.
    fn expect(&self, scan: &Scan, files: &[&str], refused: &[&str], dirs: &[&str]) {
        assert_eq!(self.files(scan), files);
        let refusals = scan.refused.iter().map(|Refused { link, target }| {
            format!("{} -> {}", self.below(link), self.below(target))
        });
        assert_eq!(refusals.collect::<Vec<_>>(), refused);
        let watched: Vec<_> = scan.dirs.keys().map(|dir| self.below(dir)).collect();
        assert_eq!(watched, dirs);
        assert!(scan.errors.is_empty(), "{:?}", scan.errors);
    }
}

mod matching {
    use super::*;

    #[test]
    fn matches_names_depths_and_alternatives() {
        let tree = Tree::new(&["logs/app.log", "logs/a/b/c.log", "logs/a/x.txt", "logs/z.log"]);
        tree.check(&["logs/*.log"], &[], &["logs/app.log", "logs/z.log"]);
        tree.check(&["logs/**/*.log"], &[], &["logs/a/b/c.log", "logs/app.log", "logs/z.log"]);
        tree.check(&["logs/**/b/*"], &[], &["logs/a/b/c.log"]);
        tree.check(&["logs/**/b/c.log"], &[], &["logs/a/b/c.log"]);
        tree.check(&["logs/**/a/**/c.log"], &[], &["logs/a/b/c.log"]);
        tree.check(&["**/**/*.txt"], &[], &["logs/a/x.txt"]);
        tree.check(&["logs/*/*/c.log"], &[], &["logs/a/b/c.log"]);
        tree.check(&["logs/{app,z}.log"], &[], &["logs/app.log", "logs/z.log"]);
        tree.check(&["logs/?.log", "logs/z.log"], &[], &["logs/z.log"]);
        tree.check(&["logs/a/x.txt"], &[], &["logs/a/x.txt"]);
        tree.check(&["logs/a/**"], &[], &["logs/a/b/c.log", "logs/a/x.txt"]);
        tree.check(&["none/**/*.log"], &[], &[]);
        tree.check(&["logs/app.log/*.log"], &[], &[]);
        tree.check(&["logs/app.log/x/*.log"], &[], &[]);
    }

    #[test]
    fn tells_what_stat_said() {
        let tree = Tree::new(&["logs/app.log"]);
        let scan = tree.scan(&["logs/*.log"]);
        let metadata = fs::metadata(tree.path("logs/app.log")).unwrap();
        assert_eq!(
            scan.files,
            [Found {
                path: tree.path("logs/app.log"),
                device: metadata.dev(),
                inode: metadata.ino(),
                size: "logs/app.log".len() as u64,
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            }]
        );
    }

    #[test]
    fn leaves_out_what_is_excluded_and_what_is_ours() {
        let tree = Tree::new(&["logs/a.log", "logs/b.log", "logs/old/x.log", "own/c.log"]);
        tree.link("../own", "logs/way");
        tree.link("../own/c.log", "logs/ours.log");
        tree.check(&["**/*.log"], &["logs/b*", "logs/old/**"], &["logs/a.log"]);
        tree.check(&["logs/old/*.log"], &["logs/**"], &[]);
        tree.file("own/deep/c.log");
        tree.check(&["own/deep/*.log", "logs/way/deep/*.log", "own/*.log"], &[], &[]);
    }

    #[test]
    fn a_directory_of_which_all_is_excluded_is_not_entered() {
        let tree = Tree::new(&["logs/a.log", "logs/old/x.log"]);
        tree.link("/etc", "logs/etc");
        let scan = tree.patterns(&["logs/**/*.log"], &["logs/{old,etc}/**"], &[]).scan(&Kernel);
        tree.expect(&scan, &["logs/a.log"], &[], &["logs"]);
    }

    /// Excludes the files of a directory under one of its two names.
    #[test]
    fn what_is_excluded_under_one_name_is_found_under_another() {
        let tree = Tree::new(&["logs/b/app.log"]);
        tree.link("b", "logs/a");
        tree.check(&["logs/**/*.log"], &["logs/a/*.log"], &["logs/b/app.log"]);
        tree.check(&["logs/**/*.log"], &["logs/b/*.log"], &["logs/a/app.log"]);
        tree.check(&["logs/**/*.log"], &[], &["logs/a/app.log"]);
    }

    #[test]
    fn names_that_are_no_utf8_are_found() {
        use std::os::unix::ffi::OsStrExt as _;
        let tree = Tree::new(&["logs/x"]);
        let dir = tree.path("logs").join(OsStr::from_bytes(b"\xfe\xff"));
        fs::create_dir(&dir).unwrap();
        let file = dir.join(OsStr::from_bytes(b"\xe9.log"));
        fs::write(&file, "").unwrap();
        assert_eq!(tree.scan(&["logs/**/*.log"]).files[0].path, file);
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let wrong = "/logs/[a".to_owned();
        let good = "/logs/*".to_owned();
        for (paths, exclude) in [([&good, &wrong], [&good]), ([&good, &good], [&wrong])] {
            let (text, error) =
                Patterns::new(&paths.map(Clone::clone), &exclude.map(Clone::clone), vec![], &[])
                    .unwrap_err();
            assert_eq!(text, wrong);
            assert!(error.to_string().contains("unclosed"), "{error}");
        }
    }
}

mod names {
    use super::*;

    #[test]
    fn a_file_under_several_names_is_found_under_the_first_pattern_and_path() {
        let tree = Tree::new(&["logs/b.log", "logs/deep/c.log"]);
        fs::hard_link(tree.path("logs/b.log"), tree.path("logs/a.txt")).unwrap();
        fs::hard_link(tree.path("logs/b.log"), tree.path("logs/deep/d.log")).unwrap();
        tree.link("b.log", "logs/a.log");
        tree.check(&["logs/**/*.log"], &[], &["logs/a.log", "logs/deep/c.log"]);
        tree.check(&["logs/*.txt", "logs/*.log"], &[], &["logs/a.txt"]);
        tree.check(&["logs/b.log", "logs/*"], &[], &["logs/b.log"]);
        let scan = tree.scan(&["logs/**/*.log", "logs/*.log"]);
        let aliases: Vec<_> = scan.aliases.iter().map(|(path, _)| tree.below(path)).collect();
        assert_eq!(aliases, ["logs/b.log", "logs/deep/d.log", "logs/b.log"]);
        let inode = (scan.files[0].device, scan.files[0].inode);
        assert!(scan.aliases.iter().all(|(_, one)| *one == inode));
        let all = ["logs/deep/c.log", "logs/deep/d.log"];
        tree.check(&["logs/deep/*", "logs/*"], &[], &all);
    }

    /// A volume that is swapped as one: `app.log` ─▶ `..data/app.log`, `..data` ─▶ `..7`.
    #[test]
    fn visible_names_come_before_hidden_ones() {
        let tree = Tree::new(&["logs/..7/app.log", "logs/..7/deep/x.log", "logs/.own.log"]);
        tree.link("..7", "logs/..data");
        tree.link("..data/app.log", "logs/app.log");
        tree.link("..data/deep", "logs/deep");
        let expected = ["logs/app.log", "logs/deep/x.log", "logs/.own.log"];
        tree.check(&["logs/**/*.log"], &[], &expected);
        // What the pattern itself names is not hidden.
        tree.check(&["logs/..data/*.log"], &[], &["logs/..data/app.log"]);
    }

    #[test]
    fn follows_links_in_any_part_of_the_path() {
        let tree = Tree::new(&["data/pod/logs/app.log", "data/pod/logs/deep/x.log"]);
        tree.link("../data/pod/logs", "share/logs");
        tree.link("../data", "mid/way");
        tree.link("pod/logs/app.log", "data/current.log");
        tree.check(&["share/logs/**/*.log"], &[], &["share/logs/app.log", "share/logs/deep/x.log"]);
        tree.check(&["mid/way/pod/logs/app.log"], &[], &["mid/way/pod/logs/app.log"]);
        tree.check(&["data/*.log"], &[], &["data/current.log"]);
        tree.check(&["**/pod/logs/app.log"], &[], &["data/pod/logs/app.log"]);
    }

    #[test]
    fn a_file_reached_twice_is_found_once_and_loops_end() {
        let tree = Tree::new(&["logs/app.log"]);
        tree.link("app.log", "logs/again.log");
        tree.link("../logs", "logs/loop");
        tree.link("self", "logs/self");
        tree.check(&["logs/**/*.log"], &[], &["logs/again.log"]);
        tree.check(&["logs/**/*.log"], &["logs/a*.log"], &[]);
        tree.check(&["logs/*/*.log"], &[], &["logs/loop/again.log"]);
    }

    /// Each directory links to each other one: the paths are more than a factorial, and the kernel
    /// does not follow the longest ones.
    #[test]
    fn directories_that_link_to_each_other_do_not_multiply() {
        let names: Vec<String> = (10..52).map(|number| format!("logs/{number}")).collect();
        let tree = Tree::new(&[]);
        for name in &names {
            tree.file(&format!("{name}/app.log"));
            for other in &names {
                let link = format!("{name}/to-{}", &other["logs/".len()..]);
                tree.link(&format!("../../{other}"), &link);
            }
        }
        for exclude in [&[][..], &["logs/none.log"]] {
            let scan = tree.patterns(&["logs/**/*.log"], exclude, &[]).scan(&Kernel);
            assert_eq!(scan.files.len(), names.len());
            assert_eq!(tree.files(&scan)[0], "logs/10/app.log");
            for file in &scan.files {
                assert_eq!(fs::metadata(&file.path).unwrap().ino(), file.inode);
            }
        }
    }
}

mod oddities {
    use super::*;

    #[test]
    fn names_what_matches_and_is_no_file() {
        let tree = Tree::new(&["logs/a.log", "logs/dir.log/x.log", "logs/plain/y.txt"]);
        let _socket = std::os::unix::net::UnixListener::bind(tree.path("logs/socket.log")).unwrap();
        let pipe = tree.path("logs/pipe.log");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        tree.link("nowhere", "logs/dangling.log");
        tree.link("pipe.log", "logs/to-pipe.log");
        tree.link("/dev/null", "logs/device.log");
        tree.link("pipe.log", "logs/other.txt");
        let odd = |paths: &[&str], exclude: &[&str]| -> Vec<String> {
            let scan = tree.patterns(paths, exclude, &[]).scan(&Kernel);
            assert_eq!(tree.files(&scan)[0], "logs/a.log");
            assert!(scan.errors.is_empty() && scan.refused.is_empty());
            scan.odd.iter().map(|(path, kind)| format!("{}: {kind}", tree.below(path))).collect()
        };
        let expected = [
            "logs/device.log: character device",
            "logs/dir.log: directory",
            "logs/pipe.log: named pipe",
            "logs/socket.log: socket",
            "logs/to-pipe.log: named pipe",
        ];
        assert_eq!(odd(&["logs/*.log"], &[]), expected);
        assert_eq!(odd(&["logs/*.log", "logs/**/*.log"], &[]), expected, "each once");
        assert_eq!(odd(&["logs/*.log"], &["logs/*i*.log", "logs/to*"]), [expected[3]]);
        // A bare star matches directories by chance: of them nothing is said.
        let files = odd(&["logs/*"], &["logs/*i?e.log", "logs/s*.log", "logs/to*"]);
        assert_eq!(files, ["logs/other.txt: named pipe"]);
        assert_eq!(odd(&["logs/a.log", "logs/plain"], &[]), ["logs/plain: directory"]);
    }

    /// Nobody may write to `/` for a test; `/tmp`, which is no file, stands for one.
    #[test]
    fn one_file_of_the_root_directory_is_looked_for() {
        let scan = Patterns::new(&["/tmp".to_owned()], &[], vec![], &[]).unwrap().scan(&Kernel);
        assert_eq!(scan.odd.iter().collect::<Vec<_>>(), [&(PathBuf::from("/tmp"), "directory")]);
        assert!(scan.refused.is_empty());
        assert_eq!(scan.dirs.keys().collect::<Vec<_>>(), [Path::new("/")]);
    }

    #[test]
    fn a_tree_deeper_than_the_stack_is_walked() {
        let dir = format!("logs{}", "/d".repeat(400));
        let tree = Tree::new(&[&format!("{dir}/deepest.log")]);
        let mut patterns = tree.patterns(&["logs/**/*.log"], &[], &[]);
        let walk =
            std::thread::Builder::new().stack_size(96 << 10).spawn(move || patterns.scan(&Kernel));
        let scan = walk.unwrap().join().unwrap();
        assert_eq!(tree.files(&scan), [format!("{dir}/deepest.log")]);
    }

    #[test]
    fn directories_that_vanish_meanwhile_are_no_trouble() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let tree = Tree::new(&["logs/a/stays.log"]);
        let mut patterns = tree.patterns(&["logs/**/*.log"], &[], &[]);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    tree.file("logs/b/c/d/comes.log");
                    tree.link("b/c", "logs/link");
                    fs::remove_dir_all(tree.path("logs/b")).unwrap();
                }
            });
            for _ in 0..300 {
                let scan = patterns.scan(&Kernel);
                assert_eq!(tree.files(&scan)[0], "logs/a/stays.log");
                assert!(scan.errors.is_empty() && scan.refused.is_empty(), "{scan:?}");
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn what_may_not_be_listed_is_named_and_not_watched() {
        use std::os::unix::fs::PermissionsExt as _;
        let tree = Tree::new(&["logs/a.log", "logs/shut/b.log"]);
        let mode = |mode| {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(tree.path("logs/shut"), permissions).unwrap();
        };
        let mut patterns = tree.patterns(&["logs/**/*.log"], &[], &[]);

        mode(0);
        let shut = std::thread::scope(|scope| {
            scope.spawn(|| (without_privileges(), patterns.scan(&Kernel)).1).join().unwrap()
        });
        mode(0o755);

        assert_eq!(tree.files(&shut), ["logs/a.log"]);
        let (path, error) = shut.errors.iter().next().unwrap();
        assert_eq!((shut.errors.count(), tree.below(path).as_str()), (1, "logs/shut"));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(shut.dirs.keys().map(|dir| tree.below(dir)).collect::<Vec<_>>(), ["logs"]);
        tree.expect(
            &patterns.scan(&Kernel),
            &["logs/a.log", "logs/shut/b.log"],
            &[],
            &["logs", "logs/shut"],
        );
    }

    /// Takes from this thread what lets root pass over the modes of files.
    fn without_privileges() {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective = rustix::thread::CapabilitySet::empty();
        rustix::thread::set_capabilities(None, sets).unwrap();
    }
}

mod watching {
    use super::*;

    fn watches(tree: &Tree, paths: &[&str], dir: &str) -> Option<bool> {
        tree.scan(paths).dirs.get(&tree.path(dir)).copied()
    }

    #[test]
    fn watches_where_a_change_would_matter() {
        let tree = Tree::new(&["data/pod/logs/app.log"]);
        let pattern = &["share/logs/*.log"];
        assert_eq!(watches(&tree, pattern, ""), Some(false), "share is missing");
        tree.link("../data/current/logs", "share/logs");
        assert_eq!(watches(&tree, pattern, "share"), Some(false), "the link is here");
        assert_eq!(watches(&tree, pattern, "data"), Some(false), "current is missing");
        tree.link("pod", "data/current");
        assert_eq!(watches(&tree, pattern, "data"), Some(false), "the second link is here");
        assert_eq!(watches(&tree, pattern, "share/logs"), Some(true), "files are here");
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_waited_on_from_above() {
        let tree = Tree::new(&["share/logs"]);
        let scan = tree.scan(&["share/logs/*.log", "share/logs/deep/x/*.log"]);
        tree.expect(&scan, &[], &[], &["share"]);
    }

    #[test]
    fn the_directory_of_a_linked_file_is_watched_for_writes() {
        let tree = Tree::new(&["logs/v1/app.log", "logs/near.log"]);
        tree.link("v1/app.log", "logs/current.log");
        tree.link("near.log", "logs/also.log");
        let scan = tree.scan(&["logs/*.log"]);
        tree.expect(&scan, &["logs/also.log", "logs/current.log"], &[], &["logs", "logs/v1"]);
        assert!(scan.dirs[&tree.path("logs/v1")]);
    }
}

/// Where links may lead; a link to elsewhere is refused.
mod links {
    use super::*;

    #[test]
    fn links_below_the_base_must_stay_there() {
        let tree =
            Tree::new(&["logs/app.log", "logs/deep/x.log", "secret/key.log", "logs-2/x.log"]);
        let environ = "/proc/1/environ";
        for (target, real) in [
            ("../secret/key.log", "secret/key.log"),
            ("../logs/../secret/key.log", "secret/key.log"),
            ("deep/../../secret/key.log", "secret/key.log"),
            ("../logs-2/x.log", "logs-2/x.log"),
            (tree.path("secret/key.log").to_str().unwrap(), "secret/key.log"),
            (environ, environ),
            ("/etc/passwd", "/etc/passwd"),
            ("/proc/self/root/etc/passwd", "/proc/self/root/etc/passwd"),
            ("../not/there", "not/there"),
        ] {
            tree.link(target, "logs/evil.log");
            let scan = tree.scan(&["logs/**/*.log"]);
            let refused = format!("logs/evil.log -> {real}");
            let files = ["logs/app.log", "logs/deep/x.log"];
            tree.expect(&scan, &files, &[&refused], &["logs", "logs/deep"]);
        }
        for target in ["deep/x.log", "../logs/deep/x.log", "deep/../deep/x.log"] {
            tree.link(target, "logs/evil.log");
            let scan = tree.scan(&["logs/**/*.log"]);
            tree.expect(&scan, &["logs/app.log", "logs/deep/x.log"], &[], &["logs", "logs/deep"]);
        }
    }

    #[test]
    fn directories_outside_are_not_entered() {
        let tree = Tree::new(&["pod/logs/app.log", "pod/key.log", "secret/key.log"]);
        for (target, real) in
            [("../../secret", "secret"), ("..", "pod"), ("../..", ""), ("/", "/"), ("/etc", "/etc")]
        {
            tree.link(target, "pod/logs/way");
            let refused = format!("pod/logs/way -> {real}");
            for pattern in ["pod/logs/**/*.log", "pod/logs/**", "pod/logs/**/key.log"] {
                let scan = tree.scan(&[pattern]);
                let has_files = !pattern.ends_with("key.log");
                let files = if has_files { &["pod/logs/app.log"][..] } else { &[] };
                tree.expect(&scan, files, &[&refused], &["pod/logs"]);
            }
            let scan = tree.scan(&["pod/logs/*/*.log"]);
            tree.expect(&scan, &[], &[&refused], &["pod/logs"]);
            // Nobody asks what is behind it.
            let scan = tree.scan(&["pod/logs/*.log"]);
            tree.expect(&scan, &["pod/logs/app.log"], &[], &["pod/logs"]);
        }
    }

    #[test]
    fn a_link_that_is_made_right_is_followed() {
        let tree = Tree::new(&["logs/v1/app.log", "secret/app.log"]);
        tree.link("../secret/app.log", "logs/now.log");
        let mut patterns = tree.patterns(&["logs/*.log"], &[], &[]);
        let refused = ["logs/now.log -> secret/app.log"];
        tree.expect(&patterns.scan(&Kernel), &[], &refused, &["logs"]);
        tree.link("v1/app.log", "logs/now.log");
        tree.expect(&patterns.scan(&Kernel), &["logs/now.log"], &[], &["logs", "logs/v1"]);
        tree.link("../secret/app.log", "logs/now.log");
        tree.expect(&patterns.scan(&Kernel), &[], &refused, &["logs"]);
    }

    /// The way may pass elsewhere, as long as it ends where it may.
    #[test]
    fn a_link_over_another_place_is_judged_by_its_end() {
        let tree = Tree::new(&["logs/v1/app.log", "etc/x"]);
        tree.link("../logs/v1", "etc/current");
        tree.link("../etc/current/app.log", "logs/now.log");
        tree.expect(
            &tree.scan(&["logs/*.log"]),
            &["logs/now.log"],
            &[],
            &["etc", "logs", "logs/v1"],
        );
    }

    #[test]
    fn a_base_may_be_pointed_beside_what_it_was_at_first_sight() {
        let tree =
            Tree::new(&["data/pod-1/logs/app.log", "data/pod-2/logs/app.log", "home/app.log"]);
        let mut patterns = tree.patterns(&["share/logs/**/*.log"], &[], &[]);
        tree.expect(&patterns.scan(&Kernel), &[], &[], &[""]);
        tree.link("../data/pod-0/logs", "share/logs");
        tree.expect(&patterns.scan(&Kernel), &[], &[], &["data", "share"]);
        let found = ["share/logs/app.log"];
        for pod in ["pod-1", "pod-2"] {
            tree.link(&format!("../data/{pod}/logs"), "share/logs");
            tree.expect(&patterns.scan(&Kernel), &found, &[], &["share", "share/logs"]);
        }
        let is_allowed = |patterns: &Patterns, told: &str| {
            let path = tree.path("share/logs/app.log");
            patterns.place(&Kernel, &path, &tree.path(told), (0, 0)).is_some()
        };
        assert!(is_allowed(&patterns, "data/pod-3/logs/app.log"));
        assert!(!is_allowed(&patterns, "home/app.log"));

        for (target, real) in
            [("../home", "home"), ("/", "/"), ("../home/not/there", "home/not/there")]
        {
            tree.link(target, "share/logs");
            tree.expect(
                &patterns.scan(&Kernel),
                &[],
                &[&format!("share/logs -> {real}")],
                &["share"],
            );
        }
        tree.link("../data/pod-3/logs", "share/logs");
        tree.expect(&patterns.scan(&Kernel), &[], &[], &["data", "share"]);
        tree.link("../data/pod-1/logs", "share/logs");
        tree.expect(&patterns.scan(&Kernel), &found, &[], &["share", "share/logs"]);
    }

    #[test]
    fn of_several_links_on_the_way_the_one_that_goes_astray_is_named() {
        let tree = Tree::new(&["data/pod-1/logs/app.log", "home/logs/app.log"]);
        tree.link("data", "share");
        tree.link("pod-1", "data/now");
        let mut patterns = tree.patterns(&["share/now/logs/*.log"], &[], &[]);
        let dirs = ["", "data", "share/now/logs"];
        tree.expect(&patterns.scan(&Kernel), &["share/now/logs/app.log"], &[], &dirs);
        tree.link("../home", "data/now");
        let refused = ["share/now -> home/logs"];
        tree.expect(&patterns.scan(&Kernel), &[], &refused, &["", "data"]);
        tree.link("home", "share");
        tree.link("logs", "home/now");
        let refused = ["share -> home/logs/logs"];
        tree.expect(&patterns.scan(&Kernel), &[], &refused, &[""]);
    }

    #[test]
    fn a_base_that_was_a_directory_is_not_let_out_later() {
        let tree = Tree::new(&["share/logs/app.log", "secret/app.log"]);
        let mut patterns = tree.patterns(&["share/logs/*.log"], &[], &[]);
        tree.expect(&patterns.scan(&Kernel), &["share/logs/app.log"], &[], &["share/logs"]);
        fs::rename(tree.path("share/logs"), tree.path("share/old")).unwrap();
        tree.link("../secret", "share/logs");
        tree.expect(&patterns.scan(&Kernel), &[], &["share/logs -> secret"], &["share"]);
        tree.link("old", "share/logs");
        tree.expect(&patterns.scan(&Kernel), &[], &["share/logs -> share/old"], &["share"]);
    }

    #[test]
    fn a_base_that_leads_nowhere_is_an_error_and_no_refusal() {
        let tree = Tree::new(&["data/logs/app.log"]);
        tree.link("../data/logs", "share/logs");
        let mut patterns = tree.patterns(&["share/logs/*.log"], &[], &[]);
        tree.expect(
            &patterns.scan(&Kernel),
            &["share/logs/app.log"],
            &[],
            &["share", "share/logs"],
        );
        tree.link("logs", "share/logs");
        let scan = patterns.scan(&Kernel);
        assert_eq!((scan.errors.count(), scan.refused.count()), (1, 0), "{scan:?}");
        assert!(scan.dirs.contains_key(&tree.path("share")));
    }

    /// A file in the place of the directory is not the first sight of it.
    #[test]
    fn a_base_is_met_when_it_is_a_directory() {
        let tree = Tree::new(&["share/logs", "data/pod/logs/app.log"]);
        let mut patterns = tree.patterns(&["share/logs/*.log"], &[], &[]);
        tree.expect(&patterns.scan(&Kernel), &[], &[], &["share"]);
        tree.link("../data/pod/logs", "share/logs");
        tree.expect(
            &patterns.scan(&Kernel),
            &["share/logs/app.log"],
            &[],
            &["share", "share/logs"],
        );
    }

    /// Whatever the order of the patterns: what one of them allows is known before any is walked.
    #[test]
    fn what_a_later_pattern_allows_counts_for_the_first_one() {
        let tree = Tree::new(&["data/pod/logs/app.log", "data/pod/x.log"]);
        tree.link("data/pod/logs", "share");
        tree.link("../data/pod/x.log", "first/x.log");
        tree.link("../data/pod/y.log", "first/y.log");
        tree.link("../data/v1/z.log", "first/z.log");
        tree.file("data/v1/z.log");
        for patterns in [&["first/*.log", "share/*.log"], &["first/*.log", "first/z.log"]] {
            let mut patterns = tree.patterns(patterns, &[], &[]);
            let scan = patterns.scan(&Kernel);
            assert_eq!(tree.files(&scan)[..2], ["first/x.log", "first/z.log"]);
            assert!(scan.refused.is_empty(), "{:?}", scan.refused);
        }
    }

    #[test]
    fn one_file_that_is_a_link_may_be_pointed_beside_its_first_target() {
        let tree = Tree::new(&["data/v1/app.log", "data/v2/app.log", "secret/v1/app.log"]);
        let mut patterns = tree.patterns(&["logs/app.log"], &[], &[]);
        tree.link("../data/v0/app.log", "logs/app.log");
        tree.expect(&patterns.scan(&Kernel), &[], &[], &["data", "logs"]);
        for version in ["v1", "v2"] {
            tree.link(&format!("../data/{version}/app.log"), "logs/app.log");
            let dirs = [&format!("data/{version}"), "logs"];
            tree.expect(&patterns.scan(&Kernel), &["logs/app.log"], &[], &dirs);
        }
        tree.link("../secret/v1/app.log", "logs/app.log");
        let refused = ["logs/app.log -> secret/v1/app.log"];
        tree.expect(&patterns.scan(&Kernel), &[], &refused, &["logs"]);

        // The directory of the file may be the link.
        tree.link("data/v1", "now");
        let mut patterns = tree.patterns(&["now/app.log"], &[], &[]);
        tree.expect(&patterns.scan(&Kernel), &["now/app.log"], &[], &["", "now"]);
        tree.link("data/v2", "now");
        tree.expect(&patterns.scan(&Kernel), &["now/app.log"], &[], &["", "now"]);
    }

    #[test]
    fn one_file_may_not_lead_into_the_systems_own_directories() {
        let tree = Tree::new(&[]);
        for target in ["/etc/passwd", "/proc/1/environ", "/proc/self/status"] {
            tree.link(target, "logs/app.log");
            let scan = tree.scan(&["logs/app.log"]);
            tree.expect(&scan, &[], &[&format!("logs/app.log -> {target}")], &["logs"]);
        }
    }

    #[test]
    fn with_listed_roots_only_these_and_the_bases_as_written_count() {
        let files = ["data/pod-1/app.log", "data/pod-2/app.log", "secret/app.log", "logs/app.log"];
        let tree = Tree::new(&files);
        let paths = ["share/logs/*.log", "logs/*.log"];
        tree.link("../data/pod-1", "share/logs");
        tree.link("../secret/app.log", "logs/evil.log");
        let evil = "logs/evil.log -> secret/app.log";

        let mut none = tree.patterns(&paths, &[], &["elsewhere"]);
        let refused = [evil, "share/logs -> data/pod-1"];
        tree.expect(&none.scan(&Kernel), &["logs/app.log"], &refused, &["logs", "share"]);
        let mut all = tree.patterns(&paths, &[], &["data", "secret"]);
        let found = ["share/logs/app.log", "logs/app.log", "logs/evil.log"];
        let dirs = ["logs", "secret", "share", "share/logs"];
        tree.expect(&all.scan(&Kernel), &found, &[], &dirs);

        // A root that is a link itself stands for where it leads now.
        tree.link("data/pod-1", "root");
        let mut linked = tree.patterns(&paths, &[], &["root"]);
        let (found, dirs) =
            (["share/logs/app.log", "logs/app.log"], ["logs", "share", "share/logs"]);
        tree.expect(&linked.scan(&Kernel), &found, &[evil], &dirs);
        tree.link("data/pod-2", "root");
        let refused = [evil, "share/logs -> data/pod-1"];
        tree.expect(&linked.scan(&Kernel), &["logs/app.log"], &refused, &["logs", "share"]);
        tree.link("../data/pod-2", "share/logs");
        tree.expect(&linked.scan(&Kernel), &found, &[evil], &dirs);
    }
}

mod named {
    use super::*;

    impl Tree {
        /// Patterns of settings that name these files.
        fn naming(&self, paths: &[&str], named: &[&str]) -> Patterns {
            let named = named.iter().map(|file| self.path(file)).collect();
            self.patterns(paths, &[], &[]).without(named)
        }
    }

    #[test]
    fn files_that_the_settings_name_and_what_is_beside_them_are_no_logs() {
        let tree = Tree::new(&[
            "logs/app.log",
            "logs/keys/id.log",
            "logs/keys/other.log",
            "logs/keys/a/x.log",
        ]);
        fs::hard_link(tree.path("logs/keys/id.log"), tree.path("logs/hard.log")).unwrap();
        let mut patterns = tree.naming(&["logs/**/*.log"], &["logs/keys/id.log"]);
        let scan = patterns.scan(&Kernel);
        assert_eq!(tree.files(&scan), ["logs/app.log", "logs/keys/a/x.log"]);

        let place = |name: &str| {
            let path = tree.path(name);
            let found = fs::metadata(&path).unwrap();
            patterns.place(&Kernel, &path, &path, (found.dev(), found.ino()))
        };
        assert_eq!(place("logs/app.log"), Some(tree.path("logs/app.log")));
        for name in ["logs/keys/id.log", "logs/keys/other.log", "logs/hard.log"] {
            assert_eq!(place(name), None, "{name}");
        }
    }

    #[test]
    fn in_a_directory_that_a_pattern_names_only_the_file_itself_is_left_out() {
        let tree = Tree::new(&["logs/app.log", "logs/key.log"]);
        let scan = tree.naming(&["logs/*.log"], &["logs/key.log"]).scan(&Kernel);
        assert_eq!(tree.files(&scan), ["logs/app.log"]);
    }

    /// The first link that the agent meets leads to its own keys: it opens up nothing, and the next
    /// one is still the first.
    #[test]
    fn a_link_to_them_is_refused_and_opens_up_nothing() {
        for link in ["agent/keys", "agent/keys/..data", "agent/keys/..1"] {
            let tree = Tree::new(&["agent/keys/..1/id", "agent/keys/..1/key.log", "agent/x/y.log"]);
            tree.link("..1", "agent/keys/..data");
            tree.link("..data/id", "agent/keys/id");
            tree.link("..data/key.log", "agent/keys/key.log");
            let target = tree.path(link).to_str().unwrap().to_owned();
            tree.link(&target, "share/logs");
            let mut patterns = tree.naming(&["share/logs/**/*.log"], &["agent/keys/id"]);
            let scan = patterns.scan(&Kernel);
            assert_eq!(tree.files(&scan), [""; 0], "{link}");
            assert_eq!(scan.refused.count(), 1, "{link}: {:?}", scan.refused);
            assert!(!patterns.roots().contains("agent"), "{link}: {}", patterns.roots());

            tree.file("data/pod/logs/app.log");
            tree.link(tree.path("data/pod/logs").to_str().unwrap(), "share/logs");
            let scan = patterns.scan(&Kernel);
            assert_eq!(tree.files(&scan), ["share/logs/app.log"], "{link}");
            assert!(scan.refused.is_empty(), "{link}");
        }
    }

    #[test]
    fn a_link_among_the_logs_to_them_is_refused() {
        let tree = Tree::new(&["data/logs/app.log", "data/agent/id", "data/agent/key"]);
        tree.link(tree.path("data/logs").to_str().unwrap(), "share/logs");
        tree.link(tree.path("data/agent/key").to_str().unwrap(), "data/logs/key.log");
        tree.link(tree.path("data/agent").to_str().unwrap(), "data/logs/dir");
        let scan = tree.naming(&["share/logs/**/*"], &["data/agent/id"]).scan(&Kernel);
        assert_eq!(tree.files(&scan), ["share/logs/app.log"]);
        let refused: Vec<_> = scan.refused.iter().map(|one| tree.below(&one.link)).collect();
        assert_eq!(refused, ["share/logs/dir", "share/logs/key.log"]);
    }
}

/// What an earlier run knew is judged as what is found now.
#[test]
fn a_checkpoint_is_no_permission() {
    let tree = Tree::new(&["data/pod/logs/app.log", "data/pod/logs/app.log.1", "secret/app.log"]);
    tree.link(tree.path("data/pod/logs").to_str().unwrap(), "share/logs");
    tree.link(tree.path("secret").to_str().unwrap(), "data/pod/sub");
    let mut patterns = tree.patterns(&["share/logs/**/*.log"], &["share/logs/**/*.2"], &[]);
    let permits = |patterns: &Patterns, known: &str, place: &str| {
        patterns.permits(&Kernel, &tree.path(known), &tree.path(place))
    };
    let app = "share/logs/app.log";
    assert_eq!(permits(&patterns, app, "data/pod/logs/app.log"), Permission::Awaited);
    let _ = patterns.scan(&Kernel);
    for (known, place, expected) in [
        (app, "data/pod/logs/app.log", Permission::Granted),
        (app, "data/pod/logs/app.log.1", Permission::Granted),
        (app, "data/pod/logs/app.log.2", Permission::NotConfigured),
        (app, "data/pod/sub/app.log", Permission::LeadsOut),
        (app, "secret/app.log", Permission::LeadsOut),
        ("share/other/app.log", "data/pod/logs/app.log", Permission::NotConfigured),
        ("share/logs/app.txt", "data/pod/logs/app.log", Permission::NotConfigured),
    ] {
        assert_eq!(permits(&patterns, known, place), expected, "{known} at {place}");
    }
    assert_eq!(
        patterns.enter(&Kernel, &tree.path("data/pod/logs")),
        Some(tree.path("data/pod/logs"))
    );
    assert_eq!(patterns.enter(&Kernel, &tree.path("data/pod/sub")), None, "a link leads out");
    assert_eq!(patterns.enter(&Kernel, &tree.path("own")), None);
}
mod room {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// Somebody who knows some files by their inodes.
    struct Knows(Vec<(u64, u64)>);

    impl Host for Knows {
        fn is_known(&self, inode: (u64, u64)) -> bool {
            self.0.contains(&inode)
        }

        fn pulse(&mut self) {}
    }

    /// Twenty files, each written to a second after the one before.
    fn twenty() -> Tree {
        let names: Vec<String> = (0..20).map(|number| format!("logs/{number:02}.log")).collect();
        let tree = Tree::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (number, name) in names.iter().enumerate() {
            let file = fs::OpenOptions::new().append(true).open(tree.path(name)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1000 + number as u64)).unwrap();
        }
        tree
    }

    fn check(room: Room, known: &[&str], expected: &[&str], left: u64) {
        let tree = twenty();
        let inode = |name: &&str| {
            let metadata = fs::metadata(tree.path(name)).unwrap();
            (metadata.dev(), metadata.ino())
        };
        let mut host = Knows(known.iter().map(inode).collect());
        let scan = tree.patterns(&["logs/*.log"], &[], &[]).scan_for(&Kernel, &mut host, room);
        assert_eq!((tree.files(&scan), scan.left_files), (to_owned(expected), left), "{room:?}");
    }

    fn to_owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn those_that_were_written_to_last_are_held_and_the_others_counted() {
        let room = Room { files: 2, ..Room::ANY };
        check(room, &[], &["logs/18.log", "logs/19.log"], 18);
        // What is known is held whatever its age, and takes room.
        check(room, &["logs/03.log"], &["logs/03.log", "logs/19.log"], 18);
        let known = ["logs/03.log", "logs/05.log", "logs/07.log"];
        check(room, &known, &known, 17);
        check(Room { files: 0, ..Room::ANY }, &[], &[], 20);
    }

    #[test]
    fn some_room_is_kept_for_what_is_written_to() {
        let room = Room { files: 5, young_files: 3, young_from: 1019, dirs: 10 };
        check(room, &[], &["logs/18.log", "logs/19.log"], 18);
        let room = Room { young_from: 1016, ..room };
        let young = ["logs/16.log", "logs/17.log", "logs/18.log", "logs/19.log"];
        check(room, &[], &young, 16);
    }

    #[test]
    fn directories_beyond_the_room_are_counted_and_not_entered() {
        let names: Vec<String> = (0..20).map(|number| format!("logs/{number:02}/a.log")).collect();
        let tree = Tree::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let room = Room { dirs: 6, ..Room::ANY };
        let scan =
            tree.patterns(&["logs/**/*.log"], &[], &[]).scan_for(&Kernel, &mut Knows(vec![]), room);
        assert!(scan.dirs.len() <= 7, "{:?}", scan.dirs);
        assert_eq!(scan.files.len() as u64 + scan.left_dirs, 20);
    }
}
