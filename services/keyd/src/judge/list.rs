//! Trust lists and signed files: read by `casemate-phonefile`, which takes only what it would itself lay out.

use casemate_hsm_api::KeyRole;
use casemate_phonefile::{Record, Role, SignerId, ToBeSigned, TrustList};
use casemate_pki::{CertificateFacts, TbsFacts};

use super::{Judged, Known, Unfit};

/// A trust list: its signer is the key that is asked, and every record is of a key of this node, in a part that is that key's.
/// So even ctlprovider itself cannot make phones trust a stranger.
pub(super) fn trust_list(message: &[u8], known: &Known<'_>) -> Result<Judged, Unfit> {
    let list = match ToBeSigned::parse(message, &known.limits.files)? {
        ToBeSigned::TrustList(list) => list,
        ToBeSigned::File(file) => return Err(Unfit::OtherKind { found: file.name, purpose: "trust list" }),
    };
    for record in list.records() {
        check_record(record, known)?;
    }
    check_signer(&list, known)?;
    Ok(Judged::of(format!("{} with {} records", list.file_name(), list.records().len())))
}

/// A file under the name that the request says, and with the signer that the key is certified as.
pub(super) fn file(message: &[u8], asked: &str, known: &Known<'_>) -> Result<Judged, Unfit> {
    let file = match ToBeSigned::parse(message, &known.limits.files)? {
        ToBeSigned::File(file) => file,
        ToBeSigned::TrustList(list) => {
            return Err(Unfit::OtherKind { found: list.file_name().to_owned(), purpose: "file" });
        }
    };
    if file.name != asked {
        return Err(Unfit::FileName { found: file.name, asked: asked.to_owned() });
    }
    if !known.certificates.iter().any(|own| names(&file.signer, own)) {
        return Err(Unfit::FileSigner { found: file.signer.subject, role: known.role });
    }
    Ok(Judged::of(format!("{asked}, {} bytes", file.body.len())))
}

/// Whether `signer` is the one with this certificate.
fn names(signer: &SignerId, certificate: &TbsFacts) -> bool {
    let SignerId { subject, serial, issuer } = signer;
    (subject, serial, issuer) == (&certificate.subject, &certificate.serial, &certificate.issuer)
}

/// The record that the phone will verify with, the SAST of the signer's name, must be of the key that signs.
fn check_signer(list: &TrustList, known: &Known<'_>) -> Result<(), Unfit> {
    let signer = list.signer();
    let other = || Unfit::OtherSigner { found: signer.subject.clone(), role: known.role };
    let mut named = list
        .records()
        .iter()
        .filter(|record| record.role == Role::Sast && record.serial == signer.serial && record.issuer == signer.issuer);
    let own =
        |record: &Record| CertificateFacts::parse(&record.certificate).is_ok_and(|facts| facts.spki_der == known.spki);
    match (named.next(), named.next()) {
        (Some(record), None) if own(record) => Ok(()),
        _ => Err(other()),
    }
}

fn check_record(record: &Record, known: &Known<'_>) -> Result<(), Unfit> {
    let spki = CertificateFacts::parse(&record.certificate)?.spki_der;
    if known.identities.role_of(&spki).is_some_and(|key| may_stand_as(key, record.role)) {
        return Ok(());
    }
    Err(Unfit::Record { subject: record.subject.clone(), function: record.role.to_string() })
}

/// What phones are told to trust each of our keys for.
const fn may_stand_as(key: KeyRole, function: Role) -> bool {
    match function {
        Role::Sast => matches!(key, KeyRole::ItlRecovery | KeyRole::CallManager),
        Role::Ccm | Role::CcmTftp | Role::Tftp => matches!(key, KeyRole::CallManager | KeyRole::CallManagerEcdsa),
        Role::Capf => matches!(key, KeyRole::Capf),
        Role::Tvs => matches!(key, KeyRole::Tvs),
        Role::AppServer | Role::Unknown(_) => false,
    }
}
