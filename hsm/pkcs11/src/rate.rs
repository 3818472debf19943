use std::time::Duration;

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, SignatureRate, SignatureScheme, TimedCalls};
use cryptoki::{error::Error, object::Attribute};

use crate::{
    keys::pairwise_scheme,
    signature::request,
    template::{Templates, Usage, templates},
    worker::{Open, Worker},
};

/// `CKA_ID` and `CKA_LABEL` of the temporary key, which is no token object and so never found among those.
const TEMPORARY: (KeyId, &str) = (KeyId([0; 16]), "casemate measures the rate");

/// Signs one digest again and again in one session, by `C_SignInit` and `C_Sign` alone.
pub(crate) fn measure(
    worker: &mut Worker,
    id: KeyId,
    scheme: SignatureScheme,
    duration: Duration,
) -> Result<TimedCalls, HsmError> {
    worker.with_session(|open| {
        let key = open.key(id)?;
        if !scheme.fits(key.algorithm) {
            return Err(HsmError::SchemeMismatch { scheme, algorithm: key.algorithm });
        }
        let asked = request(scheme, b"casemate raw signature rate");
        let sign = || open.session.sign(&asked.mechanism, key.private, &asked.data).map(drop);
        TimedCalls::make(duration, sign).map_err(|error: Error| open.failed(&error))
    })
}

/// Signs with a session key pair (`CKA_TOKEN` false), which is destroyed afterwards; if even that fails, with its session.
pub(crate) fn of_temporary_key(
    worker: &mut Worker,
    algorithm: KeyAlgorithm,
    usage: Usage,
    duration: Duration,
) -> Result<SignatureRate, HsmError> {
    let token = worker.target()?.serial;
    let (measured, destroyed) = worker
        .with_session(|open| {
            let made = temporary(algorithm, usage);
            let (public, private) = open
                .session
                .generate_key_pair(&made.mechanism, &made.public, &made.private)
                .map_err(|error| open.failed(&error))?;
            let asked = request(pairwise_scheme(algorithm), b"casemate measures how fast this token signs");
            let sign = |open: &Open| open.session.sign(&asked.mechanism, private, &asked.data).map(drop);
            let measured = SignatureRate::measure(duration, || sign(open)).map_err(|error: Error| open.failed(&error));
            let gone = |half| open.session.destroy_object(half).is_ok();
            // Both, whatever becomes of the first.
            let destroyed = [gone(private), gone(public)] == [true, true];
            measured.map(|measured| (measured, destroyed))
        })
        .map_err(|error| match error {
            HsmError::Device { operation, detail, .. } => HsmError::Unmeasurable {
                token: token.as_ref().to_owned(),
                algorithm,
                detail: format!("{operation}: {detail}"),
            },
            HsmError::Unsupported { operation, .. } => {
                HsmError::Unmeasurable { token: token.as_ref().to_owned(), algorithm, detail: operation }
            }
            error => error,
        })?;
    if !destroyed {
        worker.close();
    }
    Ok(measured)
}

fn temporary(algorithm: KeyAlgorithm, usage: Usage) -> Templates {
    let (id, label) = TEMPORARY;
    let mut made = templates(id, label, KeySpec { algorithm, backup: Backup::None }, usage);
    for attribute in made.public.iter_mut().chain(&mut made.private) {
        if *attribute == Attribute::Token(true) {
            *attribute = Attribute::Token(false);
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_half_of_a_temporary_key_is_a_token_object() {
        for algorithm in KeyAlgorithm::ALL {
            let made = temporary(algorithm, Usage::SignOnly);
            for half in [made.public, made.private] {
                assert!(half.contains(&Attribute::Token(false)) && !half.contains(&Attribute::Token(true)));
            }
        }
    }
}
