//! What is measured: keys of the lab that somebody may have sign handshakes.

use std::fs;

use casemate_harness::Lab;
use casemate_hsm_api::{KeyAlgorithm, KeyRole, SignatureScheme};

use crate::BenchError;

/// A key, and how it signs.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) role: KeyRole,
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) scheme: SignatureScheme,
    /// Requests in flight from which on this much of the C interface's rate is the goal.
    pub(crate) goal: (usize, f64),
}

/// The daemon that asks: it may have handshakes signed with all of them.
pub(crate) const CALLER: &str = "tftp";

/// RSA-2048 and P-384 are keys of the shipped policy, and [`CALLER`] asks as it does for each connection. No shipped role has a
/// P-256 key; [`write_policy`] makes one.
pub(crate) const ALL: [Measured; 3] = [
    Measured {
        role: KeyRole::CallManager,
        algorithm: KeyAlgorithm::Rsa2048,
        scheme: SignatureScheme::RsaPssSha256,
        goal: (2, 0.9),
    },
    Measured {
        role: KeyRole::CallManagerEcdsa,
        algorithm: KeyAlgorithm::P384,
        scheme: SignatureScheme::EcdsaP384Sha384,
        goal: (2, 0.9),
    },
    Measured {
        role: KeyRole::TomcatEcdsa,
        algorithm: KeyAlgorithm::P256,
        scheme: SignatureScheme::EcdsaP256Sha256,
        goal: (4, 0.6),
    },
];

/// In the lab's key policy, tomcat-ECDSA becomes a P-256 key with which [`CALLER`] may have handshakes signed; all else is as it is
/// shipped.
pub(crate) fn write_policy(lab: &Lab) -> Result<(), BenchError> {
    let path = lab.layout.root.join("etc/key-policy.toml");
    let shipped = fs::read_to_string(&path).map_err(BenchError::file(&path))?;
    let changed = changed(&shipped).ok_or_else(|| BenchError::Program {
        program: path.display().to_string(),
        output: "it is not as the bench knows it".to_owned(),
    })?;
    fs::write(&path, changed).map_err(BenchError::file(path))
}

fn changed(shipped: &str) -> Option<String> {
    let (head, tomcat) = shipped.split_once("[tomcat-ECDSA]\n")?;
    let (before, after) = tomcat.split_once("algorithm = \"p-384\"\n")?;
    let after = after.strip_suffix('\n')?;
    Some(format!(
        "{head}[tomcat-ECDSA]\n{before}algorithm = \"p-256\"\n{after}\n# The bench's own line.\n{CALLER} = [\"tls-handshake\"]\n"
    ))
}

#[cfg(test)]
mod tests {
    use casemate_keyd::{Grant, KeyPolicy};

    use super::*;

    const SHIPPED: &str = include_str!("../../../../services/keyd/key-policy.toml");

    #[test]
    fn the_policy_of_the_bench_lets_the_caller_have_every_measured_key_sign_and_differs_in_one_role() {
        let (shipped, own) =
            (KeyPolicy::parse(SHIPPED).unwrap(), KeyPolicy::parse(&changed(SHIPPED).unwrap()).unwrap());
        for Measured { role, algorithm, scheme, .. } in ALL {
            assert!(own.permits(CALLER, role, Grant::TlsHandshake), "{role}");
            assert_eq!(own.spec(role).unwrap().algorithm, algorithm);
            assert!(scheme.fits(algorithm));
        }
        for role in KeyRole::ALL.into_iter().filter(|role| *role != KeyRole::TomcatEcdsa) {
            assert_eq!(own.spec(role), shipped.spec(role));
            assert_eq!(
                own.permits(CALLER, role, Grant::TlsHandshake),
                shipped.permits(CALLER, role, Grant::TlsHandshake)
            );
        }
    }
}
