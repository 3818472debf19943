use std::{thread, time::Duration};

use aws_lc_rs::rand;
use casemate_hsm_api::{
    Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, LoginState, PublicKey, SignatureScheme,
    StoredKey,
};

use crate::{
    Extent, Half, Report, Rig,
    verify::{scheme_of, verifies},
};

/// What a case ends in: nothing to say, or what was wrong.
type Outcome = Result<(), String>;

/// Runs the suite. It leaves its keys on the token, for no call of the trait removes one.
pub fn run(rig: &dyn Rig, extent: &Extent) -> Report {
    run_telling(rig, extent, &|_| {})
}

/// As [`run`], and tells the name of each case before it is tried, and what was measured.
pub fn run_telling(rig: &dyn Rig, extent: &Extent, tell: &dyn Fn(&str)) -> Report {
    let mut report = Report::default();
    let mut add = |algorithm: Option<KeyAlgorithm>, name: &str, case: &dyn Fn() -> Outcome| {
        let name = algorithm.map_or(name.to_owned(), |algorithm| format!("{algorithm}: {name}"));
        tell(&name);
        report.add(algorithm, name, case);
    };
    let (store, spec) = (rig.store(), cheap(extent));
    add(None, "the token describes itself", &|| describes_itself(store, extent));
    for algorithm in extent.algorithms.iter().copied() {
        add(Some(algorithm), "every scheme, and none that does not fit", &|| signs_in_every_scheme(rig, algorithm));
    }
    add(None, "what is asked for is what is made, and is told from the rest", &|| {
        holds_to_its_specification(rig, spec, extent.wrapped)
    });
    for algorithm in extent.algorithms.iter().copied() {
        add(Some(algorithm), "its rate is measured, and no key is left of it", &|| {
            measures_and_leaves_nothing(rig, algorithm, tell)
        });
    }
    add(None, "a key that is missing is missing", &|| misses_what_is_missing(store, spec));
    add(None, "no second key under one identifier", &|| makes_one_key_an_identifier(rig, spec));
    for half in [Half::Private, Half::Public].into_iter().filter(|_| extent.halves) {
        let name = format!("an interrupted generation that left the {half:?} half");
        add(None, &name, &|| recovers_from_half(rig, half, spec));
    }
    let name = format!("{} threads with {} signatures each", extent.threads, extent.signatures);
    add(None, &name, &|| signs_from_many_threads(rig, extent));
    report
}

