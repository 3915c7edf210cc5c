//! What waits to be published: in order, in batches, within its limits.

use _core::cluster::Channel;
use _core::cluster::outbox::{Batch, Limits, Outbox};
use _core::cluster::wire;
use proptest::prelude::*;
use triomphe::Arc;

const PUBLISHER: wire::Publisher = [7; 16];
const PLENTY: Limits = Limits {
    messages: 1_000_000,
    bytes: 1 << 30,
};

fn topic(name: &str) -> Channel {
    Channel::Topic(Arc::from(name.as_bytes()))
}

fn texts(batch: &Batch) -> Vec<String> {
    let Ok(entry) = wire::read(&batch.entry) else {
        panic!("{batch:?} is no entry");
    };
    assert_eq!(
        (entry.publisher, entry.sequence),
        (PUBLISHER, batch.sequence)
    );
    let text = |message: &wire::Message<'_>| String::from_utf8_lossy(message.payload).into_owned();
    entry.messages.iter().map(text).collect()
}

fn next(outbox: &mut Outbox, time: u64) -> Batch {
    let Some(batch) = outbox.next(time) else {
        panic!("nothing is to be published");
    };
    batch
}

fn send(outbox: &mut Outbox, channel: &Channel, text: impl ToString) -> usize {
    outbox.send(channel, None, text.to_string().into_bytes())
}

#[test]
fn what_is_sent_while_a_batch_is_under_way_makes_the_next_one() {
    let (mut outbox, news) = (Outbox::new(PUBLISHER, PLENTY), topic("news"));
    send(&mut outbox, &news, 1);
    let first = next(&mut outbox, 0);
    send(&mut outbox, &news, 2);
    send(&mut outbox, &news, 3);
    assert!(outbox.next(0).is_none(), "one batch at a time");

    outbox.done(&news);
    let second = next(&mut outbox, 0);
    outbox.done(&news);

    assert_eq!(
        (texts(&first), texts(&second)),
        (vec!["1".into()], vec!["2".into(), "3".into()])
    );
    assert_eq!((first.sequence, second.sequence), (1, 3));
    assert!(outbox.is_empty() && outbox.next(0).is_none());
}

#[test]
fn a_batch_that_is_tried_again_is_the_same() {
    let (mut outbox, news) = (Outbox::new(PUBLISHER, PLENTY), topic("news"));
    send(&mut outbox, &news, 1);
    let first = next(&mut outbox, 1);
    send(&mut outbox, &news, 2);

    outbox.again(&news);
    let again = next(&mut outbox, 2);

    assert_eq!((first.entry, first.sequence), (again.entry, again.sequence));
}

#[test]
fn channels_do_not_wait_for_each_other() {
    let mut outbox = Outbox::new(PUBLISHER, PLENTY);
    for name in ["news", "sports", "news"] {
        send(&mut outbox, &topic(name), name);
    }
    let batches = [outbox.next(0), outbox.next(0), outbox.next(0)];

    let texts = batches.map(|batch| batch.map(|batch| texts(&batch).len()));
    assert_eq!(texts, [Some(2), Some(1), None]);
}

#[test]
fn beyond_the_limit_the_oldest_gives_way_wherever_it_was_sent() {
    let mut outbox = Outbox::new(
        PUBLISHER,
        Limits {
            messages: 3,
            ..PLENTY
        },
    );
    let (news, sports) = (topic("news"), topic("sports"));
    let lost: usize = [
        (&news, 1),
        (&sports, 2),
        (&news, 3),
        (&sports, 4),
        (&news, 5),
    ]
    .map(|(channel, number)| send(&mut outbox, channel, number))
    .iter()
    .sum();

    assert_eq!((lost, outbox.len()), (2, 3));
    let batches = [next(&mut outbox, 0), next(&mut outbox, 0)];
    assert_eq!(
        batches.map(|batch| texts(&batch)),
        [vec!["3", "5"], vec!["4"]]
    );
}

#[test]
fn what_is_under_way_does_not_give_way() {
    let mut outbox = Outbox::new(
        PUBLISHER,
        Limits {
            messages: 2,
            ..PLENTY
        },
    );
    let news = topic("news");
    send(&mut outbox, &news, 1);
    let first = next(&mut outbox, 0);
    assert_eq!(
        (send(&mut outbox, &news, 2), send(&mut outbox, &news, 3)),
        (0, 1)
    );
    outbox.again(&news);
    assert_eq!(texts(&next(&mut outbox, 0)), texts(&first));
    outbox.done(&news);
    assert_eq!(texts(&next(&mut outbox, 0)), ["3"]);
}

#[test]
fn bytes_are_limited_too() {
    let mut outbox = Outbox::new(
        PUBLISHER,
        Limits {
            bytes: 1000,
            ..PLENTY
        },
    );
    let news = topic("news");
    let lost: usize = (0..10)
        .map(|_| outbox.send(&news, Some(b"ann"), vec![0; 300]))
        .sum();

    assert_eq!((lost, outbox.len()), (7, 3));
}

#[test]
fn a_batch_is_neither_too_long_nor_too_large() {
    let mut outbox = Outbox::new(PUBLISHER, PLENTY);
    let news = topic("news");
    for _ in 0..1000 {
        outbox.send(&news, None, vec![0; 10]);
    }
    let count = |batch: &Batch| texts(batch).len();
    assert_eq!(count(&next(&mut outbox, 0)), 512);
    outbox.done(&news);
    assert_eq!(count(&next(&mut outbox, 0)), 488);
    outbox.done(&news);
    for size in [300_000, 200_000, 100_000, 50_000] {
        outbox.send(&news, None, vec![0; size]);
    }
    let mut counts = Vec::new();
    while let Some(batch) = outbox.next(0) {
        counts.push(count(&batch));
        outbox.done(&news);
    }
    assert_eq!(counts, [1, 1, 2]);
}

