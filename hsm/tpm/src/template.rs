use aws_lc_rs::digest;
use casemate_hsm_api::{Backup, KeyAlgorithm, KeySpec, SignatureScheme};
use tss_esapi::{
    Result,
    attributes::ObjectAttributesBuilder,
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        key_bits::RsaKeyBits,
    },
    structures::{
        Digest, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Public, PublicBuilder,
        PublicEccParametersBuilder, PublicKeyRsa, PublicKeyedHashParameters, PublicRsaParametersBuilder, RsaExponent,
        RsaScheme, SymmetricDefinitionObject,
    },
    traits::Marshall,
};

use crate::signature::hashing;

/// The hash of every name, policy and session here.
pub(crate) const NAME_HASH: HashingAlgorithm = HashingAlgorithm::Sha256;

/// `TPM_CC_PolicyAuthValue` and `TPM_CC_PolicyDuplicationSelect` (TPM 2.0 part 2, 6.5.2).
const POLICY_AUTH_VALUE: [u8; 4] = [0, 0, 1, 0x6b];
const POLICY_DUPLICATION_SELECT: [u8; 4] = [0, 0, 1, 0x88];

/// The storage key under which all blobs are: P-256, made anew from the owner seed at each connection and always the same, as
/// long as the TPM is not cleared. Changing anything here makes every blob unusable.
pub(crate) fn storage_primary() -> Result<Public> {
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    primary(ObjectAttributesBuilder::with_decrypt, parameters)
}

/// The attestation key: P-256, restricted, so that it signs nothing but what the TPM itself says, and needs no authorization.
pub(crate) fn attestation_primary() -> Result<Public> {
    let parameters = PublicEccParametersBuilder::new()
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(NAME_HASH)))
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_restricted(true);
    primary(ObjectAttributesBuilder::with_sign_encrypt, parameters)
}

/// A primary key for one `usage` alone: bound to this TPM, restricted, and the same at each making from the same seed.
fn primary(
    usage: fn(ObjectAttributesBuilder, bool) -> ObjectAttributesBuilder,
    parameters: PublicEccParametersBuilder,
) -> Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true);
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(NAME_HASH)
        .with_object_attributes(usage(attributes, true).build()?)
        .with_ecc_parameters(parameters.build()?)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// The object that the PIN opens: sealed data under dictionary-attack protection, so that the TPM counts wrong PINs.
pub(crate) fn sealed() -> Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(NAME_HASH)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

/// A signing key. Its authorization value is 256 random bits out of the sealed object, which nobody guesses; so it is outside
/// the dictionary-attack protection, and a lockout that an attacker provokes does not stop a daemon that is logged in.
///
/// `policy` is that of [`duplication_policy`] for `backup: wrapped`, and is not used otherwise.
pub(crate) fn signing(spec: KeySpec, policy: &[u8]) -> Result<Public> {
    let fixed = spec.backup == Backup::None;
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(fixed)
        .with_fixed_parent(fixed)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_sign_encrypt(true)
        .build()?;
    let policy = if fixed { Digest::default() } else { Digest::try_from(policy)? };
    let public = PublicBuilder::new()
        .with_name_hashing_algorithm(NAME_HASH)
        .with_object_attributes(attributes)
        .with_auth_policy(policy);
    match curve(spec.algorithm) {
        Some(curve) => {
            // A curve has one scheme here, so the key is made for that alone.
            let hash = hashing(scheme_of(spec.algorithm).hash());
            let parameters = PublicEccParametersBuilder::new()
                .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(hash)))
                .with_curve(curve)
                .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                .with_is_signing_key(true);
            public
                .with_public_algorithm(PublicAlgorithm::Ecc)
                .with_ecc_parameters(parameters.build()?)
                .with_ecc_unique_identifier(EccPoint::default())
                .build()
        }
        None => {
            let parameters = PublicRsaParametersBuilder::new_unrestricted_signing_key(
                RsaScheme::Null,
                bits(spec.algorithm),
                RsaExponent::default(),
            );
            public
                .with_public_algorithm(PublicAlgorithm::Rsa)
                .with_rsa_parameters(parameters.build()?)
                .with_rsa_unique_identifier(PublicKeyRsa::default())
                .build()
        }
    }
}

/// The curve of an algorithm on one.
const fn curve(algorithm: KeyAlgorithm) -> Option<EccCurve> {
    match algorithm {
        KeyAlgorithm::P256 => Some(EccCurve::NistP256),
        KeyAlgorithm::P384 => Some(EccCurve::NistP384),
        KeyAlgorithm::P521 => Some(EccCurve::NistP521),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
    }
}

/// The size of an RSA key; a curve never comes here.
pub(crate) const fn bits(algorithm: KeyAlgorithm) -> RsaKeyBits {
    match algorithm {
        KeyAlgorithm::Rsa3072 => RsaKeyBits::Rsa3072,
        KeyAlgorithm::Rsa4096 => RsaKeyBits::Rsa4096,
        _ => RsaKeyBits::Rsa2048,
    }
}

