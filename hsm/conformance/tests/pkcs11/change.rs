//! A change of the PIN, and what a kill within leaves. SoftHSM learns of another process's change only when it is started, so what a
//! restarted daemon would see is seen by a process of its own each time.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use casemate_hsm_api::{HsmError, KeyStore, Pin};
use casemate_hsm_pin::Refusals;
use casemate_hsm_pkcs11::Pkcs11Store;

use crate::{
    lab::{Lab, Module, PIN, in_lab, in_lab_of, token_folder},
    pin::{flags, records},
};

/// kryoptic takes none that is shorter.
const NEW: &str = "86420975";

fn path(lab: &Lab, name: &str) -> PathBuf {
    lab.folder.join(name)
}

/// Writes a file of the PIN file's folder as keyd would.
fn write(lab: &Lab, name: &str, pin: &str) {
    let _ = fs::remove_file(path(lab, name));
    lab.write_pin(pin);
    if name != "pin" {
        fs::rename(path(lab, "pin"), path(lab, name)).unwrap();
    }
}

fn held(lab: &Lab) -> String {
    fs::read_to_string(path(lab, "pin")).unwrap().trim().to_owned()
}

/// Whether the token takes this PIN from another program.
fn takes(lab: &Lab, pin: &str) -> bool {
    lab.pkcs11_tool(&["--login", "--pin", pin, "--list-objects"]).is_ok()
}

/// Another program changes the PIN.
fn set(lab: &Lab, from: &str, to: &str) {
    lab.pkcs11_tool(&["--login", "--pin", from, "--change-pin", "--new-pin", to]).unwrap();
}

/// What is beside the PIN file.
fn left(lab: &Lab) -> Vec<String> {
    let names = fs::read_dir(&lab.folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("pin.")).collect()
}

fn serial(lab: &Lab) -> String {
    let slots = lab.pkcs11_tool(&["--list-token-slots"]).unwrap();
    let line = slots.lines().find(|line| line.contains("serial num")).unwrap();
    line.rsplit_once(": ").unwrap().1.trim().to_owned()
}

fn is_changed(lab: &Lab) {
    assert_eq!(lab.probe(&lab.settings(), &["change-pin", NEW]), "ok");
    assert_eq!((held(lab).as_str(), takes(lab, PIN), takes(lab, NEW)), (NEW, false, true));
    assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok");
    assert_eq!((left(lab), records(lab)), (vec![], 0));
}

/// And what the next process finds of each of the two when it was killed just before `C_SetPIN` and just after.
fn is_changed_and_found_out(lab: &Lab) {
    is_changed(lab);
    for is_set in [false, true] {
        write(lab, "pin.new", PIN);
        write(lab, "pin", NEW);
        if is_set {
            set(lab, NEW, PIN);
        }
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok", "{is_set}");
        assert_eq!((held(lab).as_str(), left(lab), records(lab)), (if is_set { PIN } else { NEW }, vec![], 0));
    }
}

#[test]
fn the_pin_of_kryoptic_is_changed() {
    in_lab_of(Module::Kryoptic, "change::the_pin_of_kryoptic_is_changed", |lab| {
        is_changed_and_found_out(lab);
        let before = held(lab);
        assert_eq!(
            lab.probe(&lab.settings(), &["change-pin", "8642097"]),
            "Unsupported",
            "it says that it takes 8 or more"
        );
        assert_eq!(held(lab), before);
    });
}

#[test]
fn the_pin_of_tpm2_pkcs11_is_changed() {
    in_lab_of(Module::Tpm2Pkcs11, "change::the_pin_of_tpm2_pkcs11_is_changed", is_changed_and_found_out);
}

#[test]
fn a_changed_pin_is_in_the_token_and_its_file_and_the_old_one_is_refused() {
    in_lab("change::a_changed_pin_is_in_the_token_and_its_file_and_the_old_one_is_refused", |lab| {
        is_changed(lab);
        for pin in ["12".to_owned(), "1".repeat(256)] {
            assert_eq!(lab.probe(&lab.settings(), &["change-pin", &pin]), "Unsupported");
        }
        assert_eq!((held(lab).as_str(), takes(lab, NEW), left(lab), records(lab)), (NEW, true, vec![], 0));
    });
}

/// Every state of the disk and the token that a kill can leave, made by hand.
#[test]
fn whatever_a_kill_left_the_next_process_serves_with_the_pin_that_is_the_tokens() {
    in_lab("change::whatever_a_kill_left_the_next_process_serves_with_the_pin_that_is_the_tokens", |lab| {
        // A part of the new PIN's file, the whole of it, the token has it, and the PIN file has it: none, or as far as it went.
        let states = [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (true, true, false),
            (false, true, true),
        ];
        // C_SetPIN was under way, or begun no more.
        for marked in [false, true] {
            for (part, staged, is_set) in states {
                let state = format!("marked {marked}, part {part}, staged {staged}, set {is_set}");
                write(lab, "pin", PIN);
                if marked {
                    let pin = casemate_hsm_pin::read_pin(&path(lab, "pin")).unwrap();
                    drop(Refusals::of_token(&lab.files().state, &serial(lab)).mark(&pin, 0).unwrap());
                }
                if part {
                    write(lab, "pin.new.part", "86");
                    write(lab, "pin", PIN);
                }
                if staged {
                    write(lab, "pin.new", NEW);
                    write(lab, "pin", PIN);
                }
                if is_set {
                    set(lab, PIN, NEW);
                }
                let works = if is_set { NEW } else { PIN };
                for _ in 0..2 {
                    assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok", "{state}");
                    assert_eq!((held(lab).as_str(), records(lab)), (works, 0), "{state}");
                    assert!(!path(lab, "pin.new").exists(), "{state}");
                    assert!(!flags(lab).contains("count low"), "{state}: {}", flags(lab));
                }
                // A change after it is like any other, whatever was left.
                assert_eq!(lab.probe(&lab.settings(), &["change-pin", PIN]), "ok", "{state}");
                assert!(takes(lab, PIN) && left(lab).is_empty(), "{state}: {:?}", left(lab));
            }
        }
    });
}

