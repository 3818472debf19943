use std::time::Duration;

use casemate_hsm_api::{Hash, HsmError, KeyAlgorithm, LoginState, TokenInfo, Unlock};
use tss_esapi::{
    Result as Answer,
    constants::{CapabilityType, PropertyTag},
    structures::{
        CapabilityData, PublicParameters, PublicRsaParametersBuilder, RsaExponent, RsaScheme, TaggedProperty,
    },
};

use crate::{
    connection::Connection,
    template::{bits, scheme_of},
};

/// `TPMA_PERMANENT.inLockout` (TPM 2.0 part 2, 8.6).
const IN_LOCKOUT: u32 = 1 << 9;

/// What the TPM says of wrong PINs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lockout {
    /// Refusals that it still counts. A power failure while a token was open counts as one (TPM 2.0 part 1, 19.8.6); each
    /// heals after the time that the TPM's owner set.
    pub(crate) counted: u32,
    /// As many lock it.
    pub(crate) most: u32,
    /// They have.
    pub(crate) locked: bool,
    /// The TPM forgets one in so many seconds.
    interval: u32,
}

impl Lockout {
    pub(crate) fn unlock(self) -> Unlock {
        Unlock::DictionaryLockout { forgets_one_in: Some(Duration::from_secs(self.interval.into())) }
    }
}

pub(crate) fn lockout(connection: &mut Connection) -> Result<Lockout, HsmError> {
    let mut read = |tag| property(connection, tag).map(Option::unwrap_or_default);
    let told = (|| -> Answer<Lockout> {
        Ok(Lockout {
            counted: read(PropertyTag::LockoutCounter)?,
            most: read(PropertyTag::MaxAuthFail)?,
            locked: read(PropertyTag::Permanent)? & IN_LOCKOUT != 0,
            interval: read(PropertyTag::LockoutInterval)?,
        })
    })();
    told.map_err(|error| connection.failed("TPM2_GetCapability", error))
}

/// The hashes that the TPM knows, and so can sign for.
pub(crate) fn hashes(connection: &mut Connection) -> Result<Vec<Hash>, HsmError> {
    // TPM_ALG_ID (TPM 2.0 part 2, 6.3).
    let known = [(Hash::Sha256, 0x000b), (Hash::Sha384, 0x000c), (Hash::Sha512, 0x000d)];
    let mut offered = Vec::new();
    for (hash, number) in known {
        if has(connection, CapabilityType::Algorithms, number)? {
            offered.push(hash);
        }
    }
    Ok(offered)
}

/// What of signatures and hashes the TPM knows, by the names of TPM 2.0 part 2, 6.3.
fn mechanisms(connection: &mut Connection) -> Result<Vec<String>, HsmError> {
    let known = [
        ("TPM_ALG_ECDSA", 0x0018),
        ("TPM_ALG_RSAPSS", 0x0016),
        ("TPM_ALG_RSASSA", 0x0014),
        ("TPM_ALG_SHA256", 0x000b),
        ("TPM_ALG_SHA384", 0x000c),
        ("TPM_ALG_SHA512", 0x000d),
    ];
    let mut offered = Vec::new();
    for (name, number) in known {
        if has(connection, CapabilityType::Algorithms, number)? {
            offered.push(name.to_owned());
        }
    }
    Ok(offered)
}

/// The algorithms of which the TPM makes keys: RSA sizes by `TPM2_TestParms`, curves by their list, each with the hash that
/// its first scheme needs.
pub(crate) fn algorithms(connection: &mut Connection) -> Result<Vec<KeyAlgorithm>, HsmError> {
    let mut offered = Vec::new();
    for algorithm in KeyAlgorithm::ALL {
        let made = match algorithm {
            // TPM_ECC_CURVE (TPM 2.0 part 2, 6.4).
            KeyAlgorithm::P256 => has(connection, CapabilityType::EccCurves, 3)?,
            KeyAlgorithm::P384 => has(connection, CapabilityType::EccCurves, 4)?,
            KeyAlgorithm::P521 => has(connection, CapabilityType::EccCurves, 5)?,
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => takes_rsa(connection, algorithm)?,
        };
        if made && connection.hashes.contains(&scheme_of(algorithm).hash()) {
            offered.push(algorithm);
        }
    }
    Ok(offered)
}

