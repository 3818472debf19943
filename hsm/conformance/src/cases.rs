use std::{thread, time::Duration};

use aws_lc_rs::rand;
use casemate_hsm_api::{
    Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, LoginState, PublicKey, SignatureScheme,
};

use crate::{
    Extent, Half, Report, Rig,
    verify::{scheme_of, verifies},
};

/// What a case ends in: nothing to say, or what was wrong.
type Outcome = Result<(), String>;

/// A cheap key for the cases in which the algorithm does not matter.
const CHEAP: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };

/// Runs the suite. It leaves its keys on the token, for no call of the trait removes one.
pub fn run(rig: &dyn Rig, extent: &Extent) -> Report {
    let mut report = Report::default();
    report.add("the token describes itself", || describes_itself(rig.store(), extent));
    for algorithm in extent.algorithms.iter().copied() {
        report.add(format!("{algorithm}: every scheme, and none that does not fit"), || {
            signs_in_every_scheme(rig, algorithm)
        });
    }
    report.add("what is asked for is what is made, and is told from the rest", || {
        holds_to_its_specification(rig, extent.wrapped)
    });
    for algorithm in extent.algorithms.iter().copied() {
        report.add(format!("{algorithm}: its rate is measured, and no key is left of it"), || {
            measures_and_leaves_nothing(rig.store(), algorithm)
        });
    }
    report.add("a key that is missing is missing", || misses_what_is_missing(rig.store()));
    report.add("no second key under one identifier", || makes_one_key_an_identifier(rig.store()));
    for half in [Half::Private, Half::Public].into_iter().filter(|_| extent.halves) {
        report.add(format!("an interrupted generation that left the {half:?} half"), || recovers_from_half(rig, half));
    }
    report.add(format!("{} threads with {} signatures each", extent.threads, extent.signatures), || {
        signs_from_many_threads(rig.store(), extent)
    });
    report
}

fn describes_itself(store: &dyn KeyStore, extent: &Extent) -> Outcome {
    let info = told(store.token())?;
    ensure(!info.serial.is_empty(), || "it has no serial number".to_owned())?;
    ensure(info.login == LoginState::User, || "the login does not hold".to_owned())?;
    let missing: Vec<_> = extent.algorithms.iter().filter(|algorithm| !info.algorithms.contains(algorithm)).collect();
    ensure(missing.is_empty(), || format!("it does not offer {missing:?}"))
}

fn signs_in_every_scheme(rig: &dyn Rig, algorithm: KeyAlgorithm) -> Outcome {
    let store = rig.store();
    let id = fresh_id()?;
    let spec = KeySpec { algorithm, backup: Backup::None };
    let public = told(store.generate(id, "conformance", spec))?;
    ensure(public.algorithm == algorithm, || format!("it made {}", public.algorithm))?;
    ensure(rig.never_extractable(id)?, || "the private key can leave".to_owned())?;
    let listed = told(store.keys())?.into_iter().find(|key| key.id == id).ok_or("it is not listed")?;
    ensure(listed.public == public && listed.label == "conformance", || format!("it is listed as {listed:?}"))?;
    for scheme in SignatureScheme::ALL {
        if scheme.fits(algorithm) {
            signs(store, id, scheme, &public)?;
        } else {
            let refused = store.sign(id, scheme, b"m");
            ensure(matches!(refused, Err(HsmError::SchemeMismatch { .. })), || format!("{scheme}: {refused:?}"))?;
        }
    }
    Ok(())
}

fn signs(store: &dyn KeyStore, id: KeyId, scheme: SignatureScheme, public: &PublicKey) -> Outcome {
    for message in [Vec::new(), b"a message".to_vec(), vec![0x5a; 100_000]] {
        let signature = told(store.sign(id, scheme, &message))?;
        ensure(verifies(public, scheme, &message, &signature), || format!("{scheme}: a signature does not verify"))?;
        let other = [message.as_slice(), b"."].concat();
        ensure(!verifies(public, scheme, &other, &signature), || format!("{scheme}: it verifies for another message"))?;
    }
    Ok(())
}

fn holds_to_its_specification(rig: &dyn Rig, makes_wrapped: bool) -> Outcome {
    let store = rig.store();
    let wrapped = KeySpec { backup: Backup::Wrapped, ..CHEAP };
    let mut specs = vec![(CHEAP, wrapped)];
    if makes_wrapped {
        specs.push((wrapped, CHEAP));
    } else {
        let refused = store.generate(fresh_id()?, "conformance", wrapped);
        let is_told = matches!(refused, Err(HsmError::Unsupported { .. }));
        ensure(is_told, || format!("a key that may be wrapped: {refused:?}"))?;
    }
    for (spec, other) in specs {
        let id = fresh_id()?;
        let public = told(store.generate(id, "conformance", spec))?;
        let state = told(store.inspect(id, Some(spec)))?;
        ensure(state == KeyState::Whole(public), || format!("{spec:?} is inspected as {state:?}"))?;
        ensure(rig.never_extractable(id)? == (spec.backup == Backup::None), || format!("{spec:?}: wrong extraction"))?;
        for wrong in [other, KeySpec { algorithm: KeyAlgorithm::P384, ..spec }] {
            let refused = store.inspect(id, Some(wrong));
            ensure(matches!(refused, Err(HsmError::KeyNotAsSpecified { .. })), || {
                format!("{spec:?} is inspected for {wrong:?} as {refused:?}")
            })?;
        }
    }
    Ok(())
}

