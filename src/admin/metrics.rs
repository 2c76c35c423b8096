//! The reports as metrics, in one of the two text formats that Prometheus reads ([`Form`]).
//!
//! Every counter of [`crate::base::report`] is here, those of one kind under one name with a label from
//! a closed set. Files are summed up: there is no series for each of them, so the number of series
//! never grows with the number of files; `/status` names them. Names are
//! `logferry_<noun>_<unit>[_total]`, in seconds and bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::Facts;
use super::process::Process;
use super::status::not_ready_reason;
use crate::base::report::{
    AGE_BOUNDS, Ages, CollectorCounters, CollectorReport, FAILURE_KINDS, FileSums, SenderReport,
};
use crate::handoff::SenderEnd;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' own, which everybody reads.
    Plain,
    /// OpenMetrics, for who asks for it.
    OpenMetrics,
}

impl Form {
    /// The one that a header `Accept` prefers (RFC 9110, section 12.5.1).
    #[must_use]
    pub fn asked_for(accept: &str) -> Self {
        let quality = |media: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next()?.eq_ignore_ascii_case(media);
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                is_it.then(|| quality.map_or(1.0, |text| text.parse().unwrap_or(0.0_f64)))
            });
            ranges.fold(0.0, f64::max)
        };
        let open_metrics = quality("application/openmetrics-text");
        match open_metrics > 0.0 && open_metrics >= quality("text/plain") {
            true => Self::OpenMetrics,
            false => Self::Plain,
        }
    }

    /// The header `Content-Type` of the text.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The values of the label `state` of `logferry_files` ([`crate::base::report::FileReport::state`]), in the
/// order of [`FileSums`].
pub const FILE_STATES: [&str; 5] = ["active", "rotated", "deleted", "saved", "left"];

/// All that one scrape shows.
#[derive(Debug)]
pub struct Snapshot {
    facts: Facts,
    collector: Arc<CollectorReport>,
    sender: Arc<SenderReport>,
    is_draining: bool,
    process: Process,
}

impl Snapshot {
    /// Takes the newest reports.
    #[must_use]
    pub fn of(facts: &Facts, handoff: &SenderEnd) -> Self {
        Self {
            facts: facts.clone(),
            collector: handoff.collector_report(),
            sender: handoff.sender_report(),
            is_draining: handoff.is_draining(),
            process: Process::read(),
        }
    }
}

/// The text of one scrape.
#[must_use]
pub fn encode(snapshot: Snapshot, form: Form) -> String {
    let mut registry = Registry::with_prefix("logferry");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("writing to a string does not fail");
    match form {
        Form::Plain => plain(&text),
        Form::OpenMetrics => text,
    }
}

/// The text in Prometheus' own format: a family is called as its samples are, there is no type for
/// information, and no end mark.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            help = Some(line);
            continue;
        }
        if line == "# EOF" {
            continue;
        }
        let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' '))
        else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            kind => ("", kind),
        };
        if let Some(words) = help.take().and_then(|line| line.strip_prefix("# HELP ")) {
            let words = words.strip_prefix(name).unwrap_or(words);
            text.extend(["# HELP ", name, suffix, words, "\n"]);
        }
        text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
    }
    text
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        encode_agent(&mut families, self)?;
        encode_reading(&mut families, &self.collector.counters)?;
        encode_troubles(&mut families, &self.collector.counters)?;
        encode_files(&mut families, &self.collector)?;
        encode_collector(&mut families, &self.collector)?;
        encode_delivery(&mut families, &self.sender)?;
        encode_sender(&mut families, &self.sender)?;
        encode_process(&mut families, self)
    }
}

fn encode_agent(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let facts = &snapshot.facts;
    families.info(&[
        ("version", facts.version.clone()),
        ("endpoint", facts.endpoint.clone()),
        ("project", facts.project.clone()),
        ("logstore", facts.logstore.clone()),
        ("state_dir", facts.state_dir.display().to_string()),
    ])?;
    let is_ready = not_ready_reason(&snapshot.collector, snapshot.is_draining).is_none();
    families.flag("ready", "1 while files are being shipped, as /ready says.", is_ready)?;
    families.flag(
        "draining",
        "1 once the agent was told to stop and delivers what it has.",
        snapshot.is_draining,
    )
}

