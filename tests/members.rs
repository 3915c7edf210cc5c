//! What nodes put at the broker of who is on a topic, and what others read there: the broker comes to
//! the truth, and those who follow come to what is at the broker.

use std::collections::{BTreeMap, BTreeSet};

use _core::cluster::members::{Batch, Follow, Memberships};
use _core::cluster::position::Id;
use _core::cluster::wire::Unreadable;
use _core::cluster::wire::members::{
    Read, Told, read_changes, read_field, read_saying, write_changes, write_field, write_saying,
    write_sequence,
};
use _core::core::Name;
use _core::core::elsewhere::{Host, Membership, Saying};
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::from(text.as_bytes())
}

fn host(turn: u32) -> Host {
    Host {
        node: *b"0123456789abcdef",
        turn,
    }
}

fn saying(when: u64) -> Saying {
    Saying {
        when,
        said: Some(name("said")),
    }
}

fn membership(session: &str, says: Option<Saying>) -> Membership {
    Membership {
        topic: name("room"),
        session: name(session),
        says,
    }
}

/// Who stands there: sessions by the connection that put them.
type Standing = BTreeMap<Vec<u8>, Vec<u8>>;

fn apply(batch: &Batch, there: &mut Standing) {
    let sequence = batch.sequence.to_be_bytes().to_vec();
    let last = there.entry(write_sequence(batch.host)).or_default();
    if *last >= sequence {
        return;
    }
    *last = sequence;
    for field in &batch.delete {
        there.remove(field);
    }
    there.extend(batch.set.iter().cloned());
}

fn put_all(members: &mut Memberships, there: &mut Standing) -> usize {
    let mut count = 0;
    while let Some(batch) = members.next_batch() {
        apply(&batch, there);
        members.done(&batch.topic, batch.host, Some(1));
        count += 1;
    }
    count
}

fn sessions(there: &Standing, by: Host) -> BTreeSet<String> {
    let fields = there.keys().filter(|field| !field.starts_with(b"s"));
    let fields = fields.filter_map(|field| read_field(field));
    let own = fields.filter(|(host, _)| *host == by);
    own.map(|(_, session)| String::from_utf8_lossy(session).into_owned())
        .collect()
}

// ---- bytes ----------------------------------------------------------------------------------

#[test]
fn a_field_is_the_connection_in_hexadecimal_digits_and_the_session() {
    let field = write_field(host(0x2a), b"ann");
    assert_eq!(field, b"303132333435363738396162636465660000002aann");
    assert_eq!(read_field(&field), Some((host(0x2a), &b"ann"[..])));
    for garbage in [
        &b""[..],
        b"e",
        b"n",
        b"0123",
        &[0xff; 50],
        "ä".repeat(25).as_bytes(),
    ] {
        assert_eq!(read_field(garbage), None);
    }
}

#[test]
fn what_a_session_says_is_a_version_a_time_and_bytes_or_nil() {
    let something = Saying {
        when: 1_731_669_842_560,
        said: Some(name("hello")),
    };
    let nothing = Saying {
        when: 0,
        said: None,
    };
    let bytes = b"\x01\x92\xcf\x00\x00\x01\x93\x2f\x90\xda\x80\xc4\x05hello";
    assert_eq!(write_saying(&something), bytes);
    assert_eq!(write_saying(&nothing), b"\x01\x92\x00\xc0");
    assert_eq!(read_saying(bytes), Ok(something));
    assert_eq!(read_saying(b"\x01\x92\x00\xc0"), Ok(nothing.clone()));
    assert_eq!(
        read_saying(b"\x01\x93\x00\xc0\x07"),
        Ok(nothing),
        "of a later version"
    );
    assert_eq!(read_saying(b"\x02"), Err(Unreadable::Newer(2)));
    for garbage in [
        &b""[..],
        b"\x00",
        b"\x01",
        b"\x01\x92\x00",
        b"\x01\x92\x00\xc4\x05x",
    ] {
        assert_eq!(read_saying(garbage), Err(Unreadable::Malformed));
    }
}

#[test]
fn what_is_pushed_is_a_version_and_fields_with_what_stands_in_them() {
    let field = write_field(host(1), b"ann");
    let value = write_saying(&saying(7));
    let bytes = write_changes(&[(&field, Some(&value)), (&field, None)]);
    let told = |says| Told {
        host: host(1),
        session: b"ann".to_vec(),
        says,
    };
    let expected = vec![told(Some(Ok(saying(7)))), told(None)];
    assert_eq!(read_changes(&bytes), Ok(expected));
    assert_eq!(read_changes(b"\x03"), Err(Unreadable::Newer(3)));
    for garbage in [
        &b""[..],
        b"\x01",
        b"\x01\xdd\xff\xff\xff\xff",
        b"\x01\x91\x92\xc4\x01e\xc0",
    ] {
        assert_eq!(read_changes(garbage), Err(Unreadable::Malformed));
    }
}

