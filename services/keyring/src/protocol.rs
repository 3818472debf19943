use std::fmt;

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyRole, Pin, SignatureRate, SignatureScheme, TokenInfo};
use casemate_runtime::frame::Framing;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};

/// Longest message that is signed: 1 MiB, far above any trust list (64 kB, guide 2882) or configuration file.
pub const MESSAGE_LIMIT: usize = 1 << 20;

/// Longest nonce of an auditor, in bytes: what every TPM takes.
pub const NONCE_LIMIT: usize = 64;

/// Frames of the broker's socket: [`Request`] one way, [`Response`] the other, encoded by postcard. In version 1 a [`Status`] had
/// one token; in version 2 a role had one key, and it told neither mechanisms nor the keys that are not on record.
pub const FRAMING: Framing = Framing { version: 3, limit: MESSAGE_LIMIT + 4096 };

/// What a caller asks of the broker.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// The tokens and every recorded key. Any known caller.
    Status,
    /// Make the key of `role` as the key policy specifies, or say which one is recorded already. certmgr alone, while it
    /// provisions.
    Generate {
        /// Whose key.
        role: KeyRole,
    },
    /// Make the next key of `role` in the token that `role-tokens.toml` names for it, beside the key that serves, or say which
    /// one is recorded already. Both sign until [`Request::Retire`]. certmgr alone, while an operator re-keys.
    Rekey {
        /// Whose key.
        role: KeyRole,
    },
    /// Have the key of `role` sign nothing any more, and its next key be the key. It stays in its token and on record. certmgr
    /// alone. May be asked again.
    Retire {
        /// Whose key.
        role: KeyRole,
        /// [`KeyRecord::fingerprint`] of the key that is retired.
        fingerprint: String,
    },
    /// A recorded key of `role`. Any caller that may use it.
    Key {
        /// Whose key.
        role: KeyRole,
        /// [`KeyRecord::fingerprint`] of the one that is meant, while there are two; without it, the one that is not the next.
        fingerprint: Option<String>,
    },
    /// Sign a message.
    Sign(SignRequest),
    /// A token's statement that the key of `role` was made in it and cannot leave it. An operator alone: root, or the user `admin`.
    Attest {
        /// Whose key.
        role: KeyRole,
        /// The auditor's, at most [`NONCE_LIMIT`] bytes.
        nonce: Vec<u8>,
    },
    /// What an auditor makes a challenge of, before he believes a token's statements. An operator alone.
    AttestationKey {
        /// The token's name in `role-tokens.toml`.
        token: String,
    },
    /// Have a token answer an auditor's challenge. An operator alone.
    AnswerChallenge {
        /// The token's name in `role-tokens.toml`.
        token: String,
        /// The challenge as the auditor's program wrote it.
        challenge: String,
    },
    /// Give a token another user PIN. An operator alone.
    ChangePin {
        /// The token's name in `role-tokens.toml`; may be left out where there is one.
        token: Option<String>,
        /// The new PIN. The old one is in the PIN file.
        pin: NewPin,
    },
}

/// A PIN on its way to the broker: a string on the wire, and in locked memory before and after.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewPin(pub Pin);

impl Serialize for NewPin {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for NewPin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Straight)
    }
}

/// Takes the text out of the frame, with no copy in between.
struct Straight;

impl Visitor<'_> for Straight {
    type Value = NewPin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a PIN")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<NewPin, E> {
        Pin::new(text).map(NewPin).map_err(E::custom)
    }
}

/// A message to be signed, with what it is for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SignRequest {
    /// Whose key.
    pub role: KeyRole,
    /// [`KeyRecord::fingerprint`] of the one that is meant, while there are two; without it, the one that is not the next.
    pub key: Option<String>,
    /// With which algorithm.
    pub scheme: SignatureScheme,
    /// What the message is. The broker parses it as that and refuses what does not fit.
    pub purpose: Purpose,
    /// The whole message, before hashing.
    pub message: Vec<u8>,
}

/// What a message is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Purpose {
    /// A `TBSCertificate` (RFC 5280, 4.1) for the key itself, signed by itself.
    SelfSigned,
    /// A `CertificationRequestInfo` (RFC 2986, 4.1) for the key itself.
    CertificateRequest,
    /// A `TBSCertificate` of a phone's LSC.
    DeviceCertificate {
        /// The device that the operation names; the certificate must name it and nothing else.
        device: String,
        /// The CAPF operation, for the audit trail.
        operation: i64,
    },
    /// A trust list without its signature (phone-formats, 1 and 2).
    TrustList,
    /// A signed file without its signature (phone-formats, 3).
    File {
        /// The name that the file's header must carry.
        name: String,
    },
    /// What a TLS server signs: RFC 8446, 4.4.3, or RFC 8422, 5.4.
    TlsHandshake,
}

impl Purpose {
    /// The word of the key policy and of the audit trail.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SelfSigned => "self-signed",
            Self::CertificateRequest => "certificate-request",
            Self::DeviceCertificate { .. } => "device-certificate",
            Self::TrustList => "trust-list",
            Self::File { .. } => "file",
            Self::TlsHandshake => "tls-handshake",
        }
    }
}

/// What the broker answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Key`].
    Key(KeyRecord),
    /// To [`Request::Generate`] and [`Request::Rekey`].
    Generated {
        /// The key that is recorded now.
        key: KeyRecord,
        /// Whether this request made it (or finished an interrupted making).
        made: bool,
    },
    /// To [`Request::Sign`]: RSA as long as the modulus, ECDSA as DER.
    Signature(Vec<u8>),
    /// Nothing was signed, made or retired.
    Refused(Refusal),
    /// To [`Request::Attest`], [`Request::AttestationKey`] and [`Request::AnswerChallenge`].
    Evidence(Evidence),
    /// To [`Request::Retire`]: the key that signs nothing any more.
    Retired(KeyRecord),
    /// To [`Request::ChangePin`].
    PinChanged {
        /// The token's name in `role-tokens.toml`.
        token: String,
        /// Its serial number.
        serial: String,
    },
}

