//! What a re-key would do, from what is known: nothing here asks or changes anything.

use casemate_hsm_api::KeyRole;
use casemate_keyring::{BrokerState, Status};
use casemate_phonefile::{Role, TrustList};
use casemate_pki::CertificateFacts;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{effects, names};
use crate::{CertmgrError, records::Recorded};

/// What a re-key does, shown before anything happens.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RekeyPlan {
    /// Which identity.
    pub role: KeyRole,
    /// How far it is.
    pub stage: Stage,
    /// The key that serves until it is done.
    pub from: Held,
    /// Where the next key is made.
    pub to: Target,
    /// Whose key signs the list that tells phones; nothing if the list does not name this role, or if nobody can sign it.
    pub list_signer: Option<KeyRole>,
    /// Since when that key is certified, RFC 3339 in UTC: phones that fetched a list since then know it.
    pub list_signer_since: Option<String>,
    /// How many phones have to fetch the new list; 0 if the list does not name this role.
    pub phones: usize,
    /// How many phones' files are signed anew.
    pub files: usize,
    /// What must be restarted: nothing, ever. It is said all the same.
    pub restarts: Vec<String>,
    /// What it means, a sentence each.
    pub effects: Vec<String>,
    /// Why it cannot begin or go on now, and what to do; nothing if it can.
    pub refused: Option<String>,
}

/// How far a re-key is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing is done.
    NotBegun,
    /// The next key is made.
    KeyMade,
    /// Its certificate is recorded, and published or about to be.
    Certified,
}

/// The key that serves, and its certificate.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Held {
    /// Serial of its token.
    pub token: String,
    /// Whether it is on its token now; unknown while that is away.
    pub on_token: Option<bool>,
    /// SHA-256 of its `SubjectPublicKeyInfo`, hexadecimal.
    pub fingerprint: String,
    /// Serial number of its certificate, hexadecimal; nothing once the next key is certified.
    pub certificate: Option<String>,
}

/// The token that makes the next key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// Its name in `role-tokens.toml`.
    pub name: String,
    /// Its serial, while it is there.
    pub token: Option<String>,
    /// The next key, once it is made.
    pub fingerprint: Option<String>,
}

/// What there is.
pub(super) struct Known<'a> {
    pub(super) status: &'a Status,
    /// The newest of each role.
    pub(super) certificates: &'a [Recorded],
    /// The list that phones are offered.
    pub(super) published: Option<&'a TrustList>,
    pub(super) phones: usize,
}

/// Whether the lists that follow `list` name `role`: one without a certificate for HTTPS 6971 (`https` of [ctlprovider]) is followed
/// by such.
pub(super) fn is_listed(role: KeyRole, list: Option<&TrustList>) -> bool {
    match role {
        KeyRole::Tomcat | KeyRole::TomcatEcdsa => false,
        KeyRole::CallManagerEcdsa => {
            list.is_none_or(|list| list.records().iter().any(|record| record.role == Role::Tftp))
        }
        _ => true,
    }
}

/// Whether the key of `role` may sign lists, and which other one may.
const fn other_signer(role: KeyRole) -> Option<KeyRole> {
    match role {
        KeyRole::ItlRecovery => Some(KeyRole::CallManager),
        KeyRole::CallManager => Some(KeyRole::ItlRecovery),
        _ => None,
    }
}

pub(super) fn plan(role: KeyRole, known: &Known<'_>) -> Result<RekeyPlan, CertmgrError> {
    let refuse = |reason: &str| CertmgrError::RekeyRefused { role, reason: reason.to_owned() };
    let unprovisioned = || refuse("the node is not provisioned; run `casemate provision`");
    let (key, on_token) = known.status.keys.iter().find(|(key, _)| key.role == role).ok_or_else(unprovisioned)?;
    let certificate = known.certificate(role).ok_or_else(unprovisioned)?;
    let next = known.status.next.iter().map(|(next, _)| next).find(|next| next.role == role);
    let stage = match next {
        None => Stage::NotBegun,
        Some(next) if next.fingerprint == certificate.key_fingerprint => Stage::Certified,
        Some(_) => Stage::KeyMade,
    };
    let token = known.status.tokens.iter().find(|token| token.roles.contains(&role));
    let token = token.ok_or_else(|| refuse("role-tokens.toml names no token for it"))?;
    let signer = known.signer(role)?;
    let certified = stage == Stage::Certified;
    let plan = RekeyPlan {
        role,
        stage,
        from: Held {
            token: key.token.clone(),
            on_token: *on_token,
            fingerprint: key.fingerprint.clone(),
            certificate: (!certified).then(|| certificate.serial.clone()),
        },
        to: Target {
            name: token.name.clone(),
            token: token.info.as_ref().map(|info| info.serial.clone()),
            fingerprint: next.map(|next| next.fingerprint.clone()),
        },
        list_signer: signer,
        list_signer_since: signer.and_then(|signer| known.certificate(signer)).and_then(since),
        phones: if is_listed(role, known.published) { known.phones } else { 0 },
        files: if role == KeyRole::CallManager { known.phones } else { 0 },
        restarts: Vec::new(),
        effects: Vec::new(),
        refused: known.refusal(role, certified, signer, &token.state),
    };
    Ok(RekeyPlan { effects: effects::of(&plan), ..plan })
}

