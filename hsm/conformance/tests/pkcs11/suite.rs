use std::time::Duration;

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, SignatureScheme};
use casemate_hsm_conformance::{Extent, Half, Rig, run};
use casemate_hsm_pkcs11::{Pkcs11Error, Pkcs11Store};

use crate::lab::{Lab, Module, in_lab, in_lab_of};

struct Token<'a> {
    lab: &'a Lab,
    store: Pkcs11Store,
}

impl Rig for Token<'_> {
    fn store(&self) -> &(dyn KeyStore + '_) {
        &self.store
    }

    fn keep_half(&self, id: KeyId, half: Half) -> Result<(), String> {
        let other = match half {
            Half::Private => "pubkey",
            Half::Public => "privkey",
        };
        self.lab.as_user(&["--delete-object", "--type", other, "--id", &id.to_string()]).map(drop)
    }

    fn never_extractable(&self, id: KeyId) -> Result<bool, String> {
        // pkcs11-tool lists all keys, each as a block of indented lines.
        let listed = self.lab.as_user(&["--list-objects", "--type", "privkey"])?;
        let id = id.to_string();
        let block = listed.split("Private Key Object").find(|block| block.contains(&id)).ok_or("it is not listed")?;
        let access = block.lines().find(|line| line.contains("Access:")).ok_or("no access is listed")?;
        let words: Vec<&str> = access.split([':', ',']).map(str::trim).collect();
        Ok(["sensitive", "always sensitive", "never extractable", "local"].iter().all(|word| words.contains(word)))
    }
}

fn conforms(lab: &Lab, extent: &Extent) {
    let rig = Token { lab, store: Pkcs11Store::open(lab.settings(), lab.files()).unwrap() };
    let report = run(&rig, extent);
    println!("{report}");
    assert!(report.passed(), "{report}");
}

#[test]
fn softhsm_conforms() {
    in_lab_of(Module::SoftHsm, "suite::softhsm_conforms", |lab| conforms(lab, &Extent::default()));
}

#[test]
fn kryoptic_conforms() {
    in_lab_of(Module::Kryoptic, "suite::kryoptic_conforms", |lab| conforms(lab, &Extent::default()));
}

/// Without RSA-4096, which swtpm has not; P-521, whose public key the module shows in no form that is one; keys that may be
/// wrapped, which it refuses to make; and lost halves, for it reads its store once a process.
#[test]
fn tpm2_pkcs11_conforms_as_far_as_it_goes() {
    let algorithms = vec![KeyAlgorithm::Rsa2048, KeyAlgorithm::Rsa3072, KeyAlgorithm::P256, KeyAlgorithm::P384];
    let extent = Extent { algorithms, wrapped: false, halves: false, threads: 4, signatures: 20 };
    in_lab_of(Module::Tpm2Pkcs11, "suite::tpm2_pkcs11_conforms_as_far_as_it_goes", |lab| conforms(lab, &extent));
}

#[test]
fn a_key_that_a_stranger_made_extractable_is_refused() {
    in_lab("suite::a_key_that_a_stranger_made_extractable_is_refused", |lab| {
        let id = KeyId([0xab; 16]);
        let make = ["--keypairgen", "--key-type", "EC:prime256v1", "--extractable", "--id"];
        let make = |id: KeyId| lab.as_user(&[&make[..], &[&id.to_string()]].concat()).unwrap();
        make(id);
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        let spec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
        let inspected = store.inspect(id, Some(spec));
        assert!(matches!(inspected, Err(HsmError::KeyNotAsSpecified { .. })), "{inspected:?}");
        make(id);
        let twins = store.inspect(id, None);
        assert!(matches!(twins, Err(HsmError::KeyAmbiguous { count: 2, .. })), "{twins:?}");
        let signed = store.sign(id, SignatureScheme::EcdsaP256Sha256, b"m");
        assert!(matches!(signed, Err(HsmError::KeyAmbiguous { .. })), "{signed:?}");
    });
}

#[test]
fn one_store_a_process_and_the_next_after_it() {
    in_lab("suite::one_store_a_process_and_the_next_after_it", |lab| {
        let spec = KeySpec { algorithm: KeyAlgorithm::Rsa2048, backup: Backup::None };
        let id = KeyId([3; 16]);
        let first = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        first.generate(id, "k", spec).unwrap();
        let second = Pkcs11Store::open(lab.settings(), lab.files()).map(|_| ());
        assert!(matches!(second, Err(Pkcs11Error::AlreadyOpen { .. })), "{second:?}");
        let info = first.token().unwrap();
        assert_eq!(info.sessions, 2, "the one that signed, and the one that holds the login");
        drop(first);
        let third = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        third.sign(id, SignatureScheme::RsaPkcs1Sha256, b"m").unwrap();
        let rate = third.raw_rate(id, SignatureScheme::RsaPkcs1Sha256, Duration::from_millis(300)).unwrap();
        println!("RSA-2048 in one session: {:.0} signatures a second", rate.per_second());
        assert!(rate.each.len() > 1);
    });
}
