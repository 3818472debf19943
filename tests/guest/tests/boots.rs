//! The first boots of a machine: what a buyer sees.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use casemate_guest_tests::{Machine, step};

#[test]
fn a_new_machine_serves_and_serves_again_with_the_same_keys() {
    let mut machine = Machine::new("out", "boots");
    step("first boot", || machine.serve());
    step("a phone enrols", || machine.enrol("SEP001122334455"));
    let keys = machine.keys();
    assert_eq!(keys.len(), 7, "{keys:?}");
    machine.pull_plug();
    step("second boot", || machine.serve());
    assert_eq!(machine.keys(), keys);
    step("another phone enrols", || machine.enrol("SEP001122334456"));
}
