//! Two tokens of one module in one process.

use std::{fs, path::PathBuf, thread, time::Duration};

use casemate_hsm_api::{Backup, HsmError, KeyAlgorithm, KeyId, KeySpec, KeyStore, SignatureScheme};
use casemate_hsm_pkcs11::{Pkcs11Settings, Pkcs11Store, TokenName};

use crate::lab::{LABEL, Lab, in_lab, init_token};

const SPEC: KeySpec = KeySpec { algorithm: KeyAlgorithm::P256, backup: Backup::None };
const SCHEME: SignatureScheme = SignatureScheme::EcdsaP256Sha256;
const ID: KeyId = KeyId([9; 16]);

fn named(lab: &Lab, label: &str) -> Pkcs11Settings {
    Pkcs11Settings { token: TokenName::Label(label.to_owned()), ..lab.settings() }
}

/// Makes a token with the label `second`, and returns its folder.
fn second(lab: &Lab) -> PathBuf {
    let folders = || fs::read_dir(lab.tokens()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let before = folders();
    init_token(lab, "second");
    folders().into_iter().find(|folder| !before.contains(folder)).unwrap()
}

#[test]
fn two_tokens_of_one_module_are_open_at_once_and_hold_their_own_keys() {
    in_lab("tokens::two_tokens_of_one_module_are_open_at_once_and_hold_their_own_keys", |lab| {
        second(lab);
        let stores = [LABEL, "second"].map(|label| Pkcs11Store::open(named(lab, label), lab.files()).unwrap());
        // The same identifier on both, with a key each.
        let keys = stores.each_ref().map(|store| store.generate(ID, "k", SPEC).unwrap());
        assert_ne!(keys[0], keys[1]);
        for (store, key) in stores.iter().zip(&keys) {
            assert!(key.verifies(SCHEME, b"m", &store.sign(ID, SCHEME, b"m").unwrap()));
            assert_eq!(store.keys().unwrap().len(), 1);
        }
        let [first, second] = stores;
        drop(second);
        assert!(
            keys[0].verifies(SCHEME, b"m", &first.sign(ID, SCHEME, b"m").unwrap()),
            "the other's end is nothing to it"
        );
        let again = Pkcs11Store::open(named(lab, "second"), lab.files()).unwrap();
        assert!(keys[1].verifies(SCHEME, b"m", &again.sign(ID, SCHEME, b"m").unwrap()));
    });
}

/// While the other one is open the module is not started anew, which would close its sessions. SoftHSM looks for tokens only when
/// it is started: so its token is absent until the other one's store is closed. Other modules notice by themselves.
#[test]
fn one_of_two_tokens_is_pulled_and_the_other_signs_all_the_time_whatever_is_done_for_the_first() {
    in_lab(
        "tokens::one_of_two_tokens_is_pulled_and_the_other_signs_all_the_time_whatever_is_done_for_the_first",
        |lab| {
            let folder = second(lab);
            let stays = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
            let goes = Pkcs11Store::open(named(lab, "second"), lab.files()).unwrap();
            for store in [&stays, &goes] {
                store.generate(ID, "k", SPEC).unwrap();
            }
            let away = || {
                for _ in 0..2 {
                    let found = goes.reconnect();
                    assert!(matches!(found, Err(HsmError::TokenAbsent { .. })), "{found:?}");
                }
                let signed = goes.sign(ID, SCHEME, b"m");
                assert!(matches!(signed, Err(HsmError::TokenAbsent { .. })), "{signed:?}");
            };
            let drawer = lab.folder.join("drawer");
            thread::scope(|scope| {
                let signing = scope.spawn(|| {
                    for _ in 0..200 {
                        stays.sign(ID, SCHEME, b"m").unwrap();
                        thread::sleep(Duration::from_millis(5));
                    }
                });
                fs::rename(&folder, &drawer).unwrap();
                away();
                fs::rename(&drawer, &folder).unwrap();
                away();
                signing.join().unwrap();
            });
            drop(stays);
            goes.reconnect().unwrap();
            goes.sign(ID, SCHEME, b"m").unwrap();
        },
    );
}