#[test]
fn what_is_given_up_is_counted_and_gone() {
    let (mut outbox, news) = (Outbox::new(PUBLISHER, PLENTY), topic("news"));
    send(&mut outbox, &news, 1);
    next(&mut outbox, 0);
    send(&mut outbox, &news, 2);

    assert_eq!(outbox.clear(), 2);
    assert!(outbox.is_empty() && outbox.next(0).is_none());
    send(&mut outbox, &news, 3);
    assert_eq!(next(&mut outbox, 0).sequence, 3, "numbers go on");
}

#[test]
fn nothing_is_kept_of_channels_whose_messages_gave_way() {
    let mut outbox = Outbox::new(
        PUBLISHER,
        Limits {
            messages: 10,
            ..PLENTY
        },
    );
    for number in 0..1000 {
        send(
            &mut outbox,
            &Channel::Session(Arc::from(number.to_string().as_bytes())),
            1,
        );
    }
    assert_eq!((outbox.len(), outbox.channels()), (10, 10));
    let mut published = 0;
    while let Some(batch) = outbox.next(0) {
        published += outbox.done(&batch.channel);
    }
    assert_eq!((published, outbox.channels()), (10, 0));
}

#[test]
fn a_channel_whose_messages_gave_way_is_published_once_when_it_is_sent_to_again() {
    let mut outbox = Outbox::new(
        PUBLISHER,
        Limits {
            messages: 1,
            ..PLENTY
        },
    );
    let (news, sports) = (topic("news"), topic("sports"));
    for channel in [&news, &sports, &news] {
        send(&mut outbox, channel, "it rains");
    }
    let batch = next(&mut outbox, 0);
    assert_eq!((batch.channel, batch.sequence), (news, 3));
    assert!(outbox.next(0).is_none(), "it is under way");
}

#[test]
fn long_names_of_channels_take_room_too() {
    let mut outbox = Outbox::new(
        PUBLISHER,
        Limits {
            bytes: 10_000,
            ..PLENTY
        },
    );
    for number in 0..100 {
        send(
            &mut outbox,
            &topic(&format!("{number} {}", "x".repeat(3000))),
            1,
        );
    }
    assert_eq!(outbox.len(), 3);
    while let Some(batch) = outbox.next(0) {
        outbox.done(&batch.channel);
    }
    let lost: usize = (0..100).map(|_| send(&mut outbox, &topic("news"), 1)).sum();
    assert_eq!(lost, 0, "what is published has made room");
}

#[test]
fn nothing_is_kept_of_channels_that_are_done() {
    let mut outbox = Outbox::new(
        PUBLISHER,
        Limits {
            messages: 0,
            ..PLENTY
        },
    );
    assert_eq!(send(&mut outbox, &topic("news"), 1), 1);
    assert!(outbox.next(0).is_none() && outbox.is_empty());
    assert_eq!(outbox.channels(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    Next,
    Done,
    Again,
    AllAgain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6u8).prop_map(Step::Send),
        3 => Just(Step::Next),
        2 => Just(Step::Done),
        1 => Just(Step::Again),
        1 => Just(Step::AllAgain),
    ]
}

proptest! {
    /// Against a list of what was sent: on each channel everything comes once and in order, but for what
    /// gave way, and no more is kept than there are messages.
    #[test]
    fn whatever_happens_an_outbox_is_in_order_and_bounded(
        steps in proptest::collection::vec(step(), 0..200),
        messages in 1..8usize,
    ) {
        let limits = Limits { messages, ..PLENTY };
        let mut outbox = Outbox::new(PUBLISHER, limits);
        let mut connection = Connection::default();
        let mut sent = 0;
        for step in steps {
            match step {
                Step::Send(channel) => {
                    sent += 1;
                    connection.lost += outbox.send(&topic(&channel.to_string()), None, vec![]);
                }
                Step::Next => connection.take(outbox.next(0)),
                Step::Done => connection.done(&mut outbox),
                Step::Again => connection.again(&mut outbox),
                Step::AllAgain => {
                    connection.under_way.clear();
                    outbox.all_again();
                }
            }
            prop_assert!(outbox.channels() <= outbox.len());
        }
        connection.under_way.clear();
        outbox.all_again();
        while let Some(batch) = outbox.next(0) {
            connection.take(Some(batch));
            connection.done(&mut outbox);
        }
        prop_assert_eq!((outbox.len(), outbox.channels()), (0, 0));
        prop_assert_eq!(connection.published + connection.lost, sent);
    }
}

/// What a connection has taken, one batch of a channel at a time.
#[derive(Default)]
struct Connection {
    under_way: Vec<Batch>,
    /// The number of the last message on each channel.
    last: std::collections::HashMap<Channel, u64>,
    published: usize,
    lost: usize,
}

impl Connection {
    fn take(&mut self, batch: Option<Batch>) {
        if let Some(batch) = batch {
            let is_other = |other: &Batch| other.channel != batch.channel;
            assert!(self.under_way.iter().all(is_other), "two at a time");
            self.under_way.push(batch);
        }
    }

    fn done(&mut self, outbox: &mut Outbox) {
        if self.under_way.is_empty() {
            return;
        }
        let batch = self.under_way.remove(0);
        let last = self.last.insert(batch.channel.clone(), batch.sequence);
        assert!(last < Some(batch.sequence), "{last:?}, and then {batch:?}");
        let messages = outbox.done(&batch.channel);
        assert_eq!(messages, texts(&batch).len());
        self.published += messages;
    }

    fn again(&mut self, outbox: &mut Outbox) {
        if let Some(batch) = self.under_way.pop() {
            outbox.again(&batch.channel);
        }
    }
}
