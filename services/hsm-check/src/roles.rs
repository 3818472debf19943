//! Which roles of the node's key policy the token can carry.

use std::{collections::BTreeMap, fs, path::Path};

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyRole, KeySpec};
use serde::Deserialize;

use crate::{
    error::CheckError,
    report::{Case, Role, Tried},
};

/// What `key-policy.toml` says of a key. Who may use it is casemate-keyd's to read.
#[derive(Debug, Deserialize)]
struct Key {
    algorithm: KeyAlgorithm,
    backup: Backup,
}

/// What `role-tokens.toml` says of loads. Where keys live is casemate-keyd's to read.
#[derive(Debug, Deserialize)]
struct RoleTokens {
    #[serde(rename = "signatures-per-second")]
    loads: BTreeMap<KeyRole, u32>,
}

/// A role's key and load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    role: KeyRole,
    pub(crate) spec: KeySpec,
    load: u32,
}

/// Reads the two files in the folder `etc`.
pub(crate) fn wanted(etc: &Path) -> Result<Vec<Wanted>, CheckError> {
    let (policy, tokens) = (etc.join("key-policy.toml"), etc.join("role-tokens.toml"));
    let keys: BTreeMap<KeyRole, Key> = read(&policy)?;
    let RoleTokens { loads } = read(&tokens)?;
    let missing = |path: &Path, role| CheckError::Policy { path: path.to_owned(), reason: format!("it lacks {role}") };
    let of = |role: KeyRole| {
        let Key { algorithm, backup } = *keys.get(&role).ok_or_else(|| missing(&policy, role))?;
        let load = *loads.get(&role).ok_or_else(|| missing(&tokens, role))?;
        Ok(Wanted { role, spec: KeySpec { algorithm, backup }, load })
    };
    KeyRole::ALL.into_iter().map(of).collect()
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, CheckError> {
    let unusable = |reason: String| CheckError::Policy { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    toml::from_str(&text).map_err(|error| unusable(error.to_string()))
}

/// Judges one role, as casemate-keyd would before it makes the key. `refused` says of a specification with backup why no key of it
/// could be made.
pub(crate) fn judge(
    wanted: &Wanted,
    tried: &[Tried],
    cases: &[Case],
    refused: impl Fn(KeySpec) -> Option<String>,
) -> Role {
    let Wanted { role, spec, load } = *wanted;
    let algorithm = spec.algorithm;
    let mut reasons = Vec::new();
    match tried.iter().find(|tried| tried.algorithm == algorithm) {
        None => reasons.push(format!("the mechanisms and key sizes that it lists make and use no {algorithm} key")),
        Some(Tried { refused: Some(why), .. }) => reasons.push(format!("no {algorithm} key: {why}")),
        Some(found) => {
            reasons.extend(refused(spec));
            reasons.extend(too_slow(found, load));
        }
    }
    let concerns = |case: &&Case| case.failure.is_some() && case.algorithm.is_none_or(|other| other == algorithm);
    reasons.extend(cases.iter().filter(concerns).map(|case| format!("failed: {}", case.name)));
    Role { role, algorithm, backup: spec.backup, load, carried: reasons.is_empty(), reasons }
}

fn too_slow(found: &Tried, load: u32) -> Option<String> {
    if load == 0 {
        return None;
    }
    let signs = found.rate.map_or("nobody knows how fast".to_owned(), |rate| rate.to_string());
    match (&found.unmeasurable, found.rate) {
        (Some(_), _) | (None, None) => Some(format!(
            "its load is {load} signatures/s, and casemate-keyd cannot measure this token ({signs}); role-tokens.toml must state \
             a load of 0"
        )),
        (None, Some(rate)) if !rate.carries(load) => Some(format!("it signs {signs}, and its load is {load}")),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use casemate_hsm_api::SignatureRate;

    use super::*;

    const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P384, backup: Backup::Wrapped };
    const WANTED: Wanted = Wanted { role: KeyRole::Capf, spec: SPEC, load: 10 };

    fn tried(tenths: Option<u64>) -> Tried {
        let rate = tenths.map(|tenths| SignatureRate { signatures: tenths, micros: 10_000_000 });
        Tried { algorithm: KeyAlgorithm::P384, refused: None, is_wrong: false, rate, unmeasurable: None }
    }

    fn case(algorithm: Option<KeyAlgorithm>) -> Case {
        Case { name: "c".to_owned(), algorithm, failure: Some("wrong".to_owned()), milliseconds: 1 }
    }

    #[test]
    fn a_role_is_carried_by_a_token_that_makes_its_key_signs_as_often_and_fails_in_nothing_of_its_own() {
        let judge = |tried: &[Tried], cases: &[Case], refused: Option<&str>| {
            judge(&WANTED, tried, cases, |spec| {
                assert_eq!(spec, SPEC);
                refused.map(ToOwned::to_owned)
            })
            .reasons
        };
        let fast = [tried(Some(100))];
        assert!(judge(&fast, &[case(Some(KeyAlgorithm::P256))], None).is_empty());
        assert_eq!(judge(&[tried(Some(99))], &[], None), ["it signs 9.9 signatures/s, and its load is 10"]);
        assert!(judge(&[tried(None)], &[], None)[0].contains("a load of 0"));
        let unmeasurable = Tried { unmeasurable: Some("no session keys".into()), ..tried(Some(100)) };
        assert!(judge(&[unmeasurable], &[], None)[0].contains("cannot measure this token (10.0 signatures/s)"));
        assert_eq!(judge(&fast, &[], Some("no wrapping")), ["no wrapping"]);
        assert_eq!(judge(&fast, &[case(Some(KeyAlgorithm::P384)), case(None)], None), ["failed: c", "failed: c"]);
        assert!(judge(&[], &[], None)[0].contains("no P-384 key"));
        let refused = Tried { refused: Some("full".into()), ..tried(None) };
        assert_eq!(judge(&[refused], &[], None), ["no P-384 key: full"]);
        assert!(super::judge(&Wanted { load: 0, ..WANTED }, &[tried(None)], &[], |_| None).carried);
    }

    #[test]
    fn the_shipped_files_are_read() {
        let etc = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../services/keyd"));
        let all = wanted(etc).unwrap();
        let recovery = all.iter().find(|wanted| wanted.role == KeyRole::ItlRecovery).unwrap();
        assert_eq!((recovery.spec.backup, recovery.load, all.len()), (Backup::Wrapped, 1, 7));
        assert!(wanted(Path::new("/nonexistent")).unwrap_err().to_string().contains("key-policy.toml"));
    }
}
