use std::time::{Duration, Instant};

use casemate_hsm_api::{HsmError, KeyId, SignatureScheme};

use crate::{pool::deadline, signature::request, worker::Worker};

/// How fast the bare token signs, to hold everything above it against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawRate {
    /// Signatures that the token made.
    pub signatures: u64,
    /// Time that they took.
    pub elapsed: Duration,
}

impl RawRate {
    /// Signatures in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        // Counts of signatures are far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let signatures = self.signatures as f64;
        signatures / self.elapsed.as_secs_f64()
    }
}

/// Signs one digest again and again in one session, by `C_SignInit` and `C_Sign` alone.
pub(crate) fn measure(
    worker: &mut Worker,
    id: KeyId,
    scheme: SignatureScheme,
    duration: Duration,
) -> Result<RawRate, HsmError> {
    worker.with_session(|open| {
        let key = open.key(id)?;
        if !scheme.fits(key.algorithm) {
            return Err(HsmError::SchemeMismatch { scheme, algorithm: key.algorithm });
        }
        let asked = request(scheme, b"casemate raw signature rate");
        let begin = Instant::now();
        let end = deadline(duration);
        let mut signatures = 0;
        while Instant::now() < end {
            open.session.sign(&asked.mechanism, key.private, &asked.data).map_err(|error| open.failed(&error))?;
            signatures += 1;
        }
        Ok(RawRate { signatures, elapsed: begin.elapsed() })
    })
}
