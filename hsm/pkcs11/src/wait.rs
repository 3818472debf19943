use std::{ops::ControlFlow, time::Duration};

use casemate_hsm_api::HsmError;

use crate::{Backoff, Pkcs11Error};

/// Repeats `attempt` (opening a store, or connecting it again) while the token is absent, silent or busy; anything else ends
/// it at once, above all a refused PIN. Between two tries `pause` is told why and how long to wait; it does the waiting, and
/// breaks off when the process is to stop.
///
/// # Errors
/// The attempt's own error when it is no absence, or when `pause` broke off.
pub fn wait_for_token<T>(
    backoff: Backoff,
    mut attempt: impl FnMut() -> Result<T, Pkcs11Error>,
    mut pause: impl FnMut(&HsmError, Duration) -> ControlFlow<()>,
) -> Result<T, Pkcs11Error> {
    let mut waits = backoff.waits();
    loop {
        let error = match attempt() {
            Err(Pkcs11Error::Hsm(error)) if error.is_absence() => error,
            done => return done,
        };
        let wait = waits.next().unwrap_or_default();
        if pause(&error, wait).is_break() {
            return Err(error.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent() -> Pkcs11Error {
        HsmError::TokenAbsent { token: "t".into(), detail: "no slot".into() }.into()
    }

    #[test]
    fn absence_is_waited_out_with_growing_pauses() {
        let mut left = 3;
        let mut pauses = Vec::new();
        let found = wait_for_token(
            Backoff { first_ms: 1, limit_ms: 2 },
            || {
                left -= 1;
                if left == 0 { Ok("token") } else { Err(absent()) }
            },
            |_, wait| {
                pauses.push(wait.as_millis());
                ControlFlow::Continue(())
            },
        );
        assert_eq!(found.unwrap(), "token");
        assert_eq!(pauses, [1, 2]);
    }

    #[test]
    fn a_refused_pin_is_never_waited_out() {
        let mut tries = 0;
        let refused = wait_for_token(
            Backoff::default(),
            || -> Result<(), _> {
                tries += 1;
                Err(HsmError::PinIncorrect { token: "t".into() }.into())
            },
            |_, _| ControlFlow::Continue(()),
        );
        assert!(matches!(refused, Err(Pkcs11Error::Hsm(HsmError::PinIncorrect { .. }))));
        assert_eq!(tries, 1);
    }

    #[test]
    fn a_process_that_stops_does_not_wait_on() {
        let stopped = wait_for_token(Backoff::default(), || Err::<(), _>(absent()), |_, _| ControlFlow::Break(()));
        assert!(stopped.unwrap_err().hsm().unwrap().is_absence());
    }
}
