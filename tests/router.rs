//! The router against a naive model: a plain list of subscriptions, each with its own queue.

use std::collections::VecDeque;

use _core::core::LaneKey;
use _core::core::backlog::OverflowPolicy;
use _core::core::fanout::{Audience, Fanout};
use _core::core::registry::Scope;
use _core::core::router::{Loss, NextCall, Parked, Ready, Router};
use _core::core::subscription::{Listener, Subscription};
use proptest::prelude::*;
use triomphe::Arc;

type Handler = u64;
type Message = u64;
type Tested = Router<Handler, Message, LaneKey>;
type Trash = _core::core::Trash<Handler, Message, LaneKey>;

const LIMIT: u32 = 3;
const LANES: LaneKey = 2;

fn session(index: u8) -> Vec<u8> {
    format!("session-{index}").into_bytes()
}

fn topic(index: u8) -> Option<Vec<u8>> {
    (index > 0).then(|| format!("topic-{index}").into_bytes())
}

fn router() -> Tested {
    let mut router = Router::new(LIMIT, OverflowPolicy::DropOldest);
    for _ in 0..LANES {
        router.add_lane(true, 1, |lane| lane);
    }
    router
}

/// A handler that is a number; the router cannot tell it from others.
fn listener(handler: u64) -> Listener<u64> {
    Listener {
        handler,
        digest: 0,
        overlaps: false,
    }
}

fn walk(fanout: &mut Fanout<Handler, Message>) -> Vec<Arc<Subscription<Handler>>> {
    std::iter::from_fn(|| fanout.take_next().cloned()).collect()
}

#[derive(Clone, Debug)]
enum Action {
    Subscribe {
        session: u8,
        topic: u8,
        lane: LaneKey,
    },
    Unsubscribe {
        session: u8,
        topic: u8,
    },
    UnsubscribeAll {
        session: u8,
    },
    Cancel {
        nth: usize,
    },
    Publish {
        topic: u8,
        except: Option<u8>,
    },
    Deliver {
        lane: LaneKey,
    },
    Abandon {
        lane: LaneKey,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let (session, topic, lane) = (0..4u8, 0..3u8, 0..LANES);
    prop_oneof![
        4 => (session.clone(), topic.clone(), lane.clone())
            .prop_map(|(session, topic, lane)| Action::Subscribe { session, topic, lane }),
        1 => (session.clone(), topic.clone())
            .prop_map(|(session, topic)| Action::Unsubscribe { session, topic }),
        1 => session.clone().prop_map(|session| Action::UnsubscribeAll { session }),
        1 => (0..20usize).prop_map(|nth| Action::Cancel { nth }),
        6 => (topic, prop::option::of(session))
            .prop_map(|(topic, except)| Action::Publish { topic, except }),
        3 => lane.clone().prop_map(|lane| Action::Deliver { lane }),
        1 => lane.prop_map(|lane| Action::Abandon { lane }),
    ]
}

#[derive(Clone)]
struct Listed {
    id: Handler,
    session: u8,
    topic: u8,
    lane: LaneKey,
}

/// A message with those who were subscribed when it was sent.
type Logged = (Message, u8, Vec<Handler>);

#[derive(Default)]
struct Model {
    listed: Vec<Listed>,
    logs: [VecDeque<Logged>; LANES as usize],
    awake: [bool; LANES as usize],
    next: u64,
}

impl Model {
    /// Who gets a message on a lane; the lane's oldest on that topic gives way beyond the limit.
    fn publish(&mut self, on: u8, except: Option<u8>) -> Vec<LaneKey> {
        self.next += 1;
        let mut woken = Vec::new();
        for lane in 0..LANES {
            let there = self
                .listed
                .iter()
                .filter(|s| s.topic == on && s.lane == lane);
            let gets = there.filter(|s| Some(s.session) != except).map(|s| s.id);
            let gets: Vec<_> = gets.collect();
            if gets.is_empty() {
                continue;
            }
            let log = &mut self.logs[lane as usize];
            log.push_back((self.next, on, gets));
            if log.iter().filter(|(_, topic, _)| *topic == on).count() > LIMIT as usize {
                let oldest = log
                    .iter()
                    .position(|(_, topic, _)| *topic == on)
                    .unwrap_or(0);
                log.remove(oldest);
            }
            if !std::mem::replace(&mut self.awake[lane as usize], true) {
                woken.push(lane);
            }
        }
        woken
    }

