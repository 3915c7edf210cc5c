//! Who is on a topic, told as changes: what comes together is told together.

use _core::core::Name;
use _core::core::backlog::OverflowPolicy::DropOldest;
use _core::core::fanout::Audience;
use _core::core::presence::{Member, Notices, Presence, Said};
use _core::core::registry::Scope;
use _core::core::router::Router;
use _core::core::subscription::{Listener, Owner};
use triomphe::Arc;

/// A message, a notice of changes, or what a session says of itself.
enum Says {
    Text(&'static str),
    Notice(Arc<Presence<Says>>),
}

impl Says {
    fn text(&self) -> &'static str {
        match self {
            Self::Text(text) => text,
            Self::Notice(_) => panic!("a notice is no text"),
        }
    }
}

type Tested = Router<u8, Says, u32>;
type Trash = _core::core::Trash<u8, Says, u32>;

const ROOM: &[u8] = b"room";
/// The lane of those who watch, and of those who are watched.
const TELLING: u32 = 0;
const TOLD: u32 = 1;

fn router() -> Tested {
    let mut router = Router::new(10, DropOldest);
    for _ in [TELLING, TOLD] {
        router.add_lane(true, 1, |lane| lane);
    }
    router.make_notices(Says::Notice);
    router
}

fn listener() -> Listener<u8> {
    Listener {
        handler: 0,
        digest: 0,
        overlaps: false,
    }
}

fn says(text: &'static str) -> Arc<Said<Says>> {
    Arc::new(Said {
        says: Says::Text(text),
        when: 0,
        encoded: None,
    })
}

fn owner(id: &[u8]) -> Owner {
    let subscription = router().subscribe(id, None, TELLING, listener());
    subscription.owner.clone()
}

fn member(id: &[u8], text: &'static str) -> Member<Says> {
    Member {
        owner: owner(id),
        identity: Some(says(text)),
    }
}

