//! The service's clock, as learnt from its complaints about ours.
//!
//! Pure. A request is dated by the local clock plus the offset kept here. The offset changes only
//! on a complaint, and a complaint is answered with a request at once only if the offset has just
//! changed and for the first time since the last success: a server that names another time in every
//! answer gets the back-off.

/// Server clock minus ours.
#[derive(Clone, Debug, Default)]
pub struct ServerClock {
    offset_seconds: i64,
    /// The offset was changed and nothing has been delivered since.
    corrected: bool,
}

/// Differences up to this are the delay of the answer, not a change.
const NOISE_SECONDS: u64 = 5;

impl ServerClock {
    /// What to add to the local clock, in seconds.
    #[must_use]
    pub fn offset_seconds(&self) -> i64 {
        self.offset_seconds
    }

    /// A request was refused for its date; returns whether the same request can go again at once.
    ///
    /// `offset_used` is the offset that dated it.
    pub fn on_complaint(
        &mut self,
        offset_used: i64,
        server_unix: Option<i64>,
        local_unix: i64,
    ) -> bool {
        if offset_used.abs_diff(self.offset_seconds) > NOISE_SECONDS {
            // It was dated before the last correction.
            return true;
        }
        let Some(server_unix) = server_unix else { return false };
        let offset_seconds = server_unix.saturating_sub(local_unix);
        if offset_seconds.abs_diff(self.offset_seconds) <= NOISE_SECONDS {
            return false;
        }
        self.offset_seconds = offset_seconds;
        !std::mem::replace(&mut self.corrected, true)
    }

    /// A request was taken.
    pub fn on_success(&mut self) {
        self.corrected = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: i64 = 1_700_000_000;

    #[test]
    fn a_complaint_sets_the_offset_and_is_answered_at_once() {
        let mut clock = ServerClock::default();

        assert!(clock.on_complaint(0, Some(LOCAL + 1200), LOCAL));

        assert_eq!(clock.offset_seconds(), 1200);
    }

    #[test]
    fn requests_dated_before_the_correction_go_again_at_once() {
        let mut clock = ServerClock::default();
        clock.on_complaint(0, Some(LOCAL - 1200), LOCAL);

        assert!(clock.on_complaint(0, Some(LOCAL - 1201), LOCAL));

        assert_eq!(clock.offset_seconds(), -1200);
    }

    #[test]
    fn a_complaint_about_the_right_time_waits() {
        let mut clock = ServerClock::default();
        clock.on_complaint(0, Some(LOCAL + 1200), LOCAL);

        assert!(!clock.on_complaint(1200, Some(LOCAL + 1201), LOCAL));
        assert!(!clock.on_complaint(1200, None, LOCAL));
    }

    #[test]
    fn a_server_that_cannot_make_up_its_mind_waits_too() {
        let mut clock = ServerClock::default();

        let at_once: Vec<bool> = [1000, 2000, 3000]
            .map(|server| clock.on_complaint(clock.offset_seconds(), Some(LOCAL + server), LOCAL))
            .into();

        assert_eq!(at_once, [true, false, false]);
        assert_eq!(clock.offset_seconds(), 3000);
    }

    #[test]
    fn our_own_clock_may_be_set_right_later() {
        let mut clock = ServerClock::default();
        clock.on_complaint(0, Some(LOCAL + 1200), LOCAL);
        clock.on_success();

        assert!(clock.on_complaint(1200, Some(LOCAL + 1260), LOCAL + 1260));

        assert_eq!(clock.offset_seconds(), 0);
    }

    #[test]
    fn no_time_is_too_absurd() {
        let mut clock = ServerClock::default();

        clock.on_complaint(0, Some(i64::MIN), i64::MAX);
        clock.on_complaint(i64::MIN, Some(i64::MAX), i64::MIN);
    }
}
