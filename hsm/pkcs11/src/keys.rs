use casemate_hsm_api::{HsmError, KeyAlgorithm, KeyId, KeySpec, KeyState, PublicKey, SignatureScheme, StoredKey};
use cryptoki::{
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::SessionState,
};

use crate::{
    error::{is_refused_template, is_stale_handle},
    public,
    settled::settled,
    signature::{outward, request},
    template::{Usage, difference, key_type, required_types, templates},
    token::{self, algorithms},
    worker::{CachedKey, Open, Worker},
};

/// What the pairwise test signs.
const PAIRWISE: &[u8] = b"casemate pairwise consistency test";

/// The halves that stand under one identifier.
#[derive(Clone, Eq, PartialEq)]
struct Halves {
    private: Vec<ObjectHandle>,
    public: Vec<ObjectHandle>,
}

/// A pair of which both halves carry a key.
struct Pair {
    private: ObjectHandle,
    public: PublicKey,
}

pub(crate) fn generate(
    worker: &mut Worker,
    id: KeyId,
    label: &str,
    spec: KeySpec,
    usage: Usage,
) -> Result<PublicKey, HsmError> {
    let target = worker.target()?;
    let offered =
        algorithms(worker.context(), target.slot).map_err(|error| crate::error::classify(&target.serial, &error))?;
    if !offered.contains(&spec.algorithm) {
        let operation = format!("generation of {}", spec.algorithm);
        return Err(HsmError::Unsupported { token: target.serial.as_ref().to_owned(), operation });
    }
    if inspect(worker, id, None, usage)? != KeyState::Absent {
        return Err(HsmError::KeyNotAsSpecified {
            key: id.to_string(),
            token: target.serial.as_ref().to_owned(),
            detail: "something stands under this identifier already, and no second key is made".to_owned(),
        });
    }
    worker.with_session(|open| {
        let made = templates(id, label, spec, usage);
        open.session.generate_key_pair(&made.mechanism, &made.public, &made.private).map_err(|error| {
            if is_refused_template(&error) {
                let operation = format!("a {} key that signs only, with backup {:?}", spec.algorithm, spec.backup);
                return HsmError::Unsupported { token: open.serial(), operation };
            }
            open.failed(&error)
        })?;
        match checked(open, id, spec, usage)? {
            KeyState::Whole(public) => Ok(public),
            _ => Err(open.differs(id, "the token did not keep what it made")),
        }
    })
}

pub(crate) fn inspect(
    worker: &mut Worker,
    id: KeyId,
    spec: Option<KeySpec>,
    usage: Usage,
) -> Result<KeyState, HsmError> {
    let state = worker.with_session(|open| match spec {
        Some(spec) => checked(open, id, spec, usage),
        None => Ok(match open.pair(id)? {
            Found::Nothing => KeyState::Absent,
            Found::Half(_) => KeyState::Half,
            Found::Pair(pair) => KeyState::Whole(pair.public),
        }),
    })?;
    if state == KeyState::Absent {
        // "Nothing there" is believed only of a token that is there.
        token::present(worker.context(), &worker.target()?)?;
    }
    Ok(state)
}

pub(crate) fn remove_half(worker: &mut Worker, id: KeyId) -> Result<(), HsmError> {
    worker.with_session(|open| match open.pair(id)? {
        Found::Nothing => Ok(()),
        Found::Pair(_) => Err(open.differs(id, "both halves are there, and a whole key is not removed")),
        Found::Half(halves) => halves
            .private
            .iter()
            .chain(&halves.public)
            .try_for_each(|handle| open.session.destroy_object(*handle))
            .map_err(|error| open.failed(&error)),
    })
}

