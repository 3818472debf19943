use std::{fs, io, path::Path};

use casemate_hsm_api::KeyRole;
use casemate_keyring::{Client, KeyRecord, Purpose, RoleSigner};
use casemate_pki::{CertificateFacts, IdentityProfile, SubjectSettings, self_signed};
use casemate_runtime::{config::NodeSection, publish::write_atomically};
use pem::{EncodeConfig, LineEnding, Pem};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{CertmgrError, Identity, records::Recorded};

/// Has the key of `key` sign its own certificate, valid from now for as long as its role says (guide 2866-2872, 3490-3501).
///
/// # Errors
/// The broker did not sign, or what it signed is not for its key.
pub(crate) fn issue(client: &Client, key: KeyRecord, node: &NodeSection) -> Result<Recorded, CertmgrError> {
    let now = OffsetDateTime::now_utc();
    let (role, token, key_fingerprint) = (key.role, key.token.clone(), key.fingerprint.clone());
    let spki_der = key.spki_der.clone();
    let profile = IdentityProfile::new(role, &node.host, subject(node), now)?;
    let signer = RoleSigner::new(client.clone(), key, Purpose::SelfSigned).ok_or(CertmgrError::DamagedKey { role })?;
    let der = self_signed(&profile, &signer)
        // Why the broker did not sign says more than that the certificate was not built.
        .map_err(|error| signer.take_error().map_or_else(|| error.into(), CertmgrError::Keyring))?;
    let facts = CertificateFacts::parse(&der)?;
    if facts.spki_der != spki_der {
        return Err(CertmgrError::WrongKey { role });
    }
    Ok(Recorded {
        role,
        serial: hex::encode(&facts.serial),
        fingerprint: hex::encode(facts.sha256),
        key_fingerprint,
        token,
        der: facts.der,
        issued_at: now.unix_timestamp(),
    })
}

/// The subject beside the common name, as `[node]` says; an empty setting leaves its attribute out.
fn subject(node: &NodeSection) -> SubjectSettings {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    SubjectSettings {
        organizational_unit: given(&node.unit),
        organization: given(&node.organisation),
        locality: given(&node.locality),
        state: given(&node.state),
        country: given(&node.country),
    }
}

/// The file name under which `role` is published.
pub(crate) fn file_name(role: KeyRole) -> String {
    format!("{role}.pem")
}

/// Publishes a certificate in `folder`, unless exactly it stands there already. `true` when the file was written.
///
/// # Errors
/// [`CertmgrError::Publish`].
pub(crate) fn publish(folder: &Path, identity: &Recorded) -> Result<bool, CertmgrError> {
    let path = folder.join(file_name(identity.role));
    let pem = pem::encode_config(
        &Pem::new("CERTIFICATE", identity.der.as_slice()),
        EncodeConfig::new().set_line_ending(LineEnding::LF),
    );
    let outcome = match fs::read(&path) {
        Ok(published) if published == pem.as_bytes() => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => write_atomically(&path, pem.as_bytes(), 0o644).map(|()| true),
    };
    outcome.map_err(|source| CertmgrError::Publish { path, source })
}

/// What is told of a certificate on record.
///
/// # Errors
/// The recorded certificate is none.
pub(crate) fn describe(folder: &Path, recorded: &Recorded) -> Result<Identity, CertmgrError> {
    let facts = CertificateFacts::parse(&recorded.der)?;
    // Years of X.509 are 1950 to 9999, all of which RFC 3339 can write.
    let not_after = facts.not_after.format(&Rfc3339).unwrap_or_else(|_| facts.not_after.to_string());
    Ok(Identity {
        role: recorded.role,
        subject: facts.subject,
        serial: recorded.serial.clone(),
        not_after,
        fingerprint: recorded.fingerprint.clone(),
        key_fingerprint: recorded.key_fingerprint.clone(),
        token: recorded.token.clone(),
        published: folder.join(file_name(recorded.role)).display().to_string(),
    })
}
