//! The agent: the real collector on the world's system, the real dispatch before the world's service,
//! and between them the real hand-off.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use logferry::base::sealed::Ack;
use logferry::checkpoint::format::Checkpoint;
use logferry::checkpoint::store::Loaded;
use logferry::collector::{Collector, Step, Summary, Wait};
use logferry::handoff::{SenderEnd, handoff};
use logferry::send::answer::Answer;
use logferry::send::dispatch::{Dispatch, Load};
use logferry::send::queue::Together;
use logferry::send::skew::ServerClock;
use logferry::send::verdict::{FailureKind, Sent, Verdict};
use logferry::tail::discover::Patterns;
use logferry::tail::os::Os as _;

use crate::disk::NodeId;
use crate::flaws::Flaw;
use crate::keep::Keeper;
use crate::machine::Machine;
use crate::options::{Options, collector_options};
use crate::os::System;

pub struct Agent {
    pub life: u32,
    flaw: Option<Flaw>,
    system: System,
    collector: Collector<System, Keeper>,
    end: SenderEnd,
    dispatch: Dispatch,
    clock: ServerClock,
    wait: Wait,
    has_mail: bool,
    /// No batch of a file goes before the older ones have ended.
    is_ordered: bool,
    /// How the collector has ended.
    summary: Option<Summary>,
}

impl Agent {
    pub fn new(
        options: &Options,
        system: &System,
        flaw: Option<Flaw>,
        life: u32,
        loaded: Vec<Checkpoint>,
        rng: fastrand::Rng,
    ) -> Self {
        let bounds = &options.bounds;
        // More than a batch, so that there are lists of full ones too.
        let (bytes, lines) = (bounds.batch.batch_bytes, bounds.batch.batch_lines);
        let together = Together { raw_bytes_max: 4 * bytes, lines_max: 4 * lines };
        let dispatch = Dispatch::new(options.concurrency_max, together, rng);
        let dispatch = if options.is_ordered { dispatch.in_order() } else { dispatch };
        let (collector_end, end) = handoff(bounds.handoff_bytes_max).expect("an eventfd");
        let patterns = Patterns::new(&options.paths, &[], Vec::new(), &[]).expect("patterns");
        let keeper = Keeper::new(system.clone(), life);
        let loaded = Loaded { checkpoints: loaded, damaged: Vec::new() };
        let mut collector = Collector::new(
            system.clone(),
            keeper,
            collector_options(options, flaw),
            patterns,
            loaded,
            collector_end,
        )
        .expect("memory is there");
        collector.start();
        let wait = Wait { until: Some(system.now()), sees_events: false };
        let (clock, system) = (ServerClock::default(), system.clone());
        Self {
            life,
            flaw,
            system,
            collector,
            end,
            dispatch,
            clock,
            wait,
            has_mail: false,
            is_ordered: options.is_ordered,
            summary: None,
        }
    }

    // === the collector

    /// Takes one step; says whether the agent has ended.
    pub fn step(&mut self, step: Step) -> bool {
        if step == Step::Mail {
            self.has_mail = false;
            self.end.ask_for_files();
        }
        let times = self.system.times();
        self.summary = self.collector.step(step, times);
        self.take_batches();
        let mut machine = self.system.0.borrow_mut();
        let machine = &mut *machine;
        let report = self.end.collector_report();
        machine.ledger.on_step(step, &report, &self.end.newest_files(), &machine.disk, times.now);
        machine.disk.reap();
        self.summary.is_some()
    }

