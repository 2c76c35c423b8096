//! CPU used → pause: the one throttle that keeps the process under its CPU limit.
//!
//! Pure: it is told how much CPU time the process has used and answers how long to rest. It does
//! not know what the time went into; one loop that does nearly all the work and rests when told
//! to is enough to steer the whole process.
//!
//! The model is an account of CPU time: it fills at `cores` per second up to [`BURST`] worth of
//! budget, each turn is charged what the process has used, and a pause lasts until the account is
//! out of debt. So over any ten seconds the process uses at most ten seconds' budget, plus
//! [`BURST`], plus one turn.

use std::time::{Duration, Instant};

/// Time whose budget an idle process saves up.
///
/// A quarter of the tolerance (a tenth of ten seconds); the rest is for the turn that overdraws:
/// one of up to `750 ms × cores` of CPU time keeps within it.
pub const BURST: Duration = Duration::from_millis(250);

/// The longest pause. Debt beyond it is forgiven, so that a stretch that nobody could have paced
/// (a start with a large backlog of files to examine) does not blind the agent for minutes.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Compares the CPU time of the process with its budget.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Cores that may be used on average; above 0.
    cores: f64,
    /// CPU seconds in hand; negative is debt.
    account: f64,
    cpu_used: Duration,
    settled_at: Instant,
}

impl Pacer {
    /// Starts with a full account. `cpu_used` is the CPU time of the process so far.
    ///
    /// # Panics
    /// If `cores` is not above 0: the settings refuse that.
    #[must_use]
    pub fn new(cores: f64, cpu_used: Duration, now: Instant) -> Self {
        assert!(cores > 0.0, "a CPU limit is above 0");
        Self { cores, account: cores * BURST.as_secs_f64(), cpu_used, settled_at: now }
    }

    /// Other cores from now on; what was saved up or overdrawn counts in time, as before.
    ///
    /// # Panics
    /// If `cores` is not above 0.
    pub fn set_cores(&mut self, cores: f64) {
        assert!(cores > 0.0, "a CPU limit is above 0");
        self.account *= cores / self.cores;
        self.cores = cores;
    }

    /// A turn is done: returns how long to rest before the next, often zero.
    ///
    /// `cpu_used` is the CPU time that the whole process has used since it started.
    pub fn on_turn(&mut self, cpu_used: Duration, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.settled_at).as_secs_f64();
        let spent = cpu_used.saturating_sub(self.cpu_used).as_secs_f64();
        self.cpu_used = self.cpu_used.max(cpu_used);
        self.settled_at = self.settled_at.max(now);

        let budget_per = |time: Duration| self.cores * time.as_secs_f64();
        self.account = (self.account + elapsed * self.cores).min(budget_per(BURST)) - spent;
        self.account = self.account.max(-budget_per(PAUSE_MAX));

