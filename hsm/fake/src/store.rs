use std::{
    sync::{
        Arc, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use casemate_hsm_api::{
    HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, LoginState, PublicKey, SignatureRate, SignatureScheme,
    StoredKey, TokenInfo, Unlock,
};

use crate::{
    device::{FakeToken, Half, Inner, Object, PinFault, State},
    gate::Gate,
    signer::{Private, pairwise, verifies},
};

/// What the pairwise test signs.
const PAIRWISE: &[u8] = b"pairwise consistency test";

/// Signatures of a measurement: a whole turn of a profile.
const MEASURED: u64 = 20;

/// The limits of a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // as in the PKCS#11 store's settings
pub struct FakeSettings {
    pub sessions: usize,
    pub queue: usize,
    pub call_timeout: Duration,
    pub generate_timeout: Duration,
}

impl Default for FakeSettings {
    fn default() -> Self {
        Self {
            sessions: 4,
            queue: 256,
            call_timeout: Duration::from_secs(5),
            generate_timeout: Duration::from_secs(60),
        }
    }
}

/// A store opened on a [`FakeToken`], as one process would.
pub struct FakeStore {
    token: Arc<Inner>,
    settings: FakeSettings,
    gate: Gate,
    connection: AtomicU64,
    wrong: OnceLock<String>,
}

impl FakeStore {
    /// Opens the token and logs in.
    ///
    /// # Errors
    /// [`HsmError::TokenAbsent`], and what [`FakeToken::set_pin_fault`] has set.
    pub fn open(token: &FakeToken, settings: FakeSettings) -> Result<Self, HsmError> {
        let store = Self {
            token: Arc::clone(&token.inner),
            settings,
            gate: Gate::new(settings.sessions.max(1), settings.queue),
            connection: AtomicU64::new(0),
            wrong: OnceLock::new(),
        };
        store.connect()?;
        Ok(store)
    }

    fn connect(&self) -> Result<(), HsmError> {
        self.usable()?;
        let mut state = self.token.state();
        if state.faults.absent {
            return Err(self.absent());
        }
        if self.connection.load(Ordering::Acquire) == state.connection {
            return Ok(());
        }
        let token = self.token.serial.clone();
        match state.faults.pin {
            None => {
                self.connection.store(state.connection, Ordering::Release);
                Ok(())
            }
            Some(PinFault::Locked) => Err(HsmError::PinLocked { token, unlock: Unlock::SecurityOfficer }),
            Some(PinFault::LastTry) => Err(HsmError::PinLastTry { token, unlock: Unlock::SecurityOfficer }),
            Some(PinFault::Incorrect) if state.refused > 0 => Err(HsmError::PinRefusedBefore { token }),
            Some(PinFault::Incorrect) => {
                state.refused += 1;
                Err(HsmError::PinIncorrect { token })
            }
        }
    }

    /// One call to the token: its limits, then its faults, then `work`.
    fn call<T>(
        &self,
        limit: Duration,
        takes: impl FnOnce(&State) -> Duration,
        work: impl FnOnce(&mut State) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        self.usable()?;
        let _pass = self
            .gate
            .enter(self.settings.call_timeout)
            .map_err(|waiting| HsmError::Busy { token: self.token.serial.clone(), waiting })?;
        let state = self.token.state();
        let (mut state, _) = self
            .token
            .released
            .wait_timeout_while(state, limit, |state| state.faults.hanging)
            .unwrap_or_else(PoisonError::into_inner);
        if state.faults.hanging {
            return Err(HsmError::Timeout { token: self.token.serial.clone(), limit });
        }
        let takes = takes(&state);
        if !takes.is_zero() {
            drop(state);
            thread::sleep(takes.min(limit));
            if takes > limit {
                return Err(HsmError::Timeout { token: self.token.serial.clone(), limit });
            }
            state = self.token.state();
        }
        self.there(&mut state)?;
        state.calls += 1;
        work(&mut state)
    }

    fn there(&self, state: &mut State) -> Result<(), HsmError> {
        match state.faults.absent_after {
            Some(0) => {
                state.faults.absent_after = None;
                state.pull();
            }
            Some(left) => state.faults.absent_after = Some(left - 1),
            None => {}
        }
        if state.faults.absent || state.connection != self.connection.load(Ordering::Acquire) {
            return Err(self.absent());
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), HsmError> {
        self.wrong.get().map_or(Ok(()), |operation| Err(self.wrong_answer(operation)))
    }

    /// Enters the error state.
    fn condemn(&self, operation: String) -> HsmError {
        self.wrong_answer(self.wrong.get_or_init(|| operation))
    }

    fn wrong_answer(&self, operation: &str) -> HsmError {
        HsmError::WrongAnswer { token: self.token.serial.clone(), operation: operation.to_owned() }
    }

    fn absent(&self) -> HsmError {
        HsmError::TokenAbsent { token: self.token.serial.clone(), detail: "pulled by the test".to_owned() }
    }

    fn broken(&self, operation: &str, detail: &str) -> HsmError {
        HsmError::Device {
            token: self.token.serial.clone(),
            operation: operation.to_owned(),
            detail: detail.to_owned(),
        }
    }

    fn differs(&self, id: KeyId, detail: &str) -> HsmError {
        HsmError::KeyNotAsSpecified { key: id.to_string(), token: self.token.serial.clone(), detail: detail.to_owned() }
    }

    /// The one object under `id`.
    fn object<'a>(&self, state: &'a State, id: KeyId) -> Result<Option<&'a Object>, HsmError> {
        match state.keys.get(&id).map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([object]) => Ok(Some(object)),
            Some(several) => Err(HsmError::KeyAmbiguous {
                key: id.to_string(),
                token: self.token.serial.clone(),
                count: several.len(),
            }),
        }
    }

    fn sign_with(
        &self,
        state: &mut State,
        key: &Private,
        scheme: SignatureScheme,
        message: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        state.signatures += 1;
        let mut signature = key.sign(scheme, message).map_err(|_| self.broken("C_Sign", "the module refused"))?;
        if state.faults.lying
            && let Some(last) = signature.last_mut()
        {
            *last ^= 1;
        }
        Ok(signature)
    }

    fn pairwise(&self, state: &mut State, id: KeyId, key: &Private, public: &PublicKey) -> Result<(), HsmError> {
        let (scheme, _) = pairwise(public.algorithm);
        let signature = self.sign_with(state, key, scheme, PAIRWISE)?;
        if verifies(public, PAIRWISE, &signature) {
            Ok(())
        } else {
            Err(self.condemn(format!("the pairwise consistency test of key {id}")))
        }
    }
}

