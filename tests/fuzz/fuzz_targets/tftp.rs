//! TFTP: packets are written back to the same bytes; a name that is taken leads to a published file and nowhere else; and a
//! transfer sends its content and nothing else, whatever the client answers.
//!
//! The input is a request and the client's datagrams after it, each behind its length in one byte; a datagram of length 0 is
//! silence, on which the timer fires.
#![no_main]

use std::time::Duration;

use casemate_tftp::{
    name::{Transport, locate},
    options::{BlockSize, agree},
    packet::{Direction, Packet},
    transfer::{Action, Retry, Transfer},
};
use libfuzzer_sys::fuzz_target;

const RETRY: Retry = Retry { first: Duration::from_millis(1), limit: 3 };
const LENGTH: usize = 5000;

fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*length).min(rest.len()))
}

fn check_packet(datagram: &[u8]) {
    let Ok(packet) = Packet::decode(datagram) else { return };
    let written = packet.encode().expect("what was read can be written");
    assert_eq!(Packet::decode(&written).as_ref(), Ok(&packet));
}

fn check_name(name: &[u8]) {
    for transport in [Transport::Tftp, Transport::Http, Transport::Https] {
        let Ok(Some(published)) = locate(name, transport) else { continue };
        let file = published.file_name();
        let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        assert!(plain && !file.starts_with('.') && !file.contains(".."), "{file}");
        assert!(transport == Transport::Https || file.ends_with(".tlv") || file.ends_with(".sgn"), "{file} in the clear");
    }
}

/// One transfer of `content` to a client that asks with `options` and answers `datagrams`.
fn transfer(options: &[(Vec<u8>, Vec<u8>)], mut datagrams: &[u8], content: &[u8]) {
    let Ok(agreed) = agree(options, content.len(), BlockSize::default()) else { return };
    let size = agreed.block.bytes();
    assert!((8..=1468).contains(&size));
    let mut transfer = Transfer::new(content, agreed, RETRY);
    let mut action = transfer.begin();
    loop {
        match &action {
            Action::Send { packet, .. } => match Packet::decode(packet).expect("the server sends packets") {
                // The content is under 65536 blocks, so its number is its place.
                Packet::Data { block, data } => {
                    let start = (usize::from(block) - 1) * size;
                    assert_eq!(data, &content[start..(start + size).min(content.len())]);
                }
                Packet::OptionAck(_) => {}
                other => panic!("{other:?} is not of a transfer"),
            },
            Action::Ignore => {}
            Action::Done { .. } => return,
        }
        let Some((datagram, rest)) = split(datagrams) else { return };
        action = if datagram.is_empty() { transfer.timer() } else { transfer.packet(datagram) };
        datagrams = rest;
    }
}

fuzz_target!(|data: &[u8]| {
    check_packet(data);
    check_name(data);
    let Some((request, datagrams)) = split(data) else { return };
    check_packet(request);
    if let Ok(Packet::Request(request)) = Packet::decode(request) {
        check_name(&request.name);
        if request.direction == Direction::Read {
            let content: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
            transfer(&request.options, datagrams, &content);
        }
    }
});
