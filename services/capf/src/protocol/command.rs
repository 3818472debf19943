macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a message is (phone-formats §5). Those that Casemate neither sends nor takes are named so that a refusal can name
        /// them.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u8)]
        pub enum Command {
            $($(#[$doc])* $name = $number,)*
        }

        impl Command {
            /// The command of this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Server: who are you? Opens the session.
    AuthRequest = 1,
    /// Client: name and proof.
    AuthResponse = 2,
    /// Server: make a key pair of this kind.
    KeyGenRequest = 3,
    /// Client: the public key.
    KeyGenResponse = 4,
    /// Never seen on the wire.
    EncryptResponse = 5,
    /// Never seen on the wire.
    EncryptRequest = 6,
    /// Never seen on the wire.
    DecryptRequest = 7,
    /// Never seen on the wire.
    DecryptResponse = 8,
    /// Server: store this certificate.
    StoreCertRequest = 9,
    /// Client: stored, or not.
    StoreCertResponse = 10,
    /// Server: show your certificate.
    FetchCertRequest = 11,
    /// Client: the certificate.
    FetchCertResponse = 12,
    /// Server: delete your certificate.
    DeleteCertRequest = 13,
    /// Client: deleted, or not.
    DeleteCertResponse = 14,
    /// Server: the end, and why.
    EndSession = 15,
    /// Never seen on the wire.
    RetryLater = 16,
    /// Client: still making the key.
    RequestInProgress = 17,
    /// Never seen on the wire.
    StatusRequest = 18,
    /// Never seen on the wire.
    StatusResponse = 19,
    /// Never seen on the wire.
    AbortRequest = 20,
    /// Never seen on the wire.
    AbortResponse = 21,
    /// Never seen on the wire.
    SignCertRequest = 22,
    /// Never seen on the wire.
    SignCertResponse = 23,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_from_1_to_23_is_a_command_and_no_other() {
        for number in 0..=255 {
            assert_eq!(
                Command::from_number(number).map(|command| command as u8),
                (1..=23).contains(&number).then_some(number)
            );
        }
    }
}
