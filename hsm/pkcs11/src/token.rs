use std::sync::Arc;

use casemate_hsm_api::{HsmError, KeyAlgorithm, LoginState, TokenInfo};
use cryptoki::{
    context::Pkcs11,
    mechanism::{MechanismInfo, MechanismType},
    slot::{Slot, TokenInfo as Described},
};

use crate::{TokenName, error::classify, pool::Target};

/// Looks through all slots. A token whose description cannot be read is as good as absent, and a label that two tokens carry
/// names none of them.
pub(crate) fn find(context: &Pkcs11, name: &TokenName) -> Result<(Target, Described), HsmError> {
    let absent = |detail: String| HsmError::TokenAbsent { token: name.to_string(), detail };
    let slots = context.get_slots_with_token().map_err(|error| absent(format!("{error:?}")))?;
    let mut found = Vec::new();
    for slot in slots {
        if let Ok(described) = context.get_token_info(slot)
            && described.token_initialized()
            && answers_to(&described, name)
        {
            found.push((slot, described));
        }
    }
    match <[(Slot, Described); 1]>::try_from(found) {
        Ok([(slot, described)]) => {
            let serial = Arc::from(described.serial_number().trim());
            Ok((Target { slot, serial }, described))
        }
        Err(found) if found.is_empty() => Err(absent("no slot holds it".to_owned())),
        Err(found) => Err(HsmError::Device {
            token: name.to_string(),
            operation: "the search for it".to_owned(),
            detail: format!("{} tokens answer to this name; name it by its serial number", found.len()),
        }),
    }
}

fn answers_to(described: &Described, name: &TokenName) -> bool {
    match name {
        TokenName::Label(label) => described.label().trim() == label,
        TokenName::Serial(serial) => described.serial_number().trim() == serial,
        TokenName::Both { label, serial } => {
            described.label().trim() == label && described.serial_number().trim() == serial
        }
    }
}

/// That the token is still in its slot, and still the same one.
pub(crate) fn present(context: &Pkcs11, target: &Target) -> Result<Described, HsmError> {
    let absent = |detail: String| HsmError::TokenAbsent { token: target.serial.as_ref().to_owned(), detail };
    let described = context.get_token_info(target.slot).map_err(|error| absent(format!("{error:?}")))?;
    if described.serial_number().trim() != target.serial.as_ref() {
        return Err(absent(format!("token {} is in its place", described.serial_number().trim())));
    }
    Ok(described)
}

/// What the token says of itself, but for login and sessions, which the store knows.
pub(crate) fn describe(context: &Pkcs11, target: &Target) -> Result<TokenInfo, HsmError> {
    let described = present(context, target)?;
    let library = context.get_library_info().map_err(|error| classify(&target.serial, &error))?;
    Ok(TokenInfo {
        label: described.label().trim().to_owned(),
        serial: described.serial_number().trim().to_owned(),
        manufacturer: described.manufacturer_id().trim().to_owned(),
        model: described.model().trim().to_owned(),
        firmware: described.firmware_version().to_string(),
        mechanisms: mechanisms(context, target.slot).map_err(|error| classify(&target.serial, &error))?,
        library: format!("{} {}", library.library_description().trim(), library.library_version()),
        algorithms: algorithms(context, target.slot).map_err(|error| classify(&target.serial, &error))?,
        login: LoginState::Public,
        sessions: 0,
        refused_sessions: 0,
    })
}

/// The token's mechanisms, by their names.
fn mechanisms(context: &Pkcs11, slot: Slot) -> cryptoki::error::Result<Vec<String>> {
    let mut names: Vec<_> = context.get_mechanism_list(slot)?.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    Ok(names)
}

/// The algorithms that the token can make a key pair of and sign with, by its mechanism list and the sizes it states.
pub(crate) fn algorithms(context: &Pkcs11, slot: Slot) -> cryptoki::error::Result<Vec<KeyAlgorithm>> {
    let listed = context.get_mechanism_list(slot)?;
    let info = |kind: MechanismType| -> cryptoki::error::Result<Option<MechanismInfo>> {
        if listed.contains(&kind) { context.get_mechanism_info(slot, kind).map(Some) } else { Ok(None) }
    };
    let rsa = (info(MechanismType::RSA_PKCS_KEY_PAIR_GEN)?, info(MechanismType::RSA_PKCS)?);
    let ec = (info(MechanismType::ECC_KEY_PAIR_GEN)?, info(MechanismType::ECDSA)?);
    Ok(KeyAlgorithm::ALL
        .into_iter()
        .filter(|algorithm| {
            let bits = bits(*algorithm);
            let (make, sign) = if algorithm.rsa_bits().is_some() { &rsa } else { &ec };
            let fits = |info: &MechanismInfo| (info.min_key_size()..=info.max_key_size()).contains(&bits);
            make.as_ref().is_some_and(|info| info.generate_key_pair() && fits(info))
                && sign.as_ref().is_some_and(MechanismInfo::sign)
        })
        .collect())
}

fn bits(algorithm: KeyAlgorithm) -> usize {
    match algorithm {
        KeyAlgorithm::Rsa2048 => 2048,
        KeyAlgorithm::Rsa3072 => 3072,
        KeyAlgorithm::Rsa4096 => 4096,
        KeyAlgorithm::P256 => 256,
        KeyAlgorithm::P384 => 384,
        KeyAlgorithm::P521 => 521,
    }
}
