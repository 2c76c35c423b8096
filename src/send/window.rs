//! How many requests at once: additive increase, multiplicative decrease.
//!
//! Pure, and without a clock: time comes in *eras*. A decrease begins a new era; results of
//! requests from an earlier one are old news and change nothing, so eight requests that fail
//! together halve the window once and not eight times.

/// Requests that may be under way: between 1 and the configured most.
#[derive(Clone, Debug)]
pub struct Window {
    size: usize,
    size_max: usize,
    /// Successes since the last change of size; a whole window of them adds one.
    credit: usize,
    era: Era,
}

/// The time between two decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Era(u64);

impl Window {
    /// Starts at 1, to see how the endpoint takes it. `size_max` of 0 counts as 1.
    #[must_use]
    pub fn new(size_max: usize) -> Self {
        Self { size: 1, size_max: size_max.max(1), credit: 0, era: Era::default() }
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Requests that may ever be under way.
    #[must_use]
    pub fn size_max(&self) -> usize {
        self.size_max
    }

    /// The era that a request started now belongs to.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// A request of `era` has succeeded; returns false if that is old news.
    pub fn on_success(&mut self, era: Era) -> bool {
        if era < self.era {
            return false;
        }
        self.credit += 1;
        if self.credit >= self.size {
            self.size = (self.size + 1).min(self.size_max);
            self.credit = 0;
        }
        true
    }

    /// A request of `era` has failed; returns false if that is old news, else begins a new era.
    pub fn on_failure(&mut self, era: Era) -> bool {
        if era < self.era {
            return false;
        }
        self.size = (self.size / 2).max(1);
        self.credit = 0;
        self.era.0 += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grown(size: usize) -> Window {
        let mut window = Window::new(size);
        while window.size() < size {
            window.on_success(window.era());
        }
        window
    }

    #[test]
    fn grows_by_one_for_each_window_of_successes() {
        let mut window = Window::new(4);

        let sizes: Vec<usize> = (0..10)
            .map(|_| {
                window.on_success(window.era());
                window.size()
            })
            .collect();

        assert_eq!(sizes, [2, 2, 3, 3, 3, 4, 4, 4, 4, 4]);
    }

    #[test]
    fn requests_that_fail_together_halve_it_once() {
        let mut window = grown(8);
        let era = window.era();

        let news = [(); 8].map(|()| window.on_failure(era));

        assert_eq!(news, [true, false, false, false, false, false, false, false]);
        assert_eq!(window.size(), 4);
    }

    #[test]
    fn a_success_from_before_the_decrease_does_not_grow_it() {
        let mut window = grown(2);
        let era = window.era();
        window.on_failure(era);

        assert!(!window.on_success(era));

        assert_eq!(window.size(), 1);
    }

    proptest! {
        #[test]
        fn stays_between_one_and_the_most(
            size_max in 0_usize..40,
            results in prop::collection::vec((any::<bool>(), 0_u64..3), 0..300),
        ) {
            let mut window = Window::new(size_max);
            for (success, age) in results {
                let era = Era(window.era().0.saturating_sub(age));
                let _ = if success { window.on_success(era) } else { window.on_failure(era) };
                prop_assert!((1..=size_max.max(1)).contains(&window.size()));
            }
        }
    }
}
