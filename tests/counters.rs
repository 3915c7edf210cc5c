//! What threads count at the same time.

use std::sync::Barrier;
use std::thread;

use _core::core::counters::Counters;

const THREADS: usize = 8;
const TURNS: usize = 20_000;

/// Runs `turn` many times on each of so many threads at once.
fn at_once(threads: usize, turn: impl Fn() + Sync) {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                start.wait();
                (0..TURNS).for_each(|_| turn());
            });
        }
    });
}

fn expect_exact(threads: usize) {
    let counters = Counters::default();
    at_once(threads, || {
        counters.add_delivered(3);
        counters.add_failed();
        counters.add_dropped(2);
        counters.add_unread();
    });
    let each = (threads * TURNS) as u64;
    assert_eq!(counters.delivered(), 3 * each);
    assert_eq!(counters.failed(), each);
    assert_eq!(counters.dropped(), 2 * each);
    assert_eq!(counters.unread(), threads * TURNS);
}

#[test]
fn what_eight_threads_count_at_once_is_exact() {
    expect_exact(THREADS);
}

#[test]
fn what_more_threads_count_than_there_are_shares_is_exact() {
    expect_exact(5 * THREADS);
}

#[test]
fn threads_at_the_same_time_count_in_different_cache_lines() {
    let counters = Counters::default();
    let own = || std::ptr::from_ref(counters.own()).addr();
    let here = own();
    let other = thread::scope(|scope| scope.spawn(own).join());

    assert_eq!(own(), here);
    assert!(other.is_ok_and(|other| other.abs_diff(here) >= 64));
    assert_eq!(here % 64, 0);
}

#[test]
fn what_one_thread_puts_and_another_reads_is_nothing_in_the_end() {
    let counters = Counters::default();
    at_once(1, || counters.add_unread());
    at_once(THREADS, || {
        counters.add_unread();
        counters.subtract_unread(1);
    });
    at_once(1, || counters.subtract_unread(1));

    assert_eq!(counters.unread(), 0);
}

#[test]
fn fewer_than_no_messages_are_never_told() {
    let counters = Counters::default();
    counters.subtract_unread(1);
    assert_eq!(counters.unread(), 0);

    counters.add_unread();
    counters.add_unread();
    assert_eq!(counters.unread(), 1);
}

#[test]
fn what_nobody_here_will_read_is_forgotten_whoever_counted_it() {
    let counters = Counters::default();
    at_once(THREADS, || counters.add_unread());
    counters.forget_unread();

    assert_eq!(counters.unread(), 0);
}
