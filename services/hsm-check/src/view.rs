//! A second look at the token, past hsm/pkcs11: what the suite wants to know by another way, and what no store does, the removal
//! of keys above all.

use std::{collections::BTreeMap, path::Path};

use casemate_hsm_api::{KeyId, KeyStore, StoredKey};
use casemate_hsm_conformance::{Half, Rig};
use casemate_hsm_pkcs11::{Pkcs11Store, TokenName};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::Error,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
    slot::{Slot, TokenInfo},
};

use crate::{error::CheckError, run::LABEL};

/// The module and one of its tokens.
pub(crate) struct View {
    context: Pkcs11,
    pub(crate) token: TokenName,
    serial: String,
    /// What the token says of itself that is not as usual.
    pub(crate) flags: Vec<&'static str>,
}

impl View {
    /// Loads the module, finds the token, and leaves the module as it was before `C_Initialize`: that is the store's.
    pub(crate) fn load(module: &Path, label: Option<&str>) -> Result<Self, CheckError> {
        let unloadable = |error: Error| CheckError::NoModule { path: module.to_owned(), reason: error.to_string() };
        let context = Pkcs11::new(module).map_err(unloadable)?;
        initialize(&context)?;
        let found = find(&context, label);
        context.clone().finalize().map_err(failed("C_Finalize"))?;
        let (token, serial, flags) = found?;
        Ok(Self { context, token, serial, flags })
    }

    /// Finalises and initialises the module, in which nobody has a session now.
    pub(crate) fn restart(&self) -> Result<(), CheckError> {
        self.context.clone().finalize().map_err(failed("C_Finalize"))?;
        initialize(&self.context)
    }

    fn slot(&self) -> Result<Slot, CheckError> {
        let slots = self.context.get_slots_with_token().map_err(failed("C_GetSlotList"))?;
        let is_it = |slot: &Slot| {
            self.context.get_token_info(*slot).is_ok_and(|info| {
                TokenName::Both {
                    label: info.label().trim().to_owned(),
                    serial: info.serial_number().trim().to_owned(),
                } == self.token
            })
        };
        slots.into_iter().find(is_it).ok_or_else(|| CheckError::NoToken(format!("token {} is gone", self.serial)))
    }

    /// A session of its own. The login is the process's.
    pub(crate) fn session(&self) -> Result<Session, CheckError> {
        self.context.open_rw_session(self.slot()?).map_err(failed("C_OpenSession"))
    }

    /// Labels of checks on the token, each with how many keys have it.
    pub(crate) fn labels(&self) -> Result<BTreeMap<String, usize>, CheckError> {
        let session = self.session()?;
        let mut labels = BTreeMap::new();
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            for object in session.find_objects(&[Attribute::Class(class)]).map_err(failed("C_FindObjects"))? {
                // One that is gone meanwhile was somebody's who removed it.
                let read = session.get_attributes(object, &[AttributeType::Label]).unwrap_or_default();
                if let Some(Attribute::Label(label)) = read.into_iter().next() {
                    let label = String::from_utf8_lossy(&label).into_owned();
                    if label.starts_with(LABEL) {
                        *labels.entry(label).or_default() += 1;
                    }
                }
            }
        }
        Ok(labels)
    }

    /// Removes every key with this label; how many objects are left.
    pub(crate) fn remove_keys(&self, label: &str) -> Result<usize, CheckError> {
        let session = self.session()?;
        // Whatever it says of CKA_TOKEN: tpm2-pkcs11 keeps session objects as well.
        let wanted = [Attribute::Label(label.as_bytes().to_vec())];
        let find = || session.find_objects(&wanted).map_err(failed("C_FindObjects"));
        for object in find()? {
            // What cannot be removed is counted below.
            let _ = session.destroy_object(object);
        }
        find().map(|left| left.len())
    }
}

/// As hsm/pkcs11 does it.
fn initialize(context: &Pkcs11) -> Result<(), CheckError> {
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(failed("C_Initialize"))
}

