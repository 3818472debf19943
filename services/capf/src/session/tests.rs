use proptest::{collection::vec, prelude::*, sample::select};
use rcgen::{KeyPair, PublicKeyData};

use super::*;

const ID: u32 = 7;
const STRING: &[u8] = b"12345";

fn spki(key: KeyAlgorithm) -> Vec<u8> {
    let algorithm = match key {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => &rcgen::PKCS_RSA_SHA256,
        KeyAlgorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyAlgorithm::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        KeyAlgorithm::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
    };
    KeyPair::generate_for(algorithm).unwrap().subject_public_key_info()
}

fn message(command: Command, elements: Vec<Element>) -> Input {
    Input::Received(Message { command, session: ID, elements })
}

fn hello(version: u8, string: Option<&[u8]>) -> Input {
    let mut elements = vec![
        Element::Reason(Reason::SUCCESS),
        Element::ProtocolVersion(version),
        Element::DeviceName("SEP001122334455".into()),
    ];
    elements.extend(string.map(|text| Element::Password(Password::new(text))));
    message(Command::AuthResponse, elements)
}

fn key_response(spki: Vec<u8>) -> Input {
    message(Command::KeyGenResponse, vec![Element::PublicKey(spki)])
}

fn stored(reason: u8) -> Input {
    message(Command::StoreCertResponse, vec![Element::Reason(Reason(reason))])
}

fn opened() -> Session {
    let mut session = Session::new(ID);
    assert!(matches!(&session.handle(Input::Started)[..], [Action::Send(m)] if m.command == Command::AuthRequest));
    session
}

/// A session whose phone is waited for with a key.
fn granted(version: u8, key: KeyAlgorithm) -> (Session, Vec<Action>) {
    let mut session = opened();
    assert!(matches!(&session.handle(hello(version, Some(STRING)))[..], [Action::LookUp { .. }]));
    let actions = session.handle(Input::LookedUp(Ok(Granted { key })));
    (session, actions)
}

fn refusal(actions: &[Action]) -> (Reason, Refusal) {
    let [Action::Send(message), Action::End(Err(refusal))] = actions else { panic!("no refusal: {actions:?}") };
    assert_eq!(message.command, Command::EndSession);
    let reason = message.find(|e| if let Element::Reason(reason) = e { Some(*reason) } else { None }).unwrap();
    let told = message.find(|e| if let Element::ReasonInfo(text) = e { Some(text.clone()) } else { None });
    assert_eq!(told, refusal.told());
    (reason, refusal.clone())
}

