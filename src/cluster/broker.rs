//! The broker that a link's URL names, whatever it is.

use std::sync::Arc;

use super::engine::Engine;
use super::node::{Handle, Listener, News, Node, State};
use super::redis::{PLAIN, Redis, SHARDED, Terms};
use super::sentinel::Watched;
use super::sharded::Sharded;
use super::url::{Place, Topology};
use super::wire::Publisher;

/// A broker that a node may work with.
pub enum Broker {
    /// One server.
    Redis(Box<Redis>),
    /// Servers that sentinels watch.
    Watched(Watched),
    /// A cluster.
    Sharded(Sharded),
}

impl Broker {
    /// That at a URL; the error says what is wrong with it.
    pub fn new(url: &str, namespace: &str, publisher: &Publisher) -> Result<Self, String> {
        let Place { topology, options } = Place::of(url)?;
        let terms = |words, database| Terms::new(words, (namespace, publisher), database, options);
        Ok(match topology {
            Topology::Server(server) => {
                let terms = Arc::new(terms(PLAIN, server.redis_settings().db()));
                Self::Redis(Box::new(Redis { server, terms }))
            }
            Topology::Sentinels {
                sentinels,
                service,
                server,
            } => {
                let terms = terms(PLAIN, server.redis_settings().db());
                Self::Watched(Watched::new(sentinels, service, server, terms))
            }
            Topology::Cluster(seeds) => Self::Sharded(Sharded::new(seeds, terms(SHARDED, 0))),
        })
    }

    /// Serves a hub until it is closed.
    pub fn serve<L: Listener>(self, listener: Arc<L>, handle: Arc<Handle>) {
        let _ended = Ended {
            listener: listener.clone(),
            handle: handle.clone(),
        };
        match self {
            Self::Redis(engine) => serve(Node::new(*engine, listener, handle)),
            Self::Watched(engine) => serve(Node::new(engine, listener, handle)),
            Self::Sharded(engine) => serve(Node::new(engine, listener, handle)),
        }
    }
}

/// Dropped when a node's thread ends, however that comes.
struct Ended<L: Listener> {
    listener: Arc<L>,
    handle: Arc<Handle>,
}

impl<L: Listener> Drop for Ended<L> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.handle.end();
            let reason = "a fault of its own".to_owned();
            self.listener.take(News::State(State::Disconnected(reason)));
            self.listener.take(News::State(State::Closed));
        }
    }
}

fn serve<E: Engine, L: Listener>(node: Node<E, L>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(node.run()),
        Err(error) => node.fail(&error.to_string()),
    }
}
