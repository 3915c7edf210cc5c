//! What waits to be published: in order, in batches, within its limits.

use _core::cluster::Channel;
use _core::cluster::outbox::{Batch, Limits, Outbox};
use _core::cluster::wire;
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
}
