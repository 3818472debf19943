//! The install flow as a state machine: messages and keys in, actions out, no IO.

use super::message::{Command, Message, malformed, tag, with_nul};
use super::{AuthString, DECLINED, NO_ACTION, SUCCESS};
use crate::error::{PhoneError, Result};
use crate::identity::KeySpec;
use crate::tlv::{byte, short};

/// The newest version of the protocol; what a server offers first.
pub const NEWEST_VERSION: u8 = 3;
const WHAT: &str = "CAPF message";
/// Authentication type 1: by string.
const AUTH_BY_STRING: u8 = 1;
/// Certificate type 1: LSC.
const LSC: u8 = 1;

/// What to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Message),
    /// Make or take a key, then call [`Session::on_key`].
    NeedKey(KeySpec),
    /// Check this certificate (DER), then call [`Session::on_checked`].
    Check(Vec<u8>),
    /// The server asks for patience.
    Wait,
    /// The server ended the session: with a certificate delivered, or with nothing to do.
    Finished {
        /// Whether a certificate was delivered and acknowledged.
        installed: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    AuthRequest,
    KeyGenRequest,
    StoreCertRequest,
    EndSession,
}

impl Waiting {
    fn name(self) -> &'static str {
        match self {
            Self::AuthRequest => "an authentication request",
            Self::KeyGenRequest => "a key request or the end",
            Self::StoreCertRequest => "its certificate",
            Self::EndSession => "the end of the session",
        }
    }
}

/// One session of a phone that wants a certificate.
#[derive(Debug)]
pub struct Session {
    waiting: Waiting,
    id: Option<u32>,
    device: String,
    auth: Option<AuthString>,
    version: u8,
    ec_allowed: bool,
}

impl Session {
    /// A session that has not begun: the server speaks first.
    ///
    /// `version` is the newest that the phone speaks, 1 to 3; `ec_allowed` says whether the trust list has signer version
    /// 1.1. Without `auth` the phone sends no string.
    #[must_use]
    pub fn new(device: &str, auth: Option<AuthString>, version: u8, ec_allowed: bool) -> Self {
        Self { waiting: Waiting::AuthRequest, id: None, device: device.to_owned(), auth, version, ec_allowed }
    }

    /// Takes the server's next message.
    ///
    /// # Errors
    /// [`PhoneError::CapfOutOfOrder`], [`PhoneError::CapfEnded`], [`PhoneError::KeyRequest`], and
    /// [`PhoneError::Malformed`], also when the message belongs to another session.
    pub fn on_message(&mut self, message: &Message) -> Result<Action> {
        if *self.id.get_or_insert(message.session) != message.session {
            return Err(malformed("it carries another session than the first one did"));
        }
        match (self.waiting, message.command) {
            (Waiting::AuthRequest, Command::AuthRequest) => self.on_auth_request(message),
            (Waiting::KeyGenRequest, Command::KeyGenRequest) => {
                self.waiting = Waiting::StoreCertRequest;
                self.key_spec(message).map(Action::NeedKey)
            }
            (Waiting::StoreCertRequest, Command::StoreCertRequest) => {
                if byte(WHAT, message.get(tag::CERT_TYPE).ok_or(malformed("no certificate type"))?)? != LSC {
                    return Err(malformed("the certificate's type is not LSC"));
                }
                self.waiting = Waiting::EndSession;
                Ok(Action::Check(message.certificate()?.to_vec()))
            }
            (waiting, Command::EndSession) => match (waiting, message.reason()?) {
                (Waiting::EndSession, SUCCESS) => Ok(Action::Finished { installed: true }),
                (Waiting::KeyGenRequest, NO_ACTION) => Ok(Action::Finished { installed: false }),
                (_, reason) => Err(PhoneError::CapfEnded { reason }),
            },
            (Waiting::KeyGenRequest | Waiting::StoreCertRequest | Waiting::EndSession, Command::RequestInProgress) => {
                Ok(Action::Wait)
            }
            (waiting, got) => Err(PhoneError::CapfOutOfOrder { got, expected: waiting.name() }),
        }
    }

    /// The message that tells the server to wait while the phone makes its key.
    #[must_use]
    pub fn in_progress(&self) -> Message {
        self.message(Command::RequestInProgress)
    }

