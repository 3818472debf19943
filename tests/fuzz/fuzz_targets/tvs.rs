//! TVS: what is read is written back to the same bytes; a session answers the same however the bytes are cut, calls valid only
//! the certificate that is trusted, and never holds more than one message.
#![no_main]

use casemate_phonefile::Role;
use casemate_tvs::{
    codec,
    session::{Action, Session, SessionLimits},
    trust::{TrustStore, Trusted, Verdict},
};
use libfuzzer_sys::fuzz_target;

const LIMITS: SessionLimits = SessionLimits { message_bytes: 16 * 1024, requests: 8, ttl: 3600 };
const KNOWN: &[u8] = b"known";
const NOW: i64 = 1_800_000_000;

fn actions<'a>(pieces: impl Iterator<Item = &'a [u8]>, trust: &TrustStore) -> Vec<Action> {
    let mut session = Session::new(LIMITS);
    let actions: Vec<_> = pieces.flat_map(|piece| session.receive(piece, trust, NOW)).collect();
    let _ = session.end();
    actions
}

fn check(action: &Action) {
    match action {
        Action::Answer { request, verdict, bytes } => {
            assert_eq!(matches!(verdict, Verdict::Valid { .. }), request.certificate == KNOWN);
            let read = codec::decode(bytes, LIMITS.message_bytes).expect("an answer is a message");
            assert_eq!(read.map(|(_, length)| length), Some(bytes.len()));
        }
        Action::Decline { bytes, .. } => assert!(matches!(codec::decode(bytes, LIMITS.message_bytes), Ok(Some(_)))),
        Action::Close(_) => {}
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((message, length))) = codec::decode(data, LIMITS.message_bytes) {
        assert_eq!(message.encode().expect("what was read has a length that fits"), &data[..length]);
    }
    let known = Trusted { der: KNOWN.to_vec(), roles: &[Role::Capf], not_before: NOW - 1, not_after: NOW + 9 };
    let trust = TrustStore::new([known]);
    let whole = actions(std::iter::once(data), &trust);
    assert_eq!(actions(data.chunks(7), &trust), whole);
    assert!(whole.len() <= LIMITS.requests as usize + 1);
    whole.iter().for_each(check);
    let closed = whole.iter().position(|action| matches!(action, Action::Close(_)));
    assert!(closed.is_none_or(|at| at + 1 == whole.len()), "an answer after the end");
});