        if self.account >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.account / self.cores).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A busy loop under the pacer: turns that each burn some CPU, each rest obeyed.
    struct Loop {
        pacer: Pacer,
        start: Instant,
        now: Instant,
        cpu_used: Duration,
        /// End of each turn and the CPU time used until then.
        history: Vec<(Instant, Duration)>,
    }

    impl Loop {
        fn new(cores: f64) -> Self {
            let start = crate::base::clock::now();
            let pacer = Pacer::new(cores, Duration::ZERO, start);
            let history = vec![(start, Duration::ZERO)];
            Self { pacer, start, now: start, cpu_used: Duration::ZERO, history }
        }

        /// One thread works: a turn takes as long as the CPU it burns.
        fn turn(&mut self, cpu: Duration) -> Duration {
            self.now += cpu;
            self.cpu_used += cpu;
            self.history.push((self.now, self.cpu_used));
            let pause = self.pacer.on_turn(self.cpu_used, self.now);
            self.now += pause;
            pause
        }

        fn run(&mut self, time: Duration, cpu: impl Fn(usize) -> Duration) {
            let end = self.now + time;
            let mut turns = 0;
            while self.now < end {
                self.turn(cpu(turns));
                turns += 1;
            }
        }

        /// Most CPU seconds in any stretch of `window` that ends with a turn.
        fn busiest(&self, window: Duration) -> f64 {
            let mut first = 0;
            let mut most: f64 = 0.0;
            for &(at, used) in &self.history {
                while at - self.history[first].0 > window {
                    first += 1;
                }
                // What was used up to the turn before the stretch's first belongs to no stretch.
                let before = self.history[first.saturating_sub(1)].1;
                most = most.max((used - before).as_secs_f64());
            }
            most
        }

        fn average(&self) -> f64 {
            self.cpu_used.as_secs_f64() / (self.now - self.start).as_secs_f64()
        }
    }

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    #[test]
    fn a_light_load_is_never_paused() {
        let mut work = Loop::new(0.5);

        for _ in 0..100 {
            work.now += Duration::from_millis(100);
            assert_eq!(work.turn(Duration::from_millis(10)), Duration::ZERO);
        }
    }

    #[test]
    fn an_idle_process_saves_up_no_more_than_the_burst() {
        let mut work = Loop::new(0.1);
        work.now += Duration::from_secs(3600);

        let mut spent = Duration::ZERO;
        while work.turn(Duration::from_millis(1)) == Duration::ZERO {
            spent += Duration::from_millis(1);
        }

        assert!(spent <= Duration::from_millis(30), "burst of {spent:?} at 0.1 cores");
    }

    #[test]
    fn a_debt_that_nobody_could_have_paced_is_forgiven_in_part() {
        let mut work = Loop::new(0.05);

        assert_eq!(work.turn(Duration::from_secs(60)), PAUSE_MAX);
        assert!(work.turn(Duration::from_millis(1)) < Duration::from_secs(1));
    }

    #[test]
    fn a_limit_that_changes_holds_from_then_on() {
        let mut work = Loop::new(0.8);
        work.run(Duration::from_secs(20), |_| Duration::from_millis(5));
        work.pacer.set_cores(0.1);
        let (before, used_before) = (work.now, work.cpu_used);

        work.run(Duration::from_secs(20), |_| Duration::from_millis(5));

        let (time, used) = (work.now - before, work.cpu_used - used_before);
        let average = used.as_secs_f64() / time.as_secs_f64();
        assert!((0.095..0.105).contains(&average), "{average} of 0.1");
    }

    #[test]
    fn clocks_that_stand_still_or_step_back_do_no_harm() {
        let t = crate::base::clock::now();
        let mut pacer = Pacer::new(1.0, Duration::from_secs(5), t);

        assert_eq!(pacer.on_turn(Duration::from_secs(4), t), Duration::ZERO);
        assert_eq!(pacer.on_turn(Duration::from_secs(5), t), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_greedy_process_stays_within_a_tenth_over_any_ten_seconds(
            cores in 0.05_f64..0.9,
            turn_micros in 100_u64..35_000,
            idle_seconds in 0_u64..100,
        ) {
            let mut work = Loop::new(cores);
            let cpu = |turn: usize| Duration::from_micros(turn_micros / (1 + turn as u64 % 3));
            work.run(Duration::from_secs(25), cpu);
            work.now += Duration::from_secs(idle_seconds);
            work.run(Duration::from_secs(25), cpu);

            let most = work.busiest(TEN_SECONDS);

            prop_assert!(most <= cores * 10.0 * 1.10, "{most} CPU seconds in ten at {cores} cores");
        }

        #[test]
        fn a_greedy_process_gets_its_budget(cores in 0.05_f64..0.9, turn_micros in 100_u64..20_000) {
            let mut work = Loop::new(cores);

            work.run(Duration::from_secs(60), |_| Duration::from_micros(turn_micros));

            prop_assert!(work.average() >= cores * 0.97, "{} of {cores}", work.average());
        }
    }
}
