use aws_lc_rs::digest;
use casemate_hsm_api::KeyRole;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber, SigningKey,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::{PkiError, device::date, random_serial};

/// What every identity's subject carries beside its common name. Each is a setting, and may be left out.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SubjectSettings {
    /// `OU`, 1 to 64 characters.
    pub organizational_unit: Option<String>,
    /// `O`, 1 to 64 characters.
    pub organization: Option<String>,
    /// `L`, 1 to 128 characters.
    pub locality: Option<String>,
    /// `ST`, 1 to 128 characters.
    pub state: Option<String>,
    /// `C`, two letters of ISO 3166.
    pub country: Option<String>,
}

/// An identity certificate that is to be made: which one, for which host, and when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdentityProfile {
    pub(crate) role: KeyRole,
    pub(crate) host: String,
    pub(crate) subject: SubjectSettings,
    pub(crate) serial: Vec<u8>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl IdentityProfile {
    /// Plans a certificate that starts at `not_before` and is valid as long as its role says (5 years, ITLRecovery 20: guide
    /// 2866-2872), with a random serial number.
    ///
    /// # Errors
    /// [`PkiError::HostName`], [`PkiError::SubjectSetting`], [`PkiError::Date`], [`PkiError::Random`].
    pub fn new(
        role: KeyRole,
        host: &str,
        subject: SubjectSettings,
        not_before: OffsetDateTime,
    ) -> Result<Self, PkiError> {
        let not_before = date(not_before)?;
        let not_after = not_before.checked_add(longest_validity(role)).ok_or(PkiError::Date { date: not_before })?;
        let serial = random_serial()?.to_vec();
        let profile = Self { role, host: host.to_owned(), subject, serial, not_before, not_after: date(not_after)? };
        profile.check()?;
        Ok(profile)
    }

    pub(crate) fn check(&self) -> Result<(), PkiError> {
        check_host(&self.host)?;
        check_subject(&self.subject)
    }

    /// Which identity it is.
    #[must_use]
    pub const fn role(&self) -> KeyRole {
        self.role
    }

    /// The common name (guide 3398-3404): the host's name, for curves with `-EC`; CAPF's is `CAPF-` and the first four bytes
    /// of its public key's SHA-256, so that a new key brings a new issuer's name.
    #[must_use]
    pub fn common_name(&self, spki_der: &[u8]) -> String {
        common_name(self.role, &self.host, spki_der)
    }

    /// The parameters for the library. A request carries no serial number.
    pub(crate) fn parameters(&self, spki_der: &[u8], with_serial: bool) -> Result<CertificateParams, PkiError> {
        let mut parameters = CertificateParams::default();
        parameters.not_before = self.not_before;
        parameters.not_after = self.not_after;
        parameters.serial_number = with_serial.then(|| SerialNumber::from_slice(&self.serial));
        parameters.distinguished_name = self.distinguished_name(spki_der)?;
        // A list signer serves no TLS, so it names no host.
        if self.role != KeyRole::ItlRecovery {
            parameters.subject_alt_names = vec![SanType::DnsName(self.host.as_str().try_into()?)];
        }
        parameters.is_ca = match self.role {
            KeyRole::Capf => IsCa::Ca(BasicConstraints::Constrained(0)),
            _ => IsCa::ExplicitNoCa,
        };
        parameters.key_usages = key_usages(self.role);
        parameters.extended_key_usages = extended_key_usages(self.role);
        Ok(parameters)
    }

    fn distinguished_name(&self, spki_der: &[u8]) -> Result<DistinguishedName, PkiError> {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.common_name(spki_der));
        let settings = [
            (DnType::OrganizationalUnitName, &self.subject.organizational_unit),
            (DnType::OrganizationName, &self.subject.organization),
            (DnType::LocalityName, &self.subject.locality),
            (DnType::StateOrProvinceName, &self.subject.state),
        ];
        for (kind, value) in settings {
            if let Some(value) = value {
                name.push(kind, value.as_str());
            }
        }
        if let Some(country) = &self.subject.country {
            // X520countryName is a PrintableString (RFC 5280, A.1).
            name.push(DnType::CountryName, DnValue::PrintableString(country.as_str().try_into()?));
        }
        Ok(name)
    }
}