proptest! {
    #[test]
    fn whatever_is_read_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let with_version = [&[1], &bytes[..]].concat();
        let _ = (read_changes(&bytes), read_changes(&with_version));
        let _ = (read_saying(&bytes), read_saying(&with_version), read_field(&bytes));
    }
}

// ---- what is put ----------------------------------------------------------------------------

#[test]
fn nothing_is_put_without_a_connection_and_everything_with_a_new_one() {
    let (mut members, mut there) = (Memberships::default(), Standing::new());
    members.note(membership("ann", Some(saying(1))));
    members.note(membership("bob", Some(saying(1))));
    members.note(membership("bob", None));
    assert_eq!(members.next_batch(), None);
    assert!(members.is_done(), "there is nothing that it could do");
    members.connected(Some(host(1)));
    assert_eq!(put_all(&mut members, &mut there), 1);
    assert_eq!(
        sessions(&there, host(1)),
        BTreeSet::from(["ann".to_owned()])
    );
    members.connected(None);
    members.connected(Some(host(2)));
    put_all(&mut members, &mut there);
    assert!(sessions(&there, host(1)).is_empty(), "it is removed");
    assert_eq!(
        sessions(&there, host(2)),
        BTreeSet::from(["ann".to_owned()])
    );
}

#[test]
fn of_one_topic_one_batch_is_under_way_at_a_time() {
    let mut members = Memberships::default();
    members.connected(Some(host(1)));
    members.note(membership("ann", Some(saying(1))));
    let first = members.next_batch().expect("there is something to put");
    members.note(membership("ann", None));
    assert_eq!(members.next_batch(), None);
    members.not_done(&first.topic, first.host);
    let again = members.next_batch().expect("it is put again");
    assert_eq!(
        (again.set.len(), again.delete.len()),
        (0, 1),
        "as it is now"
    );
    members.done(&again.topic, again.host, Some(1));
    assert!(members.is_done());
}

#[test]
fn a_table_of_another_epoch_has_everything_put_again() {
    let (mut members, mut there) = (Memberships::default(), Standing::new());
    members.connected(Some(host(1)));
    members.stands_in(&name("room"), Some(1));
    for session in ["ann", "bob"] {
        members.note(membership(session, Some(saying(1))));
        assert_eq!(put_all(&mut members, &mut there), 1);
        members.stands_in(&name("room"), Some(1));
        assert!(members.next_batch().is_none(), "it stands there");
    }
    for epoch in [Some(2), None] {
        members.stands_in(&name("room"), epoch);
        let batch = members.next_batch().expect("the table is another one");
        assert_eq!(batch.set.len(), 2);
        members.done(&batch.topic, batch.host, Some(3));
        while let Some(batch) = members.next_batch() {
            members.done(&batch.topic, batch.host, Some(3));
        }
        assert!(members.is_done());
    }
    members.note(membership("cid", Some(saying(1))));
    let batch = members.next_batch().expect("there is something to put");
    members.done(&batch.topic, batch.host, Some(4));
    let again = members.next_batch().expect("it came into another table");
    assert_eq!(again.set.len(), 3);
}

#[test]
fn a_large_crowd_is_put_in_several_batches() {
    let (mut members, mut there) = (Memberships::default(), Standing::new());
    members.connected(Some(host(1)));
    for number in 0..1000 {
        members.note(membership(&number.to_string(), Some(saying(1))));
    }
    assert_eq!(put_all(&mut members, &mut there), 4);
    assert_eq!(sessions(&there, host(1)).len(), 1000);
}

#[test]
fn of_those_who_say_much_fewer_are_put_at_once() {
    let (mut members, mut there) = (Memberships::default(), Standing::new());
    members.connected(Some(host(1)));
    for number in 0..4 {
        let says = Saying {
            when: 1,
            said: Some(Name::from(vec![0; 1 << 20])),
        };
        members.note(membership(&number.to_string(), Some(says)));
    }
    assert_eq!(put_all(&mut members, &mut there), 4);
    assert_eq!(sessions(&there, host(1)).len(), 4);
}

