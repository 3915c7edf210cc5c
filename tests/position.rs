//! A node's position in a channel, against a broker that loses connections, trims and forgets.

use std::collections::VecDeque;

use _core::cluster::position::{Answer, Gap, Id, Mark, Output, Placed, Position, Read};
use proptest::prelude::*;

/// What a broker keeps of one channel. An entry is a number that no other entry ever had.
struct Log {
    epoch: u64,
    number: u64,
    published: u64,
    entries: VecDeque<Placed<u64>>,
    /// What it took and forgot: nobody can tell that it was there.
    forgotten: Vec<u64>,
}

impl Log {
    fn new() -> Self {
        Self {
            epoch: 1,
            number: 0,
            published: 0,
            entries: VecDeque::new(),
            forgotten: Vec::new(),
        }
    }

    fn publish(&mut self) -> Placed<u64> {
        self.number += 1;
        self.published += 1;
        let placed = Placed {
            id: Id {
                epoch: self.epoch,
                number: self.number,
            },
            mark: Some(Mark {
                publisher: [0; 16],
                sequence: self.published,
            }),
            entry: self.published,
        };
        self.entries.push_back(placed.clone());
        placed
    }

    fn top(&self) -> Option<Id> {
        (self.number > 0).then_some(Id {
            epoch: self.epoch,
            number: self.number,
        })
    }

    fn read(&self, read: Read, most: usize) -> Answer<u64> {
        let entries: Vec<_> = match read {
            Read::Last { count, are_wanted } => {
                let first = self.entries.len().saturating_sub(count);
                let last = self.entries.range(first..).cloned();
                // No more than what the node must know.
                let known = |placed: Placed<u64>| Placed {
                    entry: placed.entry * u64::from(are_wanted),
                    ..placed
                };
                last.map(known).collect()
            }
            Read::From { first, known } => {
                let had = self.entries.iter().filter(|placed| placed.id >= first);
                let had = had.take_while(|placed| placed.id <= known).cloned();
                // Of these there is no more than what the node must know.
                let had = had.map(|placed| Placed { entry: 0, ..placed });
                let rest = self.entries.iter().filter(|placed| placed.id > known);
                had.chain(rest.take(most).cloned()).collect()
            }
        };
        let more = match read {
            Read::Last { .. } => false,
            Read::From { known, .. } => {
                let rest = entries.iter().filter(|placed| placed.id > known);
                rest.count() == most
            }
        };
        Answer {
            top: self.top(),
            entries,
            more,
        }
    }

    /// Only the last so many entries are kept.
    fn trim(&mut self, kept: usize) {
        while self.entries.len() > kept {
            self.entries.pop_front();
        }
    }

    /// A replica takes over that has not had the last entries.
    fn fall_over(&mut self, lost: usize) {
        for _ in 0..lost {
            if let Some(placed) = self.entries.pop_back() {
                self.number = placed.id.number - 1;
                self.forgotten.push(placed.entry);
            }
        }
    }

    fn forget(&mut self) {
        self.entries.clear();
        self.forgotten = (1..=self.published).collect();
        self.epoch += 1;
        self.number = 0;
    }
}

/// A node, and what is on its way to it.
struct Node {
    position: Position<u64>,
    past: Option<Vec<u64>>,
    got: Vec<u64>,
    gaps: Vec<Gap>,
    /// Pushes that the log knows nothing of.
    strays: usize,
    /// What the broker has sent on the connection, in order.
    line: VecDeque<Sent>,
    subscribed: bool,
}

enum Sent {
    Push(Placed<u64>),
    Answer(Answer<u64>),
}

const MOST: usize = 10;

impl Node {
    fn new() -> Self {
        Self::with_past(0)
    }

    fn with_past(past: usize) -> Self {
        let (got, gaps, line) = (Vec::new(), Vec::new(), VecDeque::new());
        Self {
            position: Position::new(past),
            past: None,
            got,
            gaps,
            strays: 0,
            line,
            subscribed: false,
        }
    }

    fn subscribe(&mut self, log: &Log) {
        self.line.clear();
        self.subscribed = true;
        let read = self.position.subscribed();
        self.line.push_back(Sent::Answer(log.read(read, MOST)));
    }

    fn push(&mut self, placed: &Placed<u64>) {
        if self.subscribed {
            self.line.push_back(Sent::Push(placed.clone()));
        }
    }

