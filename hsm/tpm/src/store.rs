use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use casemate_hsm_api::{
    HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, KeyStore, Pin, PublicKey, SignatureRate, SignatureScheme,
    StoredKey, TimedCalls, TokenInfo,
};
use casemate_hsm_attest::{Answer, AttestationKey, Challenge, Statement};
use casemate_hsm_pin::{NextPin, read_pin};
use serde::Serialize;
use tss_esapi::{
    attributes::ObjectAttributes,
    structures::{Public, PublicBuffer},
    traits::UnMarshall,
};
use zeroize::Zeroizing;

use crate::{
    TpmError, TpmSettings, attest, capability,
    connection::{Connection, Desk},
    folder::{Folder, TokenRecord},
    keys::Keys,
    line::Line,
    login, template,
};

/// No wrapping key's file is longer.
const LONGEST_WRAPPING_KEY: u64 = 4096;

/// A TPM as a token, opened by one process for one folder; see the crate's description.
pub struct TpmStore {
    settings: TpmSettings,
    line: Line,
    shared: Arc<Shared>,
    connecting: Mutex<()>,
}

/// What the jobs on the TPM's thread need, which may outlive their callers.
struct Shared {
    folder: Folder,
    token: Mutex<TokenRecord>,
    policy: Option<Vec<u8>>,
    most: usize,
    /// The error state, and what led to it.
    wrong: OnceLock<String>,
}

impl TpmStore {
    /// Makes a token in the folder of the settings, empty, with a label and the PIN of the PIN file. Only provisioning calls it.
    ///
    /// # Errors
    /// [`TpmError::AlreadyInitialized`]; all that stands in the way of the TPM.
    pub fn initialize(settings: &TpmSettings, label: &str) -> Result<(), TpmError> {
        let pin = read_pin(&settings.pin_file)?;
        let folder = Folder::take(&settings.folder, true)?;
        if folder.token()?.is_some() || !folder.ids()?.is_empty() {
            return Err(TpmError::AlreadyInitialized { folder: settings.folder.clone() });
        }
        let line = Line::start(&settings.address.to_string(), 1, settings.call_timeout()).map_err(TpmError::Thread)?;
        let (theirs, label) = (settings.clone(), label.to_owned());
        let made = line.call(settings.generate_timeout(), move |_| {
            // Nested: the outer result is the TPM's silence, the inner one everything else.
            Ok(Connection::open(&theirs).and_then(|mut tpm| login::make_token(&mut tpm, &label, &pin.pin)))
        })??;
        folder.create_token(&made)
    }

    /// Finds the TPM and logs in, as [`TpmStore::prepare`] and [`TpmStore::connect`] one after the other: for a process that
    /// has no use for a TPM that comes late.
    ///
    /// # Errors
    /// As those two.
    pub fn open(settings: TpmSettings) -> Result<Self, TpmError> {
        let store = Self::prepare(settings)?;
        store.connect()?;
        Ok(store)
    }

    /// Takes the folder and looks at the PIN file and the wrapping key, and leaves the TPM alone: that is for
    /// [`TpmStore::connect`], as often as it takes. Until then the token is absent.
    ///
    /// # Errors
    /// What waiting does not help: there is no token in the folder or another store has it, a file cannot be used.
    pub fn prepare(settings: TpmSettings) -> Result<Self, TpmError> {
        let policy = settings.wrapping_key.as_deref().map(wrapping_policy).transpose()?;
        let folder = Folder::take(&settings.folder, false)?;
        login::settle(&folder, &NextPin::of(&settings.pin_file))?;
        read_pin(&settings.pin_file)?;
        let absent = || TpmError::NotInitialized { folder: settings.folder.clone() };
        let token = folder.token()?.ok_or_else(absent)?;
        let line = Line::start(&token.serial, settings.queue, settings.call_timeout()).map_err(TpmError::Thread)?;
        let (token, wrong) = (Mutex::new(token), OnceLock::new());
        let shared = Shared { folder, token, policy, most: settings.keys, wrong };
        Ok(Self { settings, line, shared: Arc::new(shared), connecting: Mutex::default() })
    }

