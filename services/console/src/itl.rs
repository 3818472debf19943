use std::{fs, path::Path};

use casemate_hsm_api::KeyRole;
use casemate_phonefile::{ITL_FILE_NAME, Limits, ListView, Sha1, SignedFile, SignerId, SignerKey};
use casemate_pki::CertificateFacts;
use serde::Serialize;

use crate::{ConsoleError, Out, json, node::Node, text::plain};

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    #[serde(flatten)]
    list: ListView,
    signature_verifies: bool,
    signature: String,
}

/// Whose keys sign lists.
const SIGNERS: [KeyRole; 2] = [KeyRole::ItlRecovery, KeyRole::CallManager];

/// `casemate show itl`: the published list, and whether a key of this node signed it.
pub(crate) fn show(node: &Node, as_json: bool, out: Out<'_>) -> Result<(), ConsoleError> {
    let path = node.config.paths.public_of("ctlprovider").join(ITL_FILE_NAME);
    let bytes = fs::read(&path).map_err(|source| ConsoleError::File {
        path: path.clone(),
        source,
        hint: "run `casemate provision` and see that casemate-ctlprovider runs",
    })?;
    // The file is the operator's to look at however large it is.
    let limits = Limits { list_bytes: usize::MAX, ..Limits::default() };
    let not_a_list = |source| ConsoleError::NotATrustList { path: path.clone(), source };
    let signed = SignedFile::parse(&bytes, &limits).map_err(not_a_list)?;
    let Some(list) = ListView::of(&signed, &Limits::default()) else {
        return Err(ConsoleError::TrustListNotSigned(format!("{} is another kind of file", path.display())));
    };
    let verified = verify(&signed, &node.config.paths.public_of("certmgr"));
    if as_json {
        let (signature_verifies, signature) = (verified.is_ok(), sentence(&verified));
        json::print(&Shown { list, signature_verifies, signature }, out)?;
    } else {
        write!(out, "{}\n{}\n", lines(&list.to_string()), sentence(&verified))?;
    }
    verified.map(drop).map_err(ConsoleError::TrustListNotSigned)
}

/// Control characters of names spelled out, the lines kept.
fn lines(text: &str) -> String {
    text.lines().map(|line| plain(line) + "\n").collect()
}

/// The role of this node whose key signed it.
fn verify(signed: &SignedFile<'_>, folder: &Path) -> Result<KeyRole, String> {
    let mut keys = Vec::new();
    let mut unread = None;
    for role in SIGNERS {
        let certificate = certificate(&folder.join(format!("{role}.pem")));
        match certificate {
            Ok(facts) if SignerId::of(&facts) == *signed.signer() => {
                let key = SignerKey::of_certificate(&facts);
                return signed.verify(&[key], Sha1::Refused).map(|()| role).map_err(|error| error.to_string());
            }
            Ok(facts) => keys.push(SignerKey::of_certificate(&facts)),
            Err(error) => unread = Some(error),
        }
    }
    // Nobody's name is in the header: verifying says whose is.
    let refused = signed.verify(&keys, Sha1::Refused).err().map(|error| error.to_string());
    Err(unread.or(refused).unwrap_or_else(|| "its signer is none of this node's".to_owned()))
}

fn certificate(path: &Path) -> Result<CertificateFacts, String> {
    let of_path = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let pem = fs::read(path).map_err(|error| of_path(&error))?;
    let pem = pem::parse(pem).map_err(|error| of_path(&error))?;
    CertificateFacts::parse(pem.contents()).map_err(|error| of_path(&error))
}

fn sentence(verified: &Result<KeyRole, String>) -> String {
    match verified {
        Ok(role) => format!("signature verifies with this node's {role} certificate"),
        Err(reason) => format!("SIGNATURE DOES NOT HOLD: {}", plain(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_its_certificate_is_shown_as_not_verified() {
        let dir = tempfile::tempdir().unwrap();
        let bytes =
            fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/phone/tests/vectors/ITLFile.tlv")).unwrap();
        let signed = SignedFile::parse(&bytes, &Limits::default()).unwrap();
        let verified = verify(&signed, dir.path());
        assert!(sentence(&verified).starts_with("SIGNATURE DOES NOT HOLD: "));
        let sast = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/phone/tests/vectors/sast.crt");
        fs::copy(sast, dir.path().join("ITLRecovery.pem")).unwrap();
        assert_eq!(verify(&signed, dir.path()), Ok(KeyRole::ItlRecovery));
        // A list after a re-key of ITLRecovery.
        fs::rename(dir.path().join("ITLRecovery.pem"), dir.path().join("CallManager.pem")).unwrap();
        assert_eq!(verify(&signed, dir.path()), Ok(KeyRole::CallManager));
        let tvs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/phone/tests/vectors/tvs.crt");
        for role in SIGNERS {
            fs::copy(tvs, dir.path().join(format!("{role}.pem"))).unwrap();
        }
        assert!(verify(&signed, dir.path()).is_err());
    }
}
