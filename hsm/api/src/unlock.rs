use std::time::Duration;

/// How a token takes PINs again when too many wrong ones were tried, or one more would be too many. Its texts are for the operator,
/// and tell what this kind of token offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unlock {
    /// A PKCS#11 token counts for itself: a good login gives the tries back, and the security officer sets a new user PIN
    /// (`C_InitPIN`; PKCS#11 v2.40, 5.6).
    SecurityOfficer,
    /// A TPM counts the wrong authorizations of everybody who uses it. A good one gives nothing back: it forgets them one by one as time
    /// goes by, or all at once by `TPM2_DictionaryAttackLockReset` (TPM 2.0 part 1, 19.8).
    DictionaryLockout {
        /// In which time it forgets one (`TPM_PT_LOCKOUT_INTERVAL`), if that is known.
        forgets_one_in: Option<Duration>,
    },
}

/// Of the package tpm2-tools.
const CLEAR: &str = "the lockout authorization (tpm2_dictionarylockout --clear-lockout)";

impl Unlock {
    pub(crate) fn when_locked(self) -> String {
        match self {
            Self::SecurityOfficer => "the security officer must unlock it".to_owned(),
            Self::DictionaryLockout { .. } => {
                format!("its TPM had too many wrong authorizations: {}, or unlock it with {CLEAR}", self.wait())
            }
        }
    }

    pub(crate) fn at_last_try(self) -> String {
        match self {
            Self::SecurityOfficer => {
                "log in once with that PIN by another program (pkcs11-tool --login --list-objects), which \
                                      gives the tries back, or have the security officer set a new one"
                    .to_owned()
            }
            Self::DictionaryLockout { .. } => {
                format!("{}, or have all of them forgotten with {CLEAR}; a login gives none back", self.wait())
            }
        }
    }

    fn wait(self) -> String {
        match self {
            Self::DictionaryLockout { forgets_one_in: Some(time) } => {
                format!("wait until it forgets one, for which it has to run {} s", time.as_secs())
            }
            _ => "wait until it forgets one".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HsmError;

    #[test]
    fn what_is_to_be_done_is_what_the_kind_of_token_offers() {
        let told = |unlock| {
            let token = || "T1".to_owned();
            [HsmError::PinLocked { token: token(), unlock }, HsmError::PinLastTry { token: token(), unlock }]
                .map(|error| error.to_string())
        };
        for text in told(Unlock::SecurityOfficer) {
            assert!(text.contains("T1") && text.contains("security officer") && !text.contains("TPM"), "{text}");
        }
        let [locked, last] = told(Unlock::DictionaryLockout { forgets_one_in: Some(Duration::from_secs(600)) });
        for text in [&locked, &last] {
            assert!(text.contains("600 s") && text.contains("tpm2_dictionarylockout --clear-lockout"), "{text}");
            assert!(!text.contains("log in once") && !text.contains("security officer"), "{text}");
        }
        assert!(last.contains("nothing was tried") && last.contains("a login gives none back"), "{last}");
        for text in told(Unlock::DictionaryLockout { forgets_one_in: None }) {
            assert!(text.contains("wait until it forgets one, or"), "{text}");
        }
    }
}
