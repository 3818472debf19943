//! One connection of a phone as a state machine: bytes in, actions out.

use crate::{
    codec::{CodecError, Command, Message, decode},
    request::{RequestError, VerifyRequest, answer, query_refused},
    trust::{TrustStore, Verdict},
};

/// Limits of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Bytes of one message, header included.
    pub message_bytes: usize,
    /// Questions of one connection.
    pub requests: u32,
    /// Seconds for which a phone may remember a valid answer.
    pub ttl: u32,
}

/// The peer broke the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// What it sent is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What it sent is no question.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It sent an answer.
    #[error("a phone sent a TVS answer")]
    Direction,
    /// It asked to be given a certificate, in a form that is not known.
    #[error("QueryRequest is not offered")]
    Query,
    /// It asked too often on one connection.
    #[error("more than {0} questions on one connection")]
    TooMany(u32),
    /// It closed in the middle of a message.
    #[error("closed after {0} bytes of a message")]
    Cut(usize),
}

/// What the loop has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Audit, then send in one write.
    Answer {
        /// What was asked.
        request: VerifyRequest,
        /// What TVS thinks.
        verdict: Verdict,
        /// The answer.
        bytes: Vec<u8>,
    },
    /// Audit, then send in one write, and go on.
    Decline {
        /// Why.
        refusal: Refusal,
        /// The answer.
        bytes: Vec<u8>,
    },
    /// Audit, and close without an answer.
    Close(Refusal),
}

/// A session.
#[derive(Debug)]
pub struct Session {
    limits: SessionLimits,
    buffer: Vec<u8>,
    asked: u32,
    closed: bool,
}

