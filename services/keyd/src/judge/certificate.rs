//! Certificates and requests: read and judged by `casemate-pki`, with what the broker itself knows of its keys.

use casemate_pki::{
    CsrFacts, DeviceExpectations, IdentityExpectations, TbsFacts, check_certificate_request, check_device_certificate,
    check_self_signature,
};
use time::Duration;

use super::{Judged, Known, Unfit};

/// An identity's own certificate.
pub(super) fn self_signed(message: &[u8], known: &Known<'_>) -> Result<Judged, Unfit> {
    let tbs = TbsFacts::parse(message)?;
    let expected = IdentityExpectations {
        role: known.role,
        spki: known.spki,
        now: known.now,
        start_tolerance: Duration::hours(known.limits.identity_start_hours.into()),
    };
    check_self_signature(&tbs, &expected)?;
    Ok(Judged { object: object(&tbs), identity: Some(tbs) })
}

/// A request for an identity's certificate by another authority.
pub(super) fn request(message: &[u8], known: &Known<'_>) -> Result<Judged, Unfit> {
    let csr = CsrFacts::parse(message)?;
    check_certificate_request(&csr, known.spki, known.role)?;
    Ok(Judged::of(csr.subject))
}

/// A phone's certificate. The issuer is what this key itself was certified as, not what the caller says it was.
pub(super) fn device(message: &[u8], device: &str, operation: i64, known: &Known<'_>) -> Result<Judged, Unfit> {
    let tbs = TbsFacts::parse(message)?;
    let own = known.certificates;
    // Of several with this name any may be published, so the one that ends last says how long a phone's may be valid.
    let named = own.iter().filter(|certificate| certificate.subject_der == tbs.issuer_der);
    let named = named.max_by_key(|certificate| certificate.not_after).or(own.last());
    let expected = DeviceExpectations {
        issuer: named.ok_or(Unfit::NoIssuer { role: known.role })?,
        device,
        max_validity: Duration::days(known.limits.device_validity_days.into()),
        now: known.now,
        start_tolerance: Duration::hours(known.limits.device_start_hours.into()),
        forbidden_spkis: &known.identities.spkis,
    };
    check_device_certificate(&tbs, &expected)?;
    Ok(Judged::of(format!("{} for {device}, operation {operation}", object(&tbs))))
}

fn object(tbs: &TbsFacts) -> String {
    format!("{} serial {}", tbs.subject, hex::encode(&tbs.serial))
}
