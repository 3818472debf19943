//! One signature: judged, recorded, then made. In that order, so that no signature exists of which nobody knows.

use aws_lc_rs::digest::{SHA256, digest};
use casemate_audit::{Event, Record};
use casemate_hsm_api::HsmError;
use casemate_keyring::{Purpose, Refusal, SignRequest};
use casemate_runtime::{daemon::chain, peer::Peer};
use time::OffsetDateTime;

use crate::{
    Broker, Grant,
    broker::{gone, never_made},
    judge::{Judged, Known, judge},
    token::Token,
};

/// The name under which this daemon audits.
const SERVICE: &str = "casemate-keyd";

impl Broker {
    pub(crate) fn sign(&self, peer: Peer, request: &SignRequest) -> Result<Vec<u8>, Refusal> {
        let (role, grant) = (request.role, Grant::from(&request.purpose));
        self.demand(peer, role, grant)?;
        let view = self.keys.view();
        let key = view.get(role).ok_or_else(|| never_made(role))?;
        let spki = key.spki.as_deref().ok_or_else(|| never_made(role))?;
        let known = Known {
            role,
            algorithm: key.spec.algorithm,
            spki,
            certificates: &key.certificates,
            identities: view.identities(),
            limits: &self.limits,
            now: OffsetDateTime::now_utc(),
        };
        let judged = judge(&request.message, &request.purpose, request.scheme, &known)
            .map_err(|unfit| self.refuse(peer, role, grant, chain(&unfit)))?;
        let serving = self.token.serving()?;
        if key.token != serving.serial || Token::lacks(&serving, role) {
            return Err(gone(role, &key.token));
        }
        self.record_use(peer, request, &judged)?;
        self.token.store().sign(key.id, request.scheme, &request.message).map_err(|error| {
            self.record_failure(peer, request, judged.object, error.to_string());
            if matches!(error, HsmError::KeyMissing { .. }) {
                self.token.set_missing(role, true, &key.token, spki);
            }
            self.failed(&error, &serving)
        })
    }

    /// Has it on record that the key signs. For a handshake, which proves nothing to anybody later, the audit trail alone is
    /// enough; everything else is on disk when this returns.
    fn record_use(&self, peer: Peer, request: &SignRequest, judged: &Judged) -> Result<(), Refusal> {
        let event = Event::KeyUsed {
            role: request.role.to_string(),
            purpose: request.purpose.name().to_owned(),
            scheme: request.scheme.to_string(),
            object: judged.object.clone(),
            digest: hex::encode(digest(&SHA256, &request.message)),
            uid: peer.uid,
            pid: peer.pid,
        };
        if must_be_on_disk(&request.purpose) {
            let identity = judged.identity.clone();
            self.record
                .append(&Record::new(SERVICE, &event).json_line())
                .and_then(|()| identity.map_or(Ok(()), |tbs| self.keys.add_certificate(request.role, tbs)))
                .map_err(|error| {
                    let reason = chain(&error);
                    self.record_failure(peer, request, judged.object.clone(), reason.clone());
                    Refusal::Failed(reason)
                })?;
        }
        self.auditor.record(&event);
        Ok(())
    }

    /// Has it on record that a recorded signature does not exist after all.
    fn record_failure(&self, peer: Peer, request: &SignRequest, object: String, reason: String) {
        let event = failure(peer, request, object, reason);
        if must_be_on_disk(&request.purpose)
            && let Err(error) = self.record.append(&Record::new(SERVICE, &event).json_line())
        {
            tracing::error!(error = chain(&error), "the record does not tell that this signature was not made");
        }
        self.auditor.record(&event);
    }
}

const fn must_be_on_disk(purpose: &Purpose) -> bool {
    !matches!(purpose, Purpose::TlsHandshake)
}

fn failure(peer: Peer, request: &SignRequest, object: String, reason: String) -> Event {
    Event::KeyUseFailed {
        role: request.role.to_string(),
        purpose: request.purpose.name().to_owned(),
        object,
        uid: peer.uid,
        reason,
    }
}