#[test]
fn a_phone_of_version_3_gets_its_certificate() {
    let (mut session, actions) = granted(3, KeyAlgorithm::P256);
    let [Action::Send(ask)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((ask.command, ask.session), (Command::KeyGenRequest, ID));
    assert_eq!(ask.elements, [Element::KeyType(1), Element::Curve(0)]);
    assert!(session.is_generating());
    assert_eq!(session.handle(message(Command::RequestInProgress, vec![])), []);
    let key = spki(KeyAlgorithm::P256);
    let actions = session.handle(key_response(key.clone()));
    let [Action::Issue { spki_der, request }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*spki_der, key);
    assert_eq!(request[..2], [0x55, 4]);
    let actions = session.handle(Input::Issued(Ok(vec![1, 2, 3])));
    let [Action::Send(store)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(store.elements, [Element::CertType(1), Element::Certificate { kind: 1, der: vec![1, 2, 3] }]);
    assert_eq!(session.handle(stored(1)), [Action::RecordDelivery]);
    let actions = session.handle(Input::DeliveryRecorded(Ok(())));
    let [Action::Send(end), Action::End(Ok(()))] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(end.elements, [Element::Reason(Reason::SUCCESS)]);
    assert_eq!(session.handle(stored(1)), []);
}

#[test]
fn an_older_client_is_asked_for_rsa_by_its_size_and_refused_a_curve() {
    let (_, actions) = granted(2, KeyAlgorithm::Rsa2048);
    assert!(matches!(&actions[..], [Action::Send(m)] if m.elements == [Element::KeySize(2048)]));
    let (mut session, actions) = granted(1, KeyAlgorithm::P384);
    let (reason, refused) = refusal(&actions);
    assert_eq!(reason, Reason::DECLINED);
    assert_eq!(refused, Refusal::KeyNeedsVersion3 { wanted: KeyAlgorithm::P384, version: 1 });
    assert_eq!(session.handle(key_response(vec![])), []);
}

#[test]
fn only_the_kind_and_size_that_was_asked_for_is_taken() {
    for (asked, sent) in [
        (KeyAlgorithm::P256, KeyAlgorithm::P384),
        (KeyAlgorithm::P521, KeyAlgorithm::Rsa2048),
        (KeyAlgorithm::Rsa3072, KeyAlgorithm::Rsa2048),
    ] {
        let (mut session, _) = granted(3, asked);
        let (reason, refused) = refusal(&session.handle(key_response(spki(sent))));
        assert_eq!(reason, Reason::DECLINED);
        assert_eq!(refused, Refusal::OtherKey { wanted: asked, found: sent });
    }
    for garbage in [vec![], vec![0x30, 0], vec![0xff; 300]] {
        let (mut session, _) = granted(3, KeyAlgorithm::P256);
        assert!(matches!(refusal(&session.handle(key_response(garbage))).1, Refusal::UnusableKey(_)));
    }
}

#[test]
fn reason_codes_are_those_of_the_reference() {
    for (refused, expected) in [
        (Refusal::UnknownDevice, 9),
        (Refusal::NothingToDo, 0),
        (Refusal::WrongString { left: 4 }, 7),
        (Refusal::Locked, 7),
        (Refusal::Unavailable("token absent: slot 3".into()), 7),
    ] {
        let mut session = opened();
        session.handle(hello(3, Some(b"99999")));
        let (reason, _) = refusal(&session.handle(Input::LookedUp(Err(refused))));
        assert_eq!(reason.0, expected);
    }
    assert!(!Refusal::Unavailable("token absent: slot 3".into()).told().unwrap().contains("slot"));
}

/// Says whether a refusal is the expected one.
type Judge = fn(&Refusal) -> bool;

#[test]
fn a_bad_first_message_is_refused_with_what_is_wrong() {
    let name = || Element::DeviceName("SEP001122334455".into());
    let cases: Vec<(Input, Judge)> = vec![
        (message(Command::AuthResponse, vec![name()]), |r| {
            matches!(r, Refusal::Lacks { element: "protocol version", .. })
        }),
        (message(Command::AuthResponse, vec![Element::ProtocolVersion(3)]), |r| {
            matches!(r, Refusal::Lacks { element: "device name", .. })
        }),
        (hello(4, None), |r| matches!(r, Refusal::Version { found: 4 })),
        (hello(0, None), |r| matches!(r, Refusal::Version { found: 0 })),
        (key_response(vec![]), |r| matches!(r, Refusal::Unexpected { command: Command::KeyGenResponse, .. })),
        (stored(1), |r| matches!(r, Refusal::Unexpected { .. })),
        (
            message(
                Command::AuthResponse,
                vec![Element::ProtocolVersion(3), Element::DeviceName("../etc/passwd".into())],
            ),
            |r| matches!(r, Refusal::NoName(_)),
        ),
        (
            message(
                Command::AuthResponse,
                vec![Element::ProtocolVersion(3), name(), Element::Other { tag: 20, value: vec![0; 256] }],
            ),
            |r| matches!(r, Refusal::CertificateAuthentication),
        ),
        (message(Command::AuthResponse, vec![Element::Reason(Reason(7)), Element::ProtocolVersion(3), name()]), |r| {
            matches!(r, Refusal::PhoneFailed { reason: 7, .. })
        }),
        (Input::Received(Message { command: Command::AuthResponse, session: ID + 1, elements: vec![] }), |r| {
            matches!(r, Refusal::OtherSession { found: 8, expected: 7 })
        }),
        (Input::Failed(Refusal::TimedOut { step: "authentication" }), |r| matches!(r, Refusal::TimedOut { .. })),
        (Input::Failed(ProtocolError::Magic(b'G').into()), |r| matches!(r, Refusal::Protocol(_))),
    ];
    for (input, expected) in cases {
        let mut session = opened();
        let described = format!("{input:?}");
        let (_, refused) = refusal(&session.handle(input));
        assert!(expected(&refused), "{described}: {refused:?}");
    }
}

#[test]
fn a_certificate_that_the_phone_did_not_store_is_not_delivered() {
    for answer in [stored(7), message(Command::StoreCertResponse, vec![]), key_response(vec![])] {
        let (mut session, _) = granted(3, KeyAlgorithm::P256);
        session.handle(key_response(spki(KeyAlgorithm::P256)));
        session.handle(Input::Issued(Ok(vec![1])));
        refusal(&session.handle(answer));
    }
}

#[test]
fn an_empty_password_is_no_password() {
    let mut session = opened();
    let actions = session.handle(hello(3, Some(b"")));
    assert!(matches!(&actions[..], [Action::LookUp { presented: None, .. }]));
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Hello(u8, bool, bool),
    Key(bool),
    Progress,
    Stored(u8),
    OtherSession,
    Silence,
    Odd(u8),
    Outage,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (select(vec![1u8, 2, 3, 3, 3, 4]), any::<bool>(), any::<bool>())
            .prop_map(|(version, named, right)| Move::Hello(version, named, right)),
        4 => any::<bool>().prop_map(Move::Key),
        1 => Just(Move::Progress),
        3 => select(vec![0u8, 1, 1, 7]).prop_map(Move::Stored),
        1 => Just(Move::OtherSession),
        1 => Just(Move::Silence),
        1 => (1u8..=23).prop_map(Move::Odd),
        1 => Just(Move::Outage),
    ]
}

proptest! {
    /// Whatever a phone sends, in whatever order: a certificate goes out only after the right string, delivery is recorded
    /// only after the certificate went out, and after the end nothing happens.
    #[test]
    fn no_order_of_messages_gets_a_certificate_without_the_string(
        honest in 0usize..=3,
        odd in vec(moves(), 0..8),
    ) {
        // Most random orders end at once, so many begin as an honest phone would.
        let moves = [Move::Hello(3, true, true), Move::Key(true), Move::Stored(1)].into_iter().take(honest).chain(odd);
        let ours = rcgen_p256();
        let mut session = opened();
        let (mut proven, mut sent, mut over, mut outage) = (false, false, false, false);
        for step in moves {
            let input = match step {
                Move::Hello(version, named, right) => {
                    let mut elements = vec![Element::ProtocolVersion(version)];
                    if named {
                        elements.push(Element::DeviceName("SEP001122334455".into()));
                    }
                    elements.push(Element::Password(Password::new(if right { STRING } else { b"54321" })));
                    message(Command::AuthResponse, elements)
                }
                Move::Key(good) => key_response(if good { ours.clone() } else { vec![0x30] }),
                Move::Progress => message(Command::RequestInProgress, vec![]),
                Move::Stored(reason) => stored(reason),
                Move::OtherSession => Input::Received(Message { command: Command::AuthResponse, session: 0, elements: vec![] }),
                Move::Silence => Input::Failed(Refusal::TimedOut { step: "any" }),
                Move::Odd(number) => message(Command::from_number(number).unwrap(), vec![]),
                Move::Outage => {
                    outage = true;
                    continue;
                }
            };
            let mut actions = session.handle(input);
            prop_assert!(!over || actions.is_empty());
            while !actions.is_empty() {
                match actions.remove(0) {
                    Action::LookUp { presented, .. } => {
                        proven = presented.is_some_and(|text| text.as_bytes() == STRING);
                        let answer = if outage {
                            Err(Refusal::Unavailable("test".into()))
                        } else if proven {
                            Ok(Granted { key: KeyAlgorithm::P256 })
                        } else {
                            Err(Refusal::WrongString { left: 1 })
                        };
                        actions.extend(session.handle(Input::LookedUp(answer)));
                    }
                    Action::Issue { spki_der, .. } => {
                        prop_assert!(proven && spki_der == ours);
                        let answer = if outage { Err(Refusal::Unavailable("test".into())) } else { Ok(vec![1]) };
                        actions.extend(session.handle(Input::Issued(answer)));
                    }
                    Action::RecordDelivery => {
                        prop_assert!(sent);
                        actions.extend(session.handle(Input::DeliveryRecorded(Ok(()))));
                    }
                    Action::Send(message) => {
                        prop_assert!(message.encode().is_some());
                        if message.command == Command::StoreCertRequest {
                            prop_assert!(proven && !sent);
                            sent = true;
                        }
                    }
                    Action::End(_) => {
                        prop_assert!(actions.is_empty());
                        over = true;
                    }
                }
            }
        }
    }
}

/// One key for all cases: making one a case would be most of the test.
fn rcgen_p256() -> Vec<u8> {
    static KEY: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    KEY.get_or_init(|| spki(KeyAlgorithm::P256)).clone()
}
