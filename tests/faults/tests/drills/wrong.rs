//! A token that gives a wrong answer is not used any more, until somebody starts keyd again and it is well.

use std::thread;

use casemate_faults::Noise;
use casemate_harness::Tokens;
use casemate_phone::PhoneError;

use crate::stage::{SOON, count, state, with_bus, with_faulty};

fn one_wrong_bit(name: &str, tokens: Tokens) {
    with_faulty(name, tokens, |stage, faulty| {
        let phone = stage.phone();
        faulty.lie(true).unwrap();
        let refused = phone.enrol();
        assert!(matches!(refused, Err(PhoneError::Connection { service: "CAPF", .. })), "{refused:?}");
        let wrong = stage.lab.wait_for_events("TokenWrongAnswer", 1).unwrap();
        println!("{name}: {}; {}", wrong[0], state(stage.lab));
        faulty.lie(false).unwrap();
        assert!(phone.enrol().is_err(), "for ever");
        assert!(state(stage.lab).contains("wrong answer"), "{}", state(stage.lab));
        assert_eq!((count(stage.lab, "TokenWrongAnswer"), count(stage.lab, "TokenAbsent")), (1, 0));
        stage.only_keyd_restarted(0);
        // Started again while the token still lies, it does not serve.
        faulty.lie(true).unwrap();
        stage.lab.stop_daemon("keyd").unwrap();
        assert!(stage.lab.start_daemon("keyd").is_err());
        assert!(stage.lab.casemate(&["hsm", "list"]).is_err());
        stage.lab.stop_daemon("keyd").unwrap();
        faulty.lie(false).unwrap();
        stage.lab.start_daemon("keyd").unwrap();
        stage.serves_again(&phone, SOON);
        stage.nothing_was_lost();
    });
}

#[test]
fn softhsm_gives_one_wrong_bit() {
    one_wrong_bit("drill-wrong-softhsm", Tokens::SoftHsm);
}

#[test]
fn kryoptic_gives_one_wrong_bit() {
    one_wrong_bit("drill-wrong-kryoptic", Tokens::Kryoptic);
}

/// What comes back over the wire is not what the TPM said: the session's HMAC shows it, or the answer cannot be read.
fn garbled(name: &str, noise: Noise) {
    with_bus(name, |stage, bus| {
        // Several, so that signatures wait behind the wrong one.
        let phones = [(); 4].map(|()| stage.phone());
        bus.disturb(Some(noise));
        thread::scope(|scope| {
            for refused in phones.each_ref().map(|phone| scope.spawn(|| phone.enrol())) {
                let refused = refused.join().unwrap();
                assert!(matches!(refused, Err(PhoneError::Connection { service: "CAPF", .. })), "{refused:?}");
            }
        });
        let [phone, ..] = &phones;
        let wrong = stage.lab.wait_for_events("TokenWrongAnswer", 1).unwrap();
        println!("{name}: {}; {}", wrong[0], state(stage.lab));
        bus.disturb(None);
        assert!(phone.enrol().is_err(), "for ever");
        assert!(state(stage.lab).contains("wrong answer"), "{}", state(stage.lab));
        assert_eq!((count(stage.lab, "TokenWrongAnswer"), count(stage.lab, "TokenAbsent")), (1, 0));
        bus.disturb(Some(noise));
        stage.lab.stop_daemon("keyd").unwrap();
        assert!(stage.lab.start_daemon("keyd").is_err(), "it serves while answers are wrong");
        stage.lab.stop_daemon("keyd").unwrap();
        bus.disturb(None);
        stage.lab.start_daemon("keyd").unwrap();
        stage.serves_again(phone, SOON);
        stage.nothing_was_lost();
    });
}

#[test]
fn a_tpm_gives_one_wrong_bit() {
    garbled("drill-wrong-tpm", Noise::FlippedBit);
}

#[test]
fn a_tpm_gives_half_an_answer() {
    garbled("drill-short-tpm", Noise::CutShort);
}

/// Half an answer and then silence is a TPM that went, and not one that lied.
#[test]
fn the_wire_to_a_tpm_breaks_in_an_answer() {
    with_bus("drill-cut-tpm", |stage, bus| {
        let phone = stage.phone();
        bus.disturb(Some(Noise::CutOff));
        assert!(phone.enrol().is_err());
        stage.lab.wait_for_events("TokenAbsent", 1).unwrap();
        assert!(stage.phone().enrol().is_err(), "no key passes the test of the token");
        bus.disturb(None);
        stage.serves_again(&phone, SOON);
        assert_eq!((count(stage.lab, "TokenWrongAnswer"), count(stage.lab, "TokenRefused")), (0, 0));
        stage.only_keyd_restarted(0);
        stage.nothing_was_lost();
    });
}
