use std::time::Duration;

use casemate_hsm_api::{
    Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, Padding, PublicKey, SignatureRate, SignatureScheme,
    StoredKey,
};
use casemate_hsm_attest::PublicArea;
use tss_esapi::{
    constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK},
    handles::KeyHandle,
    structures::{CreateKeyResult, Digest, HashcheckTicket, Private, Public},
    traits::{Marshall, UnMarshall},
    tss2_esys::TPMT_TK_HASHCHECK,
};

use crate::{
    TpmError,
    connection::{Connection, Loaded, Secret},
    error::{is_bad_blob, is_stale},
    folder::{Blobs, Folder, PrivateRecord, PublicRecord, damaged},
    signature::{hashed, outward, scheme as tpm_scheme},
    template::{self, difference, scheme_of},
};

/// What the pairwise test signs.
const PAIRWISE: &[u8] = b"casemate pairwise consistency test";

/// The keys of one token: its TPM and its folder.
pub(crate) struct Keys<'a> {
    pub(crate) tpm: &'a mut Connection,
    pub(crate) folder: &'a Folder,
    /// Policy of the keys that may be wrapped, if there is a trusted wrapping key.
    pub(crate) policy: Option<&'a [u8]>,
    /// Key pairs that the folder may hold.
    pub(crate) most: usize,
}

/// A whole pair, as its files say.
struct Pair {
    label: String,
    area: Public,
    private: Private,
    key: PublicKey,
}

