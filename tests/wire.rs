//! Entries as bytes: what is written is read again, and nothing else is.

use std::fmt::Write;

use _core::cluster::wire::{Entry, Message, Unreadable, read, write};
use proptest::prelude::*;

/// Golden: every later version reads these, and none writes version 1 in another way.
const VECTORS: [(&str, &str); 3] = [
    (
        "one message to all",
        "0194c410000102030405060708090a0b0c0d0e0f01cf000001932f90da809192c0c40568656c6c6f",
    ),
    (
        "a message that one session does not get, and another one",
        "0194c410000102030405060708090a0b0c0d0e0fcd01f4cf000001932f90da809292c403616e6ec4019292c0c400",
    ),
    ("none", "0194c410000102030405060708090a0b0c0d0e0f000090"),
];

const PUBLISHER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn entries() -> [Entry<'static>; 3] {
    let time = 1_731_669_842_560;
    let entry = |sequence, time, messages| Entry {
        publisher: PUBLISHER,
        sequence,
        time,
        messages,
    };
    let message = |except, payload| Message { except, payload };
    [
        entry(1, time, vec![message(None, &b"hello"[..])]),
        entry(
            500,
            time,
            vec![
                message(Some(&b"ann"[..]), &b"\x92"[..]),
                message(None, &b""[..]),
            ],
        ),
        entry(0, 0, vec![]),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_default())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn the_vectors_are_written_and_read() {
    for ((what, vector), entry) in VECTORS.iter().zip(entries()) {
        assert_eq!(hex(&write(&entry)), *vector, "{what}");
        assert_eq!(read(&bytes(vector)), Ok(entry), "{what}");
    }
}

#[test]
fn a_newer_version_is_told_by_its_number() {
    assert_eq!(read(&[2, 0xc0]), Err(Unreadable::Newer(2)));
    assert_eq!(read(&[0]), Err(Unreadable::Malformed));
    assert_eq!(read(&[]), Err(Unreadable::Malformed));
}

#[test]
fn a_length_that_is_too_large_takes_no_memory() {
    for end in ["ddffffffff", "91dfffffffff", "9192c0c6ffffffff"] {
        let vector = format!("0194c410{}0000{end}", hex(&PUBLISHER));
        assert_eq!(read(&bytes(&vector)), Err(Unreadable::Malformed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn an_entry_that_is_written_is_read_again(
        publisher: [u8; 16],
        sequence: u64,
        time: u64,
        messages in prop::collection::vec(any::<(Option<Vec<u8>>, Vec<u8>)>(), 0..8),
        further: Vec<u8>,
    ) {
        let messages = messages
            .iter()
            .map(|(except, payload)| Message { except: except.as_deref(), payload })
            .collect();
        let entry = Entry { publisher, sequence, time, messages };
        let mut written = write(&entry);
        prop_assert_eq!(read(&written), Ok(Entry { messages: entry.messages.clone(), ..entry }));
        for cut in 1..written.len() {
            prop_assert_eq!(read(&written[..cut]), Err(Unreadable::Malformed));
        }
        written.extend(&further);
        prop_assert_eq!(read(&written), Ok(entry));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, version in 0..3_u8) {
        let mut bytes = bytes;
        bytes.insert(0, version);
        let _ = read(&bytes);
    }
}
