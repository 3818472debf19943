//! Opens the tokens that `role-tokens.toml` names, each by the crate of its kind.

use std::{path::PathBuf, sync::Arc, time::Duration};

use casemate_audit::{Auditor, Event};
use casemate_hsm_api::KeyStore;
use casemate_hsm_pkcs11::{Pkcs11Files, Pkcs11Settings, Pkcs11Store};
use casemate_hsm_tpm::{TpmError, TpmSettings, TpmStore};
use casemate_runtime::config::Paths;

use crate::{
    KeydError, Keys, Patience, RoleTokens, Settings,
    roles::{Place, TokenUri},
    token::TokenParts,
};

/// The label of the token in the TPM.
const TPM_LABEL: &str = "casemate";

/// Every token, none of them looked for yet.
pub(crate) fn tokens(
    settings: &Settings,
    roles: &RoleTokens,
    paths: &Paths,
    keys: &Keys,
    auditor: &Auditor,
) -> Result<Vec<TokenParts>, KeydError> {
    let open = |place: &Place| -> Result<(Arc<dyn KeyStore>, PathBuf), KeydError> {
        match place {
            Place::Tpm => tpm(&settings.tpm(paths)?, keys, auditor),
            Place::Pkcs11(uri) => pkcs11(place, uri, settings, paths),
        }
    };
    let parts = roles.places().map(|(place, roles)| {
        let (store, pin_file) = open(place)?;
        let patience = Patience {
            backoff: settings.backoff,
            pin_poll: Duration::from_millis(settings.pin_poll_ms),
            pin_file: Some(pin_file),
        };
        Ok(TokenParts { place: place.to_string(), roles: roles.clone(), store, patience })
    });
    parts.collect()
}

fn pkcs11(
    place: &Place,
    uri: &TokenUri,
    settings: &Settings,
    paths: &Paths,
) -> Result<(Arc<dyn KeyStore>, PathBuf), KeydError> {
    let pin = uri.pin.clone().map_or_else(|| settings.pin_file(&place.to_string()), Ok)?;
    let files = Pkcs11Files { pin: pin.clone(), state: paths.state_of("keyd") };
    let store = Pkcs11Store::prepare(behind(uri, &settings.pkcs11), files)
        .map_err(|source| KeydError::Open { token: place.to_string(), source })?;
    Ok((Arc::new(store), pin))
}

/// The settings of a token that has those of all. `sign-only = false` is for the module beside which it stands: what that one
/// cannot do is no reason to let a key of another decrypt.
fn behind(uri: &TokenUri, all: &Pkcs11Settings) -> Pkcs11Settings {
    let module = uri.module.clone().unwrap_or_else(|| all.module.clone());
    let sign_only = all.sign_only || module != all.module;
    Pkcs11Settings { module, token: uri.name.clone(), sign_only, ..all.clone() }
}

/// A TPM in which no key of ours is on record gets its token here; one in which there is one never does, for its blobs are lost
/// and have to be restored.
fn tpm(settings: &TpmSettings, keys: &Keys, auditor: &Auditor) -> Result<(Arc<dyn KeyStore>, PathBuf), KeydError> {
    let store = match TpmStore::prepare(settings.clone()) {
        Err(TpmError::NotInitialized { folder }) => {
            if keys.view().all().any(|key| key.place == Some(Place::Tpm.to_string())) {
                return Err(KeydError::TpmFolderLost { folder });
            }
            TpmStore::initialize(settings, TPM_LABEL).map_err(KeydError::Tpm)?;
            auditor.record(&Event::TokenInitialized { place: settings.address.to_string() });
            TpmStore::prepare(settings.clone())
        }
        prepared => prepared,
    };
    Ok((Arc::new(store.map_err(KeydError::Tpm)?), settings.pin_file.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_module_cannot_do_is_not_left_out_of_the_keys_of_another() {
        let all = Pkcs11Settings { sign_only: false, sessions: 7, ..Pkcs11Settings::default() };
        let told = |text: &str, all: &Pkcs11Settings| match Place::parse(text).unwrap() {
            Place::Pkcs11(uri) => behind(&uri, all),
            Place::Tpm => panic!("{text} is no PKCS#11 URI"),
        };
        let own = told("pkcs11:token=a", &all);
        assert_eq!((own.sign_only, own.sessions, &own.module), (false, 7, &all.module));
        assert!(!told(&format!("pkcs11:token=a?module-path={}", all.module.display()), &all).sign_only);
        let other = told("pkcs11:token=a?module-path=/m.so", &all);
        assert_eq!((other.sign_only, other.sessions, other.module), (true, 7, PathBuf::from("/m.so")));
        assert!(told("pkcs11:token=a", &Pkcs11Settings::default()).sign_only);
    }
}