/// A key for the cases in which the algorithm does not matter: P-256, for that is cheap, where the token has it.
fn cheap(extent: &Extent) -> KeySpec {
    let first = extent.algorithms.first().copied().unwrap_or(KeyAlgorithm::P256);
    let algorithm = if extent.algorithms.contains(&KeyAlgorithm::P256) { KeyAlgorithm::P256 } else { first };
    KeySpec { algorithm, backup: Backup::None }
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
    let public = told(store.generate(id, rig.label(), spec))?;
    ensure(public.algorithm == algorithm, || format!("it made {}", public.algorithm))?;
    ensure(rig.never_extractable(id)?, || "the private key can leave".to_owned())?;
    let listed = keys(rig)?.into_iter().find(|key| key.id == id).ok_or("it is not listed")?;
    ensure(listed.public == public && listed.label == rig.label(), || format!("it is listed as {listed:?}"))?;
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

fn holds_to_its_specification(rig: &dyn Rig, cheap: KeySpec, makes_wrapped: bool) -> Outcome {
    let store = rig.store();
    let wrapped = KeySpec { backup: Backup::Wrapped, ..cheap };
    let other_algorithm = if cheap.algorithm == KeyAlgorithm::P384 { KeyAlgorithm::P521 } else { KeyAlgorithm::P384 };
    let mut specs = vec![(cheap, wrapped)];
    if makes_wrapped {
        specs.push((wrapped, cheap));
    } else {
        let refused = store.generate(fresh_id()?, rig.label(), wrapped);
        let is_told = matches!(refused, Err(HsmError::Unsupported { .. }));
        ensure(is_told, || format!("a key that may be wrapped: {refused:?}"))?;
    }
    for (spec, other) in specs {
        let id = fresh_id()?;
        let public = told(store.generate(id, rig.label(), spec))?;
        let state = told(store.inspect(id, Some(spec)))?;
        ensure(state == KeyState::Whole(public), || format!("{spec:?} is inspected as {state:?}"))?;
        ensure(rig.never_extractable(id)? == (spec.backup == Backup::None), || format!("{spec:?}: wrong extraction"))?;
        for wrong in [other, KeySpec { algorithm: other_algorithm, ..spec }] {
            let refused = store.inspect(id, Some(wrong));
            ensure(matches!(refused, Err(HsmError::KeyNotAsSpecified { .. })), || {
                format!("{spec:?} is inspected for {wrong:?} as {refused:?}")
            })?;
        }
    }
    Ok(())
}

/// A token may be unable to measure, if it says so.
fn measures_and_leaves_nothing(rig: &dyn Rig, algorithm: KeyAlgorithm, tell: &dyn Fn(&str)) -> Outcome {
    let store = rig.store();
    let before = keys(rig)?;
    for _ in 0..2 {
        match store.measure(algorithm, Duration::from_millis(20)) {
            Ok(rate) => {
                ensure(rate.signatures > 0 && rate.micros > 0, || format!("it is {rate:?}"))?;
                tell(&format!("{algorithm}: {rate}"));
            }
            Err(error @ HsmError::Unmeasurable { .. }) => tell(&error.to_string()),
            Err(error) => return Err(error.to_string()),
        }
    }
    ensure(keys(rig)? == before, || "there are other keys than before".to_owned())
}

fn misses_what_is_missing(store: &dyn KeyStore, cheap: KeySpec) -> Outcome {
    let id = fresh_id()?;
    let signed = store.sign(id, scheme_of(cheap.algorithm), b"m");
    ensure(matches!(signed, Err(HsmError::KeyMissing { .. })), || format!("it signs: {signed:?}"))?;
    let state = told(store.inspect(id, Some(cheap)))?;
    ensure(state == KeyState::Absent, || format!("it is {state:?}"))?;
    told(store.remove_half(id))
}

fn makes_one_key_an_identifier(rig: &dyn Rig, cheap: KeySpec) -> Outcome {
    let store = rig.store();
    let id = fresh_id()?;
    let public = told(store.generate(id, rig.label(), cheap))?;
    let before = keys(rig)?.len();
    let again = store.generate(id, rig.label(), cheap);
    ensure(matches!(again, Err(HsmError::KeyNotAsSpecified { .. })), || format!("a second one: {again:?}"))?;
    ensure(keys(rig)?.len() == before, || "the number of keys changed".to_owned())?;
    let state = told(store.inspect(id, Some(cheap)))?;
    ensure(state == KeyState::Whole(public), || format!("the first one became {state:?}"))?;
    let removed = store.remove_half(id);
    ensure(matches!(removed, Err(HsmError::KeyNotAsSpecified { .. })), || format!("a whole key goes: {removed:?}"))?;
    ensure(keys(rig)?.len() == before, || "a whole key is gone".to_owned())
}

fn recovers_from_half(rig: &dyn Rig, half: Half, cheap: KeySpec) -> Outcome {
    let store = rig.store();
    let id = fresh_id()?;
    let before = keys(rig)?.len();
    told(store.generate(id, rig.label(), cheap))?;
    rig.keep_half(id, half)?;
    for spec in [None, Some(cheap)] {
        let state = told(store.inspect(id, spec))?;
        ensure(state == KeyState::Half, || format!("it is {state:?}"))?;
    }
    let signed = store.sign(id, scheme_of(cheap.algorithm), b"m");
    ensure(signed.is_err(), || "a half signs".to_owned())?;
    let over = store.generate(id, rig.label(), cheap);
    ensure(matches!(over, Err(HsmError::KeyNotAsSpecified { .. })), || format!("a key over a half: {over:?}"))?;
    told(store.remove_half(id))?;
    let state = told(store.inspect(id, None))?;
    ensure(state == KeyState::Absent, || format!("after its removal it is {state:?}"))?;
    let public = told(store.generate(id, rig.label(), cheap))?;
    signs(store, id, scheme_of(cheap.algorithm), &public)?;
    let after = keys(rig)?.len();
    ensure(after == before + 1, || format!("{before} keys became {after}"))
}

fn signs_from_many_threads(rig: &dyn Rig, extent: &Extent) -> Outcome {
    let store = rig.store();
    let mut keys = Vec::new();
    let wanted = [cheap(extent).algorithm, KeyAlgorithm::Rsa2048];
    for algorithm in wanted.into_iter().filter(|algorithm| extent.algorithms.contains(algorithm)) {
        let id = fresh_id()?;
        let public = told(store.generate(id, rig.label(), KeySpec { algorithm, backup: Backup::None }))?;
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

/// The keys on the token that stay as they are but for the suite.
fn keys(rig: &dyn Rig) -> Result<Vec<StoredKey>, String> {
    let mut keys = told(rig.store().keys())?;
    keys.retain(|key| !rig.is_strange(key));
    Ok(keys)
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