fn find(context: &Pkcs11, label: Option<&str>) -> Result<(TokenName, String, Vec<&'static str>), CheckError> {
    let slots = context.get_slots_with_token().map_err(failed("C_GetSlotList"))?;
    let infos = slots.into_iter().filter_map(|slot| context.get_token_info(slot).ok());
    let all: Vec<_> = infos.filter(TokenInfo::token_initialized).collect();
    let labels = || all.iter().map(|info| format!("{:?}", info.label().trim())).collect::<Vec<_>>().join(", ");
    let wanted: Vec<_> = all.iter().filter(|info| label.is_none_or(|label| info.label().trim() == label)).collect();
    match wanted[..] {
        [info] => {
            let (label, serial) = (info.label().trim().to_owned(), info.serial_number().trim().to_owned());
            let flags = [
                (info.write_protected(), "it is write-protected"),
                (info.protected_authentication_path(), "the PIN is typed at the token"),
                (!info.login_required(), "no login is required"),
                (!info.user_pin_initialized(), "no user PIN is set"),
            ];
            let flags = flags.into_iter().filter_map(|(is, flag)| is.then_some(flag)).collect();
            Ok((TokenName::Both { label, serial: serial.clone() }, serial, flags))
        }
        [] if all.is_empty() => Err(CheckError::NoToken("the module has no initialised token".to_owned())),
        [] => Err(CheckError::NoToken(format!("no token has this label; there are {}", labels()))),
        _ => Err(CheckError::NoToken(format!("several tokens fit; name one with --token: {}", labels()))),
    }
}

fn failed(function: &'static str) -> impl Fn(Error) -> CheckError {
    move |source| CheckError::Call { function, source }
}

/// What the suite runs on.
pub(crate) struct Checked<'a> {
    pub(crate) view: &'a View,
    pub(crate) store: &'a Pkcs11Store,
    pub(crate) label: &'a str,
}

impl Checked<'_> {
    /// Works on the objects of one class under `id`, in a session of its own; errors are texts for the suite's report.
    fn with_half<T>(
        &self,
        id: KeyId,
        class: ObjectClass,
        work: impl FnOnce(&Session, &[ObjectHandle]) -> Result<T, String>,
    ) -> Result<T, String> {
        let session = self.view.session().map_err(|error| error.to_string())?;
        let wanted = [Attribute::Token(true), Attribute::Class(class), Attribute::Id(id.0.to_vec())];
        let found = session.find_objects(&wanted).map_err(|error| error.to_string())?;
        work(&session, &found)
    }
}

impl Rig for Checked<'_> {
    fn store(&self) -> &(dyn KeyStore + '_) {
        self.store
    }

    fn label(&self) -> &str {
        self.label
    }

    fn is_strange(&self, key: &StoredKey) -> bool {
        key.label.starts_with(LABEL) && key.label != self.label
    }

    fn keep_half(&self, id: KeyId, half: Half) -> Result<(), String> {
        let other = match half {
            Half::Private => ObjectClass::PUBLIC_KEY,
            Half::Public => ObjectClass::PRIVATE_KEY,
        };
        self.with_half(id, other, |session, found| {
            let mut found = found.iter();
            found.try_for_each(|object| session.destroy_object(*object)).map_err(|error| error.to_string())
        })
    }

    fn never_extractable(&self, id: KeyId) -> Result<bool, String> {
        let wanted = [
            (AttributeType::Sensitive, Attribute::Sensitive(true)),
            (AttributeType::AlwaysSensitive, Attribute::AlwaysSensitive(true)),
            (AttributeType::NeverExtractable, Attribute::NeverExtractable(true)),
            (AttributeType::Local, Attribute::Local(true)),
        ];
        self.with_half(id, ObjectClass::PRIVATE_KEY, |session, found| {
            let [private] = found else { return Err("there is not one private key".to_owned()) };
            let kinds = wanted.each_ref().map(|(kind, _)| *kind);
            let read = session.get_attributes(*private, &kinds).map_err(|error| error.to_string())?;
            Ok(wanted.iter().all(|(_, attribute)| read.contains(attribute)))
        })
    }
}
