//! What a server's errors mean for a request.

use _core::cluster::engine::Failure;
use _core::cluster::redis::failure;
use redis::{Value, parse_redis_value};

/// What a server answers, as the client reads it.
fn answered(error: &str) -> Failure {
    let value = parse_redis_value(format!("-{error}\r\n").as_bytes());
    match value.map(Value::extract_error) {
        Ok(Err(error)) | Err(error) => failure(&error),
        Ok(Ok(value)) => panic!("{error} is no error, but {value:?}"),
    }
}

#[test]
fn what_may_pass_is_tried_again() {
    for error in [
        "OOM command not allowed when used memory > 'maxmemory'. script: 0a, on @user_script:22.",
        "ERR Error running script (call to f_0a): @user_script:22: @user_script: 22: -OOM command \
         not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots, but it is unable to persist on disk.",
        "NOREPLICAS Not enough good replicas to write.",
        "BUSY Redis is busy running a script.",
        "LOADING Redis is loading the dataset in memory",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "MOVED 3999 127.0.0.1:6381",
        "ASK 3999 127.0.0.1:6381",
    ] {
        assert!(matches!(answered(error), Failure::NotNow(_)), "{error}");
    }
}

#[test]
fn a_server_that_has_become_a_replica_is_left() {
    for error in [
        "READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_0a): @user_script:22: @user_script: 22: -READONLY You \
         can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    ] {
        assert!(
            matches!(answered(error), Failure::Disconnected(_)),
            "{error}"
        );
    }
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    for error in [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR Error running script (call to f_0a): @user_script:22: WRONGTYPE Operation against a \
         key holding the wrong kind of value",
        "NOPERM this user has no permissions to run the 'evalsha' command",
    ] {
        assert!(matches!(answered(error), Failure::Refused(_)), "{error}");
    }
}
