use std::{
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{Hash, HsmError, KeyAlgorithm, KeyId, PublicKey};
use casemate_hsm_pin::read_pin;
use tss_esapi::{
    Context, Error, Result as Answer,
    attributes::SessionAttributesBuilder,
    constants::{CapabilityType, SessionType},
    handles::{KeyHandle, ObjectHandle, SessionHandle},
    interface_types::{resource_handles::Hierarchy, session_handles::AuthSession},
    structures::{Auth, CapabilityData, Private, Public, SymmetricDefinition},
    tcti_ldr::TctiNameConf,
};

use crate::{
    TpmAddress, TpmError, TpmSettings, capability,
    error::{Remedy, classify, is_refusal, remedy},
    folder::Stamp,
    pin,
    template::{NAME_HASH, storage_primary},
};

/// The first transient object, loaded session and saved session (TPM 2.0 part 2, 7.4).
const FIRST_HANDLES: [u32; 3] = [0x8000_0000, 0x0200_0000, 0x0300_0000];

/// The first wait before a command is repeated that the TPM put off, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// What the thread of the TPM works with.
pub(crate) struct Desk {
    token: String,
    pub(crate) connection: Option<Connection>,
}

impl Desk {
    pub(crate) fn new(token: &str) -> Self {
        Self { token: token.to_owned(), connection: None }
    }

    /// Runs `work` on the connection. One that lost its TPM is closed, and nothing opens another but
    /// [`TpmStore::connect`](crate::TpmStore::connect), which logs in.
    pub(crate) fn work<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T, HsmError>) -> Result<T, HsmError> {
        let absent = || HsmError::TokenAbsent { token: self.token.clone(), detail: "not connected".to_owned() };
        let connection = self.connection.as_mut().ok_or_else(absent)?;
        let result = work(connection);
        if matches!(result, Err(HsmError::TokenAbsent { .. })) {
            self.connection = None;
        }
        result
    }
}

/// What crosses the bus encrypted, by the session's key that only this process and the TPM can know.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Secret {
    /// Nothing: the session authorizes and protects from changes.
    Neither,
    /// The first parameter of the command.
    Command,
    /// The first parameter of the response.
    Response,
}

/// A TPM that was found, with its storage key and one session salted with it. The salt is encrypted to the storage key, whose
/// name the token's record holds: who listens on the bus, or speaks in the TPM's place, learns no authorization value.
pub(crate) struct Connection {
    context: Context,
    primary: KeyHandle,
    /// Name of the storage key.
    name: Vec<u8>,
    session: AuthSession,
    serial: String,
    retry: Duration,
    /// Authorization value of all keys, out of the sealed object.
    pub(crate) key_auth: Option<Auth>,
    pub(crate) algorithms: Vec<KeyAlgorithm>,
    pub(crate) hashes: Vec<Hash>,
    /// Hashes with which the TPM was seen to make RSA PSS signatures as we want them.
    pub(crate) pss: Vec<Hash>,
    /// Keys that are loaded, the longest unused first.
    loaded: Vec<Loaded>,
    room: usize,
}

/// A key that is in the TPM now.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) id: KeyId,
    pub(crate) handle: KeyHandle,
    pub(crate) public: PublicKey,
    /// Of the files that it was loaded from.
    pub(crate) stamp: Stamp,
}

