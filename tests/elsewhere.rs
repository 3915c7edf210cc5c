//! Who is on a topic on other hubs too: whoever replays the records knows who is there.

use std::collections::{BTreeMap, BTreeSet};

use _core::core::Name;
use _core::core::backlog::OverflowPolicy::DropOldest;
use _core::core::elsewhere::{Host, Membership};
use _core::core::interest::Channel;
use _core::core::presence::{Presence, Said};
use _core::core::registry::Scope;
use _core::core::router::Router;
use _core::core::router::elsewhere::Told;
use _core::core::subscription::Listener;
use proptest::prelude::*;
use triomphe::Arc;

/// What a session says of itself, or a notice of changes.
enum Says {
    Text(u64),
    Notice(Arc<Presence<Says>>),
}

impl Says {
    /// The changes that it tells of.
    fn presence(&self) -> Option<&Arc<Presence<Self>>> {
        match self {
            Self::Text(_) => None,
            Self::Notice(presence) => Some(presence),
        }
    }
}

type Tested = Router<u8, Says, u32>;
type Trash = _core::core::Trash<u8, Says, u32>;

const ROOM: &[u8] = b"room";
const TELLING: u32 = 0;
const TOLD: u32 = 1;

fn router() -> Tested {
    let mut router = Router::new(10, DropOldest);
    for _ in [TELLING, TOLD] {
        router.add_lane(true, 1, |lane| lane);
    }
    router.make_notices(Says::Notice, Says::presence);
    router.note_interest();
    router.share_presence();
    router
}

fn listener() -> Listener<u8> {
    Listener {
        handler: 0,
        digest: 0,
        overlaps: false,
    }
}

fn host(node: u8) -> Host {
    Host {
        node: [node; 16],
        turn: 1,
    }
}

fn said(when: u64) -> Arc<Said<Says>> {
    Arc::new(Said {
        says: Says::Text(when),
        when,
        encoded: Some(Name::from(when.to_string().as_bytes())),
    })
}

/// Sessions, and when they said what they say of themselves.
type Room = BTreeMap<Vec<u8>, Option<u64>>;

fn room(router: &Tested) -> Room {
    let members = router.registry().members(ROOM);
    assert_eq!(members.len(), router.registry().count_on(ROOM));
    let when = |said: &Option<Arc<Said<Says>>>| said.as_ref().map(|said| said.when);
    members
        .iter()
        .map(|member| (member.owner.id().to_vec(), when(&member.identity)))
        .collect()
}

/// Takes the records that wait, and returns how many sessions they name.
fn replay(router: &mut Tested, there: &mut Room) -> usize {
    let mut named = 0;
    while let Some(fanout) = router.next_fanout(TOLD, &mut Trash::default()) {
        let Says::Notice(presence) = &fanout.envelope.message else {
            panic!("nothing else is sent");
        };
        let (joined, left) = presence.joined_and_left();
        named += joined.len() + left.len();
        for member in left {
            let was_there = there.remove(member.owner.id());
            assert!(was_there.is_some(), "who was not there has left");
        }
        for member in joined {
            let when = member.identity.as_ref().map(|said| {
                let Says::Text(when) = said.says else {
                    panic!("it is no notice");
                };
                when
            });
            there.insert(member.owner.id().to_vec(), when);
        }
    }
    drop(router.aftermath());
    named
}

/// How it is with a session elsewhere.
enum Is {
    /// There, and when it said what it says, if anything.
    There(Option<u64>),
    Gone,
}
use Is::{Gone, There};

fn tell(router: &mut Tested, node: u8, session: &[u8], is: Is) {
    let told = Told {
        host: host(node),
        session: session.to_vec(),
        says: match is {
            There(when) => Some(when.map(said)),
            Gone => None,
        },
    };
    router.take_told(ROOM, vec![told]);
}

fn watched() -> (Tested, Room) {
    let mut router = router();
    router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
    router.begin_count(ROOM);
    router.end_count(ROOM);
    let mut there = Room::new();
    replay(&mut router, &mut there);
    (router, there)
}