#[test]
fn who_leaves_takes_everybody_away_whatever_is_under_way() {
    for is_under_way in [false, true] {
        let (mut members, mut there) = (Memberships::default(), Standing::new());
        members.connected(Some(host(1)));
        members.note(membership("ann", Some(saying(1))));
        put_all(&mut members, &mut there);
        members.note(membership("ann", None));
        let batch = is_under_way.then(|| members.next_batch()).flatten();
        members.leave();
        members.note(membership("bob", Some(saying(1))));
        assert!(!members.is_done());
        if let Some(batch) = batch {
            apply(&batch, &mut there);
            members.done(&batch.topic, batch.host, Some(1));
        }
        put_all(&mut members, &mut there);
        assert!(members.is_done());
        assert!(sessions(&there, host(1)).is_empty());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Note(u8, bool),
    Begin,
    /// What is under way arrives, and the node hears of it.
    Done,
    /// It arrives, and the node does not hear of it.
    Lost,
    NotNow,
    Reconnect,
    /// The broker forgets everything.
    Forget,
    /// What was sent before, and is not known to have arrived, arrives only now.
    Late,
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6_u8, any::<bool>()).prop_map(|(session, is_there)| Step::Note(session, is_there)),
        4 => Just(Step::Begin),
        4 => Just(Step::Done),
        1 => Just(Step::Lost),
        1 => Just(Step::NotNow),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Forget),
        1 => Just(Step::Late),
        1 => Just(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_broker_comes_to_the_truth(steps in prop::collection::vec(step(), 1..80)) {
        let (mut members, mut there) = (Memberships::default(), Standing::new());
        let (mut own, mut has_left) = (BTreeSet::new(), false);
        let (mut turn, mut under_way, mut late) = (1, None::<Batch>, Vec::new());
        members.connected(Some(host(turn)));
        for step in steps {
            match step {
                Step::Note(session, is_there) => {
                    let session = session.to_string();
                    members.note(membership(&session, is_there.then(|| saying(1))));
                    if is_there && !has_left {
                        own.insert(session);
                    } else {
                        own.remove(&session);
                    }
                }
                Step::Begin => under_way = under_way.or_else(|| members.next_batch()),
                Step::Done => if let Some(batch) = under_way.take() {
                    apply(&batch, &mut there);
                    members.done(&batch.topic, batch.host, Some(1));
                },
                Step::NotNow => if let Some(batch) = under_way.take() {
                    members.not_done(&batch.topic, batch.host);
                    late.push(batch);
                },
                Step::Lost | Step::Reconnect => {
                    if let Some(batch) = under_way.take() {
                        if matches!(step, Step::Lost) {
                            apply(&batch, &mut there);
                        } else {
                            late.push(batch);
                        }
                    }
                    turn += 1;
                    members.connected(None);
                    members.connected(Some(host(turn)));
                }
                Step::Forget => {
                    // With everything else it forgets what would be late.
                    late.clear();
                    there.clear();
                    members.again(&name("room"));
                }
                Step::Late => late.drain(..).for_each(|batch| apply(&batch, &mut there)),
                Step::Leave => {
                    members.leave();
                    has_left = true;
                    own.clear();
                }
            }
        }
        if let Some(batch) = under_way {
            apply(&batch, &mut there);
            members.done(&batch.topic, batch.host, Some(1));
        }
        put_all(&mut members, &mut there);
        prop_assert!(members.is_done());
        prop_assert_eq!(sessions(&there, host(turn)), own);
    }
}

// ---- what is read ---------------------------------------------------------------------------

fn id(epoch: u64, number: u64) -> Id {
    Id { epoch, number }
}

fn change(number: u64) -> Vec<Read> {
    vec![Told {
        host: host(1),
        session: number.to_string().into_bytes(),
        says: None,
    }]
}

#[test]
fn changes_are_handed_on_in_order_and_once() {
    let mut follow = Follow::default();
    follow.read();
    assert_eq!(follow.push(id(1, 5), change(5)), Some(vec![]), "kept");
    assert_eq!(follow.push(id(1, 6), change(6)), Some(vec![]), "kept");
    assert_eq!(follow.answer(Some(id(1, 5))), (change(6), false));
    assert_eq!(follow.push(id(1, 6), change(6)), Some(vec![]), "doubled");
    assert_eq!(follow.push(id(1, 7), change(7)), Some(change(7)));
    assert_eq!(follow.at(), Some(id(1, 7)));
}

