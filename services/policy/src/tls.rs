use std::sync::Arc;

use casemate_post::Passed;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache},
};

use crate::Mode;

/// A TLS profile could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// rustls refused the profile: a suite and a group of it do not fit together. A defect of this build.
    #[error("the TLS profile of {mode} mode is not usable: {source}")]
    Profile {
        /// The mode.
        mode: Mode,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// rustls does not count the profile as FIPS: a part of it runs outside the module. A defect of this build.
    #[error("the TLS profile of fips mode has a part outside the FIPS module")]
    NotFips,
}

/// How TLS servers of one mode speak: TLS 1.2 and 1.3, ECDHE on P-256 and P-384, AES-GCM (SP 800-52r2, 3.3.1; guide 2028-2031
/// as decided in `guide-contradictions.md`). It exists only after the self-tests passed.
#[derive(Clone)]
pub struct TlsProfile {
    mode: Mode,
    provider: Arc<CryptoProvider>,
}

impl TlsProfile {
    /// The profile of `mode`.
    #[must_use]
    pub fn new(_passed: &Passed, mode: Mode) -> Self {
        let provider = CryptoProvider {
            cipher_suites: vec![
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
                aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ],
            kx_groups: vec![aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1],
            ..aws_lc_rs::default_provider()
        };
        Self { mode, provider: Arc::new(provider) }
    }

    /// A server that asks for no client certificate, whose certificate and key come from `certificates`, and that remembers
    /// `sessions` sessions so that a returning peer costs no private-key use; with 0 it gives out no tickets either.
    ///
    /// # Errors
    /// Only a build whose parts do not fit together fails here.
    pub fn server(
        &self,
        certificates: Arc<dyn ResolvesServerCert>,
        sessions: usize,
    ) -> Result<Arc<ServerConfig>, PolicyError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| PolicyError::Profile { mode: self.mode, source })?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        if sessions == 0 {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.session_storage = ServerSessionMemoryCache::new(sessions);
        }
        // RFC 7627: without it TLS 1.2 keys are not bound to the handshake, and IG D.Q of FIPS 140-3 asks for it.
        config.require_ems = self.mode == Mode::Fips;
        if self.mode == Mode::Fips && !config.fips() {
            return Err(PolicyError::NotFips);
        }
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use rustls::{server::ClientHello, sign::CertifiedKey};

    use super::*;

    #[derive(Debug)]
    struct NoCertificate;

    impl ResolvesServerCert for NoCertificate {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    #[test]
    fn fips_mode_is_fips_throughout_and_asks_for_the_extended_master_secret() {
        let passed = Passed::testing();
        let config = TlsProfile::new(&passed, Mode::Fips).server(Arc::new(NoCertificate), 16).unwrap();
        assert!(config.fips());
        assert!(config.require_ems);
    }

    #[test]
    fn tickets_are_given_out_only_where_sessions_are_remembered() {
        let profile = TlsProfile::new(&Passed::testing(), Mode::Fips);
        let tickets = |sessions| {
            let config = profile.server(Arc::new(NoCertificate), sessions).unwrap();
            (config.session_storage.can_cache(), config.send_tls13_tickets > 0)
        };
        assert_eq!((tickets(0), tickets(16)), ((false, false), (true, true)));
    }

    #[test]
    fn outside_fips_the_extended_master_secret_is_optional() {
        let passed = Passed::testing();
        let config = TlsProfile::new(&passed, Mode::NonFips).server(Arc::new(NoCertificate), 16).unwrap();
        assert!(!config.require_ems);
    }
}