    /// The next message of a lane that anybody is left to get.
    fn deliver(&mut self, lane: LaneKey) -> Option<(Message, Vec<Handler>)> {
        while let Some((message, on, gets)) = self.logs[lane as usize].pop_front() {
            if self.listed.iter().any(|s| s.topic == on && s.lane == lane) {
                let left = |id: &Handler| self.listed.iter().any(|s| s.id == *id);
                return Some((message, gets.into_iter().filter(left).collect()));
            }
        }
        self.awake[lane as usize] = false;
        None
    }
}

fn apply(
    router: &mut Tested,
    model: &mut Model,
    subs: &mut Vec<Arc<Subscription<u64>>>,
    action: &Action,
) {
    let mut trash = Trash::default();
    match *action {
        Action::Subscribe {
            session: s,
            topic: t,
            lane,
        } => {
            model.next += 1;
            let id = model.next;
            model.listed.push(Listed {
                id,
                session: s,
                topic: t,
                lane,
            });
            subs.push(router.subscribe(&session(s), topic(t).as_deref(), lane, listener(id)));
        }
        Action::Unsubscribe {
            session: s,
            topic: t,
        } => {
            model.listed.retain(|l| !(l.session == s && l.topic == t));
            let name = topic(t);
            let scope = name.as_deref().map_or(Scope::Everything, Scope::Topic);
            router.unsubscribe(&session(s), &scope, &mut trash);
        }
        Action::UnsubscribeAll { session: s } => {
            model.listed.retain(|l| l.session != s);
            router.unsubscribe(&session(s), &Scope::All, &mut trash);
        }
        Action::Cancel { nth } => {
            if let Some(subscription) = subs.get(nth) {
                model.listed.retain(|l| l.id != subscription.handler);
                router.cancel(subscription, &mut trash);
            }
        }
        Action::Publish { topic: t, except } => {
            let woken = model.publish(t, except);
            let message = model.next;
            let except = except.map(session);
            let name = topic(t);
            let mut wake = router.publish(
                name.as_deref(),
                except
                    .as_deref()
                    .map_or(Audience::Everyone, Audience::Others),
                || message,
                &mut trash,
            );
            wake.sort_unstable();
            assert_eq!(*wake, *woken, "exactly the sleeping lanes are woken");
        }
        Action::Deliver { lane } => {
            if !model.awake[lane as usize] {
                return;
            }
            let expected = model.deliver(lane);
            let found = router.next_fanout(lane, &mut trash).map(|mut fanout| {
                let message = fanout.envelope.message;
                (
                    message,
                    walk(&mut fanout).iter().map(|s| s.handler).collect(),
                )
            });
            assert_eq!(found, expected);
        }
        Action::Abandon { lane } => {
            router.abandon(lane, &mut trash);
            model.logs[lane as usize].clear();
            model.awake[lane as usize] = false;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn everybody_subscribed_at_the_send_gets_the_message_once_and_in_order(
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let (mut router, mut model, mut subs) = (router(), Model::default(), Vec::new());
        for action in &actions {
            apply(&mut router, &mut model, &mut subs, action);
            let sizes = router.sizes();
            prop_assert_eq!(sizes.subscriptions, model.listed.len());
            for subscription in &subs {
                let found = router.registry().find(subscription.address());
                let is_listed = model.listed.iter().any(|l| l.id == subscription.handler);
                let expected = is_listed.then_some(subscription.handler);
                prop_assert_eq!(found.map(|s| s.handler), expected);
            }
        }
        for lane in 0..LANES {
            while model.awake[lane as usize] {
                apply(&mut router, &mut model, &mut subs, &Action::Deliver { lane });
            }
        }
        prop_assert_eq!(router.sizes().pending, 0);
    }

    #[test]
    fn a_session_on_workers_gets_the_newest_of_each_subscription_in_order(
        sends in prop::collection::vec((0..3u8, any::<bool>()), 1..40),
    ) {
        let mut router = router();
        let ids: Vec<u64> = (0..3).collect();
        for &id in &ids {
            router.subscribe(&session(0), topic(u8::try_from(id).unwrap_or(0)).as_deref(), 0, listener(id));
        }
        let mut expected = Vec::<(u64, u64)>::new();
        router.publish(None, Audience::Everyone, || 1000, &mut Trash::default());
        let first = next_logged(&mut router).expect("it was sent");
        for (number, &(on, dispatch)) in (0u64..).zip(&sends) {
            let mut trash = Trash::default();
            router.publish(topic(on).as_deref(), Audience::Everyone, || number, &mut trash);
            expected.push((u64::from(on), number));
            if expected.iter().filter(|(id, _)| *id == u64::from(on)).count() > LIMIT as usize {
                let oldest = expected.iter().position(|(id, _)| *id == u64::from(on));
                expected.remove(oldest.unwrap_or(0));
            }
            if dispatch {
                dispatch_all(&mut router);
            }
        }
        dispatch_all(&mut router);
        let (session, mut ready) = (first.claimed.expect("it makes one call at a time"), 0);
        router.put_back(session, |_| ready += 1);
        prop_assert_eq!(ready, 1, "a session is ready once, however much it has to do");
        let mut found = Vec::new();
        let mut trash = Trash::default();
        while let Some(next) = router.next_call(0, session, || false, &mut trash) {
            found.push((next.call.0.handler, next.call.1.message));
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(router.sizes().pending, 0);
    }
}

/// Lets a worker look at the whole log while the session is with another one: it stops at every
/// burst of losses, to report it.
fn dispatch_all(router: &mut Tested) {
    while router.has_log(0) {
        let next = next_logged(router);
        assert!(next.is_none(), "a session makes one call at a time");
    }
}

/// Lets a worker look at the log.
fn next_logged(router: &mut Tested) -> Option<NextCall<Handler, Message>> {
    router.begin_turn(0);
    router.next_logged(0, 1000, |_| (), || false, &mut Trash::default())
}

#[test]
fn what_waits_for_a_busy_handler_is_bounded_and_goes_with_it() {
    let (mut router, mut trash) = (router(), Trash::default());
    let subscription = router.subscribe(b"ann", None, 0, listener(7));
    router.enter(&subscription);
    for message in 0..5 {
        router.publish(None, Audience::Everyone, || message, &mut trash);
        let fanout = router.next_fanout(0, &mut trash).expect("it was sent");
        match router.park(&subscription, &fanout.envelope, &mut trash) {
            Parked::Lost => assert!(message >= u64::from(LIMIT)),
            Parked::Waiting => assert!(message < u64::from(LIMIT)),
            Parked::Free => panic!("the handler is busy"),
        }
    }
    assert_eq!(router.sizes().dropped, 2);
    let first = router.unpark(&subscription, None, &mut trash);
    assert_eq!(first.map(|envelope| envelope.message), Some(2));
    router.cancel(&subscription, &mut trash);
    assert!(router.unpark(&subscription, None, &mut trash).is_none());
    assert_eq!(router.sizes().pending, 0);
}

#[test]
fn a_send_that_nobody_would_get_makes_nothing_and_wakes_nobody() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe(b"ann", None, 0, listener(1));
    let unmade = || -> u64 { panic!("no message may be made") };
    assert!(
        router
            .publish(Some(b"nobody"), Audience::Everyone, unmade, &mut trash)
            .is_empty()
    );
    assert!(
        router
            .publish(None, Audience::Others(b"ann"), unmade, &mut trash)
            .is_empty()
    );
}

#[test]
fn a_long_roster_keeps_its_order_through_removals() {
    let (mut router, mut trash) = (router(), Trash::default());
    let all: Vec<_> = (0..1000)
        .map(|id| router.subscribe(b"ann", None, 0, listener(id)))
        .collect();
    for subscription in all.iter().filter(|s| s.handler % 7 != 0) {
        router.cancel(subscription, &mut trash);
    }
    router.publish(None, Audience::Everyone, || 1, &mut trash);
    let mut fanout = router.next_fanout(0, &mut trash).expect("it was sent");
    let left: Vec<_> = walk(&mut fanout).iter().map(|s| s.handler).collect();
    assert_eq!(left, (0..1000).step_by(7).collect::<Vec<_>>());
}

#[test]
fn a_message_that_gives_way_after_its_excluded_session_left_is_counted_for_the_others() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe(b"ann", None, 0, listener(1));
    router.subscribe(b"bob", None, 0, listener(2));
    router.publish(None, Audience::Others(b"ann"), || 0, &mut trash);
    router.unsubscribe(b"ann", &Scope::All, &mut trash);
    for message in 1..=u64::from(LIMIT) {
        router.publish(None, Audience::Everyone, || message, &mut trash);
    }
    while router.next_fanout(0, &mut trash).is_some() {}
    assert_eq!(router.sizes().dropped, 1);
}

#[test]
fn a_topic_whose_messages_all_gave_way_is_forgotten_with_its_last_subscriber() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe(b"ann", Some(b"news"), 0, listener(1));
    router.subscribe(b"bob", None, 0, listener(2));
    for message in 0..=u64::from(LIMIT) {
        router.publish(Some(b"news"), Audience::Everyone, || message, &mut trash);
    }
    router.publish(None, Audience::Everyone, || 99, &mut trash);
    router.unsubscribe(b"ann", &Scope::All, &mut trash);
    while router.next_fanout(0, &mut trash).is_some() {}
    let sizes = router.sizes();
    assert_eq!(
        (sizes.topics, sizes.pending, sizes.subscriptions),
        (0, 0, 1)
    );
}

#[test]
fn what_gave_way_before_a_hub_was_given_up_is_not_lost_by_that_once_more() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe(b"ann", None, 0, listener(1));
    for message in 0..=u64::from(LIMIT) {
        router.publish(None, Audience::Everyone, || message, &mut trash);
    }
    router.close();
    assert_eq!(router.give_up(|_| 0, &mut trash), LIMIT as usize);
    assert_eq!(router.sizes().dropped, LIMIT as usize + 1);
}