/// What a token has to say to an auditor of its keys.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Evidence {
    /// A JSON document of `hsm/attest`, as the token gave it: the broker does not judge it, for the auditor would not believe the
    /// broker.
    Document(String),
    /// Nothing, and why.
    Unproven(String),
}

/// Why nothing was signed or made. The variant says whether waiting helps.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The key policy does not let this caller do this, or the message does not fit its purpose. Never tried again.
    #[error("refused by the key policy: {0}")]
    Policy(String),
    /// The token is absent, busy or slow; ask again later.
    #[error("the token does not answer: {0}")]
    Unavailable(String),
    /// The key is recorded and not on its token, or was never made.
    #[error("{0}")]
    KeyMissing(String),
    /// The token gave a wrong answer once, or the PIN is refused: a person must act.
    #[error("the key broker is out of service: {0}")]
    OutOfService(String),
    /// The token failed in this one call.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// Whether the same request may succeed later without anybody acting.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Where a token stands, or the broker: that is where the worst of its tokens stands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerState {
    /// The token passed its test and signs.
    Serving,
    /// The token is absent; the broker looks for it.
    Waiting(String),
    /// A person must act: wrong PIN, locked token, wrong answer.
    OutOfService(String),
}

/// A key that is on record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyRecord {
    /// Whose key.
    pub role: KeyRole,
    /// Kind and size.
    pub algorithm: KeyAlgorithm,
    /// Whether it may leave the token.
    pub backup: Backup,
    /// `CKA_ID`, hexadecimal.
    pub key_id: String,
    /// Serial of the token that made it.
    pub token: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`, hexadecimal.
    pub fingerprint: String,
    /// DER `SubjectPublicKeyInfo`.
    pub spki_der: Vec<u8>,
}

/// So many keys that are not on record are told of a token.
pub const UNRECORDED_LIMIT: usize = 64;

/// A key pair on a token that is not on record: it belongs to another program, or a person has to look.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnrecordedKey {
    /// `CKA_LABEL`, the beginning of a long one.
    pub label: String,
    /// `CKA_ID` in hexadecimal.
    pub key_id: String,
    /// Kind and size.
    pub algorithm: KeyAlgorithm,
}

/// A token, and what lives in it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenStatus {
    /// Its name in `role-tokens.toml`: `tpm`, or a PKCS#11 URI.
    pub name: String,
    /// Where it stands.
    pub state: BrokerState,
    /// What it says of itself, while it is there.
    pub info: Option<TokenInfo>,
    /// Key pairs on it, and how many of them are on record; nothing while it is absent.
    pub pairs: Option<(usize, usize)>,
    /// Those that are not, [`UNRECORDED_LIMIT`] of them at most.
    pub unrecorded: Vec<UnrecordedKey>,
    /// How fast it was found to sign, for each algorithm that was measured.
    pub rates: Vec<(KeyAlgorithm, SignatureRate)>,
    /// The roles whose keys live in it.
    pub roles: Vec<KeyRole>,
}

/// The broker, its tokens and its keys.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Where it stands.
    pub state: BrokerState,
    /// Every token that is named for a role.
    pub tokens: Vec<TokenStatus>,
    /// Every recorded key, with whether it is on its token now (unknown while that is absent).
    pub keys: Vec<(KeyRecord, Option<bool>)>,
    /// The next key of each role that is being re-keyed, likewise.
    pub next: Vec<(KeyRecord, Option<bool>)>,
    /// Keys that sign nothing any more, oldest first. Nobody looks whether they are still in their tokens.
    pub retired: Vec<KeyRecord>,
    /// The number of the last line of the broker's own record (`casemate_audit::NUMBER`); 0 while it has none.
    pub recorded: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_pin_survives_the_wire_and_is_not_printed() {
        /// Of the variant, by which postcard names it.
        const NUMBER: u8 = 9;
        let request = Request::ChangePin { token: None, pin: NewPin(Pin::new("864209").unwrap()) };
        let frame = FRAMING.encode(&request).unwrap();
        assert_eq!(FRAMING.decode::<Request>(&frame[4..]).unwrap(), request);
        assert!(!format!("{request:?}").contains("864209"));
        // A line's end would make two PINs of one, in the file.
        let frame = FRAMING.encode(&(NUMBER, None::<String>, "864\n209")).unwrap();
        assert!(FRAMING.decode::<Request>(&frame[4..]).is_err());
        let frame = FRAMING.encode(&(NUMBER, None::<String>, "864209")).unwrap();
        assert_eq!(FRAMING.decode::<Request>(&frame[4..]).unwrap(), request);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes: Vec<u8>) {
            let _ = FRAMING.decode::<Request>(&bytes);
            let _ = FRAMING.decode::<Response>(&bytes);
        }

        #[test]
        fn a_sign_request_survives_the_wire(message: Vec<u8>, device in "[A-Z0-9]{1,15}", operation: i64) {
            let request = Request::Sign(SignRequest {
                role: KeyRole::Capf,
                key: None,
                scheme: SignatureScheme::RsaPkcs1Sha256,
                purpose: Purpose::DeviceCertificate { device, operation },
                message,
            });
            let frame = FRAMING.encode(&request).unwrap();
            prop_assert_eq!(FRAMING.decode::<Request>(&frame[4..]).unwrap(), request);
        }
    }
}
