//! Whether a connection to a server lives.

use _core::cluster::redis::life::{Ending, Pulse};
use redis::RedisError;

#[test]
fn a_connection_lives_for_as_long_as_something_comes_however_late() {
    let pulse = Pulse::default();
    for _ in 0..100 {
        for _ in 0..3 {
            pulse.miss();
        }
        assert!(!pulse.is_dead());
        pulse.sign();
    }
}

#[test]
fn a_connection_on_which_nothing_comes_any_more_is_dead() {
    let pulse = Pulse::default();
    pulse.sign();
    for _ in 0..4 {
        assert!(!pulse.is_dead());
        pulse.miss();
    }
    assert!(pulse.is_dead());
}

#[tokio::test]
async fn what_is_asked_on_a_connection_that_is_given_up_fails() {
    let ending = Ending::default();
    let unanswered = ending.or(std::future::pending::<Result<(), RedisError>>());
    let (failed, ()) = tokio::join!(unanswered, async { ending.end() });
    assert!(failed.is_err());

    let late = ending.or(std::future::pending::<Result<(), RedisError>>());
    assert!(late.await.is_err());
}
