//! The last messages of topics: how many, how old, and which go first; with times that are made up.

use std::time::{Duration, Instant};

use _core::core::backlog::OverflowPolicy::DropOldest;
use _core::core::fanout::{Audience, Envelope};
use _core::core::history::{History, Past, Retention};
use _core::core::interest::Channel;
use _core::core::router::Router;
use _core::core::subscription::{Listener, Subscription};
use triomphe::Arc;

type Kept = Vec<Arc<Envelope<u32>>>;
type Tested = Router<u8, u32, u32>;
type Trash = _core::core::Trash<u8, u32, u32>;

const ANN: &[u8] = b"ann";
const NEWS: Option<&[u8]> = Some(b"news");
const SPORT: Option<&[u8]> = Some(b"sport");

/// So many messages, none older than so many seconds.
fn at_most(messages: usize, seconds: impl Into<Option<u64>>) -> Retention {
    Retention {
        messages,
        age: seconds.into().map(Duration::from_secs),
    }
}

/// A history, and a clock that stands still between two calls.
struct Tape {
    history: History<u32>,
    start: Instant,
    trash: Kept,
}

impl Tape {
    /// At most `limit` messages in all; `rule` for every topic.
    fn new(limit: usize, rule: Retention) -> Self {
        let mut history = History::new(limit);
        history.keep_all(rule);
        Self {
            history,
            start: Instant::now(),
            trash: Vec::new(),
        }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn keep(&mut self, topic: Option<&[u8]>, rule: Retention, second: u64) {
        let now = self.at(second);
        self.history.keep(topic, Some(rule), now, &mut self.trash);
    }

    fn keep_as_the_others(&mut self, topic: Option<&[u8]>, second: u64) {
        let now = self.at(second);
        self.history.keep(topic, None, now, &mut self.trash);
    }

    fn record_except(&mut self, except: &[u8], topic: Option<&[u8]>, second: u64, message: u32) {
        self.enter(Some(except), topic, second, message);
    }

    fn record(&mut self, topic: Option<&[u8]>, second: u64, messages: &[u32]) {
        for &message in messages {
            self.enter(None, topic, second, message);
        }
    }

    fn enter(&mut self, except: Option<&[u8]>, topic: Option<&[u8]>, second: u64, message: u32) {
        let envelope = Arc::new(Envelope {
            message,
            audience: Audience::Everyone,
            sequence: message.into(),
            sent_at: 0,
        });
        let now = self.at(second);
        if let Some(retention) = self.history.retention(topic) {
            let history = &mut self.history;
            history.record(topic, retention, &envelope, except, now, &mut self.trash);
        }
    }

    fn last(&mut self, topic: Option<&[u8]>, count: usize, second: u64) -> Vec<u32> {
        let now = self.at(second);
        let found = self.history.last(topic, ANN, count, now);
        found.iter().map(|envelope| envelope.message).collect()
    }

    /// What was let go of, in that order.
    fn gone(&self) -> Vec<u32> {
        let gone = self.trash.iter();
        gone.map(|envelope| envelope.message).collect()
    }
}

#[test]
fn the_last_messages_of_a_topic_are_kept_the_oldest_first() {
    let mut tape = Tape::new(100, at_most(3, None));
    tape.record(NEWS, 0, &[1, 2, 3, 4, 5]);
    assert_eq!(tape.last(NEWS, 10, 0), [3, 4, 5]);
    assert_eq!(tape.last(NEWS, 2, 0), [4, 5]);
    assert_eq!(tape.last(NEWS, 0, 0), [0; 0]);
    assert_eq!((tape.history.len(), tape.gone()), (3, vec![1, 2]));
}

#[test]
fn topics_and_what_is_sent_to_all_are_kept_apart() {
    let mut tape = Tape::new(100, at_most(3, None));
    tape.record(NEWS, 0, &[1]);
    tape.record(None, 0, &[2]);
    tape.record(SPORT, 0, &[3]);
    assert_eq!(tape.last(NEWS, 10, 0), [1]);
    assert_eq!(tape.last(None, 10, 0), [2]);
    assert_eq!(tape.last(SPORT, 10, 0), [3]);
    assert_eq!(tape.last(Some(b"weather"), 10, 0), [0; 0]);
}

#[test]
fn what_is_too_old_is_not_replayed_and_goes_with_the_next_message() {
    let mut tape = Tape::new(100, at_most(10, 10));
    tape.record(NEWS, 0, &[1]);
    tape.record(NEWS, 5, &[2]);
    assert_eq!(tape.last(NEWS, 10, 10), [1, 2], "as old as it may be");
    assert_eq!(tape.last(NEWS, 10, 11), [2]);
    assert_eq!(tape.last(NEWS, 10, 16), [0; 0]);
    assert_eq!(tape.gone(), [0; 0]);
    tape.record(NEWS, 12, &[3]);
    assert_eq!((tape.history.len(), tape.gone()), (2, vec![1]));
}

#[test]
fn a_rule_of_its_own_goes_before_the_rule_for_all() {
    let mut tape = Tape::new(100, at_most(2, None));
    tape.keep(NEWS, at_most(3, 10), 0);
    tape.record(NEWS, 0, &[1, 2, 3]);
    tape.record(SPORT, 0, &[4, 5, 6]);
    assert_eq!(tape.last(NEWS, 10, 1), [1, 2, 3]);
    assert_eq!(tape.last(NEWS, 10, 11), [0; 0]);
    assert_eq!(tape.last(SPORT, 10, 11), [5, 6]);
}

#[test]
fn a_stricter_rule_lets_go_at_once_of_what_it_does_not_keep() {
    let mut tape = Tape::new(100, at_most(10, None));
    tape.record(NEWS, 0, &[1]);
    tape.record(NEWS, 5, &[2, 3, 4]);
    tape.keep(NEWS, at_most(10, 5), 6);
    assert_eq!((tape.history.len(), tape.gone()), (3, vec![1]));
    tape.keep(NEWS, at_most(1, None), 6);
    assert_eq!((tape.history.len(), tape.gone()), (1, vec![1, 2, 3]));
    tape.keep(NEWS, at_most(0, None), 6);
    assert!(tape.history.is_empty());
    assert_eq!(tape.history.retention(NEWS), None);
    tape.record(NEWS, 6, &[5]);
    assert!(tape.history.is_empty(), "no more of it is kept");
    assert!(tape.history.retention(SPORT).is_some());
}

#[test]
fn a_topic_can_be_kept_as_the_others_again() {
    let mut tape = Tape::new(100, at_most(2, 10));
    tape.keep(NEWS, at_most(5, None), 0);
    tape.record(NEWS, 0, &[1]);
    tape.record(NEWS, 5, &[2, 3, 4]);
    tape.keep_as_the_others(NEWS, 6);
    assert_eq!(tape.history.retention(NEWS), Some(at_most(2, 10)));
    assert_eq!(
        (tape.last(NEWS, 10, 6), tape.gone()),
        (vec![3, 4], vec![1, 2])
    );
    tape.record(NEWS, 6, &[5]);
    assert_eq!(tape.last(NEWS, 10, 6), [4, 5]);
    tape.keep(NEWS, at_most(0, None), 6);
    tape.keep_as_the_others(NEWS, 6);
    tape.record(NEWS, 6, &[6]);
    assert_eq!(tape.last(NEWS, 10, 6), [6], "what was kept before is gone");
}

#[test]
fn without_a_rule_for_all_to_be_kept_as_the_others_is_not_to_be_kept() {
    let mut history = History::<u32>::new(100);
    let (now, mut trash) = (Instant::now(), Vec::new());
    history.keep(NEWS, Some(at_most(3, None)), now, &mut trash);
    history.keep(NEWS, None, now, &mut trash);
    assert_eq!(history.retention(NEWS), None);
}

#[test]
fn rules_that_are_taken_back_give_their_memory_back() {
    let mut history = History::<u32>::new(100);
    let (now, mut trash) = (Instant::now(), Vec::new());
    history.keep_all(at_most(10, None));
    let topic = |number: u32| number.to_be_bytes();
    for number in 0..10_000 {
        let rule = Some(at_most(3, None));
        history.keep(Some(&topic(number)), rule, now, &mut trash);
    }
    assert!(history.room_for_rules() >= 10_000);
    for number in 0..9_990 {
        history.keep(Some(&topic(number)), None, now, &mut trash);
    }
    assert!(history.room_for_rules() < 100);
    let last = history.retention(Some(&topic(9_999)));
    assert_eq!(last, Some(at_most(3, None)), "the others stay");
}

#[test]
fn a_topic_of_which_no_more_is_kept_is_forgotten_where_no_rule_for_all_is_to_be_overruled() {
    let mut history = History::<u32>::new(100);
    let (now, mut trash) = (Instant::now(), Vec::new());
    history.keep(NEWS, Some(at_most(3, None)), now, &mut trash);
    history.keep(NEWS, Some(at_most(0, None)), now, &mut trash);
    assert_eq!(history.retention(NEWS), None);
    history.keep_all(at_most(2, None));
    assert_eq!(
        history.retention(NEWS),
        Some(at_most(2, None)),
        "as if it were new"
    );
    history.keep(NEWS, Some(at_most(0, None)), now, &mut trash);
    assert_eq!(history.retention(NEWS), None);
}

#[test]
fn who_was_excluded_does_not_get_a_message_later_and_gets_an_older_one_instead() {
    let mut tape = Tape::new(100, at_most(10, None));
    tape.record(NEWS, 0, &[1, 2]);
    tape.record_except(ANN, NEWS, 0, 3);
    tape.record_except(b"bob", NEWS, 0, 4);
    assert_eq!(tape.last(NEWS, 2, 0), [2, 4]);
}

#[test]
fn beyond_the_limit_the_topic_that_was_used_least_recently_goes_first() {
    let mut tape = Tape::new(4, at_most(10, None));
    tape.record(NEWS, 0, &[1, 2]);
    tape.record(SPORT, 0, &[3]);
    tape.record(None, 0, &[4]);
    assert_eq!(tape.last(NEWS, 10, 0), [1, 2], "which is a use");
    tape.record(None, 0, &[5]);
    assert_eq!(tape.gone(), [3]);
    tape.record(None, 0, &[6]);
    assert_eq!((tape.history.len(), tape.gone()), (3, vec![3, 1, 2]));
    assert_eq!(tape.last(None, 10, 0), [4, 5, 6]);
}

#[test]
fn one_topic_alone_has_its_newest_messages_up_to_the_limit() {
    let mut tape = Tape::new(2, at_most(10, None));
    tape.record(NEWS, 0, &[1, 2, 3, 4]);
    assert_eq!(
        (tape.last(NEWS, 10, 0), tape.gone()),
        (vec![3, 4], vec![1, 2])
    );
    let mut none = Tape::new(0, at_most(10, None));
    none.record(NEWS, 0, &[1]);
    none.record(SPORT, 0, &[2]);
    assert_eq!((none.history.len(), none.gone()), (0, vec![1, 2]));
}

#[test]
fn topics_on_which_nothing_is_sent_any_more_go_once_they_are_too_old() {
    let mut tape = Tape::new(100, at_most(10, 10));
    tape.record(NEWS, 0, &[1, 2]);
    tape.record(SPORT, 10, &[3]);
    assert_eq!(tape.gone(), [0; 0], "as old as it may be");
    tape.record(SPORT, 11, &[4]);
    assert_eq!((tape.history.len(), tape.gone()), (2, vec![1, 2]));
    tape.record(SPORT, 30, &[5]);
    assert_eq!(tape.last(SPORT, 10, 30), [5], "its own is kept");
}

#[test]
fn all_that_is_kept_can_be_looked_at_and_let_go_of() {
    let mut tape = Tape::new(100, at_most(10, None));
    tape.record(NEWS, 0, &[1, 2]);
    tape.record(SPORT, 0, &[3]);
    let mut all: Vec<_> = tape.history.iter().map(|kept| kept.message).collect();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
    tape.history.clear(&mut tape.trash);
    assert_eq!((tape.history.len(), tape.history.iter().count()), (0, 0));
    assert_eq!(tape.trash.len(), 3);
    tape.record(NEWS, 0, &[4]);
    assert_eq!(tape.last(NEWS, 10, 0), [4], "the rules stay");
}

// ---- replays --------------------------------------------------------------------------------

/// A router that keeps three messages of each topic, whose one lane has two workers.
fn router() -> Tested {
    let mut router = Router::new(100, DropOldest);
    router.add_lane(true, 2, |lane| lane);
    router.limit_history(100);
    router.keep_all(at_most(3, None));
    router
}

fn listener(handler: u8) -> Listener<u8> {
    Listener {
        handler,
        digest: 0,
        overlaps: false,
    }
}

fn send(router: &mut Tested, message: u32) -> Vec<u32> {
    let trash = &mut Trash::default();
    let published = router.publish(NEWS, Audience::Everyone, || message, trash);
    published.to_vec()
}

/// Lets a worker look at the log; tells the handler and the message of the call that it finds, and
/// whether another worker is to be started.
fn work(router: &mut Tested) -> Option<(u8, u32, bool)> {
    let mut trash = Trash::default();
    router.begin_turn(0);
    let next = router.next_logged(0, 10, |_| (), || false, &mut trash)?;
    Some((next.call.0.handler, next.call.1.message, next.hired))
}

#[test]
fn a_worker_stays_for_a_replay_that_came_after_its_last_look_at_the_log() {
    let mut router = router();
    router.subscribe(b"bob", NEWS, 0, listener(1));
    assert_eq!(send(&mut router, 7), [0]);
    assert_eq!(work(&mut router), Some((1, 7, false)));
    router.returned(0);
    assert_eq!(work(&mut router), None);

    let subscription = router.subscribe(ANN, NEWS, 0, listener(2));
    assert_eq!(router.replay(&subscription, NEWS, 3), None, "it is awake");
    assert!(!router.dismiss(0, || true), "it has a replay to make");
    assert_eq!(work(&mut router), Some((2, 7, false)));
}

#[test]
fn a_worker_that_is_busy_leaves_a_replay_to_another_one() {
    let mut router = router();
    send(&mut router, 7);
    for (session, handler) in [(ANN, 1), (b"bob", 2)] {
        let subscription = router.subscribe(session, NEWS, 0, listener(handler));
        let wake = router.replay(&subscription, NEWS, 3);
        assert_eq!(wake.is_some(), handler == 1);
    }
    assert_eq!(work(&mut router), Some((1, 7, true)));
    assert_eq!(work(&mut router), Some((2, 7, false)));
}

#[test]
fn the_time_of_a_send_is_noted_whether_or_not_it_is_kept() {
    let mut router = router();
    router.subscribe(ANN, NEWS, 0, listener(1));
    assert_eq!(send(&mut router, 1), [0]);
    let fanout = router.next_fanout(0, &mut Trash::default());
    assert_ne!(fanout.expect("it was sent").envelope.sent_at, 0);
}

#[test]
fn replays_are_made_one_after_the_other_and_end_with_their_subscriptions() {
    let mut router = router();
    for message in 1..=3 {
        send(&mut router, message);
    }
    let mut enter = |handler| {
        let subscription = router.subscribe(ANN, NEWS, 0, listener(handler));
        router.replay(&subscription, NEWS, 2);
        subscription
    };
    let all = [enter(1), enter(2), enter(3)];
    let mut trash = Trash::default();
    let next = |router: &mut Tested| {
        let fanout = router.next_fanout(0, &mut Trash::default())?;
        let handler = fanout.take_next().map(|s| s.handler);
        assert!(!fanout.has_next(), "it is for one subscription");
        Some((handler?, fanout.envelope.message))
    };
    assert_eq!(next(&mut router), Some((1, 2)));
    router.cancel(&all[0], &mut trash);
    router.cancel(&all[1], &mut trash);
    assert_eq!(router.sizes().pending, 2);
    assert_eq!(next(&mut router), Some((3, 2)));
    assert_eq!(next(&mut router), Some((3, 3)));
    assert_eq!(next(&mut router), None);
    assert_eq!(router.sizes().pending, 0);
    assert_eq!(trash.envelopes.len(), 3, "what was not replayed");
}

#[test]
fn a_replay_that_a_deliverer_has_in_hand_is_lost_with_a_hub_that_is_given_up_unless_it_was_made() {
    for (is_made, lost) in [(false, 2), (true, 1)] {
        let (mut router, mut trash) = (router(), Trash::default());
        for message in 1..=2 {
            send(&mut router, message);
        }
        // Others are there, before and after.
        router.subscribe(b"bob", NEWS, 0, listener(1));
        let subscription = router.subscribe(ANN, NEWS, 0, listener(2));
        router.replay(&subscription, NEWS, 2);
        router.subscribe(b"cid", NEWS, 0, listener(3));
        let fanout = router.next_fanout(0, &mut trash).expect("it is replayed");
        if is_made {
            assert_eq!(fanout.take_next().map(|s| s.handler), Some(2));
        }
        router.close();
        let passed = fanout.passed();
        assert_eq!(router.give_up(|_| passed, &mut trash), lost);
        assert_eq!(router.sizes().dropped, lost);
    }
}

// ---- what others remember ---------------------------------------------------------------------

/// A router that keeps three messages of each topic, and hears of them from others.
struct Linked(Tested);

impl Linked {
    fn new() -> Self {
        let mut router = router();
        router.note_interest();
        Self(router)
    }

