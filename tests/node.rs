//! A node with very many channels, against a broker that counts what it is asked for at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use _core::cluster::Channel;
use _core::cluster::engine::{Attendance, Connection, Engine, Failure, Page, Push};
use _core::cluster::members;
use _core::cluster::node::{Handle, Listener, News, Node, Wish};
use _core::cluster::outbox::{Batch, Limits};
use _core::cluster::position::{Answer, Id, Placed, Read};
use _core::core::Name;
use _core::core::elsewhere::Host;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::yield_now;

const CHANNELS: usize = 3000;
/// The hub takes so many bytes at once, and an answer has no more than so many.
const FULL: usize = 16 << 20;
const ANSWER: usize = 512 << 10;

/// How much is under way, and the most that ever was.
#[derive(Default)]
struct Count {
    now: Cell<usize>,
    most: Cell<usize>,
}

impl Count {
    /// Takes a while, in which others begin.
    async fn through(&self, parts: usize) {
        self.now.set(self.now.get() + parts);
        self.most.set(self.most.get().max(self.now.get()));
        for _ in 0..20 {
            yield_now().await;
        }
        self.now.set(self.now.get() - parts);
    }
}

#[derive(Default)]
struct Broker {
    subscribing: Count,
    /// In bytes.
    reading: Count,
    pushes: RefCell<Option<UnboundedSender<Push>>>,
}

#[derive(Clone, Default)]
struct Link(Rc<Broker>);

impl Engine for Link {
    type Connection = Link;

    async fn connect(&self, pushes: UnboundedSender<Push>) -> Result<Link, Failure> {
        self.0.pushes.replace(Some(pushes));
        Ok(self.clone())
    }
}

impl Connection for Link {
    fn lane(&self, _: &Channel) -> usize {
        0
    }

    async fn publish(&self, _: &Batch) -> Result<(), Failure> {
        Ok(())
    }

    async fn subscribe(&self, _: &Channel) -> Result<(), Failure> {
        self.0.subscribing.through(1).await;
        Ok(())
    }

    async fn unsubscribe(&self, _: &Channel) -> Result<(), Failure> {
        self.0.subscribing.through(1).await;
        Ok(())
    }

    /// There is always more.
    async fn read(&self, _: &Channel, read: Read, page: Page) -> Result<Answer<Vec<u8>>, Failure> {
        let bytes = match page {
            Page::Small => 32 << 10,
            Page::Large => ANSWER,
        };
        self.0.reading.through(bytes).await;
        let after = match read {
            Read::Last { .. } => 0,
            Read::From { known, .. } => known.number,
        };
        let place = |number| Id { epoch: 1, number };
        let placed = |number, entry| Placed {
            id: place(number),
            mark: None,
            entry,
        };
        let entries = match read {
            Read::Last { .. } => vec![placed(1, Vec::new())],
            Read::From { .. } => vec![placed(after, Vec::new()), placed(after + 1, vec![0; bytes])],
        };
        Ok(Answer {
            top: Some(place(u64::MAX)),
            entries,
            more: matches!(read, Read::From { .. }),
        })
    }

    async fn beat(&self) -> Result<(), Failure> {
        Ok(())
    }
}

impl Attendance for Link {
    async fn attend(&self, _: Host, _: bool) -> Result<Vec<Host>, Failure> {
        Ok(Vec::new())
    }

    async fn put(&self, _: &members::Batch) -> Result<Option<Id>, Failure> {
        Ok(None)
    }

    async fn members(&self, _: &Name) -> Result<members::Table, Failure> {
        Err(Failure::Refused("nobody asks".to_owned()))
    }
}

/// A hub that is blocked: it wants everything, and takes nothing away.
#[derive(Default)]
struct Hub {
    ready: AtomicUsize,
    bytes: AtomicUsize,
}

impl Listener for Hub {
    fn wants(&self, _: &Channel) -> Option<Wish> {
        Some(Wish { visit: 0, past: 0 })
    }

    fn take(&self, news: News) {
        match news {
            News::Past(..) => drop(self.ready.fetch_add(1, Ordering::Relaxed)),
            News::Entry(_, bytes) => drop(self.bytes.fetch_add(bytes.len(), Ordering::Relaxed)),
            _ => {}
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > FULL
    }
}

/// Lets a node follow many channels, and lose its connection; returns when it has nothing to do.
fn run() -> (Link, Arc<Hub>) {
    let (link, hub) = (Link::default(), Arc::<Hub>::default());
    let limits = Limits {
        messages: 1,
        bytes: 1,
    };
    let handle = Arc::new(Handle::new([0; 16], limits));
    for number in 0..CHANNELS {
        handle.changed(Channel::Topic(number.to_string().as_bytes().into()));
    }
    let node = Node::new(link.clone(), hub.clone(), handle);
    let broker = link.0.clone();
    let rest = async {
        while hub.ready.load(Ordering::Relaxed) < CHANNELS {
            yield_now().await;
        }
        let lost = broker.pushes.borrow_mut().take();
        lost.map(|pushes| pushes.send(Push::Lost));
        while !hub.is_full() || broker.reading.now.get() > 0 || broker.subscribing.now.get() > 0 {
            yield_now().await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::select! {
            () = node.run() => panic!("it ends"),
            () = rest => {}
        }
    });
    (link, hub)
}

#[test]
fn a_broker_is_asked_for_few_of_many_subscriptions_at_a_time() {
    let (link, hub) = run();

    assert_eq!(hub.ready.load(Ordering::Relaxed), CHANNELS);
    assert_eq!(link.0.subscribing.most.get(), 256);
}

#[test]
fn a_hub_that_has_missed_much_on_many_channels_does_not_get_it_all_at_once() {
    let (link, hub) = run();

    let under_way = link.0.reading.most.get();
    assert!(under_way <= 8 * ANSWER, "{under_way}");
    let taken = hub.bytes.load(Ordering::Relaxed);
    assert!(taken <= FULL + 8 * ANSWER, "{taken}");
}
