use std::{fs, path::Path};

use casemate_hsm_api::KeyRole;
use casemate_phonefile::{ITL_FILE_NAME, Limits, ListView, Sha1, SignedFile, SignerKey};
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

/// `casemate show itl`: the published list, and whether this node's ITLRecovery signed it.
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
    verified.map_err(ConsoleError::TrustListNotSigned)
}

/// Control characters of names spelled out, the lines kept.
fn lines(text: &str) -> String {
    text.lines().map(|line| plain(line) + "\n").collect()
}

fn verify(signed: &SignedFile<'_>, folder: &Path) -> Result<(), String> {
    let path = folder.join(format!("{}.pem", KeyRole::ItlRecovery));
    let of_path = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let pem = fs::read(&path).map_err(|error| of_path(&error))?;
    let pem = pem::parse(pem).map_err(|error| of_path(&error))?;
    let certificate = CertificateFacts::parse(pem.contents()).map_err(|error| of_path(&error))?;
    signed.verify(&[SignerKey::of_certificate(&certificate)], Sha1::Refused).map_err(|error| error.to_string())
}

fn sentence(verified: &Result<(), String>) -> String {
    match verified {
        Ok(()) => "signature verifies with this node's ITLRecovery certificate".to_owned(),
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
        assert_eq!(verify(&signed, dir.path()), Ok(()));
        let tvs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/phone/tests/vectors/tvs.crt");
        fs::copy(tvs, dir.path().join("ITLRecovery.pem")).unwrap();
        assert!(verify(&signed, dir.path()).is_err());
    }
}