    /// Finds the TPM, for the first time or after it was away, and logs in with the PIN of the PIN file, unless the connection
    /// still holds.
    ///
    /// # Errors
    /// What the TPM said ([`TpmError::Hsm`]; a refused PIN is final), the PIN file's errors, those of the record of refused PINs,
    /// and [`TpmError::OtherTpm`].
    pub fn connect(&self) -> Result<(), TpmError> {
        let _one = lock(&self.connecting);
        self.usable()?;
        if self.line.call(self.settings.call_timeout(), |desk| desk.work(Connection::present)).is_ok() {
            return Ok(());
        }
        let (settings, shared) = (self.settings.clone(), Arc::clone(&self.shared));
        self.line.call(self.settings.call_timeout(), move |desk| Ok(connect(desk, &settings, &shared)))?
    }

    /// All of it on the TPM's thread: a TPM that answers late has its answer written down all the same.
    fn change(&self, pin: &Pin) -> Result<(), TpmError> {
        self.usable()?;
        let (shared, pin, files) = (Arc::clone(&self.shared), pin.clone(), NextPin::of(&self.settings.pin_file));
        self.line.call(self.settings.call_timeout(), move |desk| {
            desk.work(|tpm| {
                let mut token = lock(&shared.token);
                let made = login::change_pin(tpm, &shared.folder, &token, &pin, &files);
                Ok(made.and_then(|made| {
                    *token = made;
                    Ok(files.adopt()?)
                }))
            })
        })?
    }

    /// The TPM's attestation key, and the certificate of its endorsement key: what an auditor makes a challenge for.
    ///
    /// # Errors
    /// [`HsmError::Unproven`] if the maker gave the TPM no certificate.
    pub fn attestation_key(&self) -> Result<AttestationKey, HsmError> {
        self.ask(self.settings.generate_timeout(), |keys| attest::attestation_key(keys.tpm))
    }

    /// The answer to an auditor's challenge.
    ///
    /// # Errors
    /// [`HsmError::Device`] if the challenge is for another TPM or attestation key.
    pub fn answer(&self, challenge: &Challenge) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        let challenge = challenge.clone();
        self.ask(self.settings.generate_timeout(), move |keys| attest::activate(keys.tpm, &challenge))
    }

    /// The TPM's statement on a key, with an auditor's nonce of at most 64 bytes.
    ///
    /// # Errors
    /// As [`KeyStore::sign`] and [`TpmStore::attestation_key`].
    pub fn attest(&self, id: KeyId, nonce: &[u8]) -> Result<Statement, HsmError> {
        let nonce = nonce.to_vec();
        self.ask(self.settings.generate_timeout(), move |mut keys| attest::certify(&mut keys, id, &nonce))
    }

    /// How fast the TPM signs with nothing around it: one digest again and again, a `TPM2_Sign` each by the library's ESAPI
    /// (`Esys_Sign`) with the session that authorizes, for `duration`. It does one thing at a time, however many ask.
    ///
    /// # Errors
    /// As [`KeyStore::sign`].
    pub fn raw_rate(&self, id: KeyId, scheme: SignatureScheme, duration: Duration) -> Result<TimedCalls, HsmError> {
        let limit = duration.saturating_add(self.settings.call_timeout());
        self.ask(limit, move |mut keys| {
            let sign = keys.bare(id, scheme, b"casemate raw signature rate")?;
            TimedCalls::make(duration, || sign(keys.tpm))
        })
    }

    fn json(&self, document: &impl Serialize) -> Result<String, HsmError> {
        serde_json::to_string(document).map_err(|error| self.no_document("a document for the auditor", &error))
    }

    fn no_document(&self, operation: &str, error: &serde_json::Error) -> HsmError {
        let token = self.line.token().to_owned();
        HsmError::Device { token, operation: operation.to_owned(), detail: error.to_string() }
    }

    /// Runs `work` on the TPM unless it has given a wrong answer before; its first one ends its use.
    fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(Keys<'_>) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        self.usable()?;
        let (shared, token) = (Arc::clone(&self.shared), self.line.token().to_owned());
        self.line.call(limit, move |desk| {
            // Seen and set on the TPM's thread: of calls that wait behind the wrong answer, none asks the TPM once more.
            shared.usable(&token)?;
            let answer = desk.work(|tpm| {
                work(Keys { tpm, folder: &shared.folder, policy: shared.policy.as_deref(), most: shared.most })
            });
            if let Err(HsmError::WrongAnswer { operation, .. }) = &answer {
                shared.wrong.get_or_init(|| operation.clone());
            }
            answer
        })
    }

    fn usable(&self) -> Result<(), HsmError> {
        self.shared.usable(self.line.token())
    }
}

