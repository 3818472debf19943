//! Which certificates are trusted, and in which roles.

use std::collections::HashMap;

use casemate_hsm_api::KeyRole;
use casemate_phonefile::Role;

/// The roles of an identity's certificate: those of its records in the trust list (guide 2810-2817, 2850-2858), and
/// application server for the certificates of the web pages (guide 2747).
#[must_use]
pub const fn roles_of(identity: KeyRole) -> &'static [Role] {
    match identity {
        KeyRole::CallManager => &[Role::Sast, Role::CcmTftp],
        KeyRole::CallManagerEcdsa => &[Role::Tftp],
        KeyRole::Capf => &[Role::Capf],
        KeyRole::Tvs => &[Role::Tvs],
        KeyRole::ItlRecovery => &[Role::Sast],
        KeyRole::Tomcat | KeyRole::TomcatEcdsa => &[Role::AppServer],
    }
}

/// A trusted certificate. Times are Unix seconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trusted {
    /// The whole certificate: what is compared.
    pub der: Vec<u8>,
    /// What it may be used for.
    pub roles: &'static [Role],
    /// First second of its validity.
    pub not_before: i64,
    /// Last second of its validity.
    pub not_after: i64,
}

/// What TVS thinks of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is trusted.
    Valid {
        /// In these roles.
        roles: Vec<Role>,
        /// And for so long at most.
        seconds_left: u32,
    },
    /// It is not in the store.
    Unknown,
    /// It is in the store, and expired or not valid yet.
    OutOfDate,
}

/// The trusted certificates of one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustStore(HashMap<Vec<u8>, (Vec<Role>, i64, i64)>);

impl TrustStore {
    /// A store of `certificates`. One that is there twice has the roles of both.
    #[must_use]
    pub fn new(certificates: impl IntoIterator<Item = Trusted>) -> Self {
        let mut store = HashMap::new();
        for Trusted { der, roles, not_before, not_after } in certificates {
            let (known, _, _) = store.entry(der).or_insert_with(|| (Vec::new(), not_before, not_after));
            known.extend_from_slice(roles);
            known.sort_unstable_by_key(|role| role.number());
            known.dedup();
        }
        Self(store)
    }

    /// How many certificates are trusted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What to think of the certificate `der` at `now` (Unix seconds): only the very bytes that are in the store count.
    #[must_use]
    pub fn verdict(&self, der: &[u8], now: i64) -> Verdict {
        let Some((roles, not_before, not_after)) = self.0.get(der) else { return Verdict::Unknown };
        if now < *not_before || now > *not_after {
            return Verdict::OutOfDate;
        }
        let seconds_left = u32::try_from(not_after.saturating_sub(now)).unwrap_or(u32::MAX);
        Verdict::Valid { roles: roles.clone(), seconds_left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(der: &[u8], identity: KeyRole) -> Trusted {
        Trusted { der: der.to_vec(), roles: roles_of(identity), not_before: 100, not_after: 200 }
    }

    #[test]
    fn only_the_very_bytes_are_trusted() {
        let store = TrustStore::new([trusted(b"certificate", KeyRole::Capf)]);
        assert_eq!(store.verdict(b"certificate", 150), Verdict::Valid { roles: vec![Role::Capf], seconds_left: 50 });
        for other in [&b"certificatf"[..], b"certificat", b"certificate\0", b""] {
            assert_eq!(store.verdict(other, 150), Verdict::Unknown);
        }
    }

    #[test]
    fn validity_has_two_ends() {
        let store = TrustStore::new([trusted(b"c", KeyRole::Tvs)]);
        for (now, valid) in [(99, false), (100, true), (200, true), (201, false)] {
            assert_eq!(store.verdict(b"c", now) != Verdict::OutOfDate, valid, "{now}");
        }
    }

    #[test]
    fn a_certificate_of_two_identities_has_the_roles_of_both() {
        let store = TrustStore::new([trusted(b"c", KeyRole::CallManager), trusted(b"c", KeyRole::ItlRecovery)]);
        let Verdict::Valid { roles, .. } = store.verdict(b"c", 150) else { panic!() };
        assert_eq!(roles, [Role::Sast, Role::CcmTftp]);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn the_numbers_are_those_of_the_lists() {
        let codes = |identity| roles_of(identity).iter().copied().map(Role::number).collect::<Vec<_>>();
        assert_eq!(codes(KeyRole::CallManager), [0, 2]);
        assert_eq!(codes(KeyRole::CallManagerEcdsa), [3]);
        assert_eq!(codes(KeyRole::Capf), [4]);
        assert_eq!(codes(KeyRole::Tvs), [21]);
        assert_eq!(codes(KeyRole::ItlRecovery), [0]);
        assert_eq!(codes(KeyRole::Tomcat), [7]);
        assert_eq!(codes(KeyRole::TomcatEcdsa), [7]);
    }
}
