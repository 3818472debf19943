//! One read transfer as a state machine: lock-step, one packet in flight (RFC 1350, 2; RFC 1123, 4.2.3.1 for the sorcerer's
//! apprentice).

use std::time::Duration;

use crate::{
    options::Agreed,
    packet::{ErrorCode, Packet, data_packet, error_packet},
};

/// When to repeat a packet, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Wait before the first repetition; doubled with each further one (RFC 1123, 4.2.3.2), unless the client set an interval.
    pub first: Duration,
    /// Repetitions of one packet.
    pub limit: u32,
}

/// How a transfer ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The client acknowledged the last block.
    Complete,
    /// The client sent an error: it wanted the size only, or has another transfer.
    Stopped {
        /// TFTP error code.
        code: u16,
    },
    /// The client stopped acknowledging.
    Silent {
        /// The block that it did not acknowledge, counted from 1; 0 is the option acknowledgment.
        block: u64,
        /// Whether that was the last one. Then the client has most likely all, and left.
        last: bool,
    },
    /// The client sent what has no place in a read transfer.
    Illegal,
}

/// What the loop has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Send `packet`; if no packet of the client leads to another action within `wait`, call [`Transfer::timer`].
    Send {
        /// To the client.
        packet: Vec<u8>,
        /// Time to the next call of the timer.
        wait: Duration,
    },
    /// Go on waiting; the timer that runs is not set again.
    Ignore,
    /// Send `last` if there is one, and end.
    Done {
        /// An error packet.
        last: Option<Vec<u8>>,
        /// For the log.
        outcome: Outcome,
    },
}

/// A read transfer of `content`.
#[derive(Debug)]
pub struct Transfer<C> {
    content: C,
    agreed: Agreed,
    retry: Retry,
    /// The block that is in flight, counted without wrapping; 0 is the option acknowledgment.
    block: u64,
    repeated: u32,
    proven: bool,
}

impl<C: AsRef<[u8]>> Transfer<C> {
    /// A transfer of `content` with what was `agreed`.
    #[must_use]
    pub fn new(content: C, agreed: Agreed, retry: Retry) -> Self {
        let block = u64::from(agreed.acknowledged.is_empty());
        Self { content, agreed, retry, block, repeated: 0, proven: false }
    }

    /// The first packet.
    #[must_use]
    pub fn begin(&self) -> Action {
        self.send()
    }

    /// A datagram from the client of this transfer.
    pub fn packet(&mut self, datagram: &[u8]) -> Action {
        match Packet::decode(datagram) {
            Ok(Packet::Ack(block)) if block == wire(self.block) => self.advance(),
            // An acknowledgment of an earlier block is a duplicate. Answering it would double every packet from here on.
            Ok(Packet::Ack(_)) => Action::Ignore,
            Ok(Packet::Error { code, .. }) => Action::Done { last: None, outcome: Outcome::Stopped { code } },
            Ok(_) | Err(_) => Action::Done {
                last: Some(error_packet(ErrorCode::IllegalOperation, "not an acknowledgment")),
                outcome: Outcome::Illegal,
            },
        }
    }

    /// The time that the last [`Action::Send`] gave is over.
    pub fn timer(&mut self) -> Action {
        if self.repeated >= self.retry.limit {
            return Action::Done { last: None, outcome: self.silent() };
        }
        self.repeated += 1;
        self.send()
    }

    /// Whether the client acknowledged a packet. Until then its address may be forged: an acknowledgment goes to a port that
    /// only the real one was told.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.proven
    }

    /// How the transfer ends if nothing more comes from the client.
    #[must_use]
    pub fn silent(&self) -> Outcome {
        Outcome::Silent { block: self.block, last: self.block == self.last_block() }
    }

    fn advance(&mut self) -> Action {
        self.proven = true;
        if self.block == self.last_block() {
            return Action::Done { last: None, outcome: Outcome::Complete };
        }
        self.block += 1;
        self.repeated = 0;
        self.send()
    }

    fn send(&self) -> Action {
        Action::Send { packet: self.in_flight(), wait: self.wait() }
    }

    fn wait(&self) -> Duration {
        match self.agreed.timeout {
            Some(interval) => interval,
            None => self.retry.first.saturating_mul(1u32.checked_shl(self.repeated).unwrap_or(u32::MAX)),
        }
    }

    /// The last block is shorter than the block size, if need be empty.
    fn last_block(&self) -> u64 {
        (self.content.as_ref().len() / self.agreed.block.bytes()) as u64 + 1
    }

    fn in_flight(&self) -> Vec<u8> {
        let Some(index) = self.block.checked_sub(1) else {
            return Packet::OptionAck(self.agreed.acknowledged.clone())
                .encode()
                .expect("acknowledged options are words and numbers of ours, without NUL");
        };
        let size = self.agreed.block.bytes();
        let content = self.content.as_ref();
        let start = usize::try_from(index).map_or(content.len(), |index| index.saturating_mul(size)).min(content.len());
        let end = start.saturating_add(size).min(content.len());
        data_packet(wire(self.block), content.get(start..end).unwrap_or_default())
    }
}