/// What the collector did. Taking the counters apart makes a new one an error here.
fn encode_reading(families: &mut Families<'_>, counters: &CollectorCounters) -> fmt::Result {
    let CollectorCounters {
        lines,
        bytes,
        lines_split,
        lines_partial,
        sealed_full,
        sealed_age,
        sealed_minute,
        sealed_pressure,
        sealed_shutdown,
        seen_bytes,
        acknowledged_bytes,
        generations_closed,
        files_opened,
        files_rotated,
        files_truncated,
        files_left_open,
        files_vanished,
        cpu_pauses,
        rate_pauses,
        turns,
        checkpoint_saves,
        // Of trouble: in `encode_troubles`.
        skipped_truncated_bytes: _,
        skipped_deleted_bytes: _,
        skipped_overwritten_bytes: _,
        skipped_hole_bytes: _,
        generations_unbalanced: _,
        file_errors: _,
        watch_overflows: _,
        batches_split: _,
        batches_parked: _,
        lines_parked: _,
        checkpoint_errors: _,
        checkpoint_damaged: _,
    } = *counters;
    families.counter("collected_lines", "Lines put into groups.", lines)?;
    families.counter("collected_bytes", "Bytes of files put into groups.", bytes)?;
    families.counter(
        "seen_bytes",
        "Bytes seen in files, from where each was opened: acknowledged, skipped or still waiting.",
        seen_bytes,
    )?;
    families.counter(
        "acknowledged_bytes",
        "Bytes of files that the service has acknowledged, or that were set aside for good.",
        acknowledged_bytes,
    )?;
    families.counter(
        "generations_closed",
        "Incarnations of files that ended: deleted, renamed and closed, or truncated.",
        generations_closed,
    )?;
    families.counter(
        "split_lines",
        "Lines longer than the limit, cut into several records.",
        lines_split,
    )?;
    families.counter(
        "partial_lines",
        "Unterminated last lines sent after their quiet time.",
        lines_partial,
    )?;
    let sealed = [
        ("full", sealed_full),
        ("age", sealed_age),
        ("minute", sealed_minute),
        ("pressure", sealed_pressure),
        ("shutdown", sealed_shutdown),
    ];
    families.counters("sealed_batches", "Groups sealed, by what made it due.", "reason", sealed)?;
    let events = [
        ("opened", files_opened),
        ("rotated", files_rotated),
        ("truncated", files_truncated),
        ("left_open", files_left_open),
        ("vanished", files_vanished),
    ];
    let help = "What happened to files; left_open: deleted and closed while somebody may still write to \
                it, vanished: seen by name and gone before it could be opened.";
    families.counters("file_events", help, "event", events)?;
    let pauses = [("cpu", cpu_pauses), ("rate", rate_pauses)];
    families.counters("pauses", "Pauses in reading, by the limit kept.", "limit", pauses)?;
    families.counter("turns", "Turns of the collector.", turns)?;
    families.counter("checkpoint_saves", "Saves of the checkpoint.", checkpoint_saves)
}

/// What went wrong in the collector.
fn encode_troubles(families: &mut Families<'_>, counters: &CollectorCounters) -> fmt::Result {
    let skipped = [
        ("truncated", counters.skipped_truncated_bytes),
        ("deleted", counters.skipped_deleted_bytes),
        ("overwritten", counters.skipped_overwritten_bytes),
        ("hole", counters.skipped_hole_bytes),
    ];
    families.counters(
        "skipped_bytes",
        "Bytes that vanished before they were read, or that nobody wrote (hole).",
        "reason",
        skipped,
    )?;
    families.counter(
        "generations_unbalanced",
        "Ended incarnations of files whose bytes do not add up. Not 0 is a bug.",
        counters.generations_unbalanced,
    )?;
    families.counter(
        "file_errors",
        "Errors of opening, reading or examining a file.",
        counters.file_errors,
    )?;
    families.counter(
        "watch_overflows",
        "Times the kernel dropped notifications.",
        counters.watch_overflows,
    )?;
    families.counter(
        "split_batches",
        "Batches refused by the service and taken apart, to send the halves.",
        counters.batches_split,
    )?;
    families.counter(
        "parked_batches",
        "Batches refused by the service and set aside in the state directory.",
        counters.batches_parked,
    )?;
    families.counter("parked_lines", "Lines in those batches.", counters.lines_parked)?;
    families.counter(
        "checkpoint_errors",
        "Failed saves of the checkpoint.",
        counters.checkpoint_errors,
    )?;
    families.counter(
        "checkpoint_damaged_files",
        "Damaged checkpoint files passed over at the start.",
        counters.checkpoint_damaged,
    )
}

