//! CAPF: however the bytes are cut, the same messages come out; what is taken is written back to the same bytes; and whatever
//! a phone says, a session issues only after it was granted, and records only what was issued.
#![no_main]

use casemate_capf::{
    protocol::{Decoder, Message},
    session::{Action, Granted, Input, Refusal, Session},
};
use casemate_hsm_api::KeyAlgorithm;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 16 * 1024;

/// The messages of `data`, read as a connection reads them: at most what is wanted, and at most `step` bytes at a time.
fn messages(mut data: &[u8], step: usize) -> (Vec<Message>, bool) {
    let mut decoder = Decoder::new(LIMIT);
    let mut messages = Vec::new();
    loop {
        match decoder.next_message() {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => {
                let Ok(wanted) = decoder.wanted() else { return (messages, false) };
                assert!(wanted > 0, "a decoder that wants nothing must have a message");
                let Some((next, rest)) = data.split_at_checked(wanted.min(step).min(data.len())) else { continue };
                if next.is_empty() {
                    return (messages, true);
                }
                decoder.push(next);
                data = rest;
            }
            Err(_) => return (messages, false),
        }
    }
}

/// What the service did for one session.
#[derive(Default)]
struct Service {
    granted: bool,
    issued: bool,
    recorded: bool,
    ended: bool,
}

impl Service {
    /// Carries out one action, and gives the session what came of it. `mood` decides what the records say.
    fn act(&mut self, action: Action, mood: u8) -> Option<Input> {
        assert!(!self.ended, "an action after the end");
        match action {
            Action::Send(message) => {
                assert!(message.encode().is_some_and(|bytes| !bytes.is_empty()), "a message that cannot be sent");
                None
            }
            Action::LookUp { .. } => {
                assert!(!self.granted, "a device is looked up once");
                self.granted = mood & 1 == 0;
                let key = KeyAlgorithm::ALL[usize::from(mood >> 1) % KeyAlgorithm::ALL.len()];
                Some(Input::LookedUp(if self.granted { Ok(Granted { key }) } else { Err(Refusal::UnknownDevice) }))
            }
            Action::Issue { spki_der, request } => {
                assert!(self.granted && !self.issued, "issued without a grant, or twice");
                assert!(!spki_der.is_empty() && request.first() == Some(&0x55));
                self.issued = mood & 0x40 == 0;
                Some(Input::Issued(if self.issued { Ok(vec![0x30, 0]) } else { Err(Refusal::NothingToDo) }))
            }
            Action::RecordDelivery => {
                assert!(self.issued && !self.recorded, "recorded what was not issued");
                self.recorded = mood & 0x80 == 0;
                Some(Input::DeliveryRecorded(if self.recorded { Ok(()) } else { Err(Refusal::Busy) }))
            }
            Action::End(outcome) => {
                assert_eq!(outcome.is_ok(), self.recorded, "success is a recorded delivery and nothing else");
                self.ended = true;
                None
            }
        }
    }

    fn hear(&mut self, session: &mut Session, input: Input, mood: u8) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in session.handle(input) {
                inputs.extend(self.act(action, mood));
            }
        }
    }
}

fn converse(messages: Vec<Message>, mood: u8) {
    let mut session = Session::new(messages.first().map_or(1, |message| message.session));
    let mut service = Service::default();
    service.hear(&mut session, Input::Started, mood);
    for message in messages {
        service.hear(&mut session, Input::Received(message), mood);
    }
    let gone = Refusal::Closed { step: session.step() };
    service.hear(&mut session, Input::Failed(gone), mood);
    assert!(service.ended, "a session whose connection is gone ends");
}

fuzz_target!(|data: &[u8]| {
    let Some((mood, data)) = data.split_first() else { return };
    let (whole, clean) = messages(data, usize::MAX);
    assert_eq!(messages(data, 1), (whole.clone(), clean));
    let written: Vec<u8> = whole.iter().flat_map(|m| m.encode().expect("what was read has a length that fits")).collect();
    assert_eq!(data.get(..written.len()), Some(&written[..]), "another form of the same message was taken");
    converse(whole, *mood);
});