/// The block number on the wire: 16 bits that wrap to 0.
fn wire(block: u64) -> u16 {
    (block & 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::options::{BlockSize, agree};

    const RETRY: Retry = Retry { first: Duration::from_secs(1), limit: 3 };

    fn agreed(options: &[(&str, String)], length: usize) -> Agreed {
        let options: Vec<_> =
            options.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone().into_bytes())).collect();
        agree(&options, length, BlockSize::try_from(65464).unwrap()).unwrap()
    }

    fn ack(block: u16) -> Vec<u8> {
        Packet::Ack(block).encode().unwrap()
    }

    fn data(action: &Action) -> (u16, Vec<u8>) {
        let Action::Send { packet, .. } = action else { panic!("{action:?}") };
        match Packet::decode(packet) {
            Ok(Packet::Data { block, data }) => (block, data.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    fn wait(action: &Action) -> u64 {
        let Action::Send { wait, .. } = action else { panic!("{action:?}") };
        wait.as_secs()
    }

    #[test]
    fn a_content_of_whole_blocks_ends_with_an_empty_one() {
        let mut transfer = Transfer::new([7; 1024], agreed(&[], 1024), RETRY);
        assert_eq!(data(&transfer.begin()), (1, vec![7; 512]));
        assert_eq!(data(&transfer.packet(&ack(1))), (2, vec![7; 512]));
        assert_eq!(data(&transfer.packet(&ack(2))), (3, vec![]));
        assert_eq!(transfer.packet(&ack(3)), Action::Done { last: None, outcome: Outcome::Complete });
    }

    #[test]
    fn options_are_acknowledged_before_the_first_block() {
        let mut transfer = Transfer::new(b"abcdefghij", agreed(&[("blksize", "8".into())], 10), RETRY);
        let Action::Send { packet, .. } = transfer.begin() else { panic!() };
        assert_eq!(packet, b"\0\x06blksize\x008\0");
        assert_eq!(data(&transfer.packet(&ack(0))), (1, b"abcdefgh".to_vec()));
    }

    #[test]
    fn only_the_acknowledgment_of_what_was_sent_proves_an_address() {
        let mut transfer = Transfer::new([7; 2000], agreed(&[], 2000), RETRY);
        let _ = transfer.begin();
        let _ = transfer.packet(&ack(0));
        let _ = transfer.packet(&ack(2));
        let _ = transfer.timer();
        assert!(!transfer.is_proven());
        let _ = transfer.packet(&ack(1));
        assert!(transfer.is_proven());
    }

    #[test]
    fn a_duplicate_acknowledgment_sends_nothing() {
        let mut transfer = Transfer::new([7; 2000], agreed(&[], 2000), RETRY);
        let _ = transfer.begin();
        let _ = transfer.packet(&ack(1));
        assert_eq!(transfer.packet(&ack(1)), Action::Ignore);
        assert_eq!(transfer.packet(&ack(9)), Action::Ignore);
        assert_eq!(data(&transfer.packet(&ack(2))).0, 3);
    }

    #[test]
    fn silence_repeats_ever_slower_and_then_ends() {
        let mut transfer = Transfer::new(b"x", agreed(&[], 1), RETRY);
        assert_eq!(wait(&transfer.begin()), 1);
        for seconds in [2, 4, 8] {
            let repeated = transfer.timer();
            assert_eq!((wait(&repeated), data(&repeated)), (seconds, (1, b"x".to_vec())));
        }
        let outcome = Outcome::Silent { block: 1, last: true };
        assert_eq!(transfer.timer(), Action::Done { last: None, outcome });
    }

    #[test]
    fn the_interval_that_the_client_set_is_kept() {
        let mut transfer = Transfer::new(b"x", agreed(&[("timeout", "7".into())], 1), RETRY);
        assert_eq!((wait(&transfer.begin()), wait(&transfer.timer()), wait(&transfer.timer())), (7, 7, 7));
    }

    #[test]
    fn an_error_ends_without_an_answer_and_anything_else_with_one() {
        let mut transfer = Transfer::new(b"x", agreed(&[], 1), RETRY);
        let stop = error_packet(ErrorCode::NotDefined, "enough");
        assert_eq!(transfer.packet(&stop), Action::Done { last: None, outcome: Outcome::Stopped { code: 0 } });
        let Action::Done { last: Some(error), outcome: Outcome::Illegal } = transfer.packet(b"\0\x03\0\x01data") else {
            panic!()
        };
        assert_eq!(&error[..4], b"\0\x05\0\x04");
    }

    #[test]
    fn block_numbers_wrap_and_the_content_stays_whole() {
        let content: Vec<u8> = (0..8u32 * 65_540 + 3).map(|i| (i % 251) as u8).collect();
        let mut transfer = Transfer::new(&content, agreed(&[("blksize", "8".into())], content.len()), RETRY);
        let _ = transfer.begin();
        let mut received = Vec::new();
        let mut action = transfer.packet(&ack(0));
        while let Action::Send { .. } = action {
            let (block, bytes) = data(&action);
            received.extend(bytes);
            action = transfer.packet(&ack(block));
        }
        assert_eq!(action, Action::Done { last: None, outcome: Outcome::Complete });
        assert!(received == content);
    }

    /// What the channel does with one packet.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Deliver,
        Lose,
        Double,
        Overtake,
    }

    fn any_fate() -> impl Strategy<Value = Fate> {
        prop_oneof![3 => Just(Fate::Deliver), 2 => Just(Fate::Lose), 1 => Just(Fate::Double), 1 => Just(Fate::Overtake)]
    }

    fn carry(queue: &mut VecDeque<Vec<u8>>, packet: Vec<u8>, fate: Fate) {
        match fate {
            Fate::Deliver => queue.push_back(packet),
            Fate::Lose => {}
            Fate::Double => queue.extend([packet.clone(), packet]),
            Fate::Overtake => queue.push_front(packet),
        }
    }

    /// A client as RFC 1350 describes one: takes the block that it waits for, repeats the acknowledgment of the one before.
    #[derive(Default)]
    struct Receiver {
        received: Vec<u8>,
        next: u64,
        whole: bool,
    }

    impl Receiver {
        fn packet(&mut self, packet: &[u8], block_size: usize) -> Option<Vec<u8>> {
            match Packet::decode(packet).unwrap() {
                Packet::OptionAck(_) => {
                    self.next = self.next.max(1);
                    (self.next == 1).then(|| ack(0))
                }
                Packet::Data { block, data } if !self.whole && block == wire(self.next.max(1)) => {
                    self.received.extend_from_slice(data);
                    self.next = self.next.max(1) + 1;
                    self.whole = data.len() < block_size;
                    Some(ack(block))
                }
                Packet::Data { block, .. } => (block == wire(self.next.wrapping_sub(1))).then(|| ack(block)),
                other => panic!("{other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_bad_channel_changes_nothing(content in vec(any::<u8>(), 0..600), block in 8u16..80, with_options: bool, fates in vec(any_fate(), 0..300)) {
            let agreed = if with_options { agreed(&[("blksize", block.to_string())], content.len()) } else { agreed(&[], content.len()) };
            let size = agreed.block.bytes();
            let mut transfer = Transfer::new(&content, agreed, Retry { first: Duration::from_secs(1), limit: 1000 });
            let mut fates = fates.into_iter().chain(std::iter::repeat(Fate::Deliver));
            let (mut to_client, mut to_server) = (VecDeque::new(), VecDeque::new());
            let mut receiver = Receiver::default();
            let (mut sent, mut timers) = (0, 0);
            let mut action = transfer.begin();
            let outcome = loop {
                match action {
                    Action::Send { packet, .. } => { sent += 1; carry(&mut to_client, packet, fates.next().unwrap()); }
                    Action::Ignore => {}
                    Action::Done { outcome, .. } => break outcome,
                }
                if let Some(packet) = to_client.pop_front()
                    && let Some(answer) = receiver.packet(&packet, size)
                {
                    carry(&mut to_server, answer, fates.next().unwrap());
                }
                action = match to_server.pop_front() {
                    Some(packet) => transfer.packet(&packet),
                    None if to_client.is_empty() => { timers += 1; transfer.timer() }
                    None => Action::Ignore,
                };
            };
            prop_assert_eq!(outcome, Outcome::Complete);
            prop_assert!(receiver.whole);
            prop_assert_eq!(&receiver.received, &content);
            // The sorcerer's apprentice: one packet for each block, the option acknowledgment and each timer, and no more.
            prop_assert_eq!(sent, content.len() / size + 1 + usize::from(with_options) + timers);
        }

        #[test]
        fn arbitrary_packets_never_panic(packets: Vec<Vec<u8>>, content: Vec<u8>) {
            let mut transfer = Transfer::new(&content, agreed(&[], content.len()), RETRY);
            for packet in packets {
                let _ = transfer.packet(&packet);
                let _ = transfer.timer();
            }
        }
    }
}
