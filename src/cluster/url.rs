//! What a link's URL says: where the servers are, and how they stand to each other.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// What a URL says.
pub struct Place {
    /// How the servers stand to each other.
    pub topology: Topology,
    /// What is asked of them.
    pub options: Options,
}

/// What is asked of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Replicas that must have an entry before it counts as published.
    pub replicas: usize,
    /// Entries that are kept of each channel, at least.
    pub entries: u64,
    /// Seconds for which they are kept after the last one.
    pub seconds: u64,
}

/// How servers stand to each other.
pub enum Topology {
    /// There is one.
    Server(ConnectionInfo),
    /// Sentinels know which of them takes writes.
    Sentinels {
        /// Where they are.
        sentinels: Vec<ConnectionInfo>,
        /// What they call those servers.
        service: String,
        /// How those are talked to; where they are, is asked.
        server: ConnectionInfo,
    },
    /// Each has some of the channels.
    Cluster(Vec<ConnectionInfo>),
}

const SENTINEL_OPTIONS: [&str; 2] = ["sentinel_username", "sentinel_password"];

/// A URL, in parts.
struct Parts<'a> {
    scheme: &'a str,
    user: &'a str,
    hosts: Vec<&'a str>,
    path: Vec<&'a str>,
    query: Vec<(String, String)>,
    fragment: &'a str,
}

impl Place {
    /// What a URL says; the error says what is wrong with it.
    pub fn of(url: &str) -> Result<Self, String> {
        let Some((scheme, kind)) = url
            .split_once("://")
            .and_then(|(scheme, _)| scheme.split_once('+'))
            .filter(|(_, kind)| matches!(*kind, "sentinel" | "cluster"))
        else {
            return Self::of_server(url);
        };
        if !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
            return Err(format!("{scheme}+{kind} is no scheme that is known"));
        }
        let mut parts = Parts::of(url)?;
        parts.scheme = scheme;
        let options = Options::taken_from(&mut parts.query)?;
        let topology = match kind {
            "sentinel" => parts.sentinels()?,
            _ => parts.cluster()?,
        };
        match parts.query.first() {
            // Its name may be a part of a password.
            Some(_) => Err(format!(
                "it has an option that is not known; there are {} (and a ? in a password is %3F)",
                Options::known(kind).join(", ")
            )),
            None => Ok(Self { topology, options }),
        }
    }

    /// Everything but our own options is left to the client.
    fn of_server(url: &str) -> Result<Self, String> {
        let (url, fragment) = split(url, '#');
        let (address, query) = split(url, '?');
        let (ours, others): (Vec<_>, Vec<_>) = query
            .split('&')
            .filter(|option| !option.is_empty())
            .partition(|option| Options::NAMES.contains(&split(option, '=').0));
        let url = format!("{address}?{}", others.join("&"));
        let url = join(&url, '#', fragment);
        let mut query = pairs(&ours.join("&"));
        Ok(Self {
            options: Options::taken_from(&mut query)?,
            topology: Topology::Server(info(url.trim_end_matches('?'))?),
        })
    }
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Result<Self, String> {
        let (url, fragment) = split(url, '#');
        let (url, query) = split(url, '?');
        let (scheme, rest) = url.split_once("://").ok_or("it is no URL")?;
        let (authority, path) = split(rest, '/');
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        Ok(Self {
            scheme,
            user,
            hosts: hosts.split(',').collect(),
            path: path.split('/').filter(|part| !part.is_empty()).collect(),
            query: pairs(query),
            fragment,
        })
    }

    /// A server, as if there were no other.
    fn one(&self, host: &str, port: u16, database: &str) -> Result<ConnectionInfo, String> {
        if host.is_empty() {
            return Err("a host is missing".to_owned());
        }
        // Colons in brackets are an address's own.
        let name_end = host.rfind(']').map_or(0, |end| end + 1);
        let host = if host[name_end..].contains(':') {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let user = match self.user {
            "" => String::new(),
            user => format!("{user}@"),
        };
        let url = format!("{}://{user}{host}/{database}", self.scheme);
        info(&join(&url, '#', self.fragment))
    }

    fn sentinels(&mut self) -> Result<Topology, String> {
        let (service, database) = match self.path[..] {
            [service] => (service, "0"),
            [service, database] => (service, database),
            _ => return Err("after the sentinels comes /SERVICE or /SERVICE/DATABASE".to_owned()),
        };
        // What they ask for is not what the servers ask for.
        let [user, password] = SENTINEL_OPTIONS.map(|name| take(&mut self.query, name));
        let sentinel = |host: &&str| {
            let one = self.one(host, 26379, "0")?;
            let settings = redis::RedisConnectionInfo::default();
            let settings = match &user {
                Some(user) => settings.set_username(user),
                None => settings,
            };
            let settings = match &password {
                Some(password) => settings.set_password(password),
                None => settings,
            };
            Ok::<_, String>(one.set_redis_settings(settings))
        };
        Ok(Topology::Sentinels {
            sentinels: self.hosts.iter().map(sentinel).collect::<Result<_, _>>()?,
            service: service.to_owned(),
            server: self.one(self.hosts[0], 6379, database)?,
        })
    }

    fn cluster(&self) -> Result<Topology, String> {
        if !matches!(self.path[..], [] | ["0"]) {
            return Err("a cluster has no database but 0".to_owned());
        }
        let nodes = self.hosts.iter().map(|host| self.one(host, 6379, "0"));
        Ok(Topology::Cluster(nodes.collect::<Result<_, _>>()?))
    }
}