impl Session {
    /// A connection that was just opened. The phone speaks first.
    #[must_use]
    pub const fn new(limits: SessionLimits) -> Self {
        Self { limits, buffer: Vec::new(), asked: 0, closed: false }
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn in_message(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes what the phone sent, in pieces of any size, and judges by `trust` as of `now` (Unix seconds). After
    /// [`Action::Close`] nothing is taken any more.
    pub fn receive(&mut self, bytes: &[u8], trust: &TrustStore, now: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.closed {
            return actions;
        }
        self.buffer.extend_from_slice(bytes);
        while let Some(action) = self.next(trust, now).transpose() {
            let action = action.unwrap_or_else(Action::Close);
            self.closed = matches!(action, Action::Close(_));
            actions.push(action);
            if self.closed {
                self.buffer = Vec::new();
                break;
            }
        }
        actions
    }

    /// The phone closed: a refusal if it was in the middle of a message.
    #[must_use]
    pub fn end(&self) -> Option<Refusal> {
        self.in_message().then_some(Refusal::Cut(self.buffer.len()))
    }

    fn next(&mut self, trust: &TrustStore, now: i64) -> Result<Option<Action>, Refusal> {
        let Some((message, length)) = decode(&self.buffer, self.limits.message_bytes)? else { return Ok(None) };
        self.buffer.drain(..length);
        if self.asked == self.limits.requests {
            return Err(Refusal::TooMany(self.limits.requests));
        }
        self.asked += 1;
        self.judge(&message, trust, now).map(Some)
    }

    fn judge(&self, message: &Message, trust: &TrustStore, now: i64) -> Result<Action, Refusal> {
        match message.command {
            Command::VerifyRequest => {
                let request = VerifyRequest::parse(message)?;
                let verdict = trust.verdict(&request.certificate, now);
                let bytes = answer(message.session, &verdict, self.limits.ttl).encode()?;
                Ok(Action::Answer { request, verdict, bytes })
            }
            Command::QueryRequest => {
                Ok(Action::Decline { refusal: Refusal::Query, bytes: query_refused(message.session).encode()? })
            }
            Command::VerifyResponse | Command::QueryResponse => Err(Refusal::Direction),
        }
    }
}

#[cfg(test)]
mod tests {
    use casemate_hsm_api::KeyRole;
    use proptest::prelude::*;

    use super::*;
    use crate::trust::{Trusted, roles_of};

    const LIMITS: SessionLimits = SessionLimits { message_bytes: 1000, requests: 3, ttl: 3600 };

    fn store() -> TrustStore {
        let roles = roles_of(KeyRole::Capf);
        TrustStore::new([Trusted { der: b"capf".to_vec(), roles, not_before: 0, not_after: 100 }])
    }

    fn ask(certificate: &[u8], session: u32) -> Vec<u8> {
        let request = VerifyRequest { device: "CP-8841-SEP001122334455".into(), certificate: certificate.to_vec() };
        request.encode(session).unwrap()
    }

    fn validity(actions: &[Action]) -> Vec<(u32, bool)> {
        let answer = |action: &Action| match action {
            Action::Answer { verdict, bytes, .. } => {
                let session = decode(bytes, 1000).unwrap().unwrap().0.session;
                Some((session, matches!(verdict, Verdict::Valid { .. })))
            }
            Action::Decline { .. } | Action::Close(_) => None,
        };
        actions.iter().filter_map(answer).collect()
    }

    #[test]
    fn questions_are_answered_in_their_session() {
        let mut session = Session::new(LIMITS);
        assert_eq!(validity(&session.receive(&ask(b"capf", 5), &store(), 50)), [(5, true)]);
        assert_eq!(validity(&session.receive(&ask(b"other", 6), &store(), 50)), [(6, false)]);
        assert_eq!(validity(&session.receive(&ask(b"capf", 7), &store(), 101)), [(7, false)]);
    }

    #[test]
    fn two_questions_in_one_write_and_one_in_ten() {
        let both = [ask(b"capf", 1), ask(b"no", 2)].concat();
        assert_eq!(validity(&Session::new(LIMITS).receive(&both, &store(), 0)), [(1, true), (2, false)]);
        let mut session = Session::new(LIMITS);
        let question = ask(b"capf", 9);
        let pieces = question.chunks(question.len().div_ceil(10));
        let actions: Vec<_> = pieces.flat_map(|piece| session.receive(piece, &store(), 0)).collect();
        assert_eq!(validity(&actions), [(9, true)]);
        assert!(!session.in_message());
    }

    #[test]
    fn a_query_is_declined_and_the_session_goes_on() {
        let query = Message { command: Command::QueryRequest, session: 3, elements: vec![] }.encode().unwrap();
        let mut session = Session::new(LIMITS);
        let actions = session.receive(&[query, ask(b"capf", 4)].concat(), &store(), 0);
        let Action::Decline { refusal: Refusal::Query, bytes } = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(bytes, b"\x57\x01\x04\x00\x00\x00\x00\x03\x00\x04\x07\x00\x01\x01");
        assert_eq!(validity(&actions), [(4, true)]);
    }

    #[test]
    fn what_breaks_the_protocol_closes_and_nothing_is_taken_after() {
        let answer = answer(1, &Verdict::Unknown, 0).encode().unwrap();
        let long = b"\x57\x01\x01\x00\x00\x00\x00\x00\xff\xff".to_vec();
        let nothing = Message { command: Command::VerifyRequest, session: 1, elements: vec![] }.encode().unwrap();
        for (bytes, refusal) in [
            (answer, Refusal::Direction),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refusal::Codec(CodecError::Magic(b'G'))),
            (long, Refusal::Codec(CodecError::Length { length: 65545, limit: 1000 })),
            (nothing, Refusal::Request(RequestError::Count { tag: 1, count: 0 })),
        ] {
            let mut session = Session::new(LIMITS);
            assert_eq!(session.receive(&bytes, &store(), 0), [Action::Close(refusal)]);
            assert_eq!(session.receive(&ask(b"capf", 1), &store(), 0), []);
            assert!(!session.in_message());
        }
    }

    #[test]
    fn questions_on_one_connection_are_counted() {
        let mut session = Session::new(LIMITS);
        let four = ask(b"capf", 1).repeat(4);
        let actions = session.receive(&four, &store(), 0);
        assert_eq!(validity(&actions).len(), 3);
        assert_eq!(actions.last(), Some(&Action::Close(Refusal::TooMany(3))));
    }

    #[test]
    fn a_message_that_is_never_ended_is_seen() {
        let mut session = Session::new(LIMITS);
        let question = ask(b"capf", 1);
        assert_eq!(session.receive(&question[..20], &store(), 0), []);
        assert!(session.in_message());
        assert_eq!(session.end(), Some(Refusal::Cut(20)));
        assert_eq!(Session::new(LIMITS).end(), None);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_answers(cuts in proptest::collection::vec(1usize..80, 1..40), damage in proptest::option::of((any::<usize>(), any::<u8>()))) {
            let mut bytes = [ask(b"capf", 1), ask(b"other", 2), ask(b"capf", 3)].concat();
            if let Some((place, byte)) = damage {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            let whole = Session::new(LIMITS).receive(&bytes, &store(), 0);
            let mut session = Session::new(LIMITS);
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.extend(session.receive(piece, &store(), 0));
                rest = after;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_the_buffer_is_bounded(pieces: Vec<Vec<u8>>) {
            let mut session = Session::new(LIMITS);
            for piece in pieces {
                let _ = session.receive(&piece, &store(), 0);
                prop_assert!(session.buffer.len() < LIMITS.message_bytes);
            }
        }
    }
}