/// A token may be unable to measure, if it says so.
fn measures_and_leaves_nothing(store: &dyn KeyStore, algorithm: KeyAlgorithm) -> Outcome {
    let before = told(store.keys())?;
    for _ in 0..2 {
        match store.measure(algorithm, Duration::from_millis(20)) {
            Ok(rate) => {
                ensure(rate.signatures > 0 && rate.micros > 0, || format!("it is {rate:?}"))?;
                println!("{algorithm}: {rate}");
            }
            Err(error @ HsmError::Unmeasurable { .. }) => println!("{error}"),
            Err(error) => return Err(error.to_string()),
        }
    }
    ensure(told(store.keys())? == before, || "there are other keys than before".to_owned())
}

fn misses_what_is_missing(store: &dyn KeyStore) -> Outcome {
    let id = fresh_id()?;
    let signed = store.sign(id, SignatureScheme::EcdsaP256Sha256, b"m");
    ensure(matches!(signed, Err(HsmError::KeyMissing { .. })), || format!("it signs: {signed:?}"))?;
    let state = told(store.inspect(id, Some(CHEAP)))?;
    ensure(state == KeyState::Absent, || format!("it is {state:?}"))?;
    told(store.remove_half(id))
}

fn makes_one_key_an_identifier(store: &dyn KeyStore) -> Outcome {
    let id = fresh_id()?;
    let public = told(store.generate(id, "conformance", CHEAP))?;
    let before = told(store.keys())?.len();
    let again = store.generate(id, "conformance", CHEAP);
    ensure(matches!(again, Err(HsmError::KeyNotAsSpecified { .. })), || format!("a second one: {again:?}"))?;
    ensure(told(store.keys())?.len() == before, || "the number of keys changed".to_owned())?;
    let state = told(store.inspect(id, Some(CHEAP)))?;
    ensure(state == KeyState::Whole(public), || format!("the first one became {state:?}"))?;
    let removed = store.remove_half(id);
    ensure(matches!(removed, Err(HsmError::KeyNotAsSpecified { .. })), || format!("a whole key goes: {removed:?}"))?;
    ensure(told(store.keys())?.len() == before, || "a whole key is gone".to_owned())
}

fn recovers_from_half(rig: &dyn Rig, half: Half) -> Outcome {
    let store = rig.store();
    let id = fresh_id()?;
    let before = told(store.keys())?.len();
    told(store.generate(id, "conformance", CHEAP))?;
    rig.keep_half(id, half)?;
    for spec in [None, Some(CHEAP)] {
        let state = told(store.inspect(id, spec))?;
        ensure(state == KeyState::Half, || format!("it is {state:?}"))?;
    }
    let signed = store.sign(id, SignatureScheme::EcdsaP256Sha256, b"m");
    ensure(signed.is_err(), || "a half signs".to_owned())?;
    let over = store.generate(id, "conformance", CHEAP);
    ensure(matches!(over, Err(HsmError::KeyNotAsSpecified { .. })), || format!("a key over a half: {over:?}"))?;
    told(store.remove_half(id))?;
    let state = told(store.inspect(id, None))?;
    ensure(state == KeyState::Absent, || format!("after its removal it is {state:?}"))?;
    let public = told(store.generate(id, "conformance", CHEAP))?;
    signs(store, id, SignatureScheme::EcdsaP256Sha256, &public)?;
    let after = told(store.keys())?.len();
    ensure(after == before + 1, || format!("{before} keys became {after}"))
}

fn signs_from_many_threads(store: &dyn KeyStore, extent: &Extent) -> Outcome {
    let mut keys = Vec::new();
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Rsa2048] {
        let id = fresh_id()?;
        let public = told(store.generate(id, "conformance", KeySpec { algorithm, backup: Backup::None }))?;
        keys.push((id, scheme_of(algorithm), public));
    }
    let work = |number: usize| -> Outcome {
        for (round, (id, scheme, public)) in keys.iter().cycle().take(extent.signatures).enumerate() {
            let message = format!("thread {number}, signature {round}");
            let signature = told(store.sign(*id, *scheme, message.as_bytes()))?;
            ensure(verifies(public, *scheme, message.as_bytes(), &signature), || format!("{message} does not verify"))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..extent.threads).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })
}

fn fresh_id() -> Result<KeyId, String> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| "no random bytes".to_owned())?;
    Ok(KeyId(id))
}

fn told<T>(answer: Result<T, HsmError>) -> Result<T, String> {
    answer.map_err(|error| error.to_string())
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}
