//! How fast deliveries go. A look at the clock costs as much as a short delivery, so the faster
//! they are, the more of them are made between two looks.

use std::time::{Duration, Instant};

/// Time between two looks, at the most, if handlers are as fast as before.
const INTERVAL: Duration = Duration::from_micros(50);

/// A stretch of time, and the deliveries made in it.
#[derive(Clone, Copy)]
pub struct Pace {
    started: Instant,
    /// The time gone by at the last look.
    elapsed: Duration,
    /// The time between the last two looks.
    lap: Duration,
    calls: u32,
    stride: u32,
    most: u32,
    /// Deliveries until the next look.
    left: u32,
}

impl Pace {
    /// A stretch that begins now. There are `most` deliveries between two looks, at the most:
    /// handlers that turn out to be slow are noticed within this many.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            started: Instant::now(),
            elapsed: Duration::ZERO,
            lap: Duration::ZERO,
            calls: 0,
            stride: 1,
            left: 1,
        }
    }

    /// Counts a delivery; tells whether it looked at the clock.
    #[inline]
    pub fn count(&mut self) -> bool {
        self.calls += 1;
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.look();
        true
    }

    /// The time gone by when it was last looked at the clock.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The time between the last two looks.
    pub fn lap(&self) -> Duration {
        self.lap
    }

    /// Whether the stretch has lasted that long.
    pub fn has_lasted(&self, length: Duration) -> bool {
        self.started.elapsed() >= length
    }

    /// For how many more deliveries there is time until the stretch has lasted that long.
    pub fn room(&self, length: Duration) -> usize {
        let elapsed = self.started.elapsed();
        fits(length.saturating_sub(elapsed), elapsed / self.calls.max(1))
    }

    #[cold]
    fn look(&mut self) {
        let before = std::mem::replace(&mut self.elapsed, self.started.elapsed());
        self.lap = self.elapsed.saturating_sub(before);
        let each = self.lap / self.stride;
        let most = (self.stride * 2).min(self.most);
        let fits = u32::try_from(fits(INTERVAL, each)).unwrap_or(most);
        self.stride = fits.clamp(1, most);
        self.left = self.stride;
    }
}

fn fits(time: Duration, each: Duration) -> usize {
    let count = time.as_nanos() / each.as_nanos().max(1);
    usize::try_from(count).unwrap_or(usize::MAX)
}
