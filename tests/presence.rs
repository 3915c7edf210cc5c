//! Who is on a topic, told as changes: what comes together is told together.

use std::ops::Deref;

use _core::core::Name;
use _core::core::backlog::OverflowPolicy::{self, DropNewest, DropOldest, Unsubscribe};
use _core::core::fanout::{Audience, Envelope};
use _core::core::presence::{Member, Notices, Presence, Said};
use _core::core::registry::Scope;
use _core::core::router::{Parked, Router};
use _core::core::subscription::{Listener, Owner, Subscription};
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
/// The lane of those who watch, and of those who are watched.
const TELLING: u32 = 0;
const TOLD: u32 = 1;

fn router() -> Tested {
    router_with(10, DropOldest)
}

fn router_with(limit: u32, overflow: OverflowPolicy) -> Tested {
    let mut router = Router::new(limit, overflow);
    for _ in [TELLING, TOLD] {
        router.add_lane(true, 1, |lane| lane);
    }
    router.make_notices(Says::Notice, Says::presence);
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

/// Changes of which nobody looks at what they replace.
struct Changes(Presence<Says>);

impl Changes {
    fn join(&self, member: Member<Says>, is_new: bool) {
        self.0.join(member, is_new, &mut Vec::new());
    }

    fn leave(&self, member: Member<Says>) {
        self.0.leave(member, &mut Vec::new());
    }
}

impl Deref for Changes {
    type Target = Presence<Says>;

    fn deref(&self) -> &Presence<Says> {
        &self.0
    }
}

fn changes() -> Changes {
    Changes(Presence::new(Name::from(ROOM)))
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
    let (presence, mut replaced) = (changes().0, Vec::new());
    let texts = |replaced: &mut Vec<Arc<Said<Says>>>| -> Vec<_> {
        replaced.drain(..).map(|said| said.says.text()).collect()
    };
    presence.join(member(b"ann", "Ann"), true, &mut replaced);
    assert_eq!(texts(&mut replaced), [""; 0]);
    presence.join(member(b"ann", "Anna"), false, &mut replaced);
    assert_eq!(texts(&mut replaced), ["Ann"]);
    presence.leave(member(b"ann", "nobody any more"), &mut replaced);
    assert_eq!(texts(&mut replaced), ["Anna", "nobody any more"]);
}

#[test]
fn those_who_come_and_go_by_the_thousand_leave_nothing_behind() {
    let presence = changes();
    presence.leave(member(b"zoe", "Zoe"));
    for number in 0..10_000 {
        let id = format!("session-{number}");
        presence.join(member(id.as_bytes(), "somebody"), true);
        assert!(presence.kept() < 100, "kept of those who have left");
        if number != 5_000 {
            presence.leave(member(id.as_bytes(), "somebody"));
        }
    }
    presence.join(member(b"ann", "Ann"), true);
    let joined = vec![named("session-5000", "somebody"), named("ann", "Ann")];
    assert_eq!(told(&presence), (joined, vec![named("zoe", "Zoe")]));
}

#[test]
fn changes_that_are_told_together_are_what_they_are_one_after_the_other() {
    let (first, second) = (changes(), changes());
    first.join(member(b"ann", "Ann"), true);
    first.join(member(b"bob", "Bob"), true);
    first.leave(member(b"cid", "Cid"));
    first.leave(member(b"dan", "Dan"));
    second.leave(member(b"ann", "Ann"));
    second.join(member(b"bob", "Bobby"), false);
    second.join(member(b"cid", "Cid II"), true);
    second.join(member(b"eve", "Eve"), true);
    second.join(member(b"fay", "Fay"), true);
    second.leave(member(b"fay", "Fay"));
    first.take_in(&second, &mut Vec::new());
    let (bob, cid, eve) = (
        named("bob", "Bobby"),
        named("cid", "Cid II"),
        named("eve", "Eve"),
    );
    assert_eq!(
        told(&first),
        (vec![bob, cid, eve], vec![named("dan", "Dan")])
    );
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

/// A notice that waits at a place in the hub's sequence.
fn notice(sequence: u64, presence: &Arc<Presence<Says>>) -> Arc<Envelope<Says>> {
    Arc::new(Envelope {
        message: Says::Notice(presence.clone()),
        audience: Audience::Everyone,
        sequence,
        sent_at: 0,
    })
}

#[test]
fn changes_join_the_notice_that_waits_unless_somebody_came_after_it_or_it_is_gone() {
    let mut notices = Notices::<Says>::default();
    let (first, second) = (Arc::new(changes().0), Arc::new(changes().0));
    let is_open = |notices: &Notices<Says>, youngest, notice: &Arc<Presence<Says>>| {
        let open = notices.open(youngest);
        open.is_some_and(|open| Arc::ptr_eq(open, notice))
    };
    assert!(notices.open(0).is_none());
    assert!(
        notices.push(notice(3, &first), first.clone()),
        "it needs a place"
    );
    assert!(is_open(&notices, 2, &first));
    assert!(notices.open(4).is_none());
    assert!(
        !notices.push(notice(5, &second), second.clone()),
        "they share one"
    );
    assert!(is_open(&notices, 4, &second));
    assert!(notices.pop(4).is_none(), "nothing waits at that place");
    assert!(notices.pop(3).is_some_and(|p| Arc::ptr_eq(&p, &first)));
    assert_eq!(notices.first().map(|next| next.sequence), Some(5));
    assert!(is_open(&notices, 4, &second));
    assert!(notices.pop(5).is_some());
    assert!(notices.open(0).is_none());
}

#[test]
fn notices_between_which_nobody_came_who_is_left_are_one() {
    let mut notices = Notices::<Says>::default();
    for (sequence, id) in [(3, b"ann"), (5, b"bob"), (7, b"cid")] {
        let presence = changes();
        presence.join(member(id, "somebody"), true);
        let presence = Arc::new(presence.0);
        notices.push(notice(sequence, &presence), presence);
    }
    let mut reunite = |left, same: bool| {
        let joined = notices.reunite(left, |_, _| same, &mut Vec::new());
        joined.map(|joined| joined.sequence)
    };
    assert_eq!(reunite(2, true), None, "it gets all of them");
    assert_eq!(reunite(8, true), None, "it gets none of them");
    assert_eq!(reunite(4, false), None, "somebody else is left");
    assert_eq!(reunite(6, true), Some(7));
    let ann = notices.pop(3).expect("it waits");
    assert_eq!(told(&ann).0, [named("ann", "somebody")]);
    let rest = notices.pop(5).expect("it waits");
    let expected = [named("bob", "somebody"), named("cid", "somebody")];
    assert_eq!(told(&rest).0, expected);
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

#[test]
fn those_who_watch_for_a_moment_while_nobody_can_be_told_leave_nothing_behind() {
    let (mut router, mut trash) = (router(), Trash::default());
    router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
    assert!(next(&mut router).is_some(), "the first record");
    let mut before = None;
    for number in 0..1_000 {
        let (watch, _) = router.subscribe_presence(b"passer-by", ROOM, TOLD, listener());
        come(&mut router, &format!("session-{number}"));
        // The next one is there before this one goes.
        if let Some(before) = before.replace(watch) {
            router.cancel(&before, &mut trash);
        }
    }
    router.unsubscribe(b"passer-by", &Scope::All, &mut trash);
    assert_eq!(router.sizes().pending, 1);
    let told = records(&mut router);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0.len(), 1_000);
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

// ---- who is busy ----------------------------------------------------------------------------

/// Somebody comes, and leaves again.
fn visits(router: &mut Tested, number: usize) {
    let id = format!("visitor-{number}");
    come(router, &id);
    router.unsubscribe(id.as_bytes(), &Scope::All, &mut Trash::default());
}

fn come(router: &mut Tested, id: &str) {
    router.subscribe(id.as_bytes(), Some(ROOM), TELLING, listener());
}

/// Leaves what is in the log for who watches, who is busy.
fn park_all(router: &mut Tested, watcher: &Arc<Subscription<u8>>) {
    let mut trash = Trash::default();
    while let Some(fanout) = router.next_fanout(TOLD, &mut trash) {
        let parked = router.park(watcher, &fanout.envelope, &mut trash);
        assert!(matches!(parked, Parked::Waiting));
    }
}

/// A router with one who watches, was told that nobody is there, and is busy with that.
fn with_a_busy_watcher(limit: u32, overflow: OverflowPolicy) -> (Tested, Arc<Subscription<u8>>) {
    let mut router = router_with(limit, overflow);
    let (watcher, _) = router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
    assert_eq!(next(&mut router), Some((vec![], vec![])));
    router.enter(&watcher);
    (router, watcher)
}

fn presence(says: &Says) -> (Told, Told) {
    let Says::Notice(presence) = says else {
        panic!("it is no record");
    };
    told(presence)
}

#[test]
fn who_is_busy_is_told_afterwards_in_one_record_who_is_there_under_every_policy() {
    for overflow in [DropOldest, DropNewest, Unsubscribe] {
        let (mut router, watcher) = with_a_busy_watcher(1, overflow);
        for number in 0..100 {
            come(&mut router, &format!("session-{number}"));
            park_all(&mut router, &watcher);
            visits(&mut router, number);
            park_all(&mut router, &watcher);
        }
        let sizes = router.sizes();
        assert_eq!((sizes.pending, sizes.dropped), (1, 0));
        let record = router.unpark(&watcher, None, &mut Trash::default());
        let (joined, left) = presence(&record.expect("it waits").message);
        assert_eq!((joined.len(), left.len()), (100, 0));
        assert_eq!(joined, list(&router.registry().members(ROOM)));
        let next = router.unpark(&watcher, None, &mut Trash::default());
        assert!(next.is_none() && !watcher.is_busy());
    }
}

#[test]
fn who_is_busy_is_not_told_of_those_who_come_and_go_meanwhile() {
    let (mut router, watcher) = with_a_busy_watcher(1, DropOldest);
    come(&mut router, "ann");
    park_all(&mut router, &watcher);
    router.unsubscribe(b"ann", &Scope::All, &mut Trash::default());
    park_all(&mut router, &watcher);

    assert!(router.has_mail(&watcher, None, &mut Trash::default()));
    let record = router.unpark(&watcher, None, &mut Trash::default());
    assert!(record.is_none() && !watcher.is_busy());
    assert_eq!(router.sizes().pending, 0);
}

#[test]
fn what_one_is_told_of_while_busy_is_no_business_of_another() {
    let (mut router, busy) = with_a_busy_watcher(1, DropOldest);
    let (other, _) = router.subscribe_presence(b"other", ROOM, TOLD, listener());
    assert!(next(&mut router).is_some(), "the other's first record");
    let mut trash = Trash::default();
    let mut told_other = Vec::new();
    for id in ["ann", "bob"] {
        come(&mut router, id);
        let fanout = router.next_fanout(TOLD, &mut trash).expect("a change");
        let parked = router.park(&busy, &fanout.envelope, &mut trash);
        assert!(matches!(parked, Parked::Waiting));
        assert!(matches!(
            router.park(&other, &fanout.envelope, &mut trash),
            Parked::Free
        ));
        told_other.push(fanout.envelope);
    }
    let record = router.unpark(&busy, None, &mut trash).expect("it waits");
    let (ann, bob) = (unnamed("ann"), unnamed("bob"));
    assert_eq!(
        presence(&record.message),
        (vec![ann.clone(), bob.clone()], vec![])
    );
    let others: Vec<_> = told_other.iter().map(|e| presence(&e.message)).collect();
    assert_eq!(others, [(vec![ann], vec![]), (vec![bob], vec![])]);
}

/// What the worker of a session has to tell, one record after the other.
fn queued(router: &mut Tested, session: u32) -> Vec<(Told, Told)> {
    let mut trash = Trash::default();
    let next = || router.next_call(TOLD, session, || false, &mut trash);
    let calls = std::iter::from_fn(next).map(|next| presence(&next.call.1.message));
    calls.collect()
}

#[test]
fn one_record_waits_in_the_queue_of_a_session_whose_worker_is_at_something_else() {
    for overflow in [DropOldest, DropNewest, Unsubscribe] {
        let (mut router, mut trash) = (router_with(1, overflow), Trash::default());
        let (watcher, _) = router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
        let log = |router: &mut Tested, trash: &mut Trash| {
            router.begin_turn(TOLD);
            router.next_logged(TOLD, 10, |_| (), || false, trash)
        };
        let first = log(&mut router, &mut trash).expect("the first record");
        assert_eq!(presence(&first.call.1.message), (vec![], vec![]));
        for number in 0..100 {
            come(&mut router, &format!("session-{number}"));
            assert!(log(&mut router, &mut trash).is_none(), "one at a time");
            visits(&mut router, number);
            assert!(log(&mut router, &mut trash).is_none(), "one at a time");
        }
        assert_eq!((router.sizes().pending, router.sizes().dropped), (1, 0));
        let there = list(&router.registry().members(ROOM));
        let records = queued(&mut router, watcher.owner.key());
        assert_eq!(records, [(there, vec![])]);
    }
}

#[test]
fn the_first_record_is_told_even_if_those_who_were_there_leave_before_that() {
    let (mut router, mut trash) = (router(), Trash::default());
    let (early, _) = router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
    router.begin_turn(TOLD);
    let next = router.next_logged(TOLD, 10, |_| (), || false, &mut trash);
    assert!(
        next.is_some_and(|next| next.claimed.is_some()),
        "it is busy"
    );
    come(&mut router, "ann");
    router.subscribe_presence(b"watcher", ROOM, TOLD, listener());
    router.cancel(&early, &mut trash);
    assert!(
        router
            .next_logged(TOLD, 10, |_| (), || false, &mut trash)
            .is_none()
    );
    router.unsubscribe(b"ann", &Scope::All, &mut trash);
    assert!(
        router
            .next_logged(TOLD, 10, |_| (), || false, &mut trash)
            .is_none()
    );

    let records = queued(&mut router, early.owner.key());
    assert_eq!(records, [(vec![], vec![])]);
}

#[test]
fn nothing_is_left_of_what_waits_for_one_who_watches_no_more() {
    let (mut router, watcher) = with_a_busy_watcher(1, DropOldest);
    let mut trash = Trash::default();
    for id in ["ann", "bob"] {
        come(&mut router, id);
        park_all(&mut router, &watcher);
    }
    router.cancel(&watcher, &mut trash);
    assert_eq!(router.sizes().pending, 0);
    assert!(router.unpark(&watcher, None, &mut trash).is_none());
}
