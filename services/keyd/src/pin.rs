//! A new PIN for a token. The old one stands in the PIN file, which is keyd's own: so whoever asks need not know it, and is told
//! from others by the kernel.

use std::sync::Arc;

use casemate_audit::Event;
use casemate_hsm_api::{HsmError, Pin};
use casemate_keyring::Refusal;
use casemate_runtime::{control::Callers, peer::Peer};

use crate::{
    Broker,
    token::{Serving, Token, refusal},
};

impl Broker {
    /// Gives the token named `place`, or the only one, another PIN; its name and serial number.
    pub(crate) fn change_pin(&self, peer: Peer, place: Option<&str>, new: &Pin) -> Result<(String, String), Refusal> {
        let changed = self.token_for_operator(peer, place).and_then(|token| {
            self.has_its_own_file(token)?;
            let serving = token.serving()?;
            match token.store().change_pin(new) {
                Ok(()) => Ok((token.place().to_owned(), serving.serial.clone())),
                Err(error) => Err(refused(token, &serving, &error)),
            }
        });
        self.auditor.record(&match &changed {
            Ok((place, token)) => {
                Event::PinChanged { token: token.clone(), place: place.clone(), uid: peer.uid, pid: peer.pid }
            }
            Err(refusal) => Event::PinNotChanged {
                place: place.unwrap_or_default().to_owned(),
                uid: peer.uid,
                pid: peer.pid,
                reason: refusal.to_string(),
            },
        });
        changed
    }

    /// Refuses a token that shares its PIN file: the others would be without theirs.
    fn has_its_own_file(&self, token: &Token) -> Result<(), Refusal> {
        let shares = |other: &&Arc<Token>| other.place() != token.place() && other.pin_file() == token.pin_file();
        match self.tokens.iter().find(shares) {
            Some(other) => Err(Refusal::Failed(format!(
                "{} and {} have one PIN file; give each its own (pin-source in role-tokens.toml), then change the PIN",
                token.place(),
                other.place()
            ))),
            None => Ok(()),
        }
    }

    fn token_for_operator(&self, peer: Peer, place: Option<&str>) -> Result<&Arc<Token>, Refusal> {
        if !Callers::root_and(&self.config, &["admin"]).include(peer) {
            let reason = format!("uid {} is no operator: neither root nor the user admin of [users]", peer.uid);
            return Err(Refusal::Policy(reason));
        }
        match place {
            Some(place) => self.tokens.named(place),
            None => self.tokens.only(),
        }
    }
}

/// What the operator is told. A PIN that was refused does not end the service: the login still holds.
fn refused(token: &Token, serving: &Arc<Serving>, error: &HsmError) -> Refusal {
    match refusal(error) {
        Refusal::OutOfService(reason) if !error.is_error_state() => Refusal::Failed(reason),
        _ => token.failed(error, serving),
    }
}
