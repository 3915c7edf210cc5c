//! What the core costs alone: no interpreter, handlers that are numbers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use _core::core::LaneKey;
use _core::core::backlog::OverflowPolicy;
use _core::core::fanout::{Audience, Envelope};
use _core::core::registry::Scope;
use _core::core::router::Router;
use _core::core::subscription::Listener;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use triomphe::Arc;

type Hub = Router<u64, u64, LaneKey>;
type Trash = _core::core::Trash<u64, u64, LaneKey>;
type Subscription = _core::core::subscription::Subscription<u64>;

const LANE: LaneKey = 0;
const LIMIT: u32 = 10_000;
/// Messages that are published before anybody takes them.
const BURST: u64 = 1_000;
const CROWD: u64 = 100_000;
const TOPICS: u64 = 1_000_000;

fn session(number: u64) -> Vec<u8> {
    format!("session-{number}").into_bytes()
}

fn topic(number: u64) -> Vec<u8> {
    format!("topic-{number}").into_bytes()
}

/// Goes to another place in a list, far away: in the end to all of them, once each, as long as the
/// list's length has no prime factors but 2 and 5.
fn leap(place: &mut usize, length: usize) -> usize {
    *place = (*place + 61_803) % length;
    *place
}

/// A handler that is a number; the router cannot tell it from others.
fn listener(handler: u64) -> Listener<u64> {
    Listener {
        handler,
        digest: 0,
        overlaps: false,
    }
}

fn hub() -> Hub {
    let mut hub = Router::new(LIMIT, OverflowPolicy::DropOldest);
    hub.add_lane(true, 1, |lane| lane);
    hub
}

fn audience(size: u64) -> Hub {
    let mut hub = hub();
    for number in 0..size {
        hub.subscribe(&session(number), None, LANE, listener(number));
    }
    hub
}

/// Takes every message out of the log and adds up the handlers that get them.
fn deliver(hub: &mut Hub, trash: &mut Trash) -> u64 {
    let mut sum = 0;
    while let Some(fanout) = hub.next_fanout(LANE, trash) {
        while let Some(subscription) = fanout.take_next() {
            sum += subscription.handler;
        }
    }
    sum
}

/// The time of `count` sends in bursts; nobody's walk over the subscribers is in it.
fn timed_sends(hub: &mut Hub, count: u64) -> Duration {
    let (mut trash, mut took, mut left) = (Trash::default(), Duration::ZERO, count);
    while left > 0 {
        let burst = left.min(BURST);
        let start = Instant::now();
        for message in 0..burst {
            black_box(hub.publish(None, Audience::Everyone, || message, &mut trash));
        }
        took += start.elapsed();
        while hub.next_fanout(LANE, &mut trash).is_some() {}
        left -= burst;
    }
    took
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for size in [0, 1, 10_000] {
        let mut hub = audience(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_custom(|count| timed_sends(&mut hub, count));
        });
    }
    group.finish();
}

fn walk(criterion: &mut Criterion) {
    let size = 10_000;
    let (mut hub, mut trash) = (audience(size), Trash::default());
    criterion.bench_function("publish and walk/10000", |bencher| {
        bencher.iter(|| {
            hub.publish(None, Audience::Everyone, || 0, &mut trash);
            assert_eq!(deliver(&mut hub, &mut trash), size * (size - 1) / 2);
        });
    });
}

/// Somebody comes and goes, or goes and comes back, while very many others stay.
fn churn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("among 100000");
    let (mut hub, mut place) = (audience(CROWD), 0);
    group.bench_function("the newest comes and goes", |bencher| {
        bencher.iter(|| {
            let mut trash = Trash::default();
            black_box(hub.subscribe(b"newcomer", None, LANE, listener(0)));
            hub.unsubscribe(b"newcomer", &Scope::All, &mut trash);
        });
    });
    let sessions: Vec<_> = (0..CROWD).map(session).collect();
    group.bench_function("anybody goes and comes back", |bencher| {
        bencher.iter(|| {
            let mut trash = Trash::default();
            let session = &sessions[leap(&mut place, sessions.len())];
            hub.unsubscribe(session, &Scope::All, &mut trash);
            black_box(hub.subscribe(session, None, LANE, listener(0)));
        });
    });
    assert_eq!(hub.sizes().subscriptions as u64, CROWD);
    group.finish();
}

/// A message of a subscriber's, as its deliverer has it in hand.
fn taken(hub: &mut Hub) -> Option<(Arc<Subscription>, Arc<Envelope<u64>>)> {
    let mut trash = Trash::default();
    hub.publish(None, Audience::Everyone, || 0, &mut trash);
    let fanout = hub.next_fanout(LANE, &mut trash)?;
    let found = fanout.take_next().cloned()?;
    Some((found, fanout.envelope.clone()))
}

fn park(criterion: &mut Criterion) {
    let (mut hub, mut trash) = (audience(1), Trash::default());
    let Some((subscription, envelope)) = taken(&mut hub) else {
        panic!("the only subscriber did not get the message");
    };
    hub.enter(&subscription);
    criterion.bench_function("park and unpark", |bencher| {
        bencher.iter(|| {
            black_box(hub.park(&subscription, &envelope, &mut trash));
            let message = hub.unpark(&subscription, Some(&envelope), &mut trash);
            assert!(message.is_some());
        });
    });
}

fn topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup among 1000000 topics");
    let names: Vec<_> = (0..TOPICS).map(topic).collect();
    let (mut hub, mut place) = (hub(), 0);
    for name in &names {
        hub.subscribe(b"listener", Some(name), LANE, listener(0));
    }
    group.bench_function("heard", |bencher| {
        bencher.iter(|| {
            let name = &names[leap(&mut place, names.len())];
            assert_eq!(hub.registry().groups_on(Some(black_box(name))).len(), 1);
        });
    });
    let mut trash = Trash::default();
    group.bench_function("publish, unheard", |bencher| {
        bencher.iter(|| {
            black_box(
                hub.publish(Some(b"nowhere"), Audience::Everyone, || 0, &mut trash)
                    .len(),
            )
        });
    });
    group.finish();
}

criterion_group!(core, publish, walk, churn, park, topics);
criterion_main!(core);
