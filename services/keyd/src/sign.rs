//! One signature: judged, recorded, made, then verified. In that order, so that no signature exists of which nobody knows, and
//! none that is wrong leaves.

use std::{sync::Arc, time::Instant};

use aws_lc_rs::digest::{SHA256, digest};
use casemate_audit::Event;
use casemate_hsm_api::{HsmError, KeyId, RunBy};
use casemate_keyring::{Purpose, Refusal, Response, SignRequest};
use casemate_runtime::{daemon::chain, peer::Peer};
use time::OffsetDateTime;

use crate::{
    Broker, Grant, KeydError,
    broker::{Answered, gone, room_of, unknown},
    judge::{Judged, Known, judge},
    keys::{Made, View},
    token::{Missing, NOT_THERE, Serving, Token},
};

/// A signature that may be made, and is on record.
struct Permitted {
    peer: Peer,
    request: Arc<SignRequest>,
    /// What is signed, in the record.
    object: String,
    view: Arc<View>,
    id: KeyId,
    token: Arc<Token>,
    serving: Arc<Serving>,
}

impl Broker {
    /// Has the request's key sign, and gives `then` the answer.
    pub(crate) fn sign(self: &Arc<Self>, peer: Peer, request: SignRequest, then: Answered) {
        let permitted = match self.permit(peer, Arc::new(request)) {
            Ok(permitted) => permitted,
            Err(refusal) => return then(Response::Refused(refusal), RunBy::Caller),
        };
        let (broker, token) = (Arc::clone(self), Arc::clone(&permitted.token));
        let (id, request) = (permitted.id, Arc::clone(&permitted.request));
        let after = move |signature: Result<Vec<u8>, HsmError>, by: RunBy| {
            let answer = broker.check(&permitted, signature);
            then(answer.map_or_else(Response::Refused, Response::Signature), by);
        };
        token.store().sign_then(id, request.scheme, &request.message, Box::new(after));
    }

    fn permit(&self, peer: Peer, request: Arc<SignRequest>) -> Result<Permitted, Refusal> {
        let (role, grant) = (request.role, Grant::from(&request.purpose));
        self.demand(peer, role, grant)?;
        let view = self.keys.view();
        let made = view.named(role, request.key.as_deref()).ok_or_else(|| unknown(role, request.key.as_deref()))?;
        let (key, spki) = (made.key, made.spki);
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
        let token = Arc::clone(self.tokens.of_key(key)?);
        let serving = token.serving()?;
        if let Some(missing) = serving.lacks(key) {
            return Err(gone(key, &missing));
        }
        self.record_use(peer, &request, &judged)?;
        let (id, object) = (key.id, judged.object);
        Ok(Permitted { peer, request, object, view, id, token, serving })
    }

    /// What the token answered, if it is right; otherwise its failure is on record, and the token's standing follows it.
    fn check(&self, permitted: &Permitted, answer: Result<Vec<u8>, HsmError>) -> Result<Vec<u8>, Refusal> {
        let Permitted { peer, request, object, view, token, serving, .. } = permitted;
        let (role, name) = (request.role, request.key.as_deref());
        let made = view.named(role, name).ok_or_else(|| unknown(role, name))?;
        verified(&made, request, serving, answer).map_err(|error| {
            self.record_failure(*peer, request, object.clone(), error.to_string());
            if matches!(error, HsmError::KeyMissing { .. }) {
                token.set_missing(&made, Some(Missing::Gone(NOT_THERE.to_owned())));
            }
            token.doubt(&error, serving);
            token.failed(&error, serving)
        })
    }

    /// Has it on record that the key signs, or refuses. Everything but a handshake is on disk when this returns. A handshake
    /// proves nothing to anybody later, so it is enough that the audit trail took it.
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
        let recorded = if must_be_on_disk(&request.purpose) {
            let identity = judged.identity.clone();
            self.demand_share(peer, request, &event)?;
            self.on_disk(&event).and_then(|told| {
                identity.map_or(Ok(()), |tbs| self.keys.add_certificate(request.role, tbs))?;
                self.auditor.copy(&told);
                Ok(())
            })
        } else {
            self.auditor.try_record(&event).map_err(KeydError::AuditTrail)
        };
        recorded.map_err(|error| {
            let reason = chain(&error);
            self.record_failure(peer, request, judged.object.clone(), reason.clone());
            Refusal::Failed(reason)
        })
    }

    /// Refuses a user who has filled his share of the record.
    fn demand_share(&self, peer: Peer, request: &SignRequest, event: &Event) -> Result<(), Refusal> {
        if self.shares.spend(peer.uid, room_of(event), Instant::now()) {
            return Ok(());
        }
        let (uid, bytes) = (peer.uid, self.shares.bytes_a_day());
        let reason = format!(
            "uid {uid} has filled its share of the record of signatures ({bytes} bytes a day, caller-day-bytes in \
             [keyd.record]); is that daemon itself?"
        );
        self.audit_refusal(peer, request.role, &request.purpose.name(), &reason);
        Err(Refusal::Unavailable(reason))
    }

    /// Has it on record that a recorded signature does not exist after all.
    fn record_failure(&self, peer: Peer, request: &SignRequest, object: String, reason: String) {
        let event = failure(peer, request, object, reason);
        if must_be_on_disk(&request.purpose) {
            self.shares.spent(peer.uid, room_of(&event), Instant::now());
            match self.on_disk(&event) {
                Ok(told) => return self.auditor.copy(&told),
                Err(error) => {
                    tracing::error!(error = chain(&error), "the record does not tell that this signature was not made");
                }
            }
        }
        self.auditor.record(&event);
    }
}

/// What the token answered, if it is right. A wrong answer does not leave this function, for it may give the key away.
fn verified(
    made: &Made<'_>,
    request: &SignRequest,
    serving: &Serving,
    answer: Result<Vec<u8>, HsmError>,
) -> Result<Vec<u8>, HsmError> {
    let signature = answer?;
    if made.verifier.verifies(request.scheme, &request.message, &signature) {
        return Ok(signature);
    }
    Err(HsmError::WrongAnswer {
        token: serving.serial.clone(),
        operation: format!("{} with the {} key", request.scheme, request.role),
    })
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
