//! Instructions and allocations, as valgrind counts them: numbers that do not depend on how fast the
//! machine is or what else it does, and so can be compared with those of another day.
//!
//! A program is run twice, with some work and with more of it; the difference is the work's, without
//! the start.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::rows::{ROWS, Row};

/// The kept counts.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.txt");
/// How much more than the kept count is an error, and how much less is worth keeping.
const TOLERANCE: f64 = 0.03;
/// Rounds of the two runs.
const ROUNDS: [u32; 2] = [1, 3];

/// What valgrind is asked to do, and the words before the number in its summary.
pub(crate) struct Tool {
    pub(crate) args: &'static [&'static str],
    words: &'static str,
}

/// Counts instructions.
pub(crate) const INSTRUCTIONS: Tool = Tool {
    args: &["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"],
    words: "I   refs:",
};
/// Counts allocations.
pub(crate) const ALLOCATIONS: Tool = Tool {
    args: &["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"],
    words: "total heap usage:",
};

impl Tool {
    /// The command line up to the program, for a run whose summary goes into a file.
    pub(crate) fn command(&self, summary: &Path) -> Vec<String> {
        let log = format!("--log-file={}", summary.display());
        let words = ["valgrind"].iter().chain(self.args).map(|&word| word.to_owned());
        words.chain([log]).collect()
    }

    /// The number in a summary.
    pub(crate) fn read(&self, summary: &Path) -> Option<u64> {
        let text = fs::read_to_string(summary).ok()?;
        let line = text.lines().find_map(|line| line.split_once(self.words))?.1;
        line.split_whitespace().next()?.replace(',', "").parse().ok()
    }
}

/// Instructions of one unit of a row. `None` without valgrind.
pub(crate) fn instructions(row: &Row) -> Option<f64> {
    let summary = tempfile::NamedTempFile::new().expect("a temporary file");
    let command = INSTRUCTIONS.command(summary.path());
    let program = std::env::current_exe().expect("the bench knows itself");
    let count = |rounds: u32| {
        let mut run = Command::new(&command[0]);
        run.args(&command[1..]).arg(&program);
        let status = run.args(["--rounds", row.name, &rounds.to_string()]).status().ok()?;
        assert!(status.success(), "valgrind fails: {}", row.name);
        INSTRUCTIONS.read(summary.path())
    };
    let [few, more] = [count(ROUNDS[0])?, count(ROUNDS[1])?];
    let units = (row.prepare)().units as f64 * f64::from(ROUNDS[1] - ROUNDS[0]);
    Some(more.saturating_sub(few) as f64 / units)
}

/// What valgrind runs.
pub(crate) fn rounds(name: &str, count: u32) {
    let row = ROWS.iter().find(|row| row.name == name).expect("a row of this name");
    let mut stage = (row.prepare)();
    for _ in 0..count {
        (stage.once)();
    }
}

/// Compares all rows with what is kept, and prints the comparison. Whether none has become dearer.
pub(crate) fn compare(update: bool) -> bool {
    let Some(here) = toolchain() else {
        eprintln!("instructions are counted with valgrind, which is not installed");
        return false;
    };
    let kept = fs::read_to_string(BASELINE).unwrap_or_default();
    let is_comparable = kept.lines().any(|line| line.strip_prefix("# ") == Some(&here));
    let mut text = format!(
        "# Instructions of a line or a batch. Rewritten by\n\
         # UPDATE_EXPECT=1 cargo bench --bench table -- --counts\n# {here}\n"
    );
    let mut dearer = Vec::new();
    for row in ROWS {
        let now = instructions(row).expect("valgrind was there");
        let _ = writeln!(text, "{:<16} {:<6} {now:>12.1}", row.name, row.unit);
        let Some(before) = count_of(&kept, row.name) else {
            println!("{:<16} {now:>12.1} a {}, not in the kept counts", row.name, row.unit);
            dearer.push(row.name);
            continue;
        };
        let change = now / before - 1.0;
        println!("{:<16} {now:>12.1} a {:<6} {:>+6.1} %", row.name, row.unit, change * 100.0);
        if change > TOLERANCE {
            dearer.push(row.name);
        } else if change < -TOLERANCE {
            println!("  less than it was: keep that, with UPDATE_EXPECT=1");
        }
    }
    if update {
        fs::write(BASELINE, text).expect("benches/counts.txt can be written");
        println!("benches/counts.txt is rewritten");
        return true;
    }
    if dearer.is_empty() {
        return true;
    }
    let names = dearer.join(", ");
    if !is_comparable {
        println!(
            "not judged, because the kept counts are of another toolchain than {here}: {names}"
        );
        return true;
    }
    eprintln!(
        "more than {:.0} % above benches/counts.txt: {names}. If that is meant, \
         UPDATE_EXPECT=1 cargo bench --bench table -- --counts",
        TOLERANCE * 100.0
    );
    false
}

fn count_of(kept: &str, name: &str) -> Option<f64> {
    kept.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.nth(1)?.parse().ok()).flatten()
    })
}

/// What the counts depend on: the compiler, the counter, and which of its variants of a function each
/// library takes. `None` without valgrind.
fn toolchain() -> Option<String> {
    let said = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let rustc = said("rustc").unwrap_or_default();
    let ldd = said("ldd").unwrap_or_default();
    let libc = ldd.lines().next().and_then(|line| line.split_whitespace().last());
    let libc = libc.unwrap_or("unknown");
    Some(format!("{rustc}, {}, libc {libc}, {}", said("valgrind")?, processor()))
}

fn processor() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return "x86_64 with AVX2";
    }
    std::env::consts::ARCH
}