#[test]
fn a_hub_that_was_given_up_keeps_no_handler_that_nobody_goes_on_with() {
    let (mut router, mut trash) = (router(), Trash::default());
    let awaited = router.subscribe(b"ann", None, 0, listener(1));
    router.enter(&awaited);
    assert_eq!(router.resume(0, awaited.clone()), Some(0));
    router.interrupt(0, None);
    router.close();
    router.give_up(|_| 0, &mut trash);
    trash.discard();
    assert_eq!(Arc::strong_count(&awaited), 1);
    assert_eq!(router.calls_under_way(), 0);
}

#[test]
fn a_worker_that_reports_losses_while_it_has_a_call_still_lets_another_one_be_started() {
    let mut router: Tested = Router::new(LIMIT, OverflowPolicy::DropOldest);
    router.add_lane(true, 2, |lane| lane);
    let mut trash = Trash::default();
    router.subscribe(b"ann", None, 0, listener(1));
    assert_eq!(
        router.publish(None, Audience::Everyone, || 1, &mut trash)[..],
        [0]
    );
    assert!(next_logged(&mut router).is_some());
    assert!(
        !router.call_out(0, || false),
        "there is no work for another one yet"
    );
    assert_eq!(
        router.publish(None, Audience::Everyone, || 2, &mut trash)[..],
        [0]
    );
}

