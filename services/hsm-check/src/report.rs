use std::collections::BTreeMap;

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyRole, SignatureRate, TokenInfo};
use serde::Serialize;

/// Everything that was found out; `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report {
    pub(crate) module: String,
    pub(crate) verdict: Verdict,
    pub(crate) token: TokenInfo,
    pub(crate) algorithms: Vec<Tried>,
    pub(crate) roles: Vec<Role>,
    /// The conformance suite.
    pub(crate) cases: Vec<Case>,
    /// Wycheproof.
    pub(crate) vectors: Vec<VectorSet>,
    pub(crate) quirks: Vec<String>,
    /// Lines of `[keyd.pkcs11]` that the module needs.
    pub(crate) settings: Vec<String>,
    /// Objects of the check that could not be removed.
    pub(crate) left: usize,
    /// Keys of checks of which this machine knows nothing, by their label.
    pub(crate) strange: BTreeMap<String, usize>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Every answer was right, and every role can live here.
    CarriesAll,
    /// Every answer was right, and some role cannot live here.
    CarriesSome,
    /// Some answer was wrong.
    Wrong,
}

impl Verdict {
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::CarriesAll => 0,
            Self::CarriesSome => 3,
            Self::Wrong => 4,
        }
    }
}

/// A key of one algorithm: made and measured, or not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Tried {
    pub(crate) algorithm: KeyAlgorithm,
    /// Why there is no such key.
    pub(crate) refused: Option<String>,
    /// It was made, and is wrong.
    pub(crate) is_wrong: bool,
    /// One signature after the other in one session.
    pub(crate) rate: Option<SignatureRate>,
    /// Why casemate-keyd, which does it with a temporary key, could not measure that.
    pub(crate) unmeasurable: Option<String>,
}

/// Whether the token can carry a role.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Role {
    pub(crate) role: KeyRole,
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) backup: Backup,
    /// Signatures a second that role-tokens.toml states.
    pub(crate) load: u32,
    pub(crate) carried: bool,
    /// Why not.
    pub(crate) reasons: Vec<String>,
}

/// One case of the suite.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Nothing if it concerns every key.
    pub(crate) algorithm: Option<KeyAlgorithm>,
    pub(crate) failure: Option<String>,
    pub(crate) milliseconds: u128,
}

/// One set of Wycheproof's vectors.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct VectorSet {
    pub(crate) set: String,
    pub(crate) algorithm: KeyAlgorithm,
    /// How many there are.
    pub(crate) vectors: usize,
    /// Before the judge of Casemate's own signatures, the FIPS module.
    pub(crate) casemate: Judged,
    /// Before `C_Verify`; nothing for ECDSA signatures in DER, which no token takes.
    pub(crate) token: Option<Judged>,
}

/// What a judge said of a set.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Judged {
    /// Vectors on which it said something.
    pub(crate) tried: usize,
    /// `tcId` of those that it took and must not.
    pub(crate) wrongly_taken: Vec<usize>,
    /// `tcId` of those that it must take and did not.
    pub(crate) wrongly_refused: Vec<usize>,
    /// Why a part was not tried.
    pub(crate) untried: Option<String>,
}

impl Judged {
    pub(crate) const fn is_right(&self) -> bool {
        self.wrongly_taken.is_empty() && self.wrongly_refused.is_empty()
    }
}

impl Report {
    /// What the parts come to. What a token does not offer is no wrong answer.
    pub(crate) fn judge(&self) -> Verdict {
        let Self { algorithms, roles, cases, vectors, left, module: _, verdict: _, token: _, .. } = self;
        let right = algorithms.iter().all(|tried| !tried.is_wrong)
            && cases.iter().all(|case| case.failure.is_none())
            && vectors.iter().all(|set| set.casemate.is_right() && set.token.as_ref().is_none_or(Judged::is_right))
            && *left == 0;
        match (right, roles.iter().all(|role| role.carried)) {
            (false, _) => Verdict::Wrong,
            (true, false) => Verdict::CarriesSome,
            (true, true) => Verdict::CarriesAll,
        }
    }
}
