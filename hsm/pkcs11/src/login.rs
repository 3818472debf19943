use casemate_hsm_api::{HsmError, Pin, Unlock};
use casemate_hsm_pin::{NextPin, PinError, Refusals, Verdict, WrittenPin};
use cryptoki::{
    error::{Error, RvError},
    session::{Session, UserType},
    slot::TokenInfo as Described,
    types::AuthPin,
};

use crate::{Pkcs11Error, error::classify};

/// The PIN of the PIN file, and that of a change whose end is unknown.
pub(crate) struct Pins {
    pub(crate) file: WrittenPin,
    pub(crate) next: Option<WrittenPin>,
}

/// Which PIN is the token's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taken {
    File,
    Next,
    /// Somebody of this process is logged in, by whichever PIN.
    Either,
}

/// The token before a login: `again` describes it anew after a failure, `unresolved_logins` is the limit of [`Refusals::verdict`].
pub(crate) struct Door<'a, A> {
    pub(crate) session: &'a Session,
    pub(crate) again: A,
    pub(crate) refusals: &'a Refusals,
    pub(crate) unresolved_logins: u32,
}

impl<A: Fn() -> Result<Described, HsmError>> Door<'_, A> {
    /// Logs in, and ends a change of the PIN that was interrupted.
    ///
    /// What a killed change leaves, and what is done then:
    ///
    /// | `<pin-file>.new` | the record of its logins | first | if that is refused |
    /// |------------------|--------------------------|-------|--------------------|
    /// | none | | PIN file | out of service |
    /// | there | none | new PIN | PIN file |
    /// | there | unresolved (killed within its login) | PIN file | new PIN again |
    /// | there | refused | PIN file | out of service |
    ///
    /// One of the two is the token's, so one try is lost at most, and one more for each kill within a login; the token's warning
    /// of its last try stops everything.
    pub(crate) fn enter(&self, pins: &Pins, files: &NextPin) -> Result<(), Pkcs11Error> {
        let Some(next) = &pins.next else {
            let described = (self.again)()?;
            let since = described.user_pin_count_low();
            return self.attempt(&described, &pins.file, self.refusals, since).map(drop);
        };
        let own = self.refusals.of_next();
        match self.find_out(&pins.file, next, &own)? {
            Taken::File => own.forget().and_then(|()| files.discard())?,
            Taken::Next => self.refusals.forget().and_then(|()| files.adopt())?,
            Taken::Either => {}
        }
        Ok(())
    }

    /// Logs in with one of the two.
    fn find_out(&self, file: &WrittenPin, next: &WrittenPin, own: &Refusals) -> Result<Taken, Pkcs11Error> {
        // The token's memory of a refused PIN (CKF_USER_PIN_COUNT_LOW) is no word on one of the two: it was probably the other.
        let attempt = |pin: &WrittenPin, refusals: &Refusals, taken: Taken| {
            let proven = self.attempt(&(self.again)()?, pin, refusals, false)?;
            Ok(if proven { taken } else { Taken::Either })
        };
        let before = own.verdict(next, false, self.unresolved_logins)?;
        if before == Verdict::Try(0) {
            match attempt(next, own, Taken::Next) {
                Err(Pkcs11Error::Hsm(HsmError::PinIncorrect { .. })) => {}
                other => return other,
            }
        }
        match attempt(file, self.refusals, Taken::File) {
            Err(Pkcs11Error::Hsm(HsmError::PinIncorrect { .. } | HsmError::PinRefusedBefore { .. }))
                if matches!(before, Verdict::Try(1..) | Verdict::Unresolved(_)) =>
            {
                attempt(next, own, Taken::Next)
            }
            other => other,
        }
    }

    /// Logs in, once, if the PIN may be tried at all; whether the token looked at it. The order is what protects the token: its own
    /// warnings and our memory of refused PINs, then the mark on disk, and only then `C_Login`. `since` is that of
    /// [`Refusals::verdict`].
    fn attempt(
        &self,
        described: &Described,
        pin: &WrittenPin,
        refusals: &Refusals,
        since: bool,
    ) -> Result<bool, Pkcs11Error> {
        let token = described.serial_number().trim().to_owned();
        let unresolved = may_be_tried(described, pin, refusals, since, self.unresolved_logins)?;
        let mark = refusals.mark(pin, unresolved)?;
        let Err(error) = self.session.login(UserType::User, Some(&auth(&pin.pin))) else {
            return Ok(mark.clear().map(|()| true)?);
        };
        if matches!(error, Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) {
            return Ok(mark.clear().map(|()| false)?);
        }
        let told = classify(&token, &error);
        match told {
            // The PIN was looked at and refused.
            HsmError::PinIncorrect { .. } => mark.refused()?,
            // It was not looked at: there is no token, or it takes no PIN any more.
            HsmError::TokenAbsent { .. } | HsmError::PinLocked { .. } => mark.clear()?,
            // Some other answer, which is no refusal unless the token has counted one.
            _ if (self.again)().is_ok_and(|described| !described.user_pin_count_low()) => mark.clear()?,
            // Nobody knows. The mark stays and counts.
            _ => drop(mark),
        }
        Err(told.into())
    }

    /// Gives the token the PIN `new`, which is on disk before the token sees it: [`Door::enter`] says what becomes of it if the
    /// process dies within. The old one is marked as for a login, so that one which is not the token's any more is tried once.
    pub(crate) fn change(&self, old: &WrittenPin, new: &Pin, files: &NextPin) -> Result<(), Pkcs11Error> {
        let described = (self.again)()?;
        let token = described.serial_number().trim().to_owned();
        let refused = |operation: String| HsmError::Unsupported { token: token.clone(), operation };
        let (least, most) = (described.min_pin_length(), described.max_pin_length());
        // kryoptic says 0 for no limit, as PKCS#11 has it of other numbers (CK_EFFECTIVELY_INFINITE).
        let is_too_long = most != 0 && new.expose().len() > most;
        if new.expose().len() < least || is_too_long {
            let most = if most == 0 { "any number of".to_owned() } else { most.to_string() };
            return Err(refused(format!("such a PIN; it takes {least} to {most} bytes")).into());
        }
        let since = described.user_pin_count_low();
        let unresolved = may_be_tried(&described, old, self.refusals, since, self.unresolved_logins)?;
        let mark = self.refusals.mark(old, unresolved)?;
        if let Err(error) = files.stage(new) {
            mark.clear()?;
            return Err(error.into());
        }
        let Err(error) = self.session.set_pin(&auth(&old.pin), &auth(new)) else {
            return Ok(mark.clear().and_then(|()| files.adopt())?);
        };
        let told = match &error {
            Error::Pkcs11(value @ (RvError::PinInvalid | RvError::PinLenRange), _) => {
                refused(format!("such a PIN ({value:?})"))
            }
            error => classify(&token, error),
        };
        // The token says that it has the old one still; after any other error nobody knows, and the next login finds out.
        let kept: Result<(), PinError> = match told {
            HsmError::PinIncorrect { .. } => mark.refused().and_then(|()| files.discard()),
            HsmError::Unsupported { .. } | HsmError::PinLocked { .. } => mark.clear().and_then(|()| files.discard()),
            _ => {
                drop(mark);
                Ok(())
            }
        };
        kept?;
        Err(told.into())
    }
}

/// How many logins with `pin` ended unresolved before this one, if it may be tried.
fn may_be_tried(
    described: &Described,
    pin: &WrittenPin,
    refusals: &Refusals,
    since: bool,
    limit: u32,
) -> Result<u32, Pkcs11Error> {
    let token = described.serial_number().trim().to_owned();
    if described.user_pin_locked() {
        return Err(HsmError::PinLocked { token, unlock: Unlock::SecurityOfficer }.into());
    }
    let unresolved = match refusals.verdict(pin, since, limit)? {
        Verdict::Refused => return Err(HsmError::PinRefusedBefore { token }.into()),
        Verdict::Unresolved(logins) => return Err(HsmError::PinUnresolved { token, logins }.into()),
        Verdict::Try(unresolved) => unresolved,
    };
    if described.user_pin_final_try() {
        return Err(HsmError::PinLastTry { token, unlock: Unlock::SecurityOfficer }.into());
    }
    Ok(unresolved)
}

/// The PIN as the library takes it: a copy that it wipes. This one and the module's own are outside of locked memory, as long as
/// the call takes; a unit with `MemorySwapMax=0` keeps them out of the swap as well.
fn auth(pin: &Pin) -> AuthPin {
    AuthPin::new(pin.expose().into())
}