impl Keys<'_> {
    pub(crate) fn generate(&mut self, id: KeyId, label: &str, spec: KeySpec) -> Result<PublicKey, HsmError> {
        if !self.tpm.algorithms.contains(&spec.algorithm) {
            return Err(self.unsupported(format!("generation of {}", spec.algorithm)));
        }
        if self.inspect(id, None)? != KeyState::Absent {
            return Err(self.differs(id, "something stands under this identifier already, and no second key is made"));
        }
        if self.folder.ids().map_err(|error| self.bad(id, error))?.len() >= self.most {
            let detail = format!("it holds {} keys, as many as the settings allow", self.most);
            return Err(HsmError::TokenFull { token: self.serial(), detail });
        }
        let made = self.create(spec)?;
        let area = made.out_public.marshall().map_err(|error| self.tpm.failed("TPM2B_PUBLIC", error))?;
        let key = PublicArea::parse(&area).map_err(|_| self.wrong(id, "TPM2_Create"))?.key().clone();
        let pair =
            Pair { label: label.to_owned(), area: made.out_public.clone(), private: made.out_private.clone(), key };
        // Nothing is written of a pair whose halves do not fit.
        self.check(id, &pair, spec)?;
        let public = PublicRecord { id: id.to_string(), label: label.to_owned(), serial: self.serial(), public: area };
        let private =
            PrivateRecord { id: id.to_string(), serial: self.serial(), private: made.out_private.value().to_vec() };
        self.folder.create_key(id, &public, &private).map_err(|error| self.bad(id, error))?;
        match self.find(id)? {
            Found::Pair(kept) if kept.key == pair.key && kept.label == label => Ok(kept.key),
            _ => Err(self.differs(id, "the folder did not keep what was written")),
        }
    }

    /// Has the TPM make a key, which stands in no file and is not loaded.
    fn create(&mut self, spec: KeySpec) -> Result<CreateKeyResult, HsmError> {
        let (template, auth) = (self.template(spec)?, self.auth()?);
        // Room for the new key first: some TPMs need it while they make one.
        self.tpm.make_room();
        self.tpm
            .ask(Secret::Command, |context, primary| {
                context.create(primary, template.clone(), Some(auth.clone()), None, None, None)
            })
            .map_err(|error| self.tpm.failed("TPM2_Create", error))
    }

    /// A whole pair is one that this TPM loads. "Nothing there" is believed only of a TPM that is there.
    pub(crate) fn inspect(&mut self, id: KeyId, spec: Option<KeySpec>) -> Result<KeyState, HsmError> {
        self.tpm.present()?;
        match self.find(id)? {
            Found::Nothing => Ok(KeyState::Absent),
            Found::Half => Ok(KeyState::Half),
            Found::Pair(pair) => {
                match spec {
                    Some(spec) => self.check(id, &pair, spec)?,
                    None => {
                        let handle = self.load(id, &pair)?;
                        self.tpm.unload(handle);
                    }
                }
                Ok(KeyState::Whole(pair.key))
            }
        }
    }

    pub(crate) fn remove_half(&mut self, id: KeyId) -> Result<(), HsmError> {
        self.tpm.present()?;
        match self.folder.key(id).map_err(|error| self.bad(id, error))? {
            Blobs::Nothing => Ok(()),
            Blobs::Pair(..) => Err(self.differs(id, "both halves are there, and a whole key is not removed")),
            Blobs::Half(path) => {
                self.tpm.forget(id);
                self.folder.remove(&path).map_err(|error| self.bad(id, error))
            }
        }
    }

    pub(crate) fn list(&mut self) -> Result<Vec<StoredKey>, HsmError> {
        self.tpm.present()?;
        let ids = self.folder.ids().map_err(|error| error.into_hsm(self.tpm.serial()))?;
        let mut keys = Vec::new();
        for id in ids {
            if let Found::Pair(pair) = self.find(id)? {
                keys.push(StoredKey { id, label: pair.label, public: pair.key });
            }
        }
        Ok(keys)
    }

    pub(crate) fn sign(&mut self, id: KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, HsmError> {
        let key = self.key(id)?;
        if !scheme.fits(key.public.algorithm) {
            return Err(HsmError::SchemeMismatch { scheme, algorithm: key.public.algorithm });
        }
        let signature = match self.sign_with(id, key.handle, key.public.algorithm, scheme, message) {
            // The TPM lost it, as when the last command needed all its room.
            Err(Failed::Stale) => {
                self.tpm.forget(id);
                let key = self.key(id)?;
                self.sign_with(id, key.handle, key.public.algorithm, scheme, message)
            }
            other => other,
        };
        let signature = signature.map_err(|failed| self.told(failed))?;
        self.prove_salt(scheme, &key.public, message, &signature)?;
        Ok(signature)
    }

    /// A TPM chooses the length of the PSS salt itself: that of the hash if it is made after FIPS 186-4, the longest that fits if
    /// it is older (TPM 2.0 part 1, B.7). So the first signature of each hash is looked at, and one with another salt is refused.
    fn prove_salt(
        &mut self,
        scheme: SignatureScheme,
        public: &PublicKey,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), HsmError> {
        if scheme.padding() != Padding::RsaPss || self.tpm.pss.contains(&scheme.hash()) {
            return Ok(());
        }
        if !public.verifies(scheme, message, signature) {
            return Err(self.unsupported(format!("{scheme} and a salt of the hash's length")));
        }
        self.tpm.pss.push(scheme.hash());
        Ok(())
    }

    /// `TPM2_Sign` of one message with one loaded key, and nothing around it.
    pub(crate) fn bare(
        &mut self,
        id: KeyId,
        scheme: SignatureScheme,
        message: &[u8],
    ) -> Result<impl Fn(&mut Connection) -> Result<(), HsmError> + 'static, HsmError> {
        let key = self.key(id)?;
        if !scheme.fits(key.public.algorithm) {
            return Err(HsmError::SchemeMismatch { scheme, algorithm: key.public.algorithm });
        }
        let hash =
            Digest::try_from(hashed(scheme.hash(), message)).map_err(|error| self.tpm.failed("the digest", error))?;
        Ok(move |tpm: &mut Connection| {
            tpm.ask(Secret::Neither, |context, _| {
                context.sign(key.handle, hash.clone(), tpm_scheme(scheme), no_ticket()?)
            })
            .map(drop)
            .map_err(|error| tpm.failed("TPM2_Sign", error))
        })
    }

    /// How fast the TPM signs with a key of `algorithm`. The key stands in no file: it is gone when it is unloaded.
    pub(crate) fn measure(&mut self, algorithm: KeyAlgorithm, duration: Duration) -> Result<SignatureRate, HsmError> {
        if !self.tpm.algorithms.contains(&algorithm) {
            let detail = format!("the TPM makes no {algorithm} key");
            return Err(HsmError::Unmeasurable { token: self.serial(), algorithm, detail });
        }
        let made = self.create(KeySpec { algorithm, backup: Backup::None })?;
        let auth = self.auth()?;
        self.tpm.make_room();
        let handle = self
            .tpm
            .load(&made.out_public, &made.out_private, auth)
            .map_err(|error| self.tpm.failed("TPM2_Load", error))?;
        let scheme = scheme_of(algorithm);
        let measured = Digest::try_from(hashed(scheme.hash(), PAIRWISE)).and_then(|hash| {
            SignatureRate::measure(duration, || {
                self.tpm
                    .ask(Secret::Neither, |context, _| {
                        context.sign(handle, hash.clone(), tpm_scheme(scheme), no_ticket()?)
                    })
                    .map(drop)
            })
        });
        self.tpm.unload(handle);
        measured.map_err(|error| self.tpm.failed("TPM2_Sign", error))
    }

    /// `TPMT_PUBLIC` of a whole pair.
    pub(crate) fn area(&mut self, id: KeyId) -> Result<Vec<u8>, HsmError> {
        match self.find(id)? {
            Found::Pair(pair) => pair.area.marshall().map_err(|error| self.tpm.failed("TPMT_PUBLIC", error)),
            _ => Err(HsmError::KeyMissing { key: id.to_string(), token: self.serial() }),
        }
    }

    /// The loaded key under `id`, from the files that stand there now.
    pub(crate) fn key(&mut self, id: KeyId) -> Result<Loaded, HsmError> {
        let missing = |keys: &Self| HsmError::KeyMissing { key: id.to_string(), token: keys.serial() };
        let Some(stamp) = self.folder.stamp(id) else {
            self.tpm.forget(id);
            // As with an absent key, this is believed only of a TPM that is there.
            self.tpm.present()?;
            return Err(missing(self));
        };
        if let Some(key) = self.tpm.loaded(id, &stamp) {
            return Ok(key);
        }
        let Found::Pair(pair) = self.find(id)? else { return Err(missing(self)) };
        let handle = self.load(id, &pair)?;
        let key = Loaded { id, handle, public: pair.key, stamp };
        self.tpm.keep(key.clone());
        Ok(key)
    }

    fn find(&self, id: KeyId) -> Result<Found, HsmError> {
        let (public, private) = match self.folder.key(id).map_err(|error| self.bad(id, error))? {
            Blobs::Nothing => return Ok(Found::Nothing),
            Blobs::Half(_) => return Ok(Found::Half),
            Blobs::Pair(public, private) => (public, private),
        };
        for serial in [&public.serial, &private.serial] {
            if serial != self.tpm.serial() {
                return Err(self.differs(id, &format!("it was made by TPM {serial}, and no other can use it")));
            }
        }
        let unusable = |path| damaged(path, "it holds no TPM object of a kind that is used here");
        let public_path = self.folder.public_path(id);
        let area = Public::unmarshall(&public.public).map_err(|_| self.bad(id, unusable(&public_path)))?;
        let key = PublicArea::parse(&public.public).map_err(|_| self.bad(id, unusable(&public_path)))?.key().clone();
        let private_path = self.folder.private_path(id);
        let private =
            Private::try_from(private.private.as_slice()).map_err(|_| self.bad(id, unusable(&private_path)))?;
        Ok(Found::Pair(Pair { label: public.label, area, private, key }))
    }

    fn load(&mut self, id: KeyId, pair: &Pair) -> Result<KeyHandle, HsmError> {
        let auth = self.auth()?;
        self.tpm.make_room();
        self.tpm.load(&pair.area, &pair.private, auth).map_err(|error| {
            if is_bad_blob(error) {
                let path = self.folder.private_path(id);
                self.bad(id, damaged(&path, "the TPM does not take it for its own"))
            } else {
                self.tpm.failed("TPM2_Load", error)
            }
        })
    }

    /// Holds a pair against `spec`, and its halves against each other (FIPS 140-3 IG 10.3.A).
    fn check(&mut self, id: KeyId, pair: &Pair, spec: KeySpec) -> Result<(), HsmError> {
        if pair.key.algorithm != spec.algorithm {
            let detail = format!("it is {}, and {} was asked for", pair.key.algorithm, spec.algorithm);
            return Err(self.differs(id, &detail));
        }
        if let Some(detail) = difference(&self.template(spec)?, &pair.area) {
            return Err(self.differs(id, &detail));
        }
        let scheme = scheme_of(spec.algorithm);
        let handle = self.load(id, pair)?;
        let signed = self.sign_with(id, handle, spec.algorithm, scheme, PAIRWISE);
        self.tpm.unload(handle);
        let signature = signed.map_err(|failed| self.told(failed))?;
        if pair.key.verifies(scheme, PAIRWISE, &signature) {
            Ok(())
        } else {
            Err(self.wrong(id, "the pairwise consistency test"))
        }
    }

    fn sign_with(
        &mut self,
        id: KeyId,
        handle: KeyHandle,
        algorithm: KeyAlgorithm,
        scheme: SignatureScheme,
        message: &[u8],
    ) -> Result<Vec<u8>, Failed> {
        if !self.tpm.hashes.contains(&scheme.hash()) {
            return Err(Failed::Told(self.unsupported(format!("{scheme}: it does not know the hash"))));
        }
        let failed = |keys: &Self, error| {
            if is_stale(error) { Failed::Stale } else { Failed::Told(keys.tpm.failed("TPM2_Sign", error)) }
        };
        let hash = Digest::try_from(hashed(scheme.hash(), message)).map_err(|error| failed(self, error))?;
        let signature = self
            .tpm
            .ask(Secret::Neither, |context, _| context.sign(handle, hash.clone(), tpm_scheme(scheme), no_ticket()?))
            .map_err(|error| failed(self, error))?;
        outward(algorithm, scheme, &signature).ok_or_else(|| Failed::Told(self.wrong(id, "TPM2_Sign")))
    }

    fn template(&self, spec: KeySpec) -> Result<Public, HsmError> {
        let policy = match (spec.backup, self.policy) {
            (Backup::None, _) => &[],
            (Backup::Wrapped, Some(policy)) => policy,
            (Backup::Wrapped, None) => {
                return Err(self.unsupported("backup: wrapped, for the settings name no wrapping-key".to_owned()));
            }
        };
        template::signing(spec, policy).map_err(|error| self.tpm.failed("the template", error))
    }

    fn auth(&self) -> Result<tss_esapi::structures::Auth, HsmError> {
        let detail = || "nobody is logged in".to_owned();
        self.tpm.key_auth.clone().ok_or_else(|| HsmError::TokenAbsent { token: self.serial(), detail: detail() })
    }

    fn serial(&self) -> String {
        self.tpm.serial().to_owned()
    }

    fn bad(&self, id: KeyId, error: TpmError) -> HsmError {
        error.of_key(id, self.tpm.serial())
    }

    fn told(&self, failed: Failed) -> HsmError {
        match failed {
            Failed::Told(error) => error,
            Failed::Stale => HsmError::TokenAbsent {
                token: self.serial(),
                detail: "TPM2_Sign: the TPM lost the key that was just loaded".to_owned(),
            },
        }
    }

    fn differs(&self, id: KeyId, detail: &str) -> HsmError {
        HsmError::KeyNotAsSpecified { key: id.to_string(), token: self.serial(), detail: detail.to_owned() }
    }

    fn wrong(&self, id: KeyId, what: &str) -> HsmError {
        HsmError::WrongAnswer { token: self.serial(), operation: format!("{what} of key {id}") }
    }

    fn unsupported(&self, operation: String) -> HsmError {
        HsmError::Unsupported { token: self.serial(), operation }
    }
}

enum Found {
    Nothing,
    Half,
    Pair(Pair),
}

/// Why a signature was not made.
enum Failed {
    /// The key's handle is gone; loading it again may help.
    Stale,
    Told(HsmError),
}

/// That the digest was not made by the TPM, which an unrestricted key does not mind (TPM 2.0 part 3, 20.2).
fn no_ticket() -> tss_esapi::Result<HashcheckTicket> {
    TPMT_TK_HASHCHECK { tag: TPM2_ST_HASHCHECK, hierarchy: TPM2_RH_NULL, ..Default::default() }.try_into()
}