impl Shared {
    fn usable(&self, token: &str) -> Result<(), HsmError> {
        match self.wrong.get() {
            Some(operation) => Err(HsmError::WrongAnswer { token: token.to_owned(), operation: operation.clone() }),
            None => Ok(()),
        }
    }
}

fn connect(desk: &mut Desk, settings: &TpmSettings, shared: &Shared) -> Result<(), TpmError> {
    // The old one first: an swtpm serves one connection at a time.
    desk.connection = None;
    login::settle(&shared.folder, &NextPin::of(&settings.pin_file))?;
    let pin = read_pin(&settings.pin_file)?;
    // An interrupted change may have put another in its place.
    if let Some(record) = shared.folder.token()? {
        *lock(&shared.token) = record;
    }
    let mut connection = Connection::open(settings)?;
    login::login(&mut connection, &shared.folder, &lock(&shared.token), &pin, settings)?;
    desk.connection = Some(connection);
    Ok(())
}

/// The policy of keys that may be wrapped under the key in this file.
fn wrapping_policy(path: &Path) -> Result<Vec<u8>, TpmError> {
    let refused = |detail: &str| TpmError::WrappingKey { path: path.to_owned(), detail: detail.to_owned() };
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_WRAPPING_KEY).read_to_end(&mut content))
        .map_err(|error| refused(&error.to_string()))?;
    let area = PublicBuffer::unmarshall(&content)
        .and_then(Public::try_from)
        .map_err(|_| refused("it holds no TPM2B_PUBLIC"))?;
    let attributes: ObjectAttributes = area.object_attributes();
    if !attributes.restricted() || !attributes.decrypt() || attributes.sign_encrypt() {
        return Err(refused("it is no storage key: restricted and decrypt must be set, and sign clear"));
    }
    if area.name_hashing_algorithm() != template::NAME_HASH {
        return Err(refused("its name must be made with SHA-256"));
    }
    let name = template::name(&area).map_err(|_| refused("it has no name"))?;
    Ok(template::duplication_policy(&name))
}

impl KeyStore for TpmStore {
    fn token(&self) -> Result<TokenInfo, HsmError> {
        let label = lock(&self.shared.token).label.clone();
        self.ask(self.settings.call_timeout(), move |keys| {
            keys.tpm.present()?;
            capability::describe(keys.tpm, &label)
        })
    }

    fn generate(&self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError> {
        let label = label.to_owned();
        self.ask(self.settings.generate_timeout(), move |mut keys| keys.generate(id, &label, spec))
    }

    fn inspect(&self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError> {
        self.ask(self.settings.call_timeout(), move |mut keys| keys.inspect(id, spec))
    }

    fn remove_half(&self, id: KeyId) -> Result<(), HsmError> {
        self.ask(self.settings.call_timeout(), move |mut keys| keys.remove_half(id))
    }

    fn keys(&self) -> Result<Vec<StoredKey>, HsmError> {
        self.ask(self.settings.call_timeout(), |mut keys| keys.list())
    }

    fn sign(&self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        let message = message.to_vec();
        self.ask(self.settings.call_timeout(), move |mut keys| keys.sign(id, scheme, &message))
    }

    fn measure(&self, algorithm: KeyAlgorithm, duration: Duration) -> Result<SignatureRate, HsmError> {
        let limit = self.settings.generate_timeout().saturating_add(duration);
        self.ask(limit, move |mut keys| keys.measure(algorithm, duration))
    }

    fn attestation_key_json(&self) -> Result<String, HsmError> {
        self.json(&self.attestation_key()?)
    }

    fn answer_json(&self, challenge: &str) -> Result<String, HsmError> {
        let challenge: Challenge =
            serde_json::from_str(challenge).map_err(|error| self.no_document("the challenge", &error))?;
        self.json(&Answer { secret: self.answer(&challenge)? })
    }

    fn statement_json(&self, id: KeyId, nonce: &[u8]) -> Result<String, HsmError> {
        self.json(&self.attest(id, nonce)?)
    }

    fn change_pin(&self, new: &Pin) -> Result<(), HsmError> {
        self.change(new).map_err(|error| error.into_hsm_of("the change of its PIN", self.line.token()))
    }

    fn reconnect(&self) -> Result<(), HsmError> {
        self.connect().map_err(|error| error.into_hsm(self.line.token()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
