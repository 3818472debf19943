//! What phones were told, into the audit trail. Anybody may ask, so it is bounded.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use casemate_audit::{Auditor, Event};
use casemate_runtime::refusals::Refusals;

use crate::{request::VerifyRequest, trust::Verdict};

/// Records answers: at most a number in a window of time of those that a certificate is valid, and as many of those that it is
/// not. What is over is counted, each kind apart: who floods TVS with questions about a published certificate must not hide that
/// somebody shows phones another one.
pub struct Answers {
    valid: Arc<Refusals>,
    invalid: Arc<Refusals>,
}

impl Answers {
    /// At most `per_window` answers of each kind in each `window` go to `auditor`.
    #[must_use]
    pub fn new(per_window: NonZeroU32, window: Duration, auditor: &Arc<Auditor>) -> Self {
        let bounded = |summary| Refusals::summed_by(summary, "tvs", per_window, window, Arc::clone(auditor));
        Self {
            valid: bounded(|service, suppressed| not_listed(service, "valid", suppressed)),
            invalid: bounded(|service, suppressed| not_listed(service, "not valid", suppressed)),
        }
    }

    /// Records that `peer` was given `verdict` for `request`.
    pub(crate) fn record(&self, request: VerifyRequest, verdict: &Verdict, peer: &str) {
        let (valid, roles) = match verdict {
            Verdict::Valid { roles, .. } => (true, roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
            Verdict::Unknown => (false, "none, not in the trust store".into()),
            Verdict::OutOfDate => (false, "none, out of its validity".into()),
        };
        let kind = if valid { &self.valid } else { &self.invalid };
        kind.record(&Event::CertificateVerified {
            device: request.device,
            peer: peer.into(),
            fingerprint: hex::encode(digest(&SHA256, &request.certificate)),
            valid,
            roles,
        });
    }
}

fn not_listed(service: &str, kind: &str, suppressed: u64) -> Event {
    Event::EventsNotListed {
        service: service.to_owned(),
        event: format!("CertificateVerified, {kind}"),
        limit: "audited-answers".into(),
        suppressed,
    }
}