impl Options {
    const NAMES: [&str; 3] = ["wait_replicas", "log_entries", "log_seconds"];

    fn known(kind: &str) -> Vec<&'static str> {
        let of_sentinels = match kind {
            "sentinel" => &SENTINEL_OPTIONS[..],
            _ => &[],
        };
        [of_sentinels, &Self::NAMES].concat()
    }

    fn taken_from(query: &mut Vec<(String, String)>) -> Result<Self, String> {
        let [replicas, entries, seconds] = Self::NAMES;
        Ok(Self {
            replicas: take_number(query, replicas, 0)?.unwrap_or(0),
            entries: take_number(query, entries, 1)?.unwrap_or(1000),
            seconds: take_number(query, seconds, 1)?.unwrap_or(3600),
        })
    }
}

/// The same server, somewhere else.
pub fn at(server: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let address = match server.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    };
    server.clone().set_addr(address)
}

/// The name or address of the host a server is on.
pub fn host(server: &ConnectionInfo) -> &str {
    match server.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
        _ => "",
    }
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info().map_err(|error| {
        let (text, detail) = (error.to_string(), error.detail().unwrap_or_default());
        // What stands in the URL is nobody's business.
        text.trim_end_matches(detail)
            .trim_end_matches(": ")
            .to_owned()
    })
}

fn take(query: &mut Vec<(String, String)>, name: &str) -> Option<String> {
    let place = query.iter().position(|(found, _)| found == name)?;
    Some(query.remove(place).1)
}

/// A number that is no less than `least`, and small enough to be counted with.
fn take_number<T: TryFrom<u32>>(
    query: &mut Vec<(String, String)>,
    name: &str,
    least: u32,
) -> Result<Option<T>, String> {
    let Some(text) = take(query, name) else {
        return Ok(None);
    };
    let number = text.parse().ok().filter(|number| *number >= least);
    let number = number.and_then(|number: u32| number.try_into().ok());
    let wrong = || format!("{name} must be a number from {least} on");
    number.ok_or_else(wrong).map(Some)
}

fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

fn split(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

fn join(text: &str, by: char, more: &str) -> String {
    match more {
        "" => text.to_owned(),
        more => format!("{text}{by}{more}"),
    }
}