/// Sessions, and what they say of themselves.
type Told = Vec<(String, Option<&'static str>)>;

fn list(members: &[Member<Says>]) -> Told {
    let told = members.iter().map(|member| {
        let id = String::from_utf8_lossy(member.owner.id()).into_owned();
        (id, member.identity.as_ref().map(|said| said.says.text()))
    });
    told.collect()
}

fn told(presence: &Presence<Says>) -> (Told, Told) {
    let (joined, left) = presence.joined_and_left();
    (list(&joined), list(&left))
}

fn changes() -> Presence<Says> {
    Presence::new(Name::from(ROOM))
}

/// The next record that those who watch get.
fn next(router: &mut Tested) -> Option<(Told, Told)> {
    let fanout = router.next_fanout(TOLD, &mut Trash::default())?;
    match &fanout.envelope.message {
        Says::Notice(presence) => Some(told(presence)),
        Says::Text(_) => panic!("a text is no record"),
    }
}

fn named(id: &str, text: &'static str) -> (String, Option<&'static str>) {
    (id.to_owned(), Some(text))
}

fn unnamed(id: &str) -> (String, Option<&'static str>) {
    (id.to_owned(), None)
}

// ---- changes --------------------------------------------------------------------------------

#[test]
fn who_comes_and_goes_in_between_is_not_told_at_all() {
    let presence = changes();
    assert!(presence.is_empty());
    presence.join(member(b"ann", "Ann"), true);
    assert!(!presence.is_empty());
    presence.leave(member(b"ann", "Ann"));
    assert!(presence.is_empty());
    assert_eq!(told(&presence), (vec![], vec![]));
}

#[test]
fn who_goes_and_comes_back_has_joined_with_what_it_says_now() {
    let presence = changes();
    presence.leave(member(b"ann", "Ann"));
    assert_eq!(told(&presence), (vec![], vec![named("ann", "Ann")]));
    presence.join(member(b"ann", "Anna"), true);
    assert!(!presence.is_empty());
    assert_eq!(told(&presence), (vec![named("ann", "Anna")], vec![]));
}

#[test]
fn who_says_something_else_has_joined_and_still_was_there() {
    let presence = changes();
    presence.join(member(b"ann", "Anna"), false);
    assert_eq!(told(&presence), (vec![named("ann", "Anna")], vec![]));
    presence.leave(member(b"ann", "Anna"));
    assert_eq!(told(&presence), (vec![], vec![named("ann", "Anna")]));
}

#[test]
fn what_a_later_change_replaces_is_given_back() {
    let presence = changes();
    assert!(presence.join(member(b"ann", "Ann"), true).is_none());
    let replaced = presence.join(member(b"ann", "Anna"), false);
    assert_eq!(replaced.map(|said| said.says.text()), Some("Ann"));
    let replaced = presence.leave(member(b"ann", "Anna"));
    assert_eq!(replaced.map(|said| said.says.text()), Some("Anna"));
}

#[test]
fn sessions_are_told_in_the_order_in_which_they_changed_first() {
    let presence = changes();
    for (id, text) in [(b"cid", "1"), (b"ann", "2"), (b"bob", "3")] {
        presence.join(member(id, text), true);
    }
    presence.join(member(b"cid", "4"), false);
    let joined = vec![named("cid", "4"), named("ann", "2"), named("bob", "3")];
    assert_eq!(told(&presence).0, joined);
}

#[test]
fn changes_join_the_notice_that_waits_unless_it_is_sealed_or_gone() {
    let mut notices = Notices::<Says>::default();
    let (first, second) = (Arc::new(changes()), Arc::new(changes()));
    let is_open = |notices: &Notices<Says>, notice: &Arc<Presence<Says>>| {
        notices.open().is_some_and(|open| Arc::ptr_eq(open, notice))
    };
    assert!(notices.open().is_none());
    notices.push(3, first.clone());
    assert!(is_open(&notices, &first));
    notices.seal();
    assert!(notices.open().is_none());
    notices.push(5, second.clone());
    assert!(is_open(&notices, &second));
    assert!(notices.pop(4).is_none(), "nothing waits at that place");
    assert!(notices.pop(3).is_some_and(|p| Arc::ptr_eq(&p, &first)));
    assert!(is_open(&notices, &second));
    assert!(notices.pop(5).is_some());
    assert!(notices.open().is_none());
}

// ---- who is told ----------------------------------------------------------------------------

#[test]
fn a_crowd_is_one_record_and_one_wake_up() {
    let mut router = router();
    let (_, wake) = router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
    assert_eq!(wake, Some(TOLD));
    assert_eq!(next(&mut router), Some((vec![], vec![])), "nobody is there");
    assert_eq!(next(&mut router), None);
    for number in 0..1_000 {
        let id = format!("session-{number}");
        router.subscribe(id.as_bytes(), Some(ROOM), TELLING, listener());
    }
    assert_eq!(router.sizes().pending, 1);
    let aftermath = router.aftermath().expect("somebody is to be told");
    assert_eq!(aftermath.wake[..], [TOLD]);
    let (joined, left) = next(&mut router).expect("there is a record");
    assert_eq!((joined.len(), left.len()), (1_000, 0));
    assert_eq!(next(&mut router), None);
}

#[test]
fn who_begins_to_watch_gets_those_who_are_there_and_then_only_what_is_new() {
    let mut router = router();
    let mut trash = Trash::default();
    router.subscribe_presence(b"early", ROOM, TOLD, listener());
    while next(&mut router).is_some() {}
    router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    router.subscribe_presence(b"late", ROOM, TOLD, listener());
    router.unsubscribe(b"ann", &Scope::All, &mut trash);

    let mut records = Vec::new();
    while let Some(fanout) = router.next_fanout(TOLD, &mut trash) {
        let Says::Notice(presence) = &fanout.envelope.message else {
            panic!("it is no record");
        };
        let gets = std::iter::from_fn(|| fanout.take_next());
        let gets: Vec<_> = gets.map(|s| s.owner.id().to_vec()).collect();
        records.push((gets, told(presence)));
    }
    let ann = || vec![unnamed("ann")];
    let (early, late) = (b"early".to_vec(), b"late".to_vec());
    let expected = [
        (vec![late.clone()], (ann(), vec![])),
        (vec![early.clone()], (ann(), vec![])),
        (vec![early, late], (vec![], ann())),
    ];
    assert_eq!(records, expected);
}

#[test]
fn a_session_that_leaves_while_a_worker_is_at_it_comes_back_as_who_it_then_says_it_is() {
    let (mut router, mut trash) = (router(), Trash::default());
    let ann = router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    router.introduce(&ann, says("Ann"));
    router.publish(
        Some(ROOM),
        Audience::Everyone,
        || Says::Text("hello"),
        &mut trash,
    );
    router.begin_turn(TELLING);
    let next = router.next_logged(TELLING, 10, |_| (), || false, &mut trash);
    let session = next.and_then(|next| next.claimed).expect("it was sent");

    router.unsubscribe(b"ann", &Scope::All, &mut trash);
    let aftermath = router.aftermath().expect("what it said is let go of");
    assert_eq!(aftermath.identities.len(), 1);
    router.identify(b"ann", says("nobody"));
    let again = router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    router.introduce(&again, says("Anna"));

    assert_eq!(
        list(&router.registry().members(ROOM)),
        [named("ann", "Anna")]
    );
    router.put_back(session, |_| ());
    assert_eq!(list(&router.registry().everybody()), [named("ann", "Anna")]);
}

#[test]
fn a_topic_that_is_only_watched_is_no_topic_that_somebody_is_on() {
    let (mut router, mut trash) = (router(), Trash::default());
    let (watcher, _) = router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
    let sizes = router.sizes();
    assert_eq!(
        (sizes.sessions, sizes.topics, sizes.subscriptions),
        (1, 0, 1)
    );
    assert_eq!(router.registry().topics().count(), 0);
    let topic = router
        .registry()
        .topic_of(&watcher)
        .map(|name| name.to_vec());
    assert_eq!(topic.as_deref(), Some(ROOM));
    router.cancel(&watcher, &mut trash);
    assert!(
        router.registry().topic_key(Some(ROOM)).is_none(),
        "forgotten"
    );
}

/// The records that somebody gets of those that wait.
fn records(router: &mut Tested) -> Vec<(Told, Told)> {
    let mut records = Vec::new();
    while let Some(fanout) = router.next_fanout(TOLD, &mut Trash::default()) {
        if let Says::Notice(presence) = &fanout.envelope.message
            && fanout.has_next()
        {
            records.push(told(presence));
        }
    }
    records
}

#[test]
fn a_notice_for_watchers_who_have_left_is_not_taken_for_a_later_one() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe_presence(b"first", ROOM, TOLD, listener());
    router.subscribe(b"reader", None, TOLD, listener());
    router.subscribe(b"ann", Some(ROOM), TELLING, listener());
    router.subscribe_presence(b"second", ROOM, TOLD, listener());
    router.publish(
        None,
        Audience::Everyone,
        || Says::Text("between"),
        &mut trash,
    );
    router.subscribe(b"bob", Some(ROOM), TELLING, listener());
    router.unsubscribe(b"first", &Scope::All, &mut trash);
    router.unsubscribe(b"second", &Scope::All, &mut trash);
    let between = router.next_fanout(TOLD, &mut trash);
    let between = between.expect("the first notice is nobody's");
    assert!(matches!(between.envelope.message, Says::Text(_)));

    router.subscribe_presence(b"third", ROOM, TOLD, listener());
    router.unsubscribe(b"ann", &Scope::All, &mut trash);
    let (ann, bob) = (unnamed("ann"), unnamed("bob"));
    let expected = [
        (vec![ann.clone(), bob.clone()], vec![]),
        (vec![], vec![ann]),
    ];
    assert_eq!(records(&mut router), expected);
    router.unsubscribe(b"bob", &Scope::All, &mut trash);
    assert_eq!(records(&mut router), [(vec![], vec![bob])]);
}
