//! Which topics are sent to most.

use _core::core::backlog::OverflowPolicy::DropOldest;
use _core::core::fanout::Audience;
use _core::core::registry::Scope;
use _core::core::router::Router;
use _core::core::subscription::Listener;
use _core::core::traffic::Busiest;

type Tested = Router<u8, u32, u32>;
type Trash = _core::core::Trash<u8, u32, u32>;

fn router() -> Tested {
    let mut router = Router::new(10, DropOldest);
    router.add_lane(true, 1, |lane| lane);
    router
}

fn name(number: u64) -> Vec<u8> {
    format!("topic-{number}").into_bytes()
}

fn subscribe(router: &mut Tested, number: u64) {
    let listener = Listener {
        handler: 0,
        digest: 0,
        overlaps: false,
    };
    router.subscribe(&name(number), Some(&name(number)), 0, listener);
}

fn send(router: &mut Tested, number: u64, times: u64) {
    for _ in 0..times {
        let mut trash = Trash::default();
        router.publish(Some(&name(number)), Audience::Everyone, || 0, &mut trash);
    }
}

/// The topics that are told, with the number of sends and of sessions on them, in order of names.
fn told(router: &Tested) -> Vec<(Vec<u8>, u64, u32)> {
    let all = router.registry().busiest().into_iter();
    let mut all: Vec<_> = all
        .map(|(name, sent, on)| (name.to_vec(), sent, on))
        .collect();
    all.sort();
    all
}

#[test]
fn the_topics_that_are_sent_to_most_are_told() {
    let mut router = router();
    for number in 0..100 {
        subscribe(&mut router, number);
        send(&mut router, number, 16 * (1 + number * 37 % 100));
    }
    let of = |number: u64| (name(number), 16 * (1 + number * 37 % 100), 1);
    let mut busiest: Vec<_> = (0..100)
        .map(of)
        .filter(|(_, sent, _)| *sent > 16 * 68)
        .collect();
    busiest.sort();
    assert_eq!(busiest.len(), 32);
    assert_eq!(told(&router), busiest);
}

#[test]
fn a_topic_that_is_sent_to_only_a_few_times_is_told_where_there_is_room() {
    let mut router = router();
    for (number, times) in [(1, 1), (2, 3), (3, 0)] {
        subscribe(&mut router, number);
        send(&mut router, number, times);
    }
    router.publish(None, Audience::Everyone, || 0, &mut Trash::default());
    assert_eq!(told(&router), [(name(1), 1, 1), (name(2), 3, 1)]);
}

#[test]
fn a_topic_that_has_ended_is_not_told_and_its_place_in_the_tables_is_another_ones() {
    let mut router = router();
    subscribe(&mut router, 1);
    send(&mut router, 1, 100);
    router.unsubscribe(&name(1), &Scope::All, &mut Trash::default());
    // What was sent on it waits, and it exists until that is gone.
    while router.next_fanout(0, &mut Trash::default()).is_some() {}
    assert_eq!(told(&router), []);
    subscribe(&mut router, 2);
    assert_eq!(told(&router), []);
    send(&mut router, 2, 1);
    assert_eq!(told(&router), [(name(2), 1, 1)]);
}

#[test]
fn a_full_list_takes_in_only_who_is_busier_than_the_least_busy() {
    let mut busiest = Busiest::default();
    (0..32).for_each(|topic| busiest.look(topic, 100 + u64::from(topic)));
    let is_told = |busiest: &Busiest, topic| busiest.iter().any(|told| told == topic);
    busiest.look(32, 100);
    assert!(!is_told(&busiest, 32));
    busiest.look(32, 101);
    assert!(is_told(&busiest, 32) && !is_told(&busiest, 0));
    busiest.look(1, 200);
    busiest.look(33, 102);
    assert!(is_told(&busiest, 1), "it was looked at again");
    assert!(is_told(&busiest, 33) && !is_told(&busiest, 32));
    busiest.forget(33);
    assert_eq!(busiest.iter().count(), 31);
    busiest.look(34, 1);
    assert!(is_told(&busiest, 34), "there is room");
}

#[test]
fn a_topic_is_looked_at_early_and_then_every_few_sends() {
    let looked_at: Vec<_> = (1..=64).filter(|sent| Busiest::looks_at(*sent)).collect();
    assert_eq!(looked_at, [1, 2, 4, 8, 16, 32, 48, 64]);
}
