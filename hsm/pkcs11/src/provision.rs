use std::path::Path;

use casemate_hsm_api::{HsmError, Pin};
use cryptoki::{session::UserType, types::AuthPin};

use crate::{Pkcs11Error, error::classify, module};

/// Makes a token of the first empty slot and gives it its two PINs; returns the serial number. An initialised token is never
/// touched, whatever it is called.
///
/// # Errors
/// [`Pkcs11Error::AlreadyOpen`] while a store uses the module; [`HsmError::TokenAbsent`] when no slot holds an empty token.
pub fn init_token(module: &Path, label: &str, so_pin: &Pin, user_pin: &Pin) -> Result<String, Pkcs11Error> {
    let lease = module::lease(module)?;
    let done = init(lease.context(), label, so_pin, user_pin);
    lease.release();
    Ok(done?)
}

fn init(context: &cryptoki::context::Pkcs11, label: &str, so_pin: &Pin, user_pin: &Pin) -> Result<String, HsmError> {
    let failed = |error: cryptoki::error::Error| classify(label, &error);
    let mut empty = None;
    for slot in context.get_slots_with_token().map_err(failed)? {
        if !context.get_token_info(slot).map_err(failed)?.token_initialized() {
            empty = Some(slot);
            break;
        }
    }
    let slot = empty.ok_or_else(|| HsmError::TokenAbsent {
        token: label.to_owned(),
        detail: "no slot holds an empty token".to_owned(),
    })?;
    let so_pin = AuthPin::new(so_pin.expose().into());
    context.init_token(slot, &so_pin, label).map_err(failed)?;
    let session = context.open_rw_session(slot).map_err(failed)?;
    session.login(UserType::So, Some(&so_pin)).map_err(failed)?;
    session.init_pin(&AuthPin::new(user_pin.expose().into())).map_err(failed)?;
    session.logout().map_err(failed)?;
    Ok(context.get_token_info(slot).map_err(failed)?.serial_number().trim().to_owned())
}
