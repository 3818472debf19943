//! Which role's key lives in which token, and how often it has to sign: `role-tokens.toml`, read once at start.

mod uri;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use casemate_hsm_api::KeyRole;
use serde::Deserialize;
pub use uri::{Place, TokenUri, UriError};

use crate::KeydError;

/// The table of the roles' loads.
const LOADS: &str = "signatures-per-second";

/// Which token each role is on, and its load.
#[derive(Clone, Debug)]
pub struct RoleTokens {
    /// Every token once, in the order of the roles.
    places: Vec<(Place, BTreeSet<KeyRole>)>,
    loads: BTreeMap<KeyRole, u32>,
}

impl RoleTokens {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`KeydError::PolicyUnreadable`], [`KeydError::Policy`].
    pub fn load(path: &Path) -> Result<Self, KeydError> {
        let text =
            fs::read_to_string(path).map_err(|source| KeydError::PolicyUnreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|detail| KeydError::Policy { path: path.to_owned(), detail })
    }

    /// Reads the text of such a file. Every role must have a token, by its own line or the default, and a load.
    ///
    /// # Errors
    /// With the reason, and with the line where the file is no TOML.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
        let loads = table.remove(LOADS).ok_or_else(|| format!("no table [{LOADS}]"))?;
        let loads = BTreeMap::<KeyRole, u32>::deserialize(loads).map_err(|error| format!("[{LOADS}]: {error}"))?;
        let mut said = BTreeMap::new();
        let mut default = None;
        for (key, value) in table {
            let place = value.as_str().ok_or_else(|| format!("{key}: a token is named by a text"))?;
            let place = Place::parse(place).map_err(|error| format!("{key} = {place:?}: {error}"))?;
            if key == "default" {
                default = Some(place);
            } else {
                said.insert(key.parse::<KeyRole>().map_err(|error| error.to_string())?, place);
            }
        }
        let mut places: Vec<(Place, BTreeSet<KeyRole>)> = Vec::new();
        for role in KeyRole::ALL {
            if !loads.contains_key(&role) {
                return Err(format!("[{LOADS}] does not say the load of {role}"));
            }
            let place = said.remove(&role).or_else(|| default.clone());
            let place = place.ok_or_else(|| format!("no token for {role}, and no default"))?;
            match places.iter_mut().find(|(known, _)| known.is(&place)) {
                Some((known, _)) if *known != place => return Err(format!("{place} has two sources of its PIN")),
                Some((_, roles)) => drop(roles.insert(role)),
                None => places.push((place, BTreeSet::from([role]))),
            }
        }
        Ok(Self { places, loads })
    }

    /// Every token that is named for a role, with its roles.
    pub fn places(&self) -> impl Iterator<Item = (&Place, &BTreeSet<KeyRole>)> {
        self.places.iter().map(|(place, roles)| (place, roles))
    }

    /// How many signatures a second the key of `role` has to make.
    #[must_use]
    pub fn load_of(&self, role: KeyRole) -> u32 {
        // Every role has one.
        self.loads.get(&role).copied().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHIPPED: &str = include_str!("../../role-tokens.toml");

    fn with(lines: &str) -> Result<RoleTokens, String> {
        RoleTokens::parse(&SHIPPED.replace("default = \"pkcs11:token=casemate\"\n", lines))
    }

    fn roles_on(tokens: &RoleTokens, place: &str) -> Vec<KeyRole> {
        let found = tokens.places().find(|(known, _)| known.to_string() == place);
        found.map(|(_, roles)| roles.iter().copied().collect()).unwrap_or_default()
    }

    #[test]
    fn the_shipped_file_has_one_token_and_a_load_for_each_role() {
        let tokens = RoleTokens::parse(SHIPPED).unwrap();
        assert_eq!(tokens.places().count(), 1);
        assert_eq!(roles_on(&tokens, "pkcs11:token=casemate").len(), KeyRole::ALL.len());
        assert!(KeyRole::ALL.into_iter().all(|role| tokens.load_of(role) < 100));
        // A TPM in hardware may hold the key of trust lists and none that handshakes wait for.
        assert!(tokens.load_of(KeyRole::ItlRecovery) < 5 && tokens.load_of(KeyRole::CallManager) > 5);
    }

    #[test]
    fn a_role_is_where_its_line_says_and_the_others_are_where_the_default_says() {
        let tokens =
            with("default = 'pkcs11:token=a'\nITLRecovery = 'tpm'\nCAPF = 'pkcs11:token=b'\nTVS = 'tpm'\n").unwrap();
        assert_eq!(tokens.places().count(), 3);
        assert_eq!(roles_on(&tokens, "tpm"), [KeyRole::Tvs, KeyRole::ItlRecovery]);
        assert_eq!(roles_on(&tokens, "pkcs11:token=b"), [KeyRole::Capf]);
        assert_eq!(roles_on(&tokens, "pkcs11:token=a").len(), 4);
    }

    #[test]
    fn what_is_misspelt_said_twice_or_left_out_is_refused_by_its_name() {
        for (lines, why) in [
            ("", "no token for ITLRecovery"),
            ("default = 'tpm'\nTvs = 'tpm'\n", "\"Tvs\" is no certificate purpose"),
            ("default = 'tpm'\nTVS = 'tpm'\nTVS = 'tpm'\n", "duplicate key"),
            ("default = 'pkcs11:tokn=a'\n", "\"tokn\" is no attribute"),
            (
                "default = 'tpm'\nCAPF = 'pkcs11:token=%4'\n",
                "CAPF = \"pkcs11:token=%4\": the percent-encoding of token",
            ),
            ("default = 'tpm'\nCAPF = 7\n", "CAPF: a token is named by a text"),
            ("default = 'pkcs11:token=a'\nTVS = 'pkcs11:token=a?pin-source=/p'\n", "two sources of its PIN"),
        ] {
            let refused = with(lines).map(drop).unwrap_err();
            assert!(refused.contains(why), "{lines}: {refused}");
        }
        let refused = |from: &str, to: &str| RoleTokens::parse(&SHIPPED.replace(from, to)).map(drop).unwrap_err();
        assert!(refused("TVS = 20\n", "").contains("load of TVS"));
        assert!(refused("TVS = 20\n", "TSV = 20\n").contains("TSV"));
        assert!(refused("TVS = 20\n", "TVS = -1\n").contains(LOADS));
        assert!(refused(LOADS, "signatures").contains(LOADS));
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in "\\PC*", token in "\\PC*") {
            let _ = RoleTokens::parse(&text);
            let _ = with(&format!("default = {}\n", toml::Value::from(token)));
        }
    }
}