/// The first scheme of a key, and the only one of a curve.
pub(crate) const fn scheme_of(algorithm: KeyAlgorithm) -> SignatureScheme {
    match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => SignatureScheme::RsaPkcs1Sha256,
        KeyAlgorithm::P256 => SignatureScheme::EcdsaP256Sha256,
        KeyAlgorithm::P384 => SignatureScheme::EcdsaP384Sha384,
        KeyAlgorithm::P521 => SignatureScheme::EcdsaP521Sha512,
    }
}

/// In what a public area differs from its template, apart from the key itself.
pub(crate) fn difference(wanted: &Public, found: &Public) -> Option<String> {
    if wanted.object_attributes() != found.object_attributes() {
        return Some(format!(
            "its attributes are {:#x}, and {:#x} were asked for",
            u32::from(found.object_attributes()),
            u32::from(wanted.object_attributes())
        ));
    }
    if wanted.name_hashing_algorithm() != found.name_hashing_algorithm() {
        return Some("its name is made with another hash".to_owned());
    }
    if wanted.auth_policy() != found.auth_policy() {
        return Some("its policy is another, so it is for another wrapping key or none".to_owned());
    }
    let same = match (wanted, found) {
        (Public::Rsa { parameters: wanted, .. }, Public::Rsa { parameters: found, .. }) => wanted == found,
        (Public::Ecc { parameters: wanted, .. }, Public::Ecc { parameters: found, .. }) => wanted == found,
        _ => false,
    };
    (!same).then(|| "it is of another kind, size or scheme".to_owned())
}

/// The policy of a key that may be wrapped: its own authorization, and the named new parent and no other
/// (TPM 2.0 part 3, 23.12 and 23.15: each step extends a SHA-256 digest that begins as zeros).
///
/// `PolicyCommandCode(Duplicate)` alone would not do: who met it could name no parent at all, and have the key in the clear.
pub(crate) fn duplication_policy(new_parent: &[u8]) -> Vec<u8> {
    let first = sha256(&[&[0; 32], &POLICY_AUTH_VALUE]);
    sha256(&[&first, &POLICY_DUPLICATION_SELECT, new_parent, &[0]])
}

/// The name of an object: hash algorithm and hash of its public area (TPM 2.0 part 1, 16).
pub(crate) fn name(public: &Public) -> Result<Vec<u8>> {
    Ok([&[0, 0x0b], sha256(&[&public.marshall()?]).as_slice()].concat())
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_for_backup_can_leave() {
        let attributes = |backup| {
            let spec = KeySpec { algorithm: KeyAlgorithm::P256, backup };
            u32::from(signing(spec, &[7; 32]).unwrap().object_attributes())
        };
        // TPMA_OBJECT (TPM 2.0 part 2, 8.3): fixedTPM is bit 1, fixedParent bit 4, sensitiveDataOrigin bit 5, noDA bit 10, sign bit 18.
        let (fixed, origin, no_da, sign) = (1 << 1 | 1 << 4, 1 << 5, 1 << 10, 1 << 18);
        assert_eq!(attributes(Backup::None) & no_da, no_da, "a lockout must not stop who is logged in");
        assert_eq!(u32::from(sealed().unwrap().object_attributes()) & no_da, 0, "wrong PINs must count");
        assert_eq!(attributes(Backup::None) & (fixed | origin | sign), fixed | origin | sign);
        assert_eq!(attributes(Backup::Wrapped) & (fixed | origin | sign), origin | sign);
    }

    /// Another storage key opens no blob, and another attestation key is not the one that auditors enrolled.
    #[test]
    fn the_primary_keys_are_those_of_every_version_before() {
        let bytes = |template: Result<Public>| hex::encode(template.unwrap().marshall().unwrap());
        // TPMT_PUBLIC (TPM 2.0 part 2, 12.2.4): ECC, SHA-256, attributes, no policy; AES-128-CFB, no scheme, P-256, no KDF, no point.
        assert_eq!(bytes(storage_primary()), "0023000b00030472000000060080004300100003001000000000");
        // No cipher, ECDSA with SHA-256.
        assert_eq!(bytes(attestation_primary()), "0023000b00050472000000100018000b0003001000000000");
    }

    #[test]
    fn every_specification_has_a_template_of_its_own() {
        let all: Vec<Public> = KeyAlgorithm::ALL
            .into_iter()
            .flat_map(|algorithm| [Backup::None, Backup::Wrapped].map(|backup| KeySpec { algorithm, backup }))
            .map(|spec| signing(spec, &[7; 32]).unwrap())
            .collect();
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(difference(one, other).is_none(), at == other_at, "{at} and {other_at}");
            }
        }
        let wrapped = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::Wrapped };
        let (one, other) = (signing(wrapped, &[7; 32]).unwrap(), signing(wrapped, &[8; 32]).unwrap());
        assert!(difference(&one, &other).is_some(), "another wrapping key");
    }
}