impl KeyStore for FakeStore {
    fn token(&self) -> Result<TokenInfo, HsmError> {
        let sessions = self.gate.inside();
        self.call(
            self.settings.call_timeout,
            |_| Duration::ZERO,
            |_| {
                Ok(TokenInfo {
                    label: "fake".to_owned(),
                    serial: self.token.serial.clone(),
                    manufacturer: "casemate".to_owned(),
                    model: "in memory".to_owned(),
                    firmware: "0.0".to_owned(),
                    library: "casemate-hsm-fake".to_owned(),
                    mechanisms: vec!["CKM_RSA_PKCS".to_owned(), "CKM_ECDSA".to_owned()],
                    algorithms: KeyAlgorithm::ALL.to_vec(),
                    login: LoginState::User,
                    sessions,
                    refused_sessions: 0,
                })
            },
        )
    }

    fn generate(&self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError> {
        // Outside the call: the device's lock is not held while primes are looked for.
        let private =
            Private::generate(spec.algorithm).map_err(|_| self.broken("C_GenerateKeyPair", "the module refused"))?;
        let public =
            private.public(spec.algorithm).map_err(|_| self.broken("C_GenerateKeyPair", "the module refused"))?;
        self.call(
            self.settings.generate_timeout,
            |state| state.faults.latency.generate,
            |state| {
                if state.keys.get(&id).is_some_and(|objects| !objects.is_empty()) {
                    return Err(
                        self.differs(id, "something stands under this identifier already, and no second key is made")
                    );
                }
                if state.faults.capacity.is_some_and(|room| state.keys.len() >= room) {
                    return Err(HsmError::TokenFull {
                        token: self.token.serial.clone(),
                        detail: "C_GenerateKeyPair: DeviceMemory".to_owned(),
                    });
                }
                let private = Arc::new(private);
                let interrupted = state.faults.interrupt.take();
                let object = Object {
                    label: label.to_owned(),
                    algorithm: spec.algorithm,
                    backup: spec.backup,
                    private: (interrupted != Some(Half::Public)).then(|| Arc::clone(&private)),
                    public: (interrupted != Some(Half::Private)).then(|| public.clone()),
                    odd: false,
                };
                state.keys.insert(id, vec![object]);
                if interrupted.is_some() {
                    return Err(self.broken("C_GenerateKeyPair", "interrupted by the test"));
                }
                self.pairwise(state, id, &private, &public)?;
                Ok(public)
            },
        )
    }

    fn inspect(&self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError> {
        self.call(
            self.settings.call_timeout,
            |_| Duration::ZERO,
            |state| {
                let Some(object) = self.object(state, id)? else { return Ok(KeyState::Absent) };
                if object.odd {
                    return Err(self.differs(id, "CKA_KEY_TYPE"));
                }
                let (Some(private), Some(public)) = (object.private.clone(), object.public.clone()) else {
                    return Ok(KeyState::Half);
                };
                if let Some(spec) = spec {
                    if spec.algorithm != object.algorithm {
                        return Err(self.differs(id, "another algorithm"));
                    }
                    if spec.backup != object.backup {
                        return Err(self.differs(id, "CKA_EXTRACTABLE"));
                    }
                    self.pairwise(state, id, &private, &public)?;
                }
                Ok(KeyState::Whole(public))
            },
        )
    }

    fn remove_half(&self, id: KeyId) -> Result<(), HsmError> {
        self.call(
            self.settings.call_timeout,
            |_| Duration::ZERO,
            |state| {
                if let Some(object) = self.object(state, id)?
                    && object.private.is_some()
                    && object.public.is_some()
                {
                    return Err(self.differs(id, "both halves are there, and a whole key is not removed"));
                }
                state.keys.remove(&id);
                Ok(())
            },
        )
    }

    fn keys(&self) -> Result<Vec<StoredKey>, HsmError> {
        self.call(
            self.settings.call_timeout,
            |_| Duration::ZERO,
            |state| {
                let pairs = state.keys.iter().flat_map(|(id, objects)| objects.iter().map(move |object| (*id, object)));
                Ok(pairs
                    .filter(|(_, object)| object.private.is_some())
                    .filter_map(|(id, object)| {
                        object.public.clone().map(|public| StoredKey { id, label: object.label.clone(), public })
                    })
                    .collect())
            },
        )
    }

    fn sign(&self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        self.call(
            self.settings.call_timeout,
            |state| state.faults.sign_latency(state.signatures),
            |state| {
                let missing = || HsmError::KeyMissing { key: id.to_string(), token: self.token.serial.clone() };
                let object = self.object(state, id)?.ok_or_else(missing)?;
                let (Some(private), Some(_)) = (object.private.clone(), &object.public) else { return Err(missing()) };
                if !scheme.fits(object.algorithm) {
                    return Err(HsmError::SchemeMismatch { scheme, algorithm: object.algorithm });
                }
                self.sign_with(state, &private, scheme, message)
            },
        )
    }

    /// By the latency that the test has set, without waiting for it.
    fn measure(&self, algorithm: KeyAlgorithm, _duration: Duration) -> Result<SignatureRate, HsmError> {
        self.call(
            self.settings.generate_timeout,
            |_| Duration::ZERO,
            |state| {
                if state.faults.unmeasurable {
                    return Err(HsmError::Unmeasurable {
                        token: self.token.serial.clone(),
                        algorithm,
                        detail: "C_GenerateKeyPair: TemplateInconsistent".to_owned(),
                    });
                }
                let latency = |number| u64::try_from(state.faults.sign_latency(number).as_micros()).unwrap_or(u64::MAX);
                let micros = (0..MEASURED).map(latency).fold(0, u64::saturating_add);
                Ok(SignatureRate { signatures: MEASURED, micros: micros.max(1) })
            },
        )
    }

    fn reconnect(&self) -> Result<(), HsmError> {
        self.connect()
    }
}

#[cfg(test)]
mod tests {
    use casemate_hsm_api::Backup;

    use crate::Latency;

    use super::*;

    const ID: KeyId = KeyId([7; 16]);
    const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
    const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;

    fn quick() -> FakeSettings {
        FakeSettings { sessions: 1, queue: 0, call_timeout: Duration::from_millis(40), ..FakeSettings::default() }
    }

    fn with_key(settings: FakeSettings) -> (FakeToken, FakeStore) {
        let token = FakeToken::new("F1");
        let store = FakeStore::open(&token, settings).unwrap();
        store.generate(ID, "k", SPEC).unwrap();
        (token, store)
    }

    #[test]
    fn a_pulled_token_is_absent_until_the_store_connects_again() {
        let (token, store) = with_key(FakeSettings::default());
        token.absent_after(1);
        store.sign(ID, SCHEME, b"m").unwrap();
        assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::TokenAbsent { .. })));
        assert!(matches!(store.reconnect(), Err(HsmError::TokenAbsent { .. })));
        token.set_absent(false);
        assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::TokenAbsent { .. })));
        store.reconnect().unwrap();
        store.sign(ID, SCHEME, b"m").unwrap();
    }

    #[test]
    fn a_lying_token_is_found_by_the_pairwise_test_and_never_used_again() {
        let (token, store) = with_key(FakeSettings::default());
        token.set_lying(true);
        assert!(matches!(store.inspect(ID, Some(SPEC)), Err(HsmError::WrongAnswer { .. })));
        token.set_lying(false);
        assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::WrongAnswer { .. })));
        assert!(matches!(store.reconnect(), Err(HsmError::WrongAnswer { .. })));
    }

    #[test]
    fn a_hang_ends_in_a_timeout_and_slowness_up_to_the_limit_does_not() {
        let (token, store) = with_key(quick());
        token.set_hanging(true);
        assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::Timeout { .. })));
        token.set_hanging(false);
        token.set_latency(Latency { sign: Duration::from_millis(5), generate: Duration::ZERO });
        store.sign(ID, SCHEME, b"m").unwrap();
        token.set_latency(Latency { sign: Duration::from_secs(5), generate: Duration::ZERO });
        assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::Timeout { .. })));
    }

    #[test]
    fn more_callers_than_sessions_and_queue_are_told_that_it_is_busy() {
        let (token, store) = with_key(FakeSettings { call_timeout: Duration::from_secs(30), ..quick() });
        token.set_hanging(true);
        thread::scope(|scope| {
            let first = scope.spawn(|| store.sign(ID, SCHEME, b"m"));
            while store.gate.inside() == 0 {
                thread::yield_now();
            }
            assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::Busy { .. })));
            token.set_hanging(false);
            first.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_full_token_and_an_interrupted_generation_leave_what_a_real_one_leaves() {
        let (token, store) = with_key(FakeSettings::default());
        token.set_capacity(Some(1));
        let other = KeyId([8; 16]);
        assert!(matches!(store.generate(other, "k", SPEC), Err(HsmError::TokenFull { .. })));
        assert_eq!(token.objects(), 2);
        token.set_capacity(None);
        token.interrupt_generation(Half::Public);
        assert!(matches!(store.generate(other, "k", SPEC), Err(HsmError::Device { .. })));
        assert_eq!(store.inspect(other, Some(SPEC)).unwrap(), KeyState::Half);
    }

    #[test]
    fn a_spoilt_object_is_told_from_an_absent_one() {
        let (token, store) = with_key(FakeSettings::default());
        token.spoil(ID);
        assert!(matches!(store.inspect(ID, None), Err(HsmError::KeyNotAsSpecified { .. })));
    }

    #[test]
    fn two_keys_under_one_identifier_sign_nothing() {
        let (token, store) = with_key(FakeSettings::default());
        token.duplicate(ID);
        assert!(matches!(store.sign(ID, SCHEME, b"m"), Err(HsmError::KeyAmbiguous { count: 2, .. })));
        assert!(matches!(store.inspect(ID, None), Err(HsmError::KeyAmbiguous { .. })));
        assert!(matches!(store.remove_half(ID), Err(HsmError::KeyAmbiguous { .. })));
    }

    #[test]
    fn pin_faults_come_as_errors_and_a_wrong_pin_reaches_the_token_once() {
        let token = FakeToken::new("F1");
        let open = || FakeStore::open(&token, FakeSettings::default()).map(|_| ()).unwrap_err();
        token.set_pin_fault(Some(PinFault::Incorrect));
        assert!(matches!(open(), HsmError::PinIncorrect { .. }));
        assert!(matches!(open(), HsmError::PinRefusedBefore { .. }));
        assert_eq!(token.refused_pins(), 1);
        token.set_pin_fault(Some(PinFault::LastTry));
        assert!(matches!(open(), HsmError::PinLastTry { .. }));
        token.set_pin_fault(Some(PinFault::Locked));
        assert!(matches!(open(), HsmError::PinLocked { .. }));
    }
}