/// When a certificate was issued.
fn since(certificate: &Recorded) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(certificate.issued_at).ok()?.format(&Rfc3339).ok()
}

impl Known<'_> {
    fn certificate(&self, role: KeyRole) -> Option<&Recorded> {
        self.certificates.iter().find(|certificate| certificate.role == role)
    }

    /// Whose key signs the list that tells of a new certificate of `role`: one that phones know from the list they are offered
    /// now, and not the one that is replaced.
    fn signer(&self, role: KeyRole) -> Result<Option<KeyRole>, CertmgrError> {
        let (true, Some(list)) = (is_listed(role, self.published), self.published) else { return Ok(None) };
        let candidates = match other_signer(role) {
            Some(other) => vec![other],
            None => vec![KeyRole::ItlRecovery, KeyRole::CallManager],
        };
        let read = |role| self.certificate(role).map(|certificate| CertificateFacts::parse(&certificate.der));
        let facts: Vec<_> = candidates.iter().filter_map(|role| read(*role)).collect::<Result<_, _>>()?;
        let signer = list.next_signer(&facts.iter().collect::<Vec<_>>());
        let is_signer = |role: &KeyRole| {
            self.certificate(*role)
                .is_some_and(|certificate| signer.is_some_and(|signer| signer.der == certificate.der))
        };
        Ok(candidates.into_iter().find(is_signer))
    }

    /// Refuses a signer whom phones do not know, or who is away.
    pub(super) fn check_signer(&self, role: KeyRole) -> Result<(), CertmgrError> {
        let refuse = |reason: &str| Err(CertmgrError::ListSignerRefused { role, reason: reason.to_owned() });
        if other_signer(role).is_none() {
            return refuse("only ITLRecovery and CallManager sign lists");
        }
        let is_known = |certificate: &Recorded| self.published.is_some_and(|list| list.knows_signer(&certificate.der));
        if !self.certificate(role).is_some_and(is_known) {
            return refuse(
                "the published list does not name its certificate as a signer yet, so phones would not take what it signs; wait \
                 for casemate-ctlprovider (`casemate show itl`)",
            );
        }
        if self.signs(role) { Ok(()) } else { refuse("its key is not on its token now; bring that token back") }
    }

    /// Whether the key that is certified for `role` is on its token.
    fn signs(&self, role: KeyRole) -> bool {
        let Some(certificate) = self.certificate(role) else { return false };
        let mut keys = self.status.keys.iter().chain(&self.status.next);
        keys.any(|(key, there)| key.fingerprint == certificate.key_fingerprint && *there == Some(true))
    }

    /// Why nothing is to be begun or gone on with now.
    fn refusal(&self, role: KeyRole, certified: bool, signer: Option<KeyRole>, target: &BrokerState) -> Option<String> {
        let under_way = self.status.next.iter().map(|(next, _)| next.role).find(|other| *other != role);
        if let Some(other) = under_way.filter(|other| other_signer(role).is_none() || other_signer(*other).is_some()) {
            return Some(format!(
                "the re-key of {other} is under way, and phones have to be told of one after the other; finish it first: run \
                 `casemate identity rekey {other}`"
            ));
        }
        if let BrokerState::Waiting(reason) | BrokerState::OutOfService(reason) = target {
            return Some(format!("its next key cannot be made: {reason}"));
        }
        if !is_listed(role, self.published) {
            return None;
        }
        let Some(list) = self.published else {
            return Some(
                "no trust list is published, or none whose signature holds; wait for casemate-ctlprovider".to_owned(),
            );
        };
        let is_told = certified && self.certificate(role).is_some_and(|certificate| names(list, &certificate.der));
        if is_told {
            return None;
        }
        match signer {
            None => Some(self.no_signer(role)),
            Some(signer) if !self.signs(signer) => Some(format!(
                "the list that tells phones would be signed by {signer}, whose key is not on its token now; bring that token back{}",
                // The signer itself can be replaced as long as the other one is there.
                other_signer(role).map_or_else(|| format!(", or re-key {signer} first"), |_| String::new())
            )),
            Some(_) => None,
        }
    }

    /// Phones know no key that could tell them.
    fn no_signer(&self, role: KeyRole) -> String {
        match other_signer(role) {
            Some(other) => format!(
                "phones would not take the list that tells them: {other} has to sign it, and the published list does not name its \
                 certificate as a signer yet; wait until casemate-ctlprovider published a list that does (`casemate show itl`), \
                 and until phones had time to fetch it"
            ),
            None => "phones would not take the list that tells them: the published list names none of today's signers; wait for \
                     casemate-ctlprovider (`casemate audit tail`)"
                .to_owned(),
        }
    }
}