fn encode_files(families: &mut Families<'_>, report: &CollectorReport) -> fmt::Result {
    let FileSums { active, rotated, deleted, saved, left, .. } = report.files;
    let FileSums { failing, missing, missing_bytes, .. } = report.files;
    let FileSums { unread_bytes, lag_bytes, lag_seconds, .. } = report.files;
    let counts = [active, rotated, deleted, saved, left];
    let states = FILE_STATES.into_iter().zip(counts);
    families.gauges("files", "Files being shipped, by state.", "state", states)?;
    families.gauge("failing_files", "Files whose last examination failed.", failing)?;
    families.gauge(
        "missing_files",
        "Known files that were not delivered to their end and are found nowhere.",
        missing,
    )?;
    families.gauge(
        "missing_bytes",
        "Bytes of these that were not delivered, as far as is known.",
        missing_bytes,
    )?;
    families.gauge("unread_bytes", "Bytes on disk that are not read yet.", unread_bytes)?;
    families.gauge("lag_bytes", "Bytes on disk that are not acknowledged yet.", lag_bytes)?;
    families.gauge(
        "lag_seconds",
        "Longest time for which a file has not been acknowledged to its end.",
        lag_seconds,
    )
}

fn encode_collector(families: &mut Families<'_>, report: &CollectorReport) -> fmt::Result {
    families.flag(
        "polling",
        "1 while files are polled because notifications cannot be trusted.",
        report.polling,
    )?;
    families.gauge(
        "links_refused",
        "Links that are not followed because they lead out of the allowed directories.",
        report.links_refused,
    )?;
    families.gauge(
        "patterns_without_files",
        "Patterns of paths for which the last search found no file.",
        report.fruitless.len() as u64,
    )?;
    families.gauge(
        "handoff_bytes",
        "Payload bytes handed over and not acknowledged.",
        report.handoff_bytes,
    )?;
    families.gauge("handoff_limit_bytes", "Most of them at once.", report.handoff_bytes_max)?;
    families.gauge(
        "open_group_bytes",
        "Raw bytes in groups that are not sealed yet.",
        report.open_bytes,
    )?;
    families.gauge(
        "held_deleted_bytes",
        "Bytes of deleted files that are kept open until they are delivered.",
        report.held_deleted_bytes,
    )?;
    families.metric(
        "cpu_limit_cores",
        "Cores that the agent may use: its setting, or the container's quota if that is lower.",
        &ConstGauge::new(report.cpu_limit_cores),
    )?;
    families.gauge(
        "memory_limit_bytes",
        "Resident memory that the agent may use.",
        report.memory_limit_bytes,
    )?;
    families.gauge(
        "checkpoint_saved_timestamp_seconds",
        "Unix time of the last good save of the checkpoint; 0 before the first.",
        report.checkpoint_saved_unix,
    )?;
    families.flag(
        "checkpoint_failing",
        "1 while the checkpoint cannot be saved.",
        !report.checkpoint_error.is_empty(),
    )
}

