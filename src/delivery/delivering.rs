//! Which hubs' handlers a thread is calling, for those who must not wait for them.

use std::cell::RefCell;

use crate::hub::PubSubHub;

thread_local! {
    /// The hubs whose handlers this thread is calling.
    static DELIVERING: RefCell<Vec<*const PubSubHub>> = const { RefCell::new(Vec::new()) };
}

/// This thread is calling handlers of a hub, for as long as this lives.
pub struct Delivering(*const PubSubHub);

impl Delivering {
    /// Begins to call handlers of `hub`.
    pub fn begin(hub: &PubSubHub) -> Self {
        // A thread that ends has no list any more, and calls nobody.
        let _ = DELIVERING.try_with(|hubs| hubs.borrow_mut().push(hub));
        Self(hub)
    }

    /// Whether this thread is calling handlers of `hub`.
    pub fn includes(hub: &PubSubHub) -> bool {
        let hub: *const PubSubHub = hub;
        DELIVERING.try_with(|hubs| hubs.borrow().contains(&hub)) == Ok(true)
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        // Not always the last one: greenlets of one thread take turns as they like.
        let _ = DELIVERING.try_with(|hubs| {
            let mut hubs = hubs.borrow_mut();
            let place = hubs.iter().rposition(|&hub| hub == self.0);
            place.map(|place| hubs.remove(place));
        });
    }
}
