//! The phone's own keys.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair, RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::error::{PhoneError, Result};

/// Kind and size of a phone's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpec {
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

enum Maker {
    Rsa(KeySize, usize),
    Ec(&'static EcdsaSigningAlgorithm),
}

impl KeySpec {
    /// All that the phone makes.
    pub const ALL: [Self; 6] = [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::P256, Self::P384, Self::P521];

    /// RSA of this many bits.
    #[must_use]
    pub fn from_rsa_bits(bits: u16) -> Option<Self> {
        match bits {
            2048 => Some(Self::Rsa2048),
            3072 => Some(Self::Rsa3072),
            4096 => Some(Self::Rsa4096),
            _ => None,
        }
    }

    /// The curve with this number in CAPF (phone-formats §5, element 18).
    #[must_use]
    pub fn from_curve(curve: u8) -> Option<Self> {
        match curve {
            0 => Some(Self::P256),
            1 => Some(Self::P384),
            2 => Some(Self::P521),
            _ => None,
        }
    }

    /// Whether the key is on an elliptic curve.
    #[must_use]
    pub fn is_ec(self) -> bool {
        matches!(self.maker(), Maker::Ec(_))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::P256 => "p-256",
            Self::P384 => "p-384",
            Self::P521 => "p-521",
        }
    }

    fn maker(self) -> Maker {
        match self {
            Self::Rsa2048 => Maker::Rsa(KeySize::Rsa2048, 256),
            Self::Rsa3072 => Maker::Rsa(KeySize::Rsa3072, 384),
            Self::Rsa4096 => Maker::Rsa(KeySize::Rsa4096, 512),
            Self::P256 => Maker::Ec(&ECDSA_P256_SHA256_ASN1_SIGNING),
            Self::P384 => Maker::Ec(&ECDSA_P384_SHA384_ASN1_SIGNING),
            Self::P521 => Maker::Ec(&ECDSA_P521_SHA512_ASN1_SIGNING),
        }
    }
}

impl fmt::Display for KeySpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for KeySpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|spec| spec.name() == text)
            .ok_or_else(|| format!("{text} is none of rsa-2048, rsa-3072, rsa-4096, p-256, p-384, p-521"))
    }
}

/// A key pair of the phone. Its private half stays in this process and the phone's own folder.
pub struct DeviceKey {
    spec: KeySpec,
    spki: Vec<u8>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl DeviceKey {
    /// Makes a key in the FIPS module, which tests the pair before it hands it out.
    ///
    /// # Errors
    /// [`PhoneError::Module`].
    pub fn generate(spec: KeySpec) -> Result<Self> {
        let failed = |_: Unspecified| PhoneError::Module("no key was made");
        let pkcs8 = match spec.maker() {
            Maker::Rsa(size, _) => {
                let pair = RsaKeyPair::generate(size).map_err(failed)?;
                AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(failed)?.as_ref().to_vec()
            }
            Maker::Ec(curve) => {
                let pair = EcdsaKeyPair::generate(curve).map_err(failed)?;
                pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec()
            }
        };
        Self::from_pkcs8(Zeroizing::new(pkcs8))
    }

    /// Reads a key that [`DeviceKey::pkcs8`] gave.
    ///
    /// # Errors
    /// [`PhoneError::Module`] when it is no key that [`KeySpec`] names.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self> {
        for spec in KeySpec::ALL {
            if let Ok(spki) = public_half(spec, &pkcs8) {
                return Ok(Self { spec, spki, pkcs8 });
            }
        }
        Err(PhoneError::Module("the bytes are no key of a phone"))
    }

    /// Kind and size.
    #[must_use]
    pub fn spec(&self) -> KeySpec {
        self.spec
    }

    /// The public half as `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The pair as PKCS#8 in DER: secret.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DeviceKey").field("spec", &self.spec).finish_non_exhaustive()
    }
}

fn public_half(spec: KeySpec, pkcs8: &[u8]) -> std::result::Result<Vec<u8>, KeyRejected> {
    let other_key = |_: Unspecified| KeyRejected::from(Unspecified);
    let spki: PublicKeyX509Der<'_> = match spec.maker() {
        Maker::Rsa(_, length) => {
            let pair = RsaKeyPair::from_pkcs8(pkcs8)?;
            if pair.public_modulus_len() != length {
                return Err(Unspecified.into());
            }
            pair.public_key().as_der().map_err(other_key)?
        }
        Maker::Ec(curve) => EcdsaKeyPair::from_pkcs8(curve, pkcs8)?.public_key().as_der().map_err(other_key)?,
    };
    Ok(spki.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::FromDer;
    use x509_parser::x509::SubjectPublicKeyInfo;

    #[test]
    fn keys_survive_their_pkcs8_form_and_are_what_they_say() {
        for (spec, bits) in [(KeySpec::Rsa2048, 2048), (KeySpec::P256, 256), (KeySpec::P384, 384), (KeySpec::P521, 528)]
        {
            let key = DeviceKey::generate(spec).unwrap();
            let again = DeviceKey::from_pkcs8(Zeroizing::new(key.pkcs8().to_vec())).unwrap();
            assert_eq!((again.spec(), again.spki()), (spec, key.spki()));
            let (rest, spki) = SubjectPublicKeyInfo::from_der(key.spki()).unwrap();
            assert!(rest.is_empty());
            assert_eq!(spki.parsed().unwrap().key_size(), bits, "{spec}");
        }
        assert!(DeviceKey::from_pkcs8(Zeroizing::new(vec![0x30, 0])).is_err());
    }

    #[test]
    fn names_are_read_back() {
        for spec in KeySpec::ALL {
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
        assert!("rsa-1024".parse::<KeySpec>().is_err());
    }
}
