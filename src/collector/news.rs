//! Since when what is found now can have been written: for the order in which files are read.
//!
//! Pure. Nothing tells when a line was written; what tells is when somebody last looked and it was not
//! there yet.

use std::time::Instant;

/// The last looks, and which discoveries were wanted between them.
#[derive(Clone, Debug)]
pub(super) struct News {
    /// When the loop last looked at events.
    looked: Instant,
    /// Whether nothing had happened since that look when the loop went to sleep.
    is_rested: bool,
    /// The moment after which what this look finds was written.
    from: Instant,
    /// The moment after which what the next discovery finds was written, if something made the
    /// discovery wanted before.
    wanted_from: Option<Instant>,
    /// When the last discovery began.
    discovered: Instant,
}

impl News {
    pub(super) fn new(now: Instant) -> Self {
        Self { looked: now, is_rested: false, from: now, wanted_from: None, discovered: now }
    }

    /// Begins a look, and returns the moment after which what it finds was written. The moment is
    /// that of the look before; or now, if nothing was there when the loop went to sleep: then what
    /// woke the loop has just come. (Nothing wakes it where notifications cannot be had: then
    /// [`Self::on_discovery`] dates what is found.)
    pub(super) fn on_look(&mut self, now: Instant) -> Instant {
        self.from = if self.is_rested { now } else { self.looked };
        self.looked = now;
        self.is_rested = false;
        self.from
    }

    /// Notes that the loop goes to sleep; `is_rested` says that nothing has happened since the
    /// look.
    pub(super) fn on_rest(&mut self, is_rested: bool) {
        self.is_rested = is_rested;
    }

    /// Makes a discovery wanted, because of what this look has shown.
    pub(super) fn want_discovery(&mut self) {
        self.wanted_from.get_or_insert(self.from);
    }

    /// Begins a discovery, and returns the moment after which what it finds was written.
    pub(super) fn on_discovery(&mut self, is_told: bool, now: Instant) -> Instant {
        let from = self.wanted_from.unwrap_or(self.from);
        // Nothing told of what is found now, if so.
        let from = if is_told { from } else { from.min(self.discovered) };
        self.discovered = now;
        from
    }

    /// Ends a discovery. Files that wait for descriptors wait since `waiting_from`.
    pub(super) fn on_discovered(&mut self, waiting_from: Option<Instant>) {
        self.wanted_from = waiting_from;
    }

    /// When the last discovery began.
    pub(super) fn discovered(&self) -> Instant {
        self.discovered
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_wakes_a_rested_loop_is_of_now_and_other_news_of_the_look_before() {
        let start = crate::base::clock::now();
        let [one, two, three] = [1, 2, 3].map(|seconds| start + Duration::from_secs(seconds));
        let mut news = News::new(start);

        assert_eq!(news.on_look(one), start);
        news.on_rest(true);
        assert_eq!(news.on_look(two), two);
        assert_eq!(news.on_look(three), two, "it did not rest");
    }

    #[test]
    fn a_discovery_finds_what_was_written_since_it_was_wanted() {
        let start = crate::base::clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut news = News::new(start);
        news.on_look(at(1));
        news.want_discovery();
        news.on_look(at(2));
        news.on_look(at(3));
        news.want_discovery();

        assert_eq!(news.on_discovery(true, at(4)), start);
        news.on_discovered(None);
        assert_eq!(news.on_discovery(true, at(5)), at(2));
        assert_eq!(news.on_discovery(false, at(7)), at(2));
        news.on_look(at(8));
        news.on_look(at(9));
        assert_eq!(news.on_discovery(false, at(10)), at(7), "nothing told of it");
    }
}
