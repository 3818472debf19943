//! The suite against the token in memory.
#![forbid(unsafe_code)]
// Clippy allows it in test functions, and not in what they share.
#![allow(clippy::unwrap_used)]

use casemate_hsm_api::{KeyId, KeyStore};
use casemate_hsm_conformance::{Extent, Half, Rig, run};
use casemate_hsm_fake::{FakeSettings, FakeStore, FakeToken};

struct Fake {
    token: FakeToken,
    store: FakeStore,
}

impl Rig for Fake {
    fn store(&self) -> &(dyn KeyStore + '_) {
        &self.store
    }

    fn keep_half(&self, id: KeyId, half: Half) -> Result<(), String> {
        let half = match half {
            Half::Private => casemate_hsm_fake::Half::Private,
            Half::Public => casemate_hsm_fake::Half::Public,
        };
        if self.token.keep_half(id, half) { Ok(()) } else { Err("there was no pair".to_owned()) }
    }

    fn never_extractable(&self, id: KeyId) -> Result<bool, String> {
        self.token.never_extractable(id).ok_or_else(|| "there is no key".to_owned())
    }
}

fn fake() -> Fake {
    let token = FakeToken::new("F1");
    let store = FakeStore::open(&token, FakeSettings::default()).unwrap();
    Fake { token, store }
}

#[test]
fn the_fake_token_conforms() {
    let report = run(&fake(), &Extent::default());
    assert!(report.passed(), "{report}");
}

/// A suite that a lying token passes would be none.
#[test]
fn a_lying_token_fails_the_suite() {
    let rig = fake();
    rig.token.set_lying(true);
    let report = run(
        &rig,
        &Extent {
            algorithms: vec![casemate_hsm_api::KeyAlgorithm::P256],
            threads: 1,
            signatures: 1,
            ..Extent::default()
        },
    );
    let failed = report.cases.iter().filter(|case| case.failure.is_some()).count();
    assert!(failed + 1 >= report.cases.len(), "{report}");
}