#[test]
fn a_session_makes_one_call_in_a_turn_of_the_log_and_the_next_session_the_next() {
    let (mut router, mut ready) = (router(), Vec::new());
    router.subscribe(b"ann", Some(b"flood"), 0, listener(1));
    router.subscribe(b"bob", None, 0, listener(2));
    for message in 0..u64::from(LIMIT) {
        router.publish(
            Some(b"flood"),
            Audience::Everyone,
            || message,
            &mut Trash::default(),
        );
    }
    router.publish(None, Audience::Everyone, || 9, &mut Trash::default());

    router.begin_turn(0);
    let first = next_logged(&mut router).expect("it was sent");
    let ann = first.claimed.expect("it makes one call at a time");
    router.put_back(ann, |_| panic!("nothing waits for it yet"));
    let enter = |work| ready.push(work);
    let trash = &mut Trash::default();
    let next = router.next_logged(0, 1000, enter, || false, trash);

    assert_eq!(next.map(|next| next.call.0.handler), Some(2));
    assert!(matches!(ready[..], [Ready::Session(session)] if session == ann));
}

#[test]
fn a_session_with_many_subscriptions_keeps_its_topics_apart() {
    let (mut router, mut trash) = (router(), Trash::default());
    let topics: Vec<_> = (0..20)
        .map(|number| format!("topic-{number}").into_bytes())
        .collect();
    let subscribe = |router: &mut Tested, number: usize| {
        let topic = topics[number % topics.len()].as_slice();
        router.subscribe(b"ann", Some(topic), 0, listener(number as Handler))
    };
    let all: Vec<_> = (0..100)
        .map(|number| subscribe(&mut router, number))
        .collect();
    let on = |router: &Tested, topic: usize| -> Vec<Handler> {
        let found = router.registry().matching(b"ann", Some(&topics[topic]), 0);
        found
            .iter()
            .map(|subscription| subscription.handler)
            .collect()
    };

    assert_eq!(on(&router, 7), [7, 27, 47, 67, 87]);
    router.cancel(&all[47], &mut trash);
    assert_eq!(on(&router, 7), [7, 27, 67, 87]);
    router.unsubscribe(b"ann", &Scope::Topic(&topics[7]), &mut trash);
    assert_eq!(on(&router, 7), [0; 0]);
    assert_eq!(on(&router, 8), [8, 28, 48, 68, 88]);
    assert_eq!(router.sizes().subscriptions, 95);
    router.unsubscribe(b"ann", &Scope::All, &mut trash);
    assert_eq!(
        (router.sizes().sessions, router.sizes().subscriptions),
        (0, 0)
    );
    assert!(all.iter().all(|subscription| subscription.is_cancelled()));
}