impl Connection {
    pub(crate) fn open(settings: &TpmSettings) -> Result<Self, TpmError> {
        let place = settings.address.to_string();
        let retry = settings.retry();
        let failed = |operation: &'static str| {
            let place = place.clone();
            move |error| classify(&place, operation, error, retry)
        };
        let mut context = Context::new(interface(&settings.address).map_err(failed("the address"))?)
            .map_err(failed("the connection"))?;
        // The first command of all: a TPM that has just begun may put it off.
        patiently(retry, || context.get_capability(CapabilityType::Algorithms, 0, 1))
            .map_err(failed("TPM2_GetCapability"))?;
        if settings.is_exclusive() {
            flush_strangers(&mut context).map_err(failed("flushing what another process left"))?;
        }
        let owner = match &settings.owner_auth_file {
            Some(path) => pin::auth(read_pin(path)?.pin.expose().as_bytes()),
            None => Auth::default(),
        };
        context.tr_set_auth(ObjectHandle::Owner, owner).map_err(failed("the owner's authorization"))?;
        let template = storage_primary().map_err(failed("the storage key's template"))?;
        let primary = patiently(retry, || {
            context.execute_with_nullauth_session::<_, _, Error>(|context| {
                context.create_primary(Hierarchy::Owner, template.clone(), None, None, None, None)
            })
        })
        .map_err(|error| if is_refusal(error) { owner_refused(&place) } else { failed("TPM2_CreatePrimary")(error) })?
        .key_handle;
        let name = context.tr_get_name(primary.into()).map_err(failed("the storage key's name"))?.value().to_vec();
        let session = patiently(retry, || start_session(&mut context, primary)).map_err(failed("the session"))?;
        let mut connection = Self {
            context,
            primary,
            serial: serial(&name),
            name,
            session,
            retry,
            key_auth: None,
            algorithms: Vec::new(),
            hashes: Vec::new(),
            pss: Vec::new(),
            loaded: Vec::new(),
            room: settings.loaded_keys.max(1),
        };
        connection.hashes = capability::hashes(&mut connection)?;
        connection.algorithms = capability::algorithms(&mut connection)?;
        Ok(connection)
    }

    /// The stable identity of the TPM: of its owner seed, which `TPM2_Clear` changes, and with it every blob's use.
    pub(crate) fn serial(&self) -> &str {
        &self.serial
    }

    /// Runs one command with the session, again where that helps: after a wait when the TPM puts it off, once without loaded
    /// keys when it has no room, once with a new session when the old one is gone.
    pub(crate) fn ask<T>(
        &mut self,
        secret: Secret,
        mut command: impl FnMut(&mut Context, KeyHandle) -> Answer<T>,
    ) -> Answer<T> {
        let (mut unloaded, mut renewed) = (false, false);
        let mut patience = Patience::new(self.retry);
        loop {
            self.protect(secret)?;
            let (session, primary) = (self.session, self.primary);
            let answer = self.context.execute_with_session(Some(session), |context| command(context, primary));
            let error = match answer {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            match remedy(error) {
                Remedy::Wait if patience.wait() => {}
                Remedy::UnloadObjects if !unloaded => {
                    unloaded = true;
                    self.clear();
                }
                Remedy::NewSession if !renewed => {
                    renewed = true;
                    self.renew_session()?;
                }
                _ => return Err(error),
            }
        }
    }

    /// Runs one command that needs no session.
    pub(crate) fn ask_openly<T>(&mut self, mut command: impl FnMut(&mut Context) -> Answer<T>) -> Answer<T> {
        let retry = self.retry;
        patiently(retry, || self.context.execute_without_session(&mut command))
    }

    /// Runs several commands that have sessions of their own, once.
    pub(crate) fn once<T>(&mut self, commands: impl FnOnce(&mut Context) -> Answer<T>) -> Answer<T> {
        self.context.execute_without_session(commands)
    }

    /// The answer in the words of the trait.
    pub(crate) fn failed(&self, operation: &str, error: Error) -> HsmError {
        classify(&self.serial, operation, error, self.retry)
    }

    /// That the TPM is still there, and still holds the storage key of this connection.
    pub(crate) fn present(&mut self) -> Result<(), HsmError> {
        let primary = self.primary;
        let (_, name, _) = self
            .ask_openly(|context| context.read_public(primary))
            .map_err(|error| self.failed("TPM2_ReadPublic", error))?;
        if name.value() == self.name {
            return Ok(());
        }
        let detail = "another TPM is in its place".to_owned();
        Err(HsmError::TokenAbsent { token: self.serial.clone(), detail })
    }

    /// Loads a blob and gives it its authorization value.
    pub(crate) fn load(&mut self, public: &Public, private: &Private, auth: Auth) -> Answer<KeyHandle> {
        let handle =
            self.ask(Secret::Neither, |context, primary| context.load(primary, private.clone(), public.clone()))?;
        self.context.tr_set_auth(handle.into(), auth)?;
        Ok(handle)
    }

    /// Takes an object out of the TPM. One that is gone already is no failure.
    pub(crate) fn unload(&mut self, handle: KeyHandle) {
        let _ = self.context.flush_context(handle.into());
    }

    /// A key that is loaded from files with this stamp; it becomes the last to go. One of other files is unloaded.
    pub(crate) fn loaded(&mut self, id: KeyId, stamp: &Stamp) -> Option<Loaded> {
        let place = self.loaded.iter().position(|key| key.id == id)?;
        let key = self.loaded.remove(place);
        if key.stamp != *stamp {
            self.unload(key.handle);
            return None;
        }
        self.loaded.push(key.clone());
        Some(key)
    }

    /// Makes room for one more key.
    pub(crate) fn make_room(&mut self) {
        while self.loaded.len() >= self.room {
            let oldest = self.loaded.remove(0);
            self.unload(oldest.handle);
        }
    }

    pub(crate) fn keep(&mut self, key: Loaded) {
        self.loaded.push(key);
    }

    /// Unloads one key, if it is loaded.
    pub(crate) fn forget(&mut self, id: KeyId) {
        if let Some(place) = self.loaded.iter().position(|key| key.id == id) {
            let key = self.loaded.remove(place);
            self.unload(key.handle);
        }
    }

    /// Unloads every key.
    pub(crate) fn clear(&mut self) {
        for key in std::mem::take(&mut self.loaded) {
            self.unload(key.handle);
        }
    }

    fn renew_session(&mut self) -> Answer<()> {
        let _ = self.context.flush_context(SessionHandle::from(self.session).into());
        let primary = self.primary;
        let context = &mut self.context;
        self.session = patiently(self.retry, || start_session(context, primary))?;
        Ok(())
    }

    fn protect(&mut self, secret: Secret) -> Answer<()> {
        let (attributes, _) = SessionAttributesBuilder::new()
            .with_continue_session(true)
            .with_decrypt(matches!(secret, Secret::Command))
            .with_encrypt(matches!(secret, Secret::Response))
            .build();
        // The mask of all three, for what is not set is to be cleared.
        let (_, all) =
            SessionAttributesBuilder::new().with_continue_session(true).with_decrypt(true).with_encrypt(true).build();
        self.context.tr_sess_set_attributes(self.session, attributes, all)
    }
}