    /// Takes what is next on the line.
    fn step(&mut self, log: &Log) -> bool {
        let (got, gaps, strays) = (&mut self.got, &mut self.gaps, &mut self.strays);
        let past = &mut self.past;
        let mut output = |output| match output {
            Output::Past(entries) => {
                assert!(past.is_none() && got.is_empty(), "first, and once");
                *past = Some(entries);
            }
            Output::Entry(entry) => got.push(entry),
            Output::Gap(gap) => gaps.push(gap),
            Output::Stray => *strays += 1,
        };
        let read = match self.line.pop_front() {
            None => return false,
            Some(Sent::Push(placed)) => self.position.push(placed, &mut output),
            Some(Sent::Answer(answer)) => self.position.answer(answer, &mut output),
        };
        if let Some(read) = read {
            self.line.push_back(Sent::Answer(log.read(read, MOST)));
        }
        true
    }

    fn settle(&mut self, log: &Log) {
        while self.step(log) {}
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Take(u8),
    LosePush,
    LoseConnection,
    Reconnect,
    Trim(u8),
    FallOver(u8),
    Forget,
}

fn steps(with_losses: bool) -> impl Strategy<Value = Vec<Step>> {
    let small = 1..60_u8;
    let always = prop_oneof![
        4 => small.clone().prop_map(Step::Publish),
        4 => small.clone().prop_map(Step::Take),
        1 => Just(Step::LosePush),
        1 => Just(Step::LoseConnection),
        2 => Just(Step::Reconnect),
    ];
    let losses = prop_oneof![
        2 => small.clone().prop_map(Step::Trim),
        1 => (1..10_u8).prop_map(Step::FallOver),
        1 => Just(Step::Forget),
    ];
    let weight = u32::from(with_losses);
    prop::collection::vec(prop_oneof![8 => always, weight => losses], 1..60)
}

fn run(steps: Vec<Step>) -> (Node, Log) {
    let (mut node, log) = (Node::new(), Log::new());
    node.subscribe(&log);
    node.settle(&log);
    run_from(node, log, steps)
}

fn run_from(mut node: Node, mut log: Log, steps: Vec<Step>) -> (Node, Log) {
    for step in steps {
        match step {
            Step::Publish(count) => (0..count).for_each(|_| node.push(&log.publish())),
            Step::Take(count) => (0..count).for_each(|_| {
                node.step(&log);
            }),
            Step::LosePush => {
                if let Some(Sent::Push(_)) = node.line.back() {
                    node.line.pop_back();
                }
            }
            Step::LoseConnection => {
                node.line.clear();
                node.subscribed = false;
            }
            Step::Reconnect => node.subscribe(&log),
            Step::Trim(kept) => log.trim(kept.into()),
            // The connection goes with the broker.
            Step::FallOver(lost) => {
                log.fall_over(lost.into());
                node.line.clear();
                node.subscribed = false;
            }
            Step::Forget => {
                log.forget();
                node.line.clear();
                node.subscribed = false;
            }
        }
    }
    node.subscribe(&log);
    node.settle(&log);
    // Then everything is as usual again.
    for _ in 0..3 {
        node.push(&log.publish());
        node.settle(&log);
    }
    (node, log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn while_the_log_is_kept_every_entry_comes_once_and_in_order(steps in steps(false)) {
        let (node, log) = run(steps);

        prop_assert_eq!(&node.gaps, &[]);
        prop_assert_eq!(node.got, (1..=log.published).collect::<Vec<_>>());
    }

    #[test]
    fn a_node_that_asks_for_the_past_gets_the_last_of_it_and_then_what_follows_it(
        before in 0..100_u64,
        kept in 0..100_usize,
        wanted in 1..50_usize,
        steps in steps(false),
    ) {
        let (mut node, mut log) = (Node::with_past(wanted), Log::new());
        for _ in 0..before {
            log.publish();
        }
        log.trim(kept);
        node.subscribe(&log);
        let there = log.entries.len();

        let (node, log) = run_from(node, log, steps);

        let past = node.past.unwrap_or_default();
        prop_assert!((wanted.min(there)..=wanted).contains(&past.len()));
        let all: Vec<_> = past.into_iter().chain(node.got).collect();
        let first = log.published - all.len() as u64;
        prop_assert_eq!(all, (first + 1..=log.published).collect::<Vec<_>>());
        prop_assert_eq!(&node.gaps, &[]);
    }

    #[test]
    fn whatever_the_broker_loses_nothing_comes_twice_and_what_is_missing_is_told(
        steps in steps(true),
    ) {
        let (node, log) = run(steps);

        prop_assert!(node.got.is_sorted_by(|one, other| one < other), "{:?}", node.got);
        prop_assert!(node.got.ends_with(&[log.published - 2, log.published - 1, log.published]));
        // Other entries may have taken the places of those that it has forgotten: who missed them
        // cannot know.
        if log.forgotten.is_empty() {
            let missing = log.published - node.got.len() as u64;
            let told = node.gaps.iter().map(|gap| match gap {
                Gap::Entries(count) => *count,
                Gap::Unknown => 0,
            });
            prop_assert_eq!(told.sum::<u64>(), missing, "{:?}", node.gaps);
        }
    }
}

fn outputs(node: &mut Node, log: &Log) -> (Vec<u64>, Vec<Gap>) {
    node.settle(log);
    (
        std::mem::take(&mut node.got),
        std::mem::take(&mut node.gaps),
    )
}

fn subscribed(log: &Log) -> Node {
    let mut node = Node::new();
    node.subscribe(log);
    node.settle(log);
    node
}

#[test]
fn what_was_sent_before_a_node_came_is_not_for_it() {
    let mut log = Log::new();
    log.publish();
    let mut node = subscribed(&log);
    node.push(&log.publish());

    assert_eq!(outputs(&mut node, &log), (vec![2], vec![]));
}

#[test]
fn what_is_sent_while_a_node_subscribes_is_for_it() {
    let mut log = Log::new();
    log.publish();
    let mut node = Node::new();
    node.subscribed = true;
    let read = node.position.subscribed();
    node.push(&log.publish());
    node.line.push_back(Sent::Answer(log.read(read, MOST)));
    node.push(&log.publish());

    assert_eq!(outputs(&mut node, &log), (vec![2, 3], vec![]));
}

#[test]
fn what_is_pushed_before_the_subscription_is_confirmed_is_for_it_and_not_its_past() {
    let mut log = Log::new();
    log.publish();
    let mut node = Node::with_past(5);
    node.subscribed = true;
    let early = log.publish();
    node.push(&early);
    node.settle(&log);
    node.push(&log.publish());
    let read = node.position.subscribed();
    node.line.push_back(Sent::Answer(log.read(read, MOST)));

    assert_eq!(outputs(&mut node, &log), (vec![2, 3], vec![]));
    assert_eq!(node.past, Some(vec![1]));
}

#[test]
fn a_push_of_nothing_before_the_log_is_read_is_told_and_changes_nothing() {
    let mut log = Log::new();
    for _ in 0..3 {
        log.publish();
    }
    let mut node = Node::with_past(2);
    node.subscribed = true;
    let mut forged = log.entries[0].clone();
    forged.id = Id {
        epoch: 0,
        number: 0,
    };
    node.push(&forged);
    node.settle(&log);
    let read = node.position.subscribed();
    node.line.push_back(Sent::Answer(log.read(read, MOST)));
    node.push(&log.publish());

    assert_eq!(outputs(&mut node, &log), (vec![4], vec![]));
    assert_eq!((node.past, node.strays), (Some(vec![2, 3]), 1));
}

#[test]
fn the_past_is_as_long_as_it_was_wanted_although_more_was_pushed_meanwhile() {
    let mut log = Log::new();
    for _ in 0..3 {
        log.publish();
    }
    let mut node = Node::with_past(1);
    node.subscribed = true;
    for _ in 0..5 {
        node.push(&log.publish());
    }
    node.settle(&log);
    let read = node.position.subscribed();
    node.line.push_back(Sent::Answer(log.read(read, MOST)));

    assert_eq!(outputs(&mut node, &log), (vec![4, 5, 6, 7, 8], vec![]));
    assert_eq!(node.past, Some(vec![3]));
}

#[test]
fn entries_that_were_trimmed_are_counted() {
    let mut log = Log::new();
    let mut node = subscribed(&log);
    node.push(&log.publish());
    node.settle(&log);
    for _ in 0..10 {
        log.publish();
    }
    log.trim(4);
    node.subscribe(&log);

    assert_eq!(
        outputs(&mut node, &log),
        (vec![1, 8, 9, 10, 11], vec![Gap::Entries(6)])
    );
}

#[test]
fn what_a_replica_has_not_had_is_told_and_its_places_are_taken_by_others() {
    let mut log = Log::new();
    let mut node = subscribed(&log);
    for _ in 0..10 {
        node.push(&log.publish());
    }
    node.settle(&log);
    log.fall_over(3);
    for _ in 0..4 {
        log.publish();
    }
    node.subscribe(&log);

    let got = (1..=14).collect();
    assert_eq!(outputs(&mut node, &log), (got, vec![Gap::Unknown]));
}

#[test]
fn what_a_replica_has_not_had_and_is_published_again_is_not_heard_twice() {
    let mut log = Log::new();
    let mut node = subscribed(&log);
    for _ in 0..10 {
        node.push(&log.publish());
    }
    node.settle(&log);
    let again = log.entries.back().cloned();
    log.fall_over(2);
    // Somebody else is faster.
    log.publish();
    let mut placed = log.publish();
    let again = again.expect("it was published");
    (placed.mark, placed.entry) = (again.mark, again.entry);
    *log.entries.back_mut().expect("it is there") = placed;
    log.publish();
    node.subscribe(&log);

    let (got, gaps) = outputs(&mut node, &log);
    assert_eq!(got, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]);
    assert_eq!(gaps, [Gap::Unknown]);
}