/// What the TPM says of itself.
pub(crate) fn describe(connection: &mut Connection, label: &str) -> Result<TokenInfo, HsmError> {
    let mut read = |tag| property(connection, tag).map(Option::unwrap_or_default);
    let told = (|| -> Answer<TokenInfo> {
        let firmware = read(PropertyTag::FirmwareVersion1)?;
        let model = [
            read(PropertyTag::VendorString1)?,
            read(PropertyTag::VendorString2)?,
            read(PropertyTag::VendorString3)?,
            read(PropertyTag::VendorString4)?,
        ];
        Ok(TokenInfo {
            label: label.to_owned(),
            serial: String::new(),
            manufacturer: text(&[read(PropertyTag::Manufacturer)?]),
            model: text(&model),
            firmware: format!("{}.{}", firmware >> 16, firmware & 0xffff),
            library: "tpm2-tss, ESAPI".to_owned(),
            mechanisms: Vec::new(),
            algorithms: Vec::new(),
            login: LoginState::Public,
            sessions: 1,
            refused_sessions: 0,
        })
    })();
    let told = told.map_err(|error| connection.failed("TPM2_GetCapability", error))?;
    let login = if connection.key_auth.is_some() { LoginState::User } else { LoginState::Public };
    let (serial, mechanisms) = (connection.serial().to_owned(), mechanisms(connection)?);
    Ok(TokenInfo { serial, mechanisms, algorithms: connection.algorithms.clone(), login, ..told })
}

/// Whether the capability's list has this number. Each is asked for by itself, for the library refuses a whole list with one
/// entry that it does not know.
fn has(connection: &mut Connection, capability: CapabilityType, number: u16) -> Result<bool, HsmError> {
    let (found, _) = connection
        .ask_openly(|context| context.get_capability(capability, number.into(), 1))
        .map_err(|error| connection.failed("TPM2_GetCapability", error))?;
    Ok(match found {
        CapabilityData::Algorithms(list) => {
            list.first().is_some_and(|found| u16::from(found.algorithm_identifier()) == number)
        }
        CapabilityData::EccCurves(list) => list.first().is_some_and(|found| u16::from(*found) == number),
        _ => false,
    })
}

fn takes_rsa(connection: &mut Connection, algorithm: KeyAlgorithm) -> Result<bool, HsmError> {
    let size = bits(algorithm);
    let parameters =
        PublicRsaParametersBuilder::new_unrestricted_signing_key(RsaScheme::Null, size, RsaExponent::default())
            .build()
            .map_err(|error| connection.failed("the parameters of an RSA key", error))?;
    match connection.ask_openly(|context| context.test_parms(PublicParameters::Rsa(parameters))) {
        Ok(()) => Ok(true),
        Err(error) => match connection.failed("TPM2_TestParms", error) {
            absent @ (HsmError::TokenAbsent { .. } | HsmError::Timeout { .. }) => Err(absent),
            _ => Ok(false),
        },
    }
}

fn property(connection: &mut Connection, tag: PropertyTag) -> Answer<Option<u32>> {
    let (found, _) =
        connection.ask_openly(|context| context.get_capability(CapabilityType::TpmProperties, tag.into(), 1))?;
    Ok(match found {
        CapabilityData::TpmProperties(list) => list.find(tag).map(TaggedProperty::value),
        _ => None,
    })
}

/// Four characters a number, as TPMs spell their names.
fn text(numbers: &[u32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    let printable = bytes.iter().filter(|byte| (0x20..0x7f).contains(*byte));
    printable.map(|byte| char::from(*byte)).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_in_numbers() {
        assert_eq!(text(&[0x4942_4d00]), "IBM");
        assert_eq!(text(&[0x5357_2020, 0x2054_504d, 0, 0]), "SW   TPM");
        assert_eq!(text(&[0xffff_0a00]), "");
    }
}
