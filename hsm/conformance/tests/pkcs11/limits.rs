use std::{
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_pkcs11::Pkcs11Store;

use crate::lab::in_lab;

const SLOW: KeySpec = KeySpec { algorithm: KeyAlgorithm::Rsa4096, backup: Backup::None };
const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;

/// A generation is the longest call that SoftHSM offers: with a limit of one millisecond it is a call that hangs.
#[test]
fn a_call_that_hangs_costs_a_thread_and_no_caller() {
    in_lab("limits::a_call_that_hangs_costs_a_thread_and_no_caller", |lab| {
        let mut settings = lab.settings();
        settings.sessions = 1;
        settings.hung_calls = 1;
        settings.call_timeout_ms = 2_000;
        let store = Pkcs11Store::open(settings.clone(), lab.files()).unwrap();
        store.generate(KeyId([1; 16]), "k", SPEC).unwrap();
        drop(store);
        settings.generate_timeout_ms = 1;
        let store = Pkcs11Store::open(settings, lab.files()).unwrap();
        let slow = KeyId([2; 16]);
        let begin = Instant::now();
        let made = store.generate(slow, "slow", SLOW);
        assert!(matches!(made, Err(HsmError::Timeout { .. })), "{made:?}");
        let returned = begin.elapsed();
        // The only session hangs; its replacement signs.
        store.sign(KeyId([1; 16]), SCHEME, b"m").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while store.inspect(slow, Some(SLOW)).unwrap() != store.inspect(slow, None).unwrap()
            || !matches!(store.inspect(slow, None).unwrap(), KeyState::Whole(_))
        {
            assert!(Instant::now() < deadline, "the generation never ended");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(returned < begin.elapsed(), "the caller was let go before the generation ended");
        assert_eq!(store.keys().unwrap().len(), 2);
    });
}

#[test]
fn beyond_the_bound_of_hung_calls_the_token_is_busy_until_one_returns() {
    in_lab("limits::beyond_the_bound_of_hung_calls_the_token_is_busy_until_one_returns", |lab| {
        let mut settings = lab.settings();
        settings.sessions = 1;
        settings.hung_calls = 0;
        let store = Pkcs11Store::open(settings.clone(), lab.files()).unwrap();
        store.generate(KeyId([1; 16]), "k", SPEC).unwrap();
        drop(store);
        settings.generate_timeout_ms = 1;
        // A login needs 250 ms; a generation mostly more than this, and a quick one is tried again.
        settings.call_timeout_ms = 500;
        let store = Pkcs11Store::open(settings, lab.files()).unwrap();
        assert!((2..8).any(|number| calls_refused_while_generating(&store, KeyId([number; 16])) > 0));
    });
}

/// Hangs the only session in a generation and signs until it is back; how often the token was busy meanwhile.
fn calls_refused_while_generating(store: &Pkcs11Store, id: KeyId) -> usize {
    let made = store.generate(id, "slow", SLOW);
    assert!(matches!(made, Err(HsmError::Timeout { .. })), "{made:?}");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut busy = 0;
    while Instant::now() < deadline {
        match store.sign(KeyId([1; 16]), SCHEME, b"m") {
            Ok(_) => return busy,
            Err(HsmError::Busy { .. }) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    panic!("the thread never came back");
}

#[test]
fn a_full_queue_is_refused_at_once() {
    in_lab("limits::a_full_queue_is_refused_at_once", |lab| {
        let mut settings = lab.settings();
        settings.sessions = 1;
        settings.queue = 1;
        let store = Pkcs11Store::open(settings, lab.files()).unwrap();
        let id = KeyId([1; 16]);
        store.generate(id, "k", SPEC).unwrap();
        thread::scope(|scope| {
            let long = scope.spawn(|| store.raw_rate(id, SCHEME, Duration::from_millis(1_500)));
            thread::sleep(Duration::from_millis(200));
            let waiting = scope.spawn(|| store.sign(id, SCHEME, b"m"));
            thread::sleep(Duration::from_millis(200));
            let begin = Instant::now();
            let refused = store.sign(id, SCHEME, b"m");
            assert!(matches!(refused, Err(HsmError::Busy { waiting: 1, .. })), "{refused:?}");
            assert!(begin.elapsed() < Duration::from_millis(500));
            waiting.join().unwrap().unwrap();
            long.join().unwrap().unwrap();
        });
    });
}
