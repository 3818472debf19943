//! A key broker for tests: speaks the real protocol over a real socket, with keys of the FIPS module instead of a token, and
//! breaks off where it is told to.
#![allow(dead_code)] // each program uses a part

use std::{
    collections::BTreeMap,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
    },
};
use casemate_hsm_api::{Backup, KeyAlgorithm, KeyRole};
use casemate_keyring::{BrokerState, FRAMING, KeyRecord, Refusal, Request, Response, SignRequest, Status, TokenStatus};

enum Key {
    Rsa(RsaKeyPair),
    P384(EcdsaKeyPair),
}

impl Key {
    fn make(role: KeyRole) -> Self {
        match role {
            KeyRole::CallManagerEcdsa | KeyRole::TomcatEcdsa => {
                Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap())
            }
            _ => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        }
    }

    fn record(&self, role: KeyRole) -> KeyRecord {
        let (algorithm, spki) = match self {
            Self::Rsa(key) => (KeyAlgorithm::Rsa2048, AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key())),
            Self::P384(key) => (KeyAlgorithm::P384, AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key())),
        };
        let spki_der = spki.unwrap().as_ref().to_vec();
        KeyRecord {
            role,
            algorithm,
            backup: Backup::None,
            key_id: "00".repeat(16),
            token: "TEST1".into(),
            fingerprint: hex::encode(digest::digest(&digest::SHA256, &spki_der)),
            spki_der,
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::P384(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    keys: BTreeMap<KeyRole, Key>,
    /// Keys that are to follow them.
    next: BTreeMap<KeyRole, Key>,
    /// Keys that sign nothing any more.
    pub(crate) retired: Vec<KeyRecord>,
    /// Roles whose key's token is away.
    pub(crate) away: Vec<KeyRole>,
    /// Requests that are answered before the broker breaks off; without a number it never does.
    pub(crate) answers_left: Option<usize>,
    /// What is said to a request for a signature, instead of a signature.
    pub(crate) refusal: Option<Refusal>,
    /// Keys that are on record and not on the token.
    pub(crate) missing: Vec<KeyRole>,
    /// How many keys were ever made.
    pub(crate) made: usize,
    /// How many messages were signed.
    pub(crate) signed: usize,
}

impl State {
    fn named(&self, role: KeyRole, fingerprint: Option<&str>) -> Option<&Key> {
        let mut keys = [self.keys.get(&role), self.next.get(&role)].into_iter().flatten();
        match fingerprint {
            Some(name) => keys.find(|key| key.record(role).fingerprint == name),
            None => self.keys.get(&role),
        }
    }

    fn status(&self) -> Status {
        let there = |role: &KeyRole| (!self.away.contains(role)).then_some(true);
        let records = |keys: &BTreeMap<KeyRole, Key>| -> Vec<_> {
            keys.iter().map(|(role, key)| (key.record(*role), there(role))).collect()
        };
        let token = TokenStatus {
            name: "pkcs11:token=second".into(),
            state: BrokerState::Serving,
            info: None,
            pairs: None,
            unrecorded: Vec::new(),
            rates: Vec::new(),
            roles: KeyRole::ALL.into(),
        };
        let (keys, next) = (records(&self.keys), records(&self.next));
        Status {
            state: BrokerState::Serving,
            tokens: vec![token],
            keys,
            next,
            retired: self.retired.clone(),
            recorded: 0,
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Broker(pub(crate) Arc<Mutex<State>>);

impl Broker {
    pub(crate) fn start(socket: &Path) -> Self {
        let (broker, listener) = (Self::default(), UnixListener::bind(socket).unwrap());
        let served = broker.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let broker = served.clone();
                thread::spawn(move || broker.serve(connection.unwrap()));
            }
        });
        broker
    }

    /// The broker has lost its records: it knows no key any more.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().keys.clear();
    }

    /// The signature of a trust list by the key of `role` with this fingerprint.
    pub(crate) fn sign_list(&self, role: KeyRole, fingerprint: &str, message: &[u8]) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let Some(Key::Rsa(key)) = state.named(role, Some(fingerprint)) else { panic!("no such key of {role}") };
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    fn serve(&self, mut connection: UnixStream) {
        while let Ok(Some(request)) = FRAMING.read::<Request>(&mut connection) {
            let response = self.answer(request);
            {
                let mut state = self.0.lock().unwrap();
                match &mut state.answers_left {
                    // The work is done, the answer is lost: the worst moment to break off.
                    Some(0) => return,
                    Some(left) => *left -= 1,
                    None => {}
                }
            }
            FRAMING.write(&mut connection, &response).unwrap();
        }
    }

    fn answer(&self, request: Request) -> Response {
        let mut state = self.0.lock().unwrap();
        let missing = |role| Response::Refused(Refusal::KeyMissing(format!("{role} key is not on token TEST1")));
        match request {
            Request::Key { role, fingerprint } => {
                let key = state.named(role, fingerprint.as_deref());
                key.map_or_else(|| missing(role), |key| Response::Key(key.record(role)))
            }
            Request::Rekey { role } => {
                let made = !state.next.contains_key(&role);
                state.made += usize::from(made);
                let key = state.next.entry(role).or_insert_with(|| Key::make(role)).record(role);
                Response::Generated { key, made }
            }
            Request::Retire { role, fingerprint } => {
                if let Some(key) = state.retired.iter().find(|key| key.fingerprint == fingerprint) {
                    return Response::Retired(key.clone());
                }
                let old = state.keys.get(&role).unwrap().record(role);
                assert_eq!(old.fingerprint, fingerprint);
                let next = state.next.remove(&role).unwrap();
                state.keys.insert(role, next);
                state.retired.push(old.clone());
                Response::Retired(old)
            }
            Request::Status => Response::Status(state.status()),
            Request::Generate { role } if state.missing.contains(&role) => missing(role),
            Request::Generate { role } => {
                let made = !state.keys.contains_key(&role);
                state.made += usize::from(made);
                let key = state.keys.entry(role).or_insert_with(|| Key::make(role)).record(role);
                Response::Generated { key, made }
            }
            Request::Sign(_) if state.refusal.is_some() => Response::Refused(state.refusal.clone().unwrap()),
            Request::Sign(SignRequest { role, key, message, .. }) => {
                state.signed += 1;
                Response::Signature(state.named(role, key.as_deref()).unwrap().sign(&message))
            }
            Request::Attest { .. }
            | Request::AttestationKey { .. }
            | Request::AnswerChallenge { .. }
            | Request::ChangePin { .. } => Response::Refused(Refusal::Failed("not in this test".into())),
        }
    }
}
