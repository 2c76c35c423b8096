//! What `logferry check` prints: the values in effect, and the memory sum.

use std::fmt::Write as _;

use super::table::printable;
use crate::config::Config;
use crate::limit::memory::about;

/// The two tables, for people.
#[must_use]
pub fn tables(config: &Config) -> String {
    let settings = config.effective.iter().map(|row| {
        // What a value holds must not disturb the terminal or the table.
        [row.key.clone(), printable(&row.value), printable(&row.origin)]
    });
    let plan = &config.memory;
    let memory = plan
        .rows
        .iter()
        .map(|row| [row.name.to_owned(), about(row.bytes), row.formula.clone()])
        .chain([[
            "worst case".to_owned(),
            about(plan.total()),
            format!("of {} (mem_usage_limit)", about(plan.limit_bytes)),
        ]]);
    format!(
        "{}\n{}",
        table(["setting", "value", "from"], settings.collect()),
        table(["memory", "at most", "because"], memory.collect())
    )
}

/// Three columns, each as wide as its widest cell (but no wider than a line), the last one ragged.
fn table(head: [&str; 3], rows: Vec<[String; 3]>) -> String {
    const WIDTH_MAX: usize = 48;
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.filter(|&width| width <= WIDTH_MAX).chain([head[column].len()]).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let head = head.map(str::to_owned);
    std::iter::once(&head).chain(&rows).fold(String::new(), |mut text, [a, b, c]| {
        let _ = writeln!(text, "{}", format!("{a:<first$}  {b:<second$}  {c}").trim_end());
        text
    })
}