pub(crate) fn list(worker: &mut Worker) -> Result<Vec<StoredKey>, HsmError> {
    let found = worker.with_session(|open| {
        open.logged_in()?;
        let wanted = [Attribute::Token(true), Attribute::Class(ObjectClass::PRIVATE_KEY)];
        let find = || open.session.find_objects(&wanted).map_err(|error| open.failed(&error));
        let mut ids = Vec::new();
        for handle in find()? {
            let read = match open.attributes(handle, &[AttributeType::Id]) {
                // Somebody removed it meanwhile.
                Err(HsmError::Device { .. }) if !find()?.contains(&handle) => continue,
                other => other?,
            };
            for attribute in read {
                // Keys whose identifier has another length were not made by us.
                if let Attribute::Id(id) = attribute
                    && let Ok(id) = id.try_into().map(KeyId)
                    && !ids.contains(&id)
                {
                    ids.push(id);
                }
            }
        }
        let mut keys = Vec::new();
        for id in ids {
            match settled(|| open.halves(id), |halves| open.stored(id, halves)) {
                Ok(found) => keys.extend(found),
                // One that nobody can use hides no other; who asks for it is told what is wrong.
                Err(HsmError::KeyNotAsSpecified { .. } | HsmError::KeyAmbiguous { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    })?;
    token::present(worker.context(), &worker.target()?)?;
    Ok(found)
}

pub(crate) fn sign(
    worker: &mut Worker,
    id: KeyId,
    scheme: SignatureScheme,
    message: &[u8],
) -> Result<Vec<u8>, HsmError> {
    worker.with_session(|open| {
        let key = open.key(id)?;
        if !scheme.fits(key.algorithm) {
            return Err(HsmError::SchemeMismatch { scheme, algorithm: key.algorithm });
        }
        open.sign(id, key, scheme, message)
    })
}

/// The state under `id`; a whole pair is held against `spec` and its halves against each other (FIPS 140-3 IG 10.3.A).
fn checked(open: &mut Open, id: KeyId, spec: KeySpec, usage: Usage) -> Result<KeyState, HsmError> {
    let pair = match open.pair(id)? {
        Found::Nothing => return Ok(KeyState::Absent),
        Found::Half(_) => return Ok(KeyState::Half),
        Found::Pair(pair) => pair,
    };
    if pair.public.algorithm != spec.algorithm {
        let detail = format!("it is {}, and {} was asked for", pair.public.algorithm, spec.algorithm);
        return Err(open.differs(id, &detail));
    }
    let read = open.attributes(pair.private, &required_types(spec))?;
    if let Some(detail) = difference(spec, usage, &read) {
        return Err(open.differs(id, &detail));
    }
    let key = CachedKey { private: pair.private, algorithm: spec.algorithm };
    let scheme = pairwise_scheme(spec.algorithm);
    let signature = open.sign(id, key, scheme, PAIRWISE)?;
    if !pair.public.verifies(scheme, PAIRWISE, &signature) {
        let operation = format!("the pairwise consistency test of key {id}");
        return Err(HsmError::WrongAnswer { token: open.serial(), operation });
    }
    Ok(KeyState::Whole(pair.public))
}

pub(crate) const fn pairwise_scheme(algorithm: KeyAlgorithm) -> SignatureScheme {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureScheme::RsaPkcs1Sha256,
        KeyAlgorithm::P256 => SignatureScheme::EcdsaP256Sha256,
        KeyAlgorithm::P384 => SignatureScheme::EcdsaP384Sha384,
        KeyAlgorithm::P521 => SignatureScheme::EcdsaP521Sha512,
    }
}

/// What [`Open::pair`] found.
enum Found {
    Nothing,
    Half(Halves),
    Pair(Pair),
}

impl Open {
    /// The halves under `id`, and whether they make a pair. An object that the token made but did not fill before it was
    /// interrupted (SoftHSM stores a key in two steps) makes none.
    ///
    /// Without a login a token hides its private keys, and every pair looks like a public half: so what is missing is believed
    /// only while the login holds, before the search and after it.
    fn pair(&self, id: KeyId) -> Result<Found, HsmError> {
        self.logged_in()?;
        self.pair_of(id, self.halves(id)?)
    }

    /// The same of halves that were looked up while the login held.
    fn pair_of(&self, id: KeyId, halves: Halves) -> Result<Found, HsmError> {
        let found = self.judge(id, halves)?;
        if !matches!(found, Found::Pair(_)) {
            self.logged_in()?;
        }
        Ok(found)
    }

    /// The pair that `halves` make, if they make one, as it is listed.
    fn stored(&self, id: KeyId, halves: Halves) -> Result<Option<StoredKey>, HsmError> {
        let Found::Pair(pair) = self.pair_of(id, halves)? else { return Ok(None) };
        Ok(Some(StoredKey { id, label: self.label(pair.private)?, public: pair.public }))
    }

    fn logged_in(&self) -> Result<(), HsmError> {
        match self.session.get_session_info().map_err(|error| self.failed(&error))?.session_state() {
            SessionState::RwUser => Ok(()),
            other => {
                Err(HsmError::TokenAbsent { token: self.serial(), detail: format!("the login is lost: {other:?}") })
            }
        }
    }

    fn judge(&self, id: KeyId, halves: Halves) -> Result<Found, HsmError> {
        let (private, public) = match (halves.private.as_slice(), halves.public.as_slice()) {
            ([], []) => return Ok(Found::Nothing),
            ([private], [public]) => (*private, *public),
            ([], [_]) | ([_], []) => return Ok(Found::Half(halves)),
            (private, public) => {
                let count = private.len().max(public.len());
                return Err(HsmError::KeyAmbiguous { key: id.to_string(), token: self.serial(), count });
            }
        };
        let (Some(_), Some(value)) = (self.material(private)?, self.material(public)?) else {
            return Ok(Found::Half(halves));
        };
        let public = match value {
            Material::Rsa { modulus, exponent } => public::rsa(&modulus, &exponent),
            Material::Ec { params, point } => {
                public::curve_algorithm(&params).and_then(|curve| public::ec(curve, &point))
            }
        };
        let public = public.ok_or_else(|| self.differs(id, "its public half is of no kind that is used here"))?;
        if self.kind(private)? != Some(key_type(public.algorithm)) {
            return Err(self.differs(id, "its halves are of different kinds"));
        }
        Ok(Found::Pair(Pair { private, public }))
    }

    fn halves(&self, id: KeyId) -> Result<Halves, HsmError> {
        Ok(Halves {
            private: self.find(id, ObjectClass::PRIVATE_KEY)?,
            public: self.find(id, ObjectClass::PUBLIC_KEY)?,
        })
    }

    /// The numbers that a half carries; nothing if it carries none.
    fn material(&self, handle: ObjectHandle) -> Result<Option<Material>, HsmError> {
        use AttributeType as T;
        let kind = self.kind(handle)?;
        let read = self.attributes(
            handle,
            match kind {
                Some(KeyType::RSA) => &[T::Modulus, T::PublicExponent],
                Some(KeyType::EC) => &[T::EcParams, T::EcPoint],
                _ => return Ok(None),
            },
        )?;
        let mut first = Vec::new();
        let mut second = Vec::new();
        for attribute in read {
            match attribute {
                Attribute::Modulus(value) | Attribute::EcParams(value) => first = value,
                Attribute::PublicExponent(value) | Attribute::EcPoint(value) => second = value,
                _ => {}
            }
        }
        // A private half may keep exponent and point to itself.
        Ok((!first.is_empty()).then_some(if kind == Some(KeyType::RSA) {
            Material::Rsa { modulus: first, exponent: second }
        } else {
            Material::Ec { params: first, point: second }
        }))
    }

    /// The private half of a whole pair, looked up once a session.
    pub(crate) fn key(&mut self, id: KeyId) -> Result<CachedKey, HsmError> {
        if let Some(key) = self.keys.get(&id) {
            return Ok(*key);
        }
        let Found::Pair(pair) = self.pair(id)? else {
            return Err(HsmError::KeyMissing { key: id.to_string(), token: self.serial() });
        };
        let key = CachedKey { private: pair.private, algorithm: pair.public.algorithm };
        self.keys.insert(id, key);
        Ok(key)
    }

    fn sign(
        &mut self,
        id: KeyId,
        key: CachedKey,
        scheme: SignatureScheme,
        message: &[u8],
    ) -> Result<Vec<u8>, HsmError> {
        let asked = request(scheme, message);
        let raw = match self.session.sign(&asked.mechanism, key.private, &asked.data) {
            Err(error) if is_stale_handle(&error) => {
                self.keys.remove(&id);
                let fresh = self.key(id)?;
                self.session.sign(&asked.mechanism, fresh.private, &asked.data)
            }
            answer => answer,
        };
        let raw = raw.map_err(|error| self.failed(&error))?;
        outward(key.algorithm, &raw).ok_or_else(|| HsmError::WrongAnswer {
            token: self.serial(),
            operation: format!("C_Sign with key {id}: a signature of {} bytes", raw.len()),
        })
    }

    fn find(&self, id: KeyId, class: ObjectClass) -> Result<Vec<ObjectHandle>, HsmError> {
        let wanted = [Attribute::Token(true), Attribute::Class(class), Attribute::Id(id.0.to_vec())];
        self.session.find_objects(&wanted).map_err(|error| self.failed(&error))
    }

    fn attributes(&self, handle: ObjectHandle, kinds: &[AttributeType]) -> Result<Vec<Attribute>, HsmError> {
        self.session.get_attributes(handle, kinds).map_err(|error| self.failed(&error))
    }

    fn kind(&self, handle: ObjectHandle) -> Result<Option<KeyType>, HsmError> {
        Ok(self.attributes(handle, &[AttributeType::KeyType])?.into_iter().find_map(|attribute| match attribute {
            Attribute::KeyType(kind) => Some(kind),
            _ => None,
        }))
    }

    fn label(&self, handle: ObjectHandle) -> Result<String, HsmError> {
        Ok(self
            .attributes(handle, &[AttributeType::Label])?
            .into_iter()
            .find_map(|attribute| match attribute {
                Attribute::Label(label) => Some(String::from_utf8_lossy(&label).into_owned()),
                _ => None,
            })
            .unwrap_or_default())
    }

    fn differs(&self, id: KeyId, detail: &str) -> HsmError {
        HsmError::KeyNotAsSpecified { key: id.to_string(), token: self.serial(), detail: detail.to_owned() }
    }
}

/// The public numbers of a half.
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { params: Vec<u8>, point: Vec<u8> },
}
