use std::fs;

use casemate_hsm_api::{KeyAlgorithm, KeyId, KeyStore};
use casemate_hsm_conformance::{Extent, Half, Rig, run};
use casemate_hsm_tpm::TpmStore;

use crate::lab::{LABEL, Lab, Swtpm};

/// The store goes before the TPM.
struct Token {
    store: TpmStore,
    lab: Lab,
}

impl Rig for Token {
    fn store(&self) -> &(dyn KeyStore + '_) {
        &self.store
    }

    fn keep_half(&self, id: KeyId, half: Half) -> Result<(), String> {
        let other = match half {
            Half::Private => "public",
            Half::Public => "private",
        };
        fs::remove_file(self.lab.path("token").join(format!("{id}.{other}"))).map_err(|error| error.to_string())
    }

    /// By the public area, which the TPM holds the private one against whenever it loads the key: `fixedTPM`, `fixedParent`
    /// and `sensitiveDataOrigin` (TPM 2.0 part 2, 8.3).
    fn never_extractable(&self, id: KeyId) -> Result<bool, String> {
        let path = self.lab.path("token").join(format!("{id}.public"));
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let area = text.split("\"public\":\"").nth(1).ok_or("it holds no public area")?;
        // Eight digits each for type with name hash, and for the attributes.
        let attributes = area.get(8..16).ok_or("its public area is short")?;
        let attributes = u32::from_str_radix(attributes, 16).map_err(|error| error.to_string())?;
        let (fixed_tpm, fixed_parent, origin) = (1 << 1, 1 << 4, 1 << 5);
        let all = fixed_tpm | fixed_parent | origin;
        Ok(attributes & all == all)
    }
}

#[test]
fn swtpm_conforms() {
    let lab = Lab::bare();
    // The wrapping key is another TPM's storage key.
    let other = Swtpm::start(&lab.path("other"));
    let wrapping = lab.path("wrapping");
    let other_tpm = format!("swtpm:host=127.0.0.1,port={}", other.port);
    let made = std::process::Command::new("tpm2_createprimary")
        .args(["-T", &other_tpm, "-C", "o", "-G", "ecc", "-Q", "-c"])
        .arg(lab.path("other.ctx"))
        .status();
    assert!(made.unwrap().success());
    let read = std::process::Command::new("tpm2_readpublic")
        .args(["-T", &other_tpm, "-Q", "-c"])
        .arg(lab.path("other.ctx"))
        .arg("-o")
        .arg(&wrapping)
        .status();
    assert!(read.unwrap().success());
    let mut settings = lab.settings();
    settings.wrapping_key = Some(wrapping);
    TpmStore::initialize(&settings, LABEL).unwrap();
    let store = TpmStore::open(settings).unwrap();
    let info = store.token().unwrap();
    println!("{info:?}");
    assert!(info.algorithms.contains(&KeyAlgorithm::Rsa2048) && info.algorithms.contains(&KeyAlgorithm::P384));
    for algorithm in KeyAlgorithm::ALL.iter().filter(|algorithm| !info.algorithms.contains(algorithm)) {
        println!("skipped, for this TPM refuses it: {algorithm}");
    }
    let extent = Extent { algorithms: info.algorithms, ..Extent::default() };
    let report = run(&Token { store, lab }, &extent);
    println!("{report}");
    assert!(report.passed(), "{report}");
}
