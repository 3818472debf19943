use std::{fs, path::PathBuf};

use casemate_hsm_api::{Backup, KeyAlgorithm, KeyId, KeySpec, KeyStore};
use casemate_hsm_conformance::{Extent, Half, Rig, run};
use casemate_hsm_tpm::{TpmSettings, TpmStore};

use crate::lab::{LABEL, Lab};

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

/// Settings that trust the storage key of another TPM, and that key's name in a file.
fn with_wrapping_key(lab: &Lab) -> (TpmSettings, PathBuf) {
    let mut other = Lab::bare();
    let (context, wrapping, name) = (lab.path("other.ctx"), lab.path("wrapping"), lab.path("name"));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    other.tool("tpm2_createprimary", &["-C", "o", "-G", "ecc", "-Q", "-c", &text(&context)]);
    other.tool("tpm2_readpublic", &["-Q", "-c", &text(&context), "-o", &text(&wrapping), "-n", &text(&name)]);
    other.tpm.kill();
    let mut settings = lab.settings();
    settings.wrapping_key = Some(wrapping);
    (settings, name)
}

#[test]
fn swtpm_conforms() {
    let lab = Lab::bare();
    let (settings, _) = with_wrapping_key(&lab);
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

/// The policy of a key for backup is what the TPM itself computes for "its authorization, and this new parent".
#[test]
fn a_key_for_backup_can_go_to_the_wrapping_key_alone() {
    let lab = Lab::new();
    let (settings, name) = with_wrapping_key(&lab);
    let store = TpmStore::open(settings).unwrap();
    let id = KeyId([7; 16]);
    store.generate(id, "k", KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::Wrapped }).unwrap();
    drop(store);
    let (session, policy) = (lab.path("session"), lab.path("policy"));
    let (session, name) = (session.to_str().unwrap(), name.to_str().unwrap());
    lab.tool("tpm2_startauthsession", &["-S", session]);
    lab.tool("tpm2_policyauthvalue", &["-S", session]);
    let select = ["-S", session, "-n", name, "-N", name, "-L", policy.to_str().unwrap()];
    lab.tool("tpm2_policyduplicationselect", &select);
    let record = fs::read_to_string(lab.path("token").join(format!("{id}.public"))).unwrap();
    let policy = hex::encode(fs::read(policy).unwrap());
    assert_eq!(policy.len(), 64);
    // TPM2B_DIGEST: its length, then the policy.
    assert!(record.contains(&format!("0020{policy}")), "{record}");
}
