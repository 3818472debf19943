//! What a re-key means for phones and daemons, in sentences for the operator. Each is a fact of this product, held by a test.

use casemate_hsm_api::KeyRole;

use super::plan::{RekeyPlan, Stage};

/// The sentences of `plan`.
pub(super) fn of(plan: &RekeyPlan) -> Vec<String> {
    let mut effects = vec![old_key(plan)];
    effects.extend(list(plan));
    effects.extend(role(plan).into_iter().map(str::to_owned));
    effects.push(
        "Nothing is restarted: the daemons see the new certificate within a second, and new connections get it."
            .to_owned(),
    );
    effects
}

fn old_key(plan: &RekeyPlan) -> String {
    let (token, fingerprint) = (&plan.from.token, &plan.from.fingerprint);
    let serves = match plan.from.on_token {
        Some(true) if plan.stage == Stage::Certified => "It signs what still names it until the list is published.",
        Some(true) => "It serves until the new certificate is published.",
        Some(false) | None => {
            "It is not there now and serves nothing; the re-key needs nothing of it, and a token that comes back changes nothing."
        }
    };
    format!(
        "The old key {fingerprint} stays in token {token}: it is never copied and never deleted, and is recorded as retired. {serves}"
    )
}

/// What phones do for the list.
fn list(plan: &RekeyPlan) -> Vec<String> {
    let Some(signer) = plan.list_signer else { return Vec::new() };
    let (phones, since) = (plan.phones, plan.list_signer_since.as_deref().unwrap_or("its certificate was issued"));
    let mut all = vec![
        format!(
            "The new list is signed by {signer}, which the list that is published now names. Of {phones} phones, each that fetched \
             a list since {since} takes the new one at its next start, without asking anybody; one that did not asks TVS, which \
             vouches for {signer}."
        ),
        "A phone that has no list takes the new one on trust, as every first list.".to_owned(),
    ];
    if matches!(plan.role, KeyRole::ItlRecovery | KeyRole::CallManager) {
        all.push(format!(
            "{signer} signs every list from then on, until it is re-keyed itself or `casemate identity list-signer {}` is run, \
             which is for when phones had time to fetch the new list.",
            plan.role
        ));
        all.push(format!(
            "A phone that stays off from now until after a later re-key of {signer} knows neither signer. It asks TVS, which \
             vouches for the signer as long as TVS itself was not re-keyed meanwhile; if it was, the phone refuses every new list \
             until its old list is deleted at the phone."
        ));
    }
    all
}

fn role(plan: &RekeyPlan) -> Vec<&'static str> {
    match plan.role {
        KeyRole::ItlRecovery => {
            vec!["ITLRecovery signs nothing but lists: files, TLS and certificates of phones stay as they are."]
        }
        KeyRole::CallManager => vec![
            "Every phone's file is signed anew, after the list. A phone that starts in these seconds may get the new list and a file \
             signed by the old key: it refuses the file and has it right at the next try.",
            "HTTPS 6971 presents the new certificate to phones that take RSA; those that hold the old list fetch the new one over \
             HTTP 6970 or TFTP first, as at every start.",
        ],
        KeyRole::CallManagerEcdsa if plan.phones == 0 && plan.list_signer.is_none() => {
            vec![
                "The list offers no HTTPS 6971 (`https` of [ctlprovider]), so no phone has to learn the new certificate.",
            ]
        }
        KeyRole::CallManagerEcdsa => vec![
            "HTTPS 6971 presents the new certificate: a phone that has not fetched the new list (over HTTP 6970 or TFTP) refuses \
             the connection until it has. No file is signed anew.",
        ],
        KeyRole::Capf => vec![
            "Certificates of phones (LSCs) that the old key issued end when they say, and are not revoked. No daemon of this \
             release verifies an LSC. A phone that compares its LSC with the CAPF record of its list finds another issuer there: \
             let it enrol again with `casemate phone add`.",
            "CAPF presents the new certificate: a phone that has not fetched the new list cannot enrol until it has. The old key \
             issues nothing from then on.",
        ],
        KeyRole::Tvs => vec![
            "TVS presents the new certificate: a phone that has not fetched the new list cannot ask it. It needs no answer to \
             take the list, for it knows the signer.",
            "A phone that is off since before a re-key of ITLRecovery or CallManager may need TVS to take a list, and after this \
             cannot ask it. Wait with this until such phones have started.",
        ],
        KeyRole::Tomcat | KeyRole::TomcatEcdsa => vec![
            "The list does not name it and is not signed anew; no phone has to fetch anything. TVS vouches for the new certificate \
             within a second, and no longer for the old one; a phone may remember an answer for `ttl-seconds` of [tvs], an hour.",
            "No daemon of this release serves it yet.",
        ],
    }
}
