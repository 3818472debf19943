use std::{
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, SignatureScheme};
use casemate_hsm_pkcs11::Pkcs11Store;

use crate::lab::{Module, in_lab, in_lab_of};

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

/// Another program makes and removes keys all the time; those that stay are listed, and nothing fails. Not of SoftHSM: it writes its
/// token's file anew at each login of another program, and reads half of it here.
#[test]
fn keys_that_somebody_removes_while_they_are_listed_are_no_failure() {
    let name = "limits::keys_that_somebody_removes_while_they_are_listed_are_no_failure";
    in_lab_of(Module::Kryoptic, name, |lab| {
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        let stays = store.generate(KeyId([1; 16]), "stays", SPEC).unwrap();
        let (mut lists, mut longest) = (0, 0);
        thread::scope(|scope| {
            let others = scope.spawn(|| {
                let id = "07".repeat(16);
                for _ in 0..20 {
                    lab.as_user(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", &id]).unwrap();
                    for half in ["privkey", "pubkey"] {
                        lab.as_user(&["--delete-object", "--type", half, "--id", &id]).unwrap();
                    }
                }
            });
            while !others.is_finished() {
                let listed = store.keys().unwrap();
                assert!(listed.iter().any(|key| key.public == stays), "{listed:?}");
                (lists, longest) = (lists + 1, longest.max(listed.len()));
            }
            others.join().unwrap();
        });
        assert!(longest == 2, "the other's keys were never seen in {lists} lists");
    });
}