/// Repeats a command that the TPM puts off.
struct Patience {
    begin: Instant,
    limit: Duration,
    next: Duration,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { begin: Instant::now(), limit, next: WAITS.0 }
    }

    /// Waits, twice as long each time; false when the limit is reached.
    fn wait(&mut self) -> bool {
        if self.begin.elapsed() + self.next > self.limit {
            return false;
        }
        thread::sleep(self.next);
        self.next = (self.next * 2).min(WAITS.1);
        true
    }
}

fn patiently<T>(limit: Duration, mut command: impl FnMut() -> Answer<T>) -> Answer<T> {
    let mut patience = Patience::new(limit);
    loop {
        match command() {
            Err(error) if remedy(error) == Remedy::Wait && patience.wait() => {}
            answer => return answer,
        }
    }
}

fn interface(address: &TpmAddress) -> Answer<TctiNameConf> {
    TctiNameConf::from_str(&match address {
        TpmAddress::Device(path) => format!("device:{}", path.display()),
        TpmAddress::Swtpm(port) => format!("swtpm:host=127.0.0.1,port={port}"),
    })
}

fn start_session(context: &mut Context, salt: KeyHandle) -> Answer<AuthSession> {
    let cipher = SymmetricDefinition::AES_128_CFB;
    context
        .execute_without_session(|context| {
            context.start_auth_session(Some(salt), None, None, SessionType::Hmac, cipher, NAME_HASH)
        })?
        .ok_or(Error::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))
}

/// Flushes every object and session that is loaded: without a resource manager, what a killed process had loaded stays for ever.
fn flush_strangers(context: &mut Context) -> Answer<()> {
    for first in FIRST_HANDLES {
        let (found, _) = context.get_capability(CapabilityType::Handles, first, 64)?;
        let CapabilityData::Handles(handles) = found else { continue };
        for handle in handles.into_inner() {
            let stranger = context.tr_from_tpm_public(handle)?;
            match context.flush_context(stranger) {
                // The library does not expect a saved session there; the TPM has flushed it all the same.
                Ok(()) | Err(Error::WrapperError(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn serial(name: &[u8]) -> String {
    // Past the two bytes that name the hash, 128 bits of it tell any two TPMs apart.
    hex::encode(name.get(2..18).unwrap_or_default())
}

fn owner_refused(place: &str) -> HsmError {
    HsmError::Device {
        token: place.to_owned(),
        operation: "TPM2_CreatePrimary".to_owned(),
        detail: "the owner hierarchy has another authorization than owner-auth-file says".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TPM_RC_RETRY` and `TPM_RC_FAILURE` (TPM 2.0 part 2, 6.6.3).
    const RETRY: u32 = 0x922;
    const FAILURE: u32 = 0x101;

    /// What comes of a command that the TPM answers so as often, and how often it was asked.
    fn asked(limit: Duration, number: u32, times: usize) -> (Answer<()>, usize) {
        let mut asked = 0;
        let answer = patiently(limit, || {
            asked += 1;
            if asked > times { Ok(()) } else { Err(Error::Tss2Error(number.into())) }
        });
        (answer, asked)
    }

    #[test]
    fn what_the_tpm_puts_off_is_asked_again_for_a_while_and_nothing_else_is() {
        assert_eq!(asked(Duration::from_secs(5), RETRY, 4), (Ok(()), 5));
        let begin = Instant::now();
        let (answer, times) = asked(Duration::from_millis(100), RETRY, usize::MAX);
        assert!(answer.is_err() && (3..10).contains(&times), "{times}");
        assert!(begin.elapsed() < Duration::from_secs(1));
        let (answer, times) = asked(Duration::from_secs(5), FAILURE, 1);
        assert!(answer.is_err() && times == 1);
    }
}
