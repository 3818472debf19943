//! What an auditor needs to believe that a key lives in hardware. The broker carries it between the operator and the token and
//! judges none of it: the auditor does, on a machine of his own (`services/verify`).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use casemate_audit::Event;
use casemate_hsm_api::{HsmError, KeyRole};
use casemate_keyring::{Evidence, NONCE_LIMIT, Refusal};
use casemate_runtime::{control::Callers, daemon::chain, peer::Peer};

use crate::{
    Broker, KeydError,
    broker::{gone, never_made},
    keys::fingerprint,
    token::{Serving, Token},
};

impl Broker {
    /// The statement of the token on the key of `role`.
    pub(crate) fn attest(&self, peer: Peer, role: KeyRole, nonce: &[u8]) -> Result<Evidence, Refusal> {
        let asked = Asked { broker: self, peer, evidence: format!("a statement on the {role} key") };
        asked.by_operator()?;
        if nonce.len() > NONCE_LIMIT {
            return Err(Refusal::Failed(format!(
                "a nonce has at most {NONCE_LIMIT} bytes, and this one {}",
                nonce.len()
            )));
        }
        let view = self.keys.view();
        let made = view.named(role, None).ok_or_else(|| never_made(role))?;
        let token = self.tokens.of_key(made.key)?;
        let serving = token.serving()?;
        if let Some(missing) = serving.lacks(made.key) {
            return Err(gone(made.key, &missing));
        }
        let evidence = asked.of(token, &serving, token.store().statement_json(made.key.id, nonce))?;
        asked.record(
            &Event::KeyAttested {
                role: role.to_string(),
                token: serving.serial.clone(),
                fingerprint: fingerprint(made.spki),
                nonce: hex::encode(nonce),
                outcome: outcome(&evidence, "statement given"),
                uid: peer.uid,
                pid: peer.pid,
            },
            evidence,
        )
    }

    /// The attestation key of the token named `token`.
    pub(crate) fn attestation_key(&self, peer: Peer, token: &str) -> Result<Evidence, Refusal> {
        let asked = Asked { broker: self, peer, evidence: format!("the attestation key of {token}") };
        asked.by_operator()?;
        let token = self.tokens.named(token)?;
        let serving = token.serving()?;
        let evidence = asked.of(token, &serving, token.store().attestation_key_json())?;
        asked.record(
            &Event::AttestationKeyShown {
                token: serving.serial.clone(),
                outcome: outcome(&evidence, "given"),
                uid: peer.uid,
                pid: peer.pid,
            },
            evidence,
        )
    }

    /// The answer to an auditor's challenge by the token named `token`.
    pub(crate) fn answer_challenge(&self, peer: Peer, token: &str, challenge: &str) -> Result<Evidence, Refusal> {
        let asked = Asked { broker: self, peer, evidence: format!("an answer of {token} to a challenge") };
        asked.by_operator()?;
        let token = self.tokens.named(token)?;
        let serving = token.serving()?;
        let evidence = asked.of(token, &serving, token.store().answer_json(challenge))?;
        asked.record(
            &Event::ChallengeAnswered {
                token: serving.serial.clone(),
                digest: hex::encode(digest(&SHA256, challenge.as_bytes())),
                outcome: outcome(&evidence, "answered"),
                uid: peer.uid,
                pid: peer.pid,
            },
            evidence,
        )
    }
}

/// One request for evidence.
struct Asked<'a> {
    broker: &'a Broker,
    peer: Peer,
    /// What is asked for.
    evidence: String,
}

impl Asked<'_> {
    /// Refuses everybody but operators: no daemon has a use for evidence.
    fn by_operator(&self) -> Result<(), Refusal> {
        if Callers::root_and(&self.broker.config, &["admin"]).include(self.peer) {
            return Ok(());
        }
        let reason = format!("uid {} is no operator: neither root nor the user admin of [users]", self.peer.uid);
        self.refused(reason.clone());
        Err(Refusal::Policy(reason))
    }

    /// What the token answered.
    fn of(&self, token: &Token, serving: &Arc<Serving>, answer: Result<String, HsmError>) -> Result<Evidence, Refusal> {
        match answer {
            Ok(document) => Ok(Evidence::Document(document)),
            Err(HsmError::Unproven { detail, .. }) => Ok(Evidence::Unproven(detail)),
            Err(error) => {
                self.refused(error.to_string());
                Err(token.failed(&error, serving))
            }
        }
    }

    /// Gives `evidence` once the audit trail took `event`.
    fn record(&self, event: &Event, evidence: Evidence) -> Result<Evidence, Refusal> {
        let taken = self.broker.auditor.try_record(event).map_err(KeydError::AuditTrail);
        taken.map(|()| evidence).map_err(|error| Refusal::Failed(chain(&error)))
    }

    fn refused(&self, reason: String) {
        let event = Event::AttestationRefused {
            evidence: self.evidence.clone(),
            uid: self.peer.uid,
            pid: self.peer.pid,
            reason,
        };
        self.broker.refusals.of_user(self.peer.uid, &event);
    }
}

/// In the words of the audit trail.
fn outcome(evidence: &Evidence, given: &str) -> String {
    match evidence {
        Evidence::Document(_) => given.to_owned(),
        Evidence::Unproven(reason) => format!("unproven, {reason}"),
    }
}
