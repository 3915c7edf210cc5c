//! The router against a naive model in everything that it does: lanes that are walked, workers,
//! busy handlers, losses under every policy, subscriptions that come and go at any moment, messages
//! that are kept for those who come later, those who watch who is there, a hub that is closed, and
//! one that goes on in a child process.
//!
//! Each case is a random sequence of the steps that senders, deliverers, handlers and sessions
//! make, in any order in which threads could make them. After each step the router must have done
//! what the model says, and be as large as the model is.

#![expect(
    clippy::expect_used,
    reason = "a model that is at odds with itself fails its test"
)]

#[path = "machine/history.rs"]
mod history;
#[path = "machine/hub.rs"]
mod hub;
#[path = "machine/locked.rs"]
mod locked;
#[path = "machine/model.rs"]
mod model;
#[path = "machine/presence.rs"]
mod presence;

use _core::core::backlog::OverflowPolicy::{self, DropNewest, DropOldest, Unsubscribe};
use _core::core::fanout::Audience::{self, Everyone, Only, Others};
use proptest::prelude::*;

use hub::Hub;

/// Messages that may wait, for each subscription.
const LIMIT: u32 = 2;
/// Messages that are kept, of all topics.
const KEPT: usize = 5;
/// Who watches a topic is on one of their own, so much further.
const WATCH: u8 = 10;
/// Workers of the lane that is an executor's.
const WORKERS: usize = 2;
/// The lanes: an executor's, a loop's, a sender's, and that of a loop that was found running.
const POOL: u32 = 0;
const LOOP: u32 = 1;
const INLINE: u32 = 2;
const TRANSIENT: u32 = 3;

/// One step of somebody's. Numbers that choose from a list are taken modulo its length.
#[derive(Clone, Debug)]
enum Step {
    Subscribe {
        session: u8,
        topic: u8,
        lane: u32,
        overlaps: bool,
        /// How many earlier messages it gets first.
        replay: usize,
    },
    /// Subscribes to the coming and going on a topic.
    Watch {
        session: u8,
        topic: u8,
        lane: u32,
    },
    /// A session says something of itself.
    Identify {
        session: u8,
    },
    Unsubscribe {
        session: u8,
        topic: u8,
    },
    UnsubscribeAll {
        session: u8,
        /// No more than so many, of those who came before that place in the hub's sequence.
        most: usize,
        before: u64,
    },
    Cancel {
        nth: usize,
    },
    CutOff {
        lane: u32,
    },
    Publish {
        topic: u8,
        audience: Audience<u8>,
    },
    /// So many messages of a topic are kept, or as many as of the others.
    Keep {
        topic: u8,
        messages: Option<usize>,
    },
    /// So many messages are kept of every topic of which nothing else was said.
    KeepAll {
        messages: usize,
    },
    /// A deliverer takes a message if it has none, and calls so many handlers; every bit of `goes_on` is one that goes on elsewhere.
    Walk {
        lane: u32,
        calls: usize,
        goes_on: u8,
    },
    /// A deliverer stops in the middle of a message, as Ctrl-C makes it.
    Interrupt,
    /// A loop is closed.
    Abandon {
        lane: u32,
    },
    /// A handler that went on is done with a message.
    Finish {
        nth: usize,
        looks_first: bool,
    },
    /// A handler that went on never comes to an end.
    Forsake {
        nth: usize,
    },
    /// A worker makes a call from the log.
    Log {
        worker: usize,
        begins: bool,
        budget: usize,
    },
    /// A worker takes what stands first in the run queue.
    Take {
        worker: usize,
    },
    /// A worker goes on with its session.
    GoOn {
        worker: usize,
    },
    /// A worker's call is over, or goes on elsewhere.
    Return {
        worker: usize,
        goes_on: bool,
    },
    /// A worker lets its session go.
    PutBack {
        worker: usize,
    },
    /// A worker looks if it is needed.
    Dismiss {
        worker: usize,
    },
    /// A job is dropped before it ran.
    Lose {
        worker: usize,
    },
    /// The hub is closed.
    Close,
    /// Who closed it waits no longer.
    GiveUp,
    /// The process was forked, and this is the child's copy.
    Renew,
}