#[test]
fn a_session_on_two_hubs_joins_with_the_first_and_leaves_with_the_last() {
    let (mut router, mut there) = watched();
    tell(&mut router, 1, b"ann", There(None));
    assert_eq!(replay(&mut router, &mut there), 1);
    tell(&mut router, 2, b"ann", There(None));
    router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    tell(&mut router, 1, b"ann", Gone);
    router.unsubscribe(b"ann", &Scope::All, &mut Trash::default());
    assert_eq!(
        replay(&mut router, &mut there),
        0,
        "nothing of that is told"
    );
    tell(&mut router, 2, b"ann", Gone);
    assert_eq!(replay(&mut router, &mut there), 1);
    assert_eq!(there, Room::new());
}

#[test]
fn what_a_session_said_last_on_any_hub_counts() {
    let (mut router, mut there) = watched();
    router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    router.identify(b"ann", said(5));
    tell(&mut router, 1, b"ann", There(Some(3)));
    tell(&mut router, 2, b"ann", There(None));
    replay(&mut router, &mut there);
    assert_eq!(there, Room::from([(b"ann".to_vec(), Some(5))]));
    tell(&mut router, 1, b"ann", There(Some(7)));
    replay(&mut router, &mut there);
    assert_eq!(there, Room::from([(b"ann".to_vec(), Some(7))]));
    tell(&mut router, 1, b"ann", Gone);
    replay(&mut router, &mut there);
    assert_eq!(there, Room::from([(b"ann".to_vec(), Some(5))]));
}

#[test]
fn a_topic_that_nobody_here_is_on_or_watches_is_not_followed() {
    let mut router = router();
    tell(&mut router, 1, b"ann", There(None));
    router.begin_count(ROOM);
    tell(&mut router, 1, b"ann", There(None));
    assert_eq!(room(&router), Room::new());
    let here = router.subscribe(b"bob", Some(ROOM), TELLING, listener());
    tell(&mut router, 1, b"ann", There(None));
    assert_eq!(room(&router).len(), 1, "nobody has counted them yet");
    router.begin_count(ROOM);
    tell(&mut router, 1, b"ann", There(None));
    router.end_count(ROOM);
    assert_eq!(room(&router).len(), 2);
    assert_eq!(router.registry().topics().count(), 1);
    router.cancel(&here, &mut Trash::default());
    assert_eq!(room(&router), Room::new());
    assert_eq!(router.registry().identities().count(), 0);
    assert_eq!(router.registry().everybody().len(), 0);
}

#[test]
fn a_topic_is_followed_while_somebody_here_is_on_it_or_watches_it() {
    let mut router = router();
    let mut trash = Trash::default();
    let followed = |router: &mut Tested| {
        let noted = router.take_interest().into_iter();
        let followed = noted.filter(|(channel, _)| matches!(channel, Channel::Presence(_)));
        followed
            .map(|(_, is_followed)| is_followed)
            .collect::<Vec<_>>()
    };
    let first = router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    assert_eq!(followed(&mut router), [true]);
    let second = router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    let (early, _) = router.subscribe_presence(b"bob", ROOM, TOLD, listener());
    let (late, _) = router.subscribe_presence(b"bob", ROOM, TOLD, listener());
    router.subscribe(b"bob", None, TELLING, listener());
    for subscription in [first, second, early] {
        router.cancel(&subscription, &mut trash);
    }
    let room = Channel::Presence(Name::from(ROOM));
    assert!(router.registry().channels().contains(&room));
    assert!(followed(&mut router).is_empty());
    router.cancel(&late, &mut trash);
    assert_eq!(followed(&mut router), [false]);
    assert!(!router.registry().channels().contains(&room));
}

