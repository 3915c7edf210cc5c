//! Which server of a cluster has a channel.

use _core::cluster::slots::{Slots, slot_of};
use redis::{ConnectionInfo, IntoConnectionInfo, Value};

fn at(port: u16) -> ConnectionInfo {
    let url = format!("redis://127.0.0.1:{port}");
    let info = url.as_str().into_connection_info();
    info.unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn server(host: &str, port: i64) -> Value {
    let host = match host {
        "" => Value::Nil,
        host => Value::BulkString(host.into()),
    };
    Value::Array(vec![
        host,
        Value::Int(port),
        Value::BulkString("identity".into()),
        Value::Array(vec![]),
    ])
}

fn range(first: i64, last: i64, servers: &[Value]) -> Value {
    let mut range = vec![Value::Int(first), Value::Int(last)];
    range.extend_from_slice(servers);
    Value::Array(range)
}

fn addresses(servers: &[ConnectionInfo]) -> Vec<String> {
    let addresses = servers.iter().map(|server| server.addr().to_string());
    addresses.collect()
}

#[test]
fn a_name_has_the_slot_of_its_hash_tag() {
    // As the servers' own documentation has it.
    assert_eq!(slot_of(b"123456789"), 0x31c3);
    assert_eq!(slot_of(b"foo{123456789}bar}"), 0x31c3);
    // A tag without anything in it is none.
    assert_ne!(slot_of(b"{}{123456789}"), 0x31c3);
}

#[test]
fn each_channel_has_the_server_of_its_slot() {
    let answer = Value::Array(vec![
        range(0, 0x31c2, &[server("10.0.0.1", 7000)]),
        range(
            0x31c3,
            16383,
            &[server("10.0.0.2", 7001), server("10.0.0.3", 7002)],
        ),
    ]);
    let slots = Slots::read(answer, &at(1));

    let found = slots.server_of(b"123456789").map(ConnectionInfo::addr);
    assert_eq!(
        found.map(ToString::to_string),
        Some("10.0.0.2:7001".to_owned())
    );
    let all = ["10.0.0.1:7000", "10.0.0.2:7001", "10.0.0.3:7002"];
    assert_eq!(addresses(slots.servers()), all);
}

#[test]
fn a_server_that_does_not_know_its_name_is_where_it_was_asked() {
    let answer = Value::Array(vec![
        range(0, 100, &[server("", 7000)]),
        range(101, 200, &[server("?", 7001)]),
    ]);
    let slots = Slots::read(answer, &at(1));

    assert_eq!(addresses(slots.servers()), ["127.0.0.1:7000"]);
}

#[test]
fn nonsense_is_no_server() {
    for nonsense in [
        Value::Nil,
        Value::Int(7),
        Value::Array(vec![Value::Nil, Value::Array(vec![])]),
        Value::Array(vec![range(0, 1 << 40, &[server("here", 1)])]),
        Value::Array(vec![range(0, 1, &[server("here", 1 << 40)])]),
        Value::Array(vec![range(0, 1, &[Value::Nil])]),
    ] {
        assert!(Slots::read(nonsense, &at(1)).servers().is_empty());
    }
}
