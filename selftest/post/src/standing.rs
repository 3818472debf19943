//! How far this machine's cryptography is validated. Nothing here may claim more than a certificate says.

use serde::{Deserialize, Serialize};

/// A level of validation; a whole is never better than its worst part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FipsStanding {
    /// No certificate covers it.
    Unvalidated,
    /// A certificate covers the product, but not this version, this build or this environment of it.
    NotAsCertified,
    /// Exactly what the certificate names.
    Certified,
}

/// A certificate of the Cryptographic Module Validation Program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// Its number.
    pub number: u32,
    /// The module's name on it.
    pub module: &'static str,
    /// The version that it validates, as the module reports it.
    pub version: &'static str,
    /// Where it is published.
    pub url: &'static str,
}

/// The certificate of the module's static build (AWS-LC-FIPS v3): aws-lc-rs release note of 1.17.1,
/// <https://github.com/aws/aws-lc-rs/releases/tag/v1.17.1>.
pub const CERTIFICATE: Certificate = Certificate {
    number: 5314,
    module: "AWS-LC Cryptographic Module (static)",
    version: "AWS-LC FIPS 3.1.0",
    url: "https://csrc.nist.gov/projects/cryptographic-module-validation-program/certificate/5314",
};

/// How the module in this process stands to [`CERTIFICATE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CertificateClaim {
    /// What the module calls itself.
    pub reported_version: String,
    /// The certificate's number.
    pub certificate: u32,
    /// The module's name on the certificate.
    pub certificate_module: String,
    /// The version that the certificate validates.
    pub certificate_version: String,
    /// Where the certificate is published.
    pub certificate_url: String,
    /// Whether the two versions are the same.
    pub version_matches: bool,
    /// Standing of the version.
    pub version: FipsStanding,
    /// Standing of the build. The certificate's Security Policy (section 11.1) prescribes the unchanged source archive built
    /// by its own build files on a tested system; the crate aws-lc-fips-sys builds its copy with prefixed symbols.
    pub build: FipsStanding,
    /// Standing of the operating environment. Certified only for those that the Security Policy lists as tested; this
    /// machine is not held against that list, so it is never counted as one of them.
    pub operating_environment: FipsStanding,
}

impl CertificateClaim {
    /// The claim of a module that reports `version`; `is_fips` is whether it is a FIPS build at all.
    #[must_use]
    pub fn of(version: &str, is_fips: bool) -> Self {
        let version_matches = version == CERTIFICATE.version;
        Self {
            reported_version: version.to_owned(),
            certificate: CERTIFICATE.number,
            certificate_module: CERTIFICATE.module.to_owned(),
            certificate_version: CERTIFICATE.version.to_owned(),
            certificate_url: CERTIFICATE.url.to_owned(),
            version_matches,
            version: match (is_fips, version_matches) {
                (false, _) => FipsStanding::Unvalidated,
                (true, false) => FipsStanding::NotAsCertified,
                (true, true) => FipsStanding::Certified,
            },
            build: FipsStanding::NotAsCertified,
            operating_environment: FipsStanding::NotAsCertified,
        }
    }

    /// The claim of the module in this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::of(&crate::module_version(), crate::module::is_fips())
    }

    /// The lowest of its parts.
    #[must_use]
    pub fn standing(&self) -> FipsStanding {
        // Destructured, so that a new part does not compile until it is counted.
        let Self {
            reported_version: _,
            certificate: _,
            certificate_module: _,
            certificate_version: _,
            certificate_url: _,
            version_matches: _,
            version,
            build,
            operating_environment,
        } = self;
        (*version).min(*build).min(*operating_environment)
    }
}

/// How the token stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TokenStanding {
    /// Maker and model, as the token reports them.
    pub token: String,
    /// Its standing.
    pub standing: FipsStanding,
    /// Why.
    pub reason: String,
}

impl TokenStanding {
    /// The standing of a token that reports `manufacturer` and `model` (PKCS#11 `CK_TOKEN_INFO`, or the TPM's).
    ///
    /// Always [`FipsStanding::Unvalidated`]: SoftHSM and swtpm are programs without a certificate, and no certificate of any
    /// other token is recorded in Casemate yet.
    #[must_use]
    pub fn of(manufacturer: &str, model: &str) -> Self {
        let token = format!("{} {}", manufacturer.trim(), model.trim());
        let known = token.to_lowercase();
        let reason = if known.contains("softhsm") {
            "SoftHSM is a program that keeps keys in a file; it has no certificate"
        } else if known.contains("swtpm") {
            "swtpm is a program that plays a TPM; it has no certificate"
        } else {
            "no certificate of this token is recorded in Casemate"
        };
        Self { token, standing: FipsStanding::Unvalidated, reason: reason.to_owned() }
    }

    /// When no token could be asked.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            token: "unknown".to_owned(),
            standing: FipsStanding::Unvalidated,
            reason: "no token answered".to_owned(),
        }
    }
}

/// What `casemate selftest status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FipsStatus {
    /// The module.
    pub module: CertificateClaim,
    /// The token.
    pub token: TokenStanding,
    /// The lowest of all parts.
    pub whole: FipsStanding,
}

impl FipsStatus {
    /// Module and token together.
    #[must_use]
    pub fn of(module: CertificateClaim, token: TokenStanding) -> Self {
        let whole = module.standing().min(token.standing);
        Self { module, token, whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_module_is_not_the_certified_version_and_does_not_say_so() {
        let claim = CertificateClaim::of_this_process();
        assert_eq!(claim.reported_version, "AWS-LC FIPS 3.6.0");
        assert_eq!(claim.certificate_version, "AWS-LC FIPS 3.1.0");
        assert_eq!(claim.certificate, 5314);
        assert!(!claim.version_matches);
        assert_eq!(claim.standing(), FipsStanding::NotAsCertified);
    }

    #[test]
    fn even_the_certified_version_is_not_certified_in_this_build_and_place() {
        let claim = CertificateClaim::of(CERTIFICATE.version, true);
        assert!(claim.version_matches);
        assert_eq!(claim.version, FipsStanding::Certified);
        assert_eq!(claim.standing(), FipsStanding::NotAsCertified);
        assert_eq!(CertificateClaim::of(CERTIFICATE.version, false).standing(), FipsStanding::Unvalidated);
    }

    #[test]
    fn the_worst_part_decides() {
        let all = [FipsStanding::Unvalidated, FipsStanding::NotAsCertified, FipsStanding::Certified];
        for version in all {
            for build in all {
                for operating_environment in all {
                    let mut claim = CertificateClaim::of(CERTIFICATE.version, true);
                    (claim.version, claim.build, claim.operating_environment) = (version, build, operating_environment);
                    let worst = [version, build, operating_environment].into_iter().min().unwrap();
                    assert_eq!(claim.standing(), worst);
                }
            }
        }
    }

    #[test]
    fn a_token_in_software_makes_the_whole_unvalidated() {
        for (manufacturer, model) in [("SoftHSM project", "SoftHSM v2"), ("IBM", "swtpm"), ("ACME", "HSM 9000")] {
            let mut claim = CertificateClaim::of(CERTIFICATE.version, true);
            claim.build = FipsStanding::Certified;
            claim.operating_environment = FipsStanding::Certified;
            let status = FipsStatus::of(claim, TokenStanding::of(manufacturer, model));
            assert_eq!(status.whole, FipsStanding::Unvalidated, "{manufacturer} {model}");
        }
    }
}