    /// Subscribes somebody who wants three messages first.
    fn come(&mut self, session: &[u8], handler: u8) -> Arc<Subscription<u8>> {
        let subscription = self.0.subscribe(session, NEWS, 0, listener(handler));
        self.0.replay(&subscription, NEWS, 3);
        self.0.take_interest();
        subscription
    }

    fn go(&mut self, subscription: &Arc<Subscription<u8>>) {
        self.0.cancel(subscription, &mut Trash::default());
        self.0.take_interest();
    }

    /// Tells what others remember; returns whether somebody has to be woken.
    fn tell(&mut self, messages: &[u32]) -> bool {
        let past = messages
            .iter()
            .map(|message| Past::new(*message, None, Duration::ZERO));
        let news = Channel::Topic(NEWS.unwrap_or_default().into());
        let wake = self.0.recall(&news, past.collect(), &mut Trash::default());
        !wake.is_empty()
    }

    /// Who is called with what, until there is no more.
    fn calls(&mut self) -> Vec<(u8, u32)> {
        let mut calls = Vec::new();
        while let Some(fanout) = self.0.next_fanout(0, &mut Trash::default()) {
            while let Some(subscription) = fanout.take_next() {
                calls.push((subscription.handler, fanout.envelope.message));
            }
        }
        calls
    }
}

#[test]
fn who_comes_before_the_past_is_told_waits_for_it_and_who_comes_later_does_not() {
    let mut router = Linked::new();
    router.come(ANN, 1);
    assert_eq!(router.calls(), []);
    assert!(router.tell(&[1, 2, 3, 4]), "ann has waited");
    send(&mut router.0, 5);
    assert_eq!(router.calls(), [(1, 2), (1, 3), (1, 4), (1, 5)]);

    router.come(b"bob", 2);
    assert_eq!(router.calls(), [(2, 3), (2, 4), (2, 5)]);
}

#[test]
fn after_the_last_one_has_gone_the_past_is_told_anew() {
    let mut router = Linked::new();
    let ann = router.come(ANN, 1);
    router.tell(&[1]);
    router.calls();
    router.go(&ann);

    router.come(b"bob", 2);
    assert_eq!(router.calls(), [], "what was sent meanwhile is missing");
    router.tell(&[1, 2]);
    assert_eq!(router.calls(), [(2, 1), (2, 2)]);
}

#[test]
fn who_has_gone_meanwhile_gets_nothing() {
    let mut router = Linked::new();
    let ann = router.come(ANN, 1);
    router.come(b"bob", 2);
    router.go(&ann);
    router.tell(&[1]);
    assert_eq!(router.calls(), [(2, 1)]);
}

#[test]
fn what_was_kept_gives_way_to_what_others_remember() {
    let mut tape = Tape::new(100, at_most(2, 10));
    tape.record(NEWS, 0, &[1, 2]);
    let past = [(3, 20), (4, 5), (5, 1)].map(|(message, age)| {
        Past::new(message, Some(b"bob".as_slice()), Duration::from_secs(age))
    });
    let now = tape.at(30);
    let rule = at_most(2, 10);
    tape.history
        .restore(NEWS, rule, past.into(), now, &mut tape.trash);
    assert_eq!(tape.last(NEWS, 10, 30), [4, 5]);
    assert_eq!(
        tape.last(NEWS, 10, 36),
        [5],
        "its age counts from when it was sent"
    );
    assert_eq!((tape.history.len(), tape.trash.len()), (2, 3));
}