/// Makes the self-signed certificate of an identity, as DER. `key` must be the role's.
///
/// # Errors
/// [`PkiError::Build`] when the signer fails.
pub fn self_signed(profile: &IdentityProfile, key: &impl SigningKey) -> Result<Vec<u8>, PkiError> {
    let parameters = profile.parameters(&key.subject_public_key_info(), true)?;
    Ok(parameters.self_signed(key)?.der().to_vec())
}

/// Makes the request (PKCS#10, RFC 2986) for an identity that another authority is to sign, as DER.
///
/// # Errors
/// [`PkiError::Build`] when the signer fails.
pub fn certificate_request(profile: &IdentityProfile, key: &impl SigningKey) -> Result<Vec<u8>, PkiError> {
    let parameters = profile.parameters(&key.subject_public_key_info(), false)?;
    Ok(parameters.serialize_request(key)?.der().to_vec())
}

/// The longest validity of an identity. A year is 365 days.
pub(crate) const fn longest_validity(role: KeyRole) -> Duration {
    match role {
        KeyRole::ItlRecovery => Duration::days(20 * 365),
        _ => Duration::days(5 * 365),
    }
}

pub(crate) fn common_name(role: KeyRole, host: &str, spki_der: &[u8]) -> String {
    match role {
        KeyRole::CallManager | KeyRole::Tvs | KeyRole::Tomcat => host.to_owned(),
        KeyRole::CallManagerEcdsa | KeyRole::TomcatEcdsa => format!("{host}-EC"),
        KeyRole::ItlRecovery => format!("ITLRECOVERY_{host}"),
        KeyRole::Capf => {
            let fingerprint = digest::digest(&digest::SHA256, spki_der);
            format!("CAPF-{}", hex::encode(fingerprint.as_ref().get(..4).unwrap_or_default()))
        }
    }
}

/// Table 23 of the guide (4450-4458) for RSA; a curve only signs (RFC 8813; guide-contradictions, line 4450). ITLRecovery is
/// not in the table: it signs lists and nothing else.
fn key_usages(role: KeyRole) -> Vec<KeyUsagePurpose> {
    use KeyUsagePurpose::{DataEncipherment, DigitalSignature, KeyCertSign, KeyEncipherment};
    match role {
        KeyRole::CallManager | KeyRole::Tvs | KeyRole::Tomcat => {
            vec![DigitalSignature, KeyEncipherment, DataEncipherment]
        }
        KeyRole::CallManagerEcdsa | KeyRole::TomcatEcdsa | KeyRole::ItlRecovery => vec![DigitalSignature],
        KeyRole::Capf => vec![DigitalSignature, KeyCertSign],
    }
}

/// Table 23 of the guide (4450-4458). CAPF is a TLS server, never a client.
fn extended_key_usages(role: KeyRole) -> Vec<ExtendedKeyUsagePurpose> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    match role {
        KeyRole::ItlRecovery => Vec::new(),
        KeyRole::Capf => vec![ServerAuth],
        _ => vec![ServerAuth, ClientAuth],
    }
}

/// The longest prefix of a common name is `ITLRECOVERY_`, and a common name has at most 64 characters (RFC 5280, A.1).
const LONGEST_HOST: usize = 64 - "ITLRECOVERY_".len();

fn check_host(host: &str) -> Result<(), PkiError> {
    let refuse = |detail| Err(PkiError::HostName { host: host.to_owned(), detail });
    if host.len() > LONGEST_HOST {
        return refuse("longer than 52 characters");
    }
    for label in host.split('.') {
        if label.is_empty() || label.starts_with('-') || label.ends_with('-') {
            return refuse("a part is empty or starts or ends with a hyphen");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return refuse("only letters, digits, hyphens and dots are allowed");
        }
    }
    Ok(())
}

fn check_subject(subject: &SubjectSettings) -> Result<(), PkiError> {
    let limits = [
        ("OU", &subject.organizational_unit, 64),
        ("O", &subject.organization, 64),
        ("L", &subject.locality, 128),
        ("ST", &subject.state, 128),
    ];
    for (attribute, value, longest) in limits {
        if let Some(value) = value
            && (value.is_empty() || value.chars().count() > longest || value.contains('\0'))
        {
            return Err(PkiError::SubjectSetting { attribute, value: value.clone() });
        }
    }
    match &subject.country {
        Some(value) if value.len() != 2 || !value.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Err(PkiError::SubjectSetting { attribute: "C", value: value.clone() })
        }
        _ => Ok(()),
    }
}
