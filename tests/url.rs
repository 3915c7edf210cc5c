//! What a link's URL says.

use _core::cluster::url::{Options, Place, Topology};
use redis::{ConnectionAddr, ConnectionInfo};

fn addresses(servers: &[ConnectionInfo]) -> Vec<String> {
    let addresses = servers.iter().map(|server| server.addr().to_string());
    addresses.collect()
}

fn place(url: &str) -> Place {
    Place::of(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

#[test]
fn one_server_is_said_as_everywhere() {
    let url = "redis://ann:secret@host:7000/3\
               ?wait_replicas=2&protocol=resp3&log_entries=5&log_seconds=7";
    let place = place(url);
    let Topology::Server(server) = place.topology else {
        panic!("it is one server");
    };
    assert_eq!(server.addr().to_string(), "host:7000");
    assert_eq!(server.redis_settings().db(), 3);
    assert_eq!(server.redis_settings().password(), Some("secret"));
    let options = Options {
        replicas: 2,
        entries: 5,
        seconds: 7,
    };
    assert_eq!(place.options, options);
}

#[test]
fn what_is_not_ours_in_the_url_of_one_server_is_left_as_it_is() {
    let place = place("rediss://host/?a%20b=c#insecure");
    let Topology::Server(server) = place.topology else {
        panic!("it is one server");
    };
    let is_insecure = matches!(server.addr(), ConnectionAddr::TcpTls { insecure: true, .. });
    assert!(is_insecure);
    let options = Options {
        replicas: 0,
        entries: 1000,
        seconds: 3600,
    };
    assert_eq!(place.options, options);
}

#[test]
fn sentinels_have_users_of_their_own() {
    let url = "redis+sentinel://chat:a%40b@one,two:7000,[::1],[::2]:7001/main/3\
               ?sentinel_username=watch&sentinel_password=c%26d&wait_replicas=1";
    let place = place(url);
    let Topology::Sentinels {
        sentinels,
        service,
        server,
    } = place.topology
    else {
        panic!("they are sentinels");
    };
    let all = ["one:26379", "two:7000", "::1:26379", "::2:7001"];
    assert_eq!(addresses(&sentinels), all);
    assert_eq!(service, "main");
    for sentinel in &sentinels {
        assert_eq!(sentinel.redis_settings().username(), Some("watch"));
        assert_eq!(sentinel.redis_settings().password(), Some("c&d"));
        assert_eq!(sentinel.redis_settings().db(), 0);
    }
    assert_eq!(server.redis_settings().username(), Some("chat"));
    assert_eq!(server.redis_settings().password(), Some("a@b"));
    assert_eq!(server.redis_settings().db(), 3);
    assert_eq!(place.options.replicas, 1);
}

#[test]
fn the_nodes_of_a_cluster_are_listed() {
    let place = place("rediss+cluster://chat:secret@one,two:7001/0");
    let Topology::Cluster(nodes) = place.topology else {
        panic!("it is a cluster");
    };
    assert_eq!(addresses(&nodes), ["one:6379", "two:7001"]);
    for node in &nodes {
        assert!(matches!(node.addr(), ConnectionAddr::TcpTls { .. }));
        assert_eq!(node.redis_settings().password(), Some("secret"));
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (url, reason) in [
        ("nowhere", "did not parse"),
        ("http://host", "did not parse"),
        ("http+sentinel://host/main", "http+sentinel is no scheme"),
        ("redis+sentinel://host", "/SERVICE"),
        ("redis+sentinel://host/main/0/1", "/SERVICE"),
        ("redis+sentinel://host/main/first", "database"),
        ("redis+sentinel://one,,two/main", "a host is missing"),
        ("redis+sentinel:///main", "a host is missing"),
        (
            "redis+sentinel://host/main?password=x",
            "not known; there are sentinel_username, sentinel_password, wait_replicas, log_entries",
        ),
        (
            "redis+cluster://host?sentinel_password=x",
            "not known; there are wait_replicas, log_entries, log_seconds",
        ),
        ("redis+cluster://host/1", "no database but 0"),
        ("redis+cluster://host:port", ""),
        (
            "redis+cluster://host?wait_replicas=all",
            "wait_replicas must be",
        ),
        ("redis://host?wait_replicas=-1", "wait_replicas must be"),
        ("redis://host?log_entries=0", "log_entries must be"),
        ("redis://host?log_seconds=1.5", "log_seconds must be"),
    ] {
        let error = Place::of(url).err();
        let error = error.unwrap_or_else(|| panic!("{url} is taken"));
        assert!(error.contains(reason), "{url}: {error}");
    }
}

#[test]
fn what_is_wrong_is_said_without_the_password() {
    for url in [
        "redis+cluster://chat:se?CRET@host",
        "redis+cluster://chat:se?CRET=1&secret@host",
        "redis+sentinel://chat:se?CRET@host/main",
        "redis+sentinel://chat:se/CRET@host/main",
        "redis+sentinel://chat:se#CRET@host/main",
        "redis://chat:se?CRET@host",
        "redis://chat:se?wait_replicas=CRET@host",
        "redis://chat:1?protocol=CRET@host",
        "redis://chat:se/CRET@host",
        "redis://chat:se#CRET@host",
    ] {
        let error = Place::of(url).err();
        let error = error.unwrap_or_else(|| panic!("{url} is taken"));
        assert!(!error.contains("CRET"), "{url}: {error}");
    }
}