    /// The answer to a key request. `spki` is a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn on_key(&self, spki: &[u8]) -> Message {
        self.message(Command::KeyGenResponse).with(tag::PUBLIC_KEY, spki)
    }

    /// The answer to a certificate: success only for one that was checked and kept.
    #[must_use]
    pub fn on_checked(&self, kept: bool) -> Message {
        let reason = if kept { SUCCESS } else { DECLINED };
        self.message(Command::StoreCertResponse).with(tag::REASON, [reason])
    }

    fn message(&self, command: Command) -> Message {
        Message::new(command, self.id.unwrap_or_default())
    }

    fn on_auth_request(&mut self, message: &Message) -> Result<Action> {
        let offered = byte(WHAT, message.get(tag::VERSION).ok_or(malformed("no protocol version"))?)?;
        if offered == 0 {
            return Err(malformed("protocol version 0"));
        }
        self.version = self.version.min(offered);
        let wants_string = match message.get(tag::AUTH_TYPE) {
            Some(kind) => byte(WHAT, kind)? == AUTH_BY_STRING,
            None => false,
        };
        if wants_string && self.auth.is_none() {
            return Err(PhoneError::Config("CAPF wants an authentication string and the phone has none".to_owned()));
        }
        let mut answer = self
            .message(Command::AuthResponse)
            .with(tag::REASON, [SUCCESS])
            .with(tag::VERSION, [self.version])
            .with(tag::DEVICE, with_nul(&self.device));
        if let Some(auth) = &self.auth {
            answer = answer.with(tag::PASSWORD, with_nul(auth.reveal()));
        }
        self.waiting = Waiting::KeyGenRequest;
        Ok(Action::Send(answer))
    }

    fn key_spec(&self, message: &Message) -> Result<KeySpec> {
        let bits = message.get(tag::KEY_SIZE).map(|value| short(WHAT, value)).transpose()?;
        let kind = message.get(tag::KEY_TYPE).map(|value| byte(WHAT, value)).transpose()?;
        let curve = message.get(tag::CURVE).map(|value| byte(WHAT, value)).transpose()?;
        let spec = match (self.version, bits, kind, curve) {
            (NEWEST_VERSION.., Some(bits), Some(0), None) | (..NEWEST_VERSION, Some(bits), None, None) => {
                KeySpec::from_rsa_bits(bits)
            }
            (NEWEST_VERSION.., _, Some(1), Some(curve)) => KeySpec::from_curve(curve),
            _ => return Err(malformed("its key request has not the shape of this protocol version")),
        };
        let spec =
            spec.ok_or_else(|| PhoneError::KeyRequest("a size or curve that this phone does not make".into()))?;
        if spec.is_ec() && !self.ec_allowed {
            return Err(PhoneError::KeyRequest("an EC key, but the trust list's signer version is not 1.1".into()));
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth_request(version: u8) -> Message {
        Message::new(Command::AuthRequest, 7).with(tag::VERSION, [version]).with(tag::AUTH_TYPE, [0])
    }

    fn rsa_request() -> Message {
        Message::new(Command::KeyGenRequest, 7).with(tag::KEY_SIZE, 2048_u16.to_be_bytes())
    }

    fn begun(version: u8) -> Session {
        let mut session = Session::new("SEP001122334455", Some(AuthString::new("1234")), version, true);
        session.on_message(&auth_request(3)).unwrap();
        session
    }

    #[test]
    fn the_first_answer_says_who_calls() {
        let mut session = Session::new("SEP001122334455", Some(AuthString::new("1234")), 3, true);
        let Action::Send(answer) = session.on_message(&auth_request(3)).unwrap() else { panic!("no answer") };
        assert_eq!((answer.command, answer.session), (Command::AuthResponse, 7));
        assert_eq!(answer.get(tag::REASON), Some(&[1][..]));
        assert_eq!(answer.get(tag::VERSION), Some(&[3][..]));
        assert_eq!(answer.get(tag::DEVICE), Some(&b"SEP001122334455\0"[..]));
        assert_eq!(answer.get(tag::PASSWORD), Some(&b"1234\0"[..]));
        let mut silent = Session::new("SEP001122334455", None, 2, true);
        let Action::Send(answer) = silent.on_message(&auth_request(3)).unwrap() else { panic!("no answer") };
        assert_eq!((answer.get(tag::PASSWORD), answer.get(tag::VERSION)), (None, Some(&[2][..])));
    }

    #[test]
    fn key_requests_are_read_by_version() {
        let typed = rsa_request().with(tag::KEY_TYPE, [0]);
        let ec = Message::new(Command::KeyGenRequest, 7).with(tag::KEY_TYPE, [1]).with(tag::CURVE, [1]);
        assert_eq!(begun(3).on_message(&typed).unwrap(), Action::NeedKey(KeySpec::Rsa2048));
        assert_eq!(begun(2).on_message(&rsa_request()).unwrap(), Action::NeedKey(KeySpec::Rsa2048));
        assert_eq!(begun(1).on_message(&rsa_request()).unwrap(), Action::NeedKey(KeySpec::Rsa2048));
        assert_eq!(begun(3).on_message(&ec).unwrap(), Action::NeedKey(KeySpec::P384));
        assert!(begun(3).on_message(&rsa_request()).is_err());
        assert!(begun(2).on_message(&typed).is_err());
        assert!(begun(2).on_message(&ec).is_err());
        let mut old_list = Session::new("SEP001122334455", None, 3, false);
        old_list.on_message(&auth_request(3)).unwrap();
        assert!(matches!(old_list.on_message(&ec), Err(PhoneError::KeyRequest(_))));
        let short_key = typed.with(tag::KEY_SIZE, 1024_u16.to_be_bytes());
        assert!(matches!(begun(3).on_message(&short_key), Err(PhoneError::KeyRequest(_))));
    }

    #[test]
    fn the_order_is_the_protocols() {
        let end = |reason| Message::new(Command::EndSession, 7).with(tag::REASON, [reason]);
        let mut fresh = Session::new("SEP001122334455", None, 3, true);
        assert!(matches!(fresh.on_message(&rsa_request()), Err(PhoneError::CapfOutOfOrder { .. })));
        assert_eq!(begun(3).on_message(&end(0)).unwrap(), Action::Finished { installed: false });
        assert!(matches!(begun(3).on_message(&end(9)), Err(PhoneError::CapfEnded { reason: 9 })));
        // Success without a certificate is no success.
        assert!(matches!(begun(3).on_message(&end(1)), Err(PhoneError::CapfEnded { reason: 1 })));
        let other_session = Message::new(Command::KeyGenRequest, 8);
        assert!(matches!(begun(3).on_message(&other_session), Err(PhoneError::Malformed { .. })));
        assert!(matches!(begun(3).on_message(&auth_request(3)), Err(PhoneError::CapfOutOfOrder { .. })));
    }

    #[test]
    fn a_string_is_never_shown() {
        assert!(!format!("{:?}", begun(3)).contains("1234"));
    }
}