fn encode_delivery(families: &mut Families<'_>, report: &SenderReport) -> fmt::Result {
    families.counter("delivered_batches", "Batches acknowledged.", report.batches_delivered)?;
    families.counter("delivered_lines", "Lines acknowledged.", report.lines_delivered)?;
    families.counter(
        "delivered_raw_bytes",
        "Size of the acknowledged batches before compression.",
        report.raw_bytes_delivered,
    )?;
    families.counter(
        "delivered_payload_bytes",
        "Size of the acknowledged batches on the wire.",
        report.payload_bytes_delivered,
    )?;
    families.counter(
        "rejected_batches",
        "Batches refused for good by the service.",
        report.batches_rejected,
    )?;
    families.counter("requests", "Requests sent, repeats included.", report.attempts)?;
    families.counter("request_lists", "Requests that carried several batches.", report.lists)?;
    families.counter(
        "request_lists_refused",
        "Of these, those that were refused and sent again in halves.",
        report.lists_refused,
    )?;
    families.counter(
        "possible_duplicate_batches",
        "Batches acknowledged after an attempt that ended without an answer.",
        report.possible_duplicates,
    )?;
    let failures = FAILURE_KINDS.into_iter().zip(report.failures);
    families.counters("request_failures", "Failed attempts, by kind.", "kind", failures)?;
    families.metric(
        "delivery_seconds",
        "Age of lines when they were acknowledged, since they were written or a little earlier.",
        &Histogram(&report.ages),
    )
}

/// Buckets as they were counted.
struct Histogram<'a>(&'a Ages);

impl EncodeMetric for Histogram<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = AGE_BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.0.lines).collect();
        encoder.encode_histogram::<NoLabelSet>(
            self.0.seconds,
            self.0.lines.iter().sum(),
            &buckets,
            None,
        )
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn encode_sender(families: &mut Families<'_>, report: &SenderReport) -> fmt::Result {
    families.gauge("requests_in_flight", "Requests under way.", report.in_flight)?;
    families.gauge(
        "requests_window",
        "Most requests that may be under way at the moment.",
        report.window,
    )?;
    families.gauge(
        "waiting_batches",
        "Batches waiting for their turn or their next attempt.",
        report.waiting,
    )?;
    families.gauge(
        "held_whole_batches",
        "Batches that seem too large for what is on the way, and are not halved (exactly_once).",
        report.held_whole,
    )?;
    families.signed_gauge(
        "clock_offset_seconds",
        "Clock of the service minus ours; 0 until the service complains.",
        report.clock_offset_seconds,
    )?;
    families.gauge(
        "delivered_timestamp_seconds",
        "Unix time of the last acknowledgement; 0 before the first.",
        report.delivered_unix,
    )?;
    families.flag(
        "delivery_failing",
        "1 when an attempt has failed and nothing was delivered since.",
        !report.last_error.is_empty(),
    )
}

fn encode_process(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let Process { resident_bytes, open_descriptors, cpu } = snapshot.process;
    if let Some(bytes) = resident_bytes {
        families.gauge("process_resident_memory_bytes", "Resident memory.", bytes)?;
    }
    if let Some(count) = open_descriptors {
        families.gauge("process_open_fds", "Open file descriptors.", count)?;
    }
    families.metric(
        "process_cpu_seconds",
        "CPU time used, all threads together.",
        &ConstCounter::new(cpu.as_secs_f64()),
    )?;
    families.counter(
        "log_lines_dropped",
        "Lines of the agent's own log that standard error did not take in time.",
        snapshot.facts.log_lines_dropped.load(Relaxed),
    )?;
    families.gauge(
        "process_start_time_seconds",
        "Unix time of the start of the process.",
        snapshot.facts.started_unix,
    )
}

/// Writes metric families. Names come without the prefix, and of counters without `_total`.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn metric(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstCounter::new(value))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstGauge::new(value))
    }

    fn signed_gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        self.metric(name, help, &ConstGauge::new(value))
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) -> fmt::Result {
        self.gauge(name, help, u64::from(value))
    }

    fn info(&mut self, labels: &[(&'static str, String)]) -> fmt::Result {
        self.metric(
            "build",
            "What runs here and where it delivers to.",
            &Info::new(labels.to_vec()),
        )
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in samples {
            ConstCounter::new(count).encode(encoder.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, count) in samples {
            ConstGauge::new(count).encode(encoder.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}