#[test]
fn any_of_a_thousand_subscriptions_is_found_until_it_ends() {
    let (mut router, mut trash) = (router(), Trash::default());
    let all: Vec<_> = (0..1_000)
        .map(|number| router.subscribe(b"ann", None, 0, listener(number)))
        .collect();
    for step in [2, 3] {
        for subscription in all.iter().step_by(step) {
            router.cancel(subscription, &mut trash);
        }
        for subscription in &all {
            let found = router.registry().find(subscription.address());
            let expected = (!subscription.is_cancelled()).then_some(subscription.handler);
            assert_eq!(found.map(|s| s.handler), expected);
        }
    }
    assert_eq!(router.sizes().subscriptions, 333);
}

#[test]
fn only_handlers_with_the_same_digest_can_be_the_same() {
    let mut router = router();
    for (handler, digest) in [(1, 7), (2, 8), (3, 7)] {
        let listener = Listener {
            digest,
            ..listener(handler)
        };
        router.subscribe(b"ann", None, 0, listener);
    }
    let candidates = router.registry().matching(b"ann", None, 7);
    let handlers: Vec<_> = candidates.iter().map(|s| s.handler).collect();
    assert_eq!(handlers, [1, 3]);
}

#[test]
fn names_are_found_again_after_others_came_and_went() {
    let (mut router, mut trash) = (router(), Trash::default());
    let id = |number: u64| format!("session-{number}").into_bytes();
    for number in 0..5_000 {
        router.subscribe(&id(number), Some(&id(number)), 0, listener(number));
        if number % 3 > 0 {
            router.unsubscribe(&id(number / 2), &Scope::All, &mut trash);
        }
    }
    for number in 0..5_000 {
        let found = router
            .registry()
            .matching(&id(number), Some(&id(number)), 0);
        let gone = number < 2_500 && (2 * number % 3 > 0 || (2 * number + 1) % 3 > 0);
        assert_eq!(found.len(), usize::from(!gone), "session {number}");
    }
}