/// A daemon that is killed within the login that finds out, again and again.
#[test]
fn a_kill_within_the_login_that_finds_out_loses_neither_pin() {
    in_lab("change::a_kill_within_the_login_that_finds_out_loses_neither_pin", |lab| {
        for is_set in [false, true] {
            write(lab, "pin.new", NEW);
            write(lab, "pin", PIN);
            if is_set {
                set(lab, PIN, NEW);
            }
            let refusals = Refusals::of_token(&lab.files().state, &serial(lab));
            let [old, new] = ["pin", "pin.new"].map(|name| casemate_hsm_pin::read_pin(&path(lab, name)).unwrap());
            drop(refusals.mark(&old, 1).unwrap());
            drop(refusals.of_next().mark(&new, 1).unwrap());
            assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok", "{is_set}");
            assert_eq!((held(lab).as_str(), records(lab)), (if is_set { NEW } else { PIN }, 0));
        }
    });
}

/// Neither of the two is the token's: each is tried once, in all the life of the token.
#[test]
fn two_wrong_pins_are_tried_once_each() {
    in_lab("change::two_wrong_pins_are_tried_once_each", |lab| {
        write(lab, "pin.new", "222222");
        write(lab, "pin", "111111");
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "PinIncorrect");
        lab.as_user(&["--list-objects"]).unwrap();
        for _ in 0..3 {
            assert_eq!(lab.probe(&lab.settings(), &["login"]), "PinRefusedBefore");
        }
        assert!(!flags(lab).contains("count low"), "one was tried again: {}", flags(lab));
        write(lab, "pin", PIN);
        assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok");
        assert_eq!((left(lab), records(lab)), (vec![], 0));
    });
}

#[test]
fn a_wrong_old_pin_is_not_tried_twice_and_the_login_holds() {
    in_lab("change::a_wrong_old_pin_is_not_tried_twice_and_the_login_holds", |lab| {
        let store = Pkcs11Store::open(lab.settings(), lab.files()).unwrap();
        let new = Pin::new(NEW).unwrap();
        lab.write_pin("000000");
        assert!(matches!(store.change_pin(&new), Err(HsmError::PinIncorrect { .. })));
        // A good login by somebody else takes the flag away: if it comes back, the PIN was tried again.
        lab.as_user(&["--list-objects"]).unwrap();
        for _ in 0..3 {
            assert!(matches!(store.change_pin(&new), Err(HsmError::PinRefusedBefore { .. })));
        }
        assert!(!flags(lab).contains("count low"), "the wrong PIN was tried again: {}", flags(lab));
        assert!(store.keys().is_ok() && left(lab).is_empty());
        lab.write_pin(PIN);
        store.change_pin(&new).unwrap();
        assert_eq!((held(lab).as_str(), records(lab)), (NEW, 0));
        assert!(store.keys().is_ok());
    });
}

/// The process is killed some milliseconds after the new PIN is on disk: before, within or after `C_SetPIN`.
#[test]
fn a_change_that_is_killed_loses_no_pin() {
    in_lab("change::a_change_that_is_killed_loses_no_pin", |lab| {
        let object = token_folder(&lab.tokens()).join("token.object");
        let mut ended = Vec::new();
        for round in 0..10 {
            let (before, after) = if held(lab) == PIN { (PIN, NEW) } else { (NEW, PIN) };
            let safe = fs::read(&object).unwrap();
            let mut command: Command = lab.probe_command(&lab.settings(), &["change-pin", after]);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut said = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
            assert_eq!(said.trim(), "changing");
            let begun = Instant::now();
            while !path(lab, "pin.new").exists() && held(lab) == before && begun.elapsed() < Duration::from_secs(20) {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(round));
            child.kill().unwrap();
            child.wait().unwrap();
            // SoftHSM writes this file in place; a token in hardware has none.
            if fs::metadata(&object).unwrap().len() < safe.len() as u64 {
                println!("round {round}: SoftHSM's own file was cut off by the kill; put back");
                fs::write(&object, &safe).unwrap();
            }
            assert_eq!(lab.probe(&lab.settings(), &["login"]), "ok", "round {round}");
            assert!(takes(lab, &held(lab)), "round {round}");
            assert_eq!((left(lab), records(lab)), (vec![], 0), "round {round}");
            ended.push(if held(lab) == before { "old" } else { "new" });
        }
        println!("the PIN after each kill: {ended:?}");
    });
}