#[test]
fn what_others_are_to_know_is_noted_in_order_and_known_again_after_a_fork() {
    let mut router = router();
    let mut trash = Trash::default();
    router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    router.subscribe(b"ann", Some(b"hall"), TELLING, listener());
    router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    router.subscribe(b"ann", None, TELLING, listener());
    router.subscribe_presence(b"ann", ROOM, TOLD, listener());
    router.identify(b"ann", said(5));
    router.unsubscribe(b"ann", &Scope::Topic(ROOM), &mut trash);
    let told = |noted: Vec<Membership>| {
        let told = noted.into_iter().map(|membership| {
            let when = membership.says.map(|saying| saying.when);
            (
                String::from_utf8_lossy(&membership.topic).into_owned(),
                when,
            )
        });
        told.collect::<Vec<_>>()
    };
    let named = |topic: &str, when| (topic.to_owned(), when);
    let expected = [
        named("room", Some(0)),
        named("hall", Some(0)),
        named("room", Some(5)),
        named("hall", Some(5)),
        named("room", None),
    ];
    assert_eq!(told(router.take_memberships()), expected);
    assert!(router.take_memberships().is_empty());
    let left = [named("hall", Some(5))];
    assert_eq!(told(router.registry().memberships()), left);
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    Say(u8),
    Put(u8, u8, bool),
    Remove(u8, u8),
    Die(u8),
    /// Everybody is counted again; some changes were missed before.
    Count(Vec<(u8, u8)>),
    Replay,
}

fn step() -> impl Strategy<Value = Step> {
    let (session, node) = (0..5_u8, 1..4_u8);
    prop_oneof![
        3 => session.clone().prop_map(Step::Join),
        3 => session.clone().prop_map(Step::Leave),
        2 => session.clone().prop_map(Step::Say),
        5 => (node.clone(), session.clone(), any::<bool>())
            .prop_map(|(node, session, says)| Step::Put(node, session, says)),
        4 => (node.clone(), session.clone()).prop_map(|(node, session)| Step::Remove(node, session)),
        1 => node.clone().prop_map(Step::Die),
        1 => prop::collection::vec((node, session), 0..8).prop_map(Step::Count),
        3 => Just(Step::Replay),
    ]
}

/// The same, as plain tables.
#[derive(Default)]
struct Model {
    here: BTreeMap<u8, Option<u64>>,
    elsewhere: BTreeMap<(u8, u8), Option<u64>>,
}

impl Model {
    fn room(&self) -> Room {
        let mut room = Room::new();
        let elsewhere = self
            .elsewhere
            .iter()
            .map(|(&(_, session), when)| (session, when));
        let here = self.here.iter().map(|(&session, when)| (session, when));
        for (session, when) in here.chain(elsewhere) {
            let known = room.entry(vec![session]).or_insert(None);
            *known = (*known).max(*when);
        }
        room
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn who_replays_the_records_knows_who_is_there(steps in prop::collection::vec(step(), 1..60)) {
        let (mut router, mut there) = watched();
        let (mut model, mut clock) = (Model::default(), 0);
        for step in steps {
            clock += 1;
            match step {
                Step::Join(session) => {
                    router.subscribe(&[session], Some(ROOM), TELLING, listener());
                    model.here.entry(session).or_insert(None);
                }
                Step::Leave(session) => {
                    router.unsubscribe(&[session], &Scope::All, &mut Trash::default());
                    model.here.remove(&session);
                }
                Step::Say(session) => {
                    router.identify(&[session], said(clock));
                    model.here.entry(session).and_modify(|when| *when = Some(clock));
                }
                Step::Put(node, session, says) => {
                    let when = says.then_some(clock);
                    tell(&mut router, node, &[session], There(when));
                    model.elsewhere.insert((node, session), when);
                }
                Step::Remove(node, session) => {
                    tell(&mut router, node, &[session], Gone);
                    model.elsewhere.remove(&(node, session));
                }
                Step::Die(node) => {
                    for topic in router.followed_topics() {
                        router.lose_host(topic, host(node));
                    }
                    model.elsewhere.retain(|(of, _), _| *of != node);
                }
                Step::Count(counted) => {
                    let counted: BTreeSet<_> = counted.into_iter().collect();
                    router.begin_count(ROOM);
                    for &(node, session) in &counted {
                        tell(&mut router, node, &[session], There(Some(clock)));
                    }
                    router.end_count(ROOM);
                    model.elsewhere = counted.into_iter().map(|at| (at, Some(clock))).collect();
                }
                Step::Replay => {
                    replay(&mut router, &mut there);
                    prop_assert_eq!(&there, &room(&router));
                }
            }
            prop_assert_eq!(room(&router), model.room());
        }
        replay(&mut router, &mut there);
        prop_assert_eq!(&there, &model.room());
    }
}