#[test]
fn what_a_lane_left_half_way_is_handed_out_when_the_lane_goes() {
    let mut router = router();
    router.add_lane(false, 1, |lane| lane);
    let (lane, ann) = (LANES, session(0));
    let mut trash = Trash::default();
    router.subscribe(&ann, None, lane, listener(0));
    router.publish(None, Audience::Everyone, || 1, &mut trash);
    let half_way = router.next_fanout(lane, &mut trash);
    assert!(half_way.is_some());
    router.interrupt(lane, half_way);
    assert!(trash.fanouts.is_empty());

    router.unsubscribe(&ann, &Scope::All, &mut trash);
    assert!(router.deliverer(lane).is_none());
    assert_eq!(trash.fanouts.len(), 1);
}

/// Lets a handler fall behind and catch up again.
fn lose_and_recover(router: &mut Tested, trash: &mut Trash) {
    for message in 0..=u64::from(LIMIT) {
        router.publish(None, Audience::Everyone, || message, trash);
    }
    while router.next_fanout(0, trash).is_some() {}
}

#[test]
fn bursts_become_one_while_their_reports_are_behind_and_no_loss_goes_untold() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe(b"ann", None, 0, listener(1));
    let told = |router: &mut Tested| {
        let (mut reports, mut lost) = (0, 0);
        while let Some(loss) = router.next_report() {
            reports += 1;
            if let Loss::CaughtUp(_, _, burst) = loss {
                lost += burst;
            }
        }
        (reports, lost)
    };
    assert!(!router.begin_reports());
    for _ in 0..1_000 {
        lose_and_recover(&mut router, &mut trash);
    }
    let (reports, before) = told(&mut router);
    assert!(reports <= 101, "{reports} reports waited");
    lose_and_recover(&mut router, &mut trash);
    let (_, after) = told(&mut router);
    assert_eq!(before + after, 1_001);
    assert_eq!(router.sizes().dropped, 1_001);
}

#[test]
fn what_a_hub_has_not_reported_when_it_is_given_up_is_not_reported_any_more() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe(b"ann", None, 0, listener(1));
    lose_and_recover(&mut router, &mut trash);
    assert!(router.begin_reports());
    router.close();
    router.give_up(|_| 0, &mut trash);
    assert!(router.next_report().is_none());
}

#[test]
fn a_router_that_closes_waits_until_those_with_queues_of_their_own_have_told_their_losses() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.note_beyond();
    router.note_beyond();
    router.close();
    assert!(router.begin_reports());
    for _ in 0..2 {
        assert!(!router.finish(&mut trash));
        assert!(matches!(router.next_report(), Some(Loss::Beyond)));
    }
    assert!(!router.finish(&mut trash), "the last one is being told");
    assert!(router.next_report().is_none());
    assert!(router.finish(&mut trash));
}