    fn take_batches(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(batch)) = pin!(self.end.next_batch()).poll(&mut context) {
            let mut machine = self.system.0.borrow_mut();
            let machine = &mut *machine;
            machine.ledger.on_sealed(&batch, self.life, &machine.disk);
            let span = batch.span;
            machine.note("seal", [batch.id.0, span.start, span.end], |machine| {
                let text = machine.ledger.text_of((self.life, batch.id));
                format!("{} of {}, text {text:?}", batch.path, batch.span.stream.file.0)
            });
            self.dispatch.on_batch(batch);
        }
    }

    /// The loop goes to sleep.
    pub fn rest(&mut self) {
        self.wait = self.collector.wait(self.system.times());
        if self.wait.sees_events && !self.has_mail && !self.system.get().disk.notices.has_events() {
            self.collector.on_rest();
        }
    }

    /// When the loop goes on, if nothing else happens; `None` for never.
    pub fn wake_at(&self, machine: &Machine) -> Option<Instant> {
        let sees = self.wait.sees_events && machine.disk.notices.has_events();
        if self.has_mail || sees { Some(machine.now) } else { self.wait.until }
    }

    /// Whether all was delivered, as the process would tell by its exit code.
    pub fn is_all_delivered(&self) -> bool {
        let is_read = self.summary.as_ref().is_some_and(|one| one.undelivered_files == 0);
        let is_sent = self.dispatch.is_empty() && self.end.queued() == 0;
        (is_read && is_sent) || self.flaw == Some(Flaw::ClaimsAll)
    }

    /// Whether all that is left is found nowhere, or may be a copy.
    pub fn is_only_missing(&self) -> bool {
        let is_it = |reason: &str| {
            reason.starts_with("it is found nowhere") || reason.starts_with("it equals a file")
        };
        let left = self.summary.as_ref().map(|one| &one.left);
        self.dispatch.is_empty()
            && left.is_some_and(|left| left.iter().all(|one| is_it(&one.reason)))
    }

    /// What it says of what is left, for people.
    pub fn left(&self) -> String {
        let Some(summary) = &self.summary else { return "it has not ended".to_owned() };
        let left = summary.left.iter();
        let left: Vec<_> = left
            .map(|one| format!("{} {:?}: {}", one.path.display(), one.bytes, one.reason))
            .collect();
        format!("{} batches, {}", self.dispatch.unfinished(), left.join(", "))
    }

    /// Files that it holds though the patterns do not find them, and nobody is known to write to them.
    pub fn held_files(&self) -> u64 {
        let files = self.end.collector_report().files;
        let machine = self.system.get();
        let is_written = |node: &&NodeId| {
            machine.disk.nodes[**node].links == 0 && machine.workload.writes_to(**node)
        };
        let held = machine.ledger.held.iter().filter(is_written).count() as u64;
        files.rotated + files.deleted - if machine.chaos.knows_writers { held } else { 0 }
    }

    pub fn ask_to_drain(&mut self) {
        self.end.ask_to_drain();
        self.has_mail = true;
    }

    pub fn abandon(&mut self) {
        self.end.abandon();
        self.has_mail = true;
    }

    // === the sender

    /// Starts the requests that may start now.
    pub fn send(&mut self) {
        let now = self.system.now();
        let oversized = self.dispatch.take_oversized(now);
        self.end_batches(oversized);
        while let Some(load) = self.dispatch.poll(now) {
            let mut machine = self.system.0.borrow_mut();
            for batch in &load.batches {
                machine.note("attempt", [batch.id.0, load.request.0, 0], |_| String::new());
                machine.ledger.on_attempt((self.life, batch.id));
            }
            machine.request(self.life, load, self.clock.offset_seconds());
        }
    }

    pub fn send_deadline(&self) -> Option<Instant> {
        self.dispatch.deadline()
    }

    /// An attempt has ended: with an answer, or without.
    pub fn on_answer(&mut self, load: &Load, offset: i64, answer: Option<Answer>, is_cut: bool) {
        let sent = Sent::of(&load.batches[0]);
        let verdict = self.judge(sent, offset, answer, is_cut);
        if matches!(verdict, Verdict::Delivered | Verdict::Refuse(_)) {
            self.clock.on_success();
        }
        if verdict == Verdict::Delivered {
            let ledger = &mut self.system.0.borrow_mut().ledger;
            load.batches.iter().for_each(|batch| ledger.on_acknowledged((self.life, batch.id)));
        }
        let ended = self.dispatch.on_result(load.request, verdict, self.system.now());
        self.end_batches(ended);
    }

    fn end_batches(&mut self, ended: Vec<Ack>) {
        for ack in ended {
            self.system.0.borrow_mut().ledger.on_ended(self.life, &ack);
            let ack = if self.flaw == Some(Flaw::RoomTwice) { Flaw::with_room(ack) } else { ack };
            self.end.ack(ack);
            self.has_mail = true;
        }
    }

    fn judge(&mut self, sent: Sent, offset: i64, answer: Option<Answer>, is_cut: bool) -> Verdict {
        let Some(answer) = answer else {
            let retry = Verdict::Retry { kind: FailureKind::Network, after: None };
            let is_ordered = self.is_ordered;
            self.system.0.borrow_mut().ledger.has_probes |= is_cut && !is_ordered;
            return if is_cut { Verdict::Cut } else { retry };
        };
        let verdict = Verdict::of_load(&answer, sent, self.flaw != Some(Flaw::TrustsStrangers));
        let unix = self.system.get().unix().cast_signed();
        if let Verdict::ClockSkew { server_unix } = verdict {
            let at_once = self.clock.on_complaint(offset, server_unix, unix);
            self.end.set_clock_offset(self.clock.offset_seconds());
            if !at_once {
                return Verdict::Retry { kind: FailureKind::Clock, after: answer.retry_after };
            }
        }
        verdict
    }
}