#[test]
fn a_hole_and_another_epoch_have_the_table_read_again() {
    for pushed in [id(1, 7), id(2, 1), id(2, 6)] {
        let mut follow = Follow::default();
        follow.read();
        assert_eq!(follow.answer(Some(id(1, 5))), (vec![], false));
        assert_eq!(follow.push(pushed, change(7)), None);
        assert!(follow.doubt());
        follow.read();
        assert!(!follow.doubt(), "it is being read");
        let (after, again) = follow.answer(Some(pushed));
        assert!(after.is_empty() && again);
    }
}

#[test]
fn the_first_change_of_a_table_that_did_not_exist_needs_no_look() {
    let mut follow = Follow::default();
    follow.read();
    assert_eq!(follow.answer(None), (vec![], false));
    assert_eq!(follow.push(id(9, 1), change(1)), Some(change(1)));
    let mut later = Follow::default();
    later.read();
    assert_eq!(later.answer(None), (vec![], false));
    assert_eq!(later.push(id(9, 2), change(2)), None);
}

#[test]
fn too_much_that_comes_while_the_table_is_read_has_it_read_again() {
    let mut follow = Follow::default();
    follow.read();
    for number in 1..5000 {
        assert_eq!(follow.push(id(1, number), change(number)), Some(vec![]));
    }
    let (_, again) = follow.answer(Some(id(1, 1)));
    assert!(again);
}

#[derive(Clone, Debug)]
enum Event {
    Change(u8, bool),
    /// The next change is not pushed.
    Miss(u8),
    Push,
    Answer,
    Forget,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..6_u8, any::<bool>()).prop_map(|(session, is_there)| Event::Change(session, is_there)),
        1 => (0..6_u8).prop_map(Event::Miss),
        6 => Just(Event::Push),
        4 => Just(Event::Answer),
        1 => Just(Event::Forget),
    ]
}

/// A broker with one table, on one connection: what it pushed comes before what it answers later.
#[derive(Default)]
struct Broker {
    epoch: u64,
    number: u64,
    table: BTreeSet<Vec<u8>>,
    /// What was pushed and answered, and not taken yet.
    sent: Vec<Sent>,
}

enum Sent {
    Push(Id, Vec<Read>),
    Answer(Option<Id>, BTreeSet<Vec<u8>>),
}

impl Broker {
    fn top(&self) -> Option<Id> {
        (self.number > 0).then(|| id(self.epoch, self.number))
    }

    fn change(&mut self, session: u8, is_there: bool, is_pushed: bool) {
        let session = vec![session];
        if is_there {
            self.table.insert(session.clone());
        } else {
            self.table.remove(&session);
        }
        self.number += 1;
        let told = Told {
            host: host(1),
            session,
            says: is_there.then(|| Ok(saying(1))),
        };
        if is_pushed {
            self.sent
                .push(Sent::Push(id(self.epoch, self.number), vec![told]));
        }
    }
}

fn hand_on(known: &mut BTreeSet<Vec<u8>>, changes: Vec<Read>) {
    for told in changes {
        if told.says.is_some() {
            known.insert(told.session);
        } else {
            known.remove(&told.session);
        }
    }
}

fn take(broker: &mut Broker, follow: &mut Follow, known: &mut BTreeSet<Vec<u8>>) {
    if broker.sent.is_empty() {
        return;
    }
    let reads = match broker.sent.remove(0) {
        Sent::Push(id, changes) => match follow.push(id, changes) {
            Some(changes) => {
                hand_on(known, changes);
                false
            }
            None => follow.doubt(),
        },
        Sent::Answer(top, table) => {
            let (after, again) = follow.answer(top);
            *known = table;
            hand_on(known, after);
            again
        }
    };
    if reads {
        follow.read();
        broker
            .sent
            .push(Sent::Answer(broker.top(), broker.table.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn who_follows_comes_to_what_is_at_the_broker(events in prop::collection::vec(event(), 1..80)) {
        let (mut broker, mut follow, mut known) =
            (Broker::default(), Follow::default(), BTreeSet::new());
        follow.read();
        broker.sent.push(Sent::Answer(None, BTreeSet::new()));
        for event in events {
            match event {
                Event::Change(session, is_there) => broker.change(session, is_there, true),
                Event::Miss(session) => broker.change(session, true, false),
                Event::Push | Event::Answer => take(&mut broker, &mut follow, &mut known),
                Event::Forget => {
                    broker.epoch += 1;
                    broker.number = 0;
                    broker.table.clear();
                }
            }
        }
        // Whatever was missed is noticed with the next change, at the latest.
        broker.change(0, true, true);
        while !broker.sent.is_empty() {
            take(&mut broker, &mut follow, &mut known);
        }
        prop_assert_eq!(follow.at(), broker.top());
        prop_assert_eq!(known, broker.table);
    }
}