/// A step of a random kind. A table of numbers, because a choice between strategies costs more
/// than everything else here.
fn step() -> impl Strategy<Value = Step> {
    (0..106u8, 0..3u8, 0..4u8, any::<u8>()).prop_map(|(kind, a, b, c)| {
        let (session, worker) = (a, usize::from(b) % WORKERS);
        let (walked, looped) = ([LOOP, INLINE, TRANSIENT], [LOOP, TRANSIENT]);
        let lane = [POOL, POOL, LOOP, INLINE, TRANSIENT][usize::from(c / 3) % 5];
        match kind {
            0..8 => Step::Subscribe {
                session,
                topic: c % 3,
                lane,
                overlaps: b == 3,
                replay: usize::from(c / 15 % 8).saturating_sub(4),
            },
            94..98 => Step::Watch {
                session,
                topic: 1 + c % 2,
                lane,
            },
            98..100 => Step::Identify { session },
            100..104 => Step::Keep {
                topic: a,
                messages: (c % 3 > 0).then_some(b.into()),
            },
            104..106 => Step::KeepAll { messages: b.into() },
            8 => Step::Unsubscribe {
                session,
                topic: c % 3,
            },
            9 => Step::UnsubscribeAll {
                session,
                most: [usize::MAX, 1, 2, 3][usize::from(b)],
                before: if c % 2 == 0 { u64::MAX } else { c.into() },
            },
            10..12 => Step::Cancel { nth: c.into() },
            12 => Step::CutOff {
                lane: looped[usize::from(c % 2)],
            },
            13..33 => Step::Publish {
                topic: a,
                audience: [Everyone, Everyone, Only(c % 3), Others(c % 3)][usize::from(b)],
            },
            33..45 => Step::Walk {
                lane: walked[usize::from(a)],
                calls: b.into(),
                goes_on: c,
            },
            45..47 => Step::Interrupt,
            47 => Step::Abandon {
                lane: looped[usize::from(c % 2)],
            },
            48..54 => Step::Finish {
                nth: c.into(),
                looks_first: a == 0,
            },
            54..64 => Step::Log {
                worker,
                begins: a > 0,
                budget: 1 + usize::from(c % 5),
            },
            64..70 => Step::Take { worker },
            70..74 => Step::GoOn { worker },
            74..84 => Step::Return {
                worker,
                goes_on: a == 0,
            },
            84..87 => Step::PutBack { worker },
            87..89 => Step::Dismiss { worker },
            89 => Step::Lose { worker },
            90 if c % 4 == 0 => Step::Close,
            91 if c % 4 == 0 => Step::Renew,
            93 => Step::Forsake { nth: c.into() },
            _ => Step::GiveUp,
        }
    })
}

/// Makes all the steps, then delivers what is left, then ends every subscription, or the hub.
fn play(overflow: OverflowPolicy, steps: &[Step], closes: bool) {
    let mut hub = Hub::new(overflow);
    for step in steps {
        hub.make(step);
        hub.check();
    }
    hub.finish();
    hub.check_deliveries();
    if closes {
        hub.shut();
    } else {
        hub.leave();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(15_000)
    })]

    #[test]
    fn whatever_happens_in_whatever_order_the_router_does_what_a_plain_list_says(
        overflow in prop::sample::select(vec![DropOldest, DropNewest, Unsubscribe]),
        steps in prop::collection::vec(step(), 1..120),
        closes in any::<bool>(),
    ) {
        play(overflow, &steps, closes);
    }
}

/// A worker makes a call from the log.
fn log(begins: bool) -> Step {
    Step::Log {
        worker: 0,
        begins,
        budget: 1,
    }
}

#[test]
fn what_waited_for_an_awaitable_goes_before_a_full_queue_whose_oldest_stays_lost() {
    let publish = || Step::Publish {
        topic: 1,
        audience: Everyone,
    };
    let subscribe = Step::Subscribe {
        session: 0,
        topic: 1,
        lane: POOL,
        overlaps: false,
        replay: 0,
    };
    let returns = Step::Return {
        worker: 0,
        goes_on: true,
    };
    let mut steps = vec![subscribe, publish(), log(true), returns];
    // One message waits for the handler, and three for its session, of which one gives way.
    for begins in [true, false, false, false] {
        steps.extend([publish(), log(begins)]);
    }
    play(DropOldest, &steps, false);
}
