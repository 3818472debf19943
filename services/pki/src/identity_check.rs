//! What certmgr may have signed with an identity's key: the identity's own certificate, or the request for one.
use casemate_hsm_api::KeyRole;
use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use time::{Duration, OffsetDateTime};

use crate::{
    AltName, CsrFacts, IdentityProfile, Refusal, SpkiFacts, SubjectSettings, TbsFacts,
    certificate::signed_part,
    device_check::{check_signature, check_start},
    identity::{certificate_request, common_name, longest_validity, self_signed},
    name::{self, Name},
    refusal::same,
    signature::CertificateSignature,
};

/// What an identity's own certificate must be for its key to sign it.
#[derive(Clone, Copy, Debug)]
pub struct IdentityExpectations<'a> {
    /// The identity.
    pub role: KeyRole,
    /// `SubjectPublicKeyInfo` of its key.
    pub spki: &'a [u8],
    /// This machine's clock.
    pub now: OffsetDateTime,
    /// How far from now validity may start, to either side.
    pub start_tolerance: Duration,
}

/// Judges the self-signed certificate of an identity: subject and issuer the same, the key its own, valid from about now and no
/// longer than the role allows, and in everything what [`self_signed`] makes for the role.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_self_signature(tbs: &TbsFacts, expected: &IdentityExpectations<'_>) -> Result<(), Refusal> {
    let (role, own_spki) = (expected.role, expected.spki);
    if tbs.version != 3 {
        return Err(Refusal::Version { found: tbs.version });
    }
    if tbs.subject_der != tbs.issuer_der {
        return Err(Refusal::NotSelfIssued { subject: tbs.subject.clone(), issuer: tbs.issuer.clone() });
    }
    if tbs.spki_der != own_spki {
        return Err(Refusal::NotOwnKey { role });
    }
    check_signature(tbs, own_spki)?;
    let (not_before, not_after) = (tbs.not_before, tbs.not_after);
    if not_after <= not_before {
        return Err(Refusal::ValidityOrder { not_before, not_after });
    }
    if tbs.lifetime() > longest_validity(role) {
        return Err(Refusal::ValidityTooLong { found: tbs.lifetime(), limit: longest_validity(role) });
    }
    check_start(not_before, expected.now, expected.start_tolerance)?;
    if !(8..=16).contains(&tbs.serial.len()) {
        return Err(Refusal::Serial { serial: hex::encode(&tbs.serial) });
    }
    let dns_names: Vec<&str> = tbs.extensions.alt_names.iter().filter_map(AltName::dns).collect();
    let asked = Asked { role, subject_der: &tbs.subject_der, subject: &tbs.subject, spki_der: own_spki };
    let profile = asked.profile(&dns_names, tbs.serial.clone(), not_before, not_after)?;
    let made = self_signed(&profile, &UnsignedKey::new(own_spki)?)?;
    same(&tbs.der, &signed_part("Certificate", &made)?, role)
}

/// Judges the request of an identity: the key its own, and in everything what [`certificate_request`] makes for the role.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_certificate_request(csr: &CsrFacts, own_spki: &[u8], role: KeyRole) -> Result<(), Refusal> {
    if csr.spki_der != own_spki {
        return Err(Refusal::NotOwnKey { role });
    }
    let dns_names: Vec<&str> = csr.dns_names.iter().map(String::as_str).collect();
    let asked = Asked { role, subject_der: &csr.subject_der, subject: &csr.subject, spki_der: own_spki };
    let profile = asked.profile(&dns_names, Vec::new(), OffsetDateTime::UNIX_EPOCH, OffsetDateTime::UNIX_EPOCH)?;
    let made = certificate_request(&profile, &UnsignedKey::new(own_spki)?)?;
    same(&csr.der, &signed_part("CertificationRequest", &made)?, role)
}

impl AltName {
    fn dns(&self) -> Option<&str> {
        match self {
            Self::Dns(name) => Some(name),
            Self::Uri(_) | Self::Other(_) => None,
        }
    }
}

/// The parts of a certificate or request from which its profile is read back.
struct Asked<'a> {
    role: KeyRole,
    subject_der: &'a [u8],
    subject: &'a str,
    spki_der: &'a [u8],
}

impl Asked<'_> {
    fn profile(
        &self,
        dns_names: &[&str],
        serial: Vec<u8>,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<IdentityProfile, Refusal> {
        let name = Name::parse(self.subject_der)?;
        let host = self.host(&name, dns_names)?;
        let subject = SubjectSettings {
            organizational_unit: self.at_most_one(&name, name::ORGANIZATIONAL_UNIT)?,
            organization: self.at_most_one(&name, name::ORGANIZATION)?,
            locality: self.at_most_one(&name, name::LOCALITY)?,
            state: self.at_most_one(&name, name::STATE)?,
            country: self.at_most_one(&name, name::COUNTRY)?,
        };
        let profile = IdentityProfile { role: self.role, host, subject, serial, not_before, not_after };
        profile.check()?;
        Ok(profile)
    }

    /// The host stands in the alternative name, or after a list signer's prefix; the common name must be the one for it.
    fn host(&self, name: &Name<'_>, dns_names: &[&str]) -> Result<String, Refusal> {
        let common_names = name.values(name::COMMON_NAME);
        let host = match (self.role, &*common_names, dns_names) {
            (KeyRole::ItlRecovery, [only], []) => only.strip_prefix("ITLRECOVERY_"),
            (KeyRole::ItlRecovery, ..) => None,
            (_, _, [host]) => Some(*host),
            _ => None,
        };
        let host = host.ok_or_else(|| Refusal::Subject { subject: self.subject.to_owned() })?;
        let expected = common_name(self.role, host, self.spki_der);
        if common_names == [&*expected] {
            Ok(host.to_owned())
        } else {
            Err(Refusal::CommonName { found: common_names, expected })
        }
    }

    fn at_most_one(&self, name: &Name<'_>, oid: &str) -> Result<Option<String>, Refusal> {
        let mut values = name.values(oid);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Refusal::Subject { subject: self.subject.to_owned() }),
        }
    }
}

/// A public key in the place of a signer: what is built with it has no signature, only the part to be signed counts.
struct UnsignedKey {
    public_key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl UnsignedKey {
    fn new(spki_der: &[u8]) -> Result<Self, Refusal> {
        let facts = SpkiFacts::parse(spki_der)?;
        let algorithm = CertificateSignature::of_key(facts.algorithm).rcgen();
        Ok(Self { public_key: facts.public_key, algorithm })
    }
}

impl PublicKeyData for UnsignedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for UnsignedKey {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}
