//! CAPF messages, whole and in pieces: however the bytes are cut, the same messages come out.
#![no_main]

use casemate_capf::protocol::{Decoder, Message};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 16 * 1024;

fn messages(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<Message> {
    let mut decoder = Decoder::new(LIMIT);
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.push(&piece);
        while let Ok(Some(message)) = decoder.next_message() {
            messages.push(message);
        }
    }
    messages
}

fuzz_target!(|data: &[u8]| {
    let whole = messages(std::iter::once(data.to_vec()));
    let bytewise = messages(data.iter().map(|byte| vec![*byte]));
    assert_eq!(whole, bytewise);
});
