use casemate_hsm_api::HsmError;
use casemate_hsm_pin::{Refusals, Verdict, WrittenPin};
use cryptoki::{
    error::{Error, RvError},
    session::{Session, UserType},
    slot::TokenInfo as Described,
    types::AuthPin,
};

use crate::{Pkcs11Error, error::classify};

/// Logs in, once, if the PIN may be tried at all. The order is what protects the token: its own warnings and our memory of
/// refused PINs, then the mark on disk, and only then `C_Login`. `again` describes the token anew after a failure;
/// `unresolved_logins` is the limit of [`Refusals::verdict`].
pub(crate) fn login(
    session: &Session,
    described: &Described,
    again: impl FnOnce() -> Result<Described, HsmError>,
    pin: &WrittenPin,
    refusals: &Refusals,
    unresolved_logins: u32,
) -> Result<(), Pkcs11Error> {
    let token = described.serial_number().trim().to_owned();
    if described.user_pin_locked() {
        return Err(HsmError::PinLocked { token }.into());
    }
    let unresolved = match refusals.verdict(pin, described.user_pin_count_low(), unresolved_logins)? {
        Verdict::Refused => return Err(HsmError::PinRefusedBefore { token }.into()),
        Verdict::Unresolved(logins) => return Err(HsmError::PinUnresolved { token, logins }.into()),
        Verdict::Try(unresolved) => unresolved,
    };
    if described.user_pin_final_try() {
        return Err(HsmError::PinLastTry { token }.into());
    }
    let mark = refusals.mark(pin, unresolved)?;
    let auth = AuthPin::new(pin.pin.expose().into());
    let Err(error) = session.login(UserType::User, Some(&auth)) else { return Ok(mark.clear()?) };
    if matches!(error, Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) {
        return Ok(mark.clear()?);
    }
    let told = classify(&token, &error);
    match told {
        // The PIN was looked at and refused.
        HsmError::PinIncorrect { .. } => mark.refused()?,
        // It was not looked at: there is no token, or it takes no PIN any more.
        HsmError::TokenAbsent { .. } | HsmError::PinLocked { .. } => mark.clear()?,
        // Some other answer, which is no refusal unless the token has counted one.
        _ if again().is_ok_and(|described| !described.user_pin_count_low()) => mark.clear()?,
        // Nobody knows. The mark stays and counts.
        _ => drop(mark),
    }
    Err(told.into())
}
