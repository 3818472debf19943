//! What is in the shipped programs.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, process::Command};

use casemate_harness::{DAEMONS, programs};

#[test]
fn each_program_holds_one_aws_lc_and_it_is_the_fips_one() {
    let names = DAEMONS.iter().map(|(daemon, _)| format!("casemate-{daemon}"));
    for name in names.chain(["casemate-postd".into(), "casemate".into()]) {
        let output = Command::new("nm").arg(programs().join(&name)).output().expect("binutils comes with the compiler");
        let symbols = String::from_utf8_lossy(&output.stdout);
        assert!(symbols.contains("aws_lc_fips_0_13"), "{name} holds the FIPS module");
        let others = symbols.lines().filter(|line| line.contains(" T aws_lc_0_") || line.contains(" t aws_lc_0_"));
        assert_eq!(others.count(), 0, "{name} holds AWS-LC a second time, outside FIPS");
    }
}

#[test]
fn programs_are_position_independent() {
    for (daemon, _) in DAEMONS {
        let head = fs::read(programs().join(format!("casemate-{daemon}"))).unwrap();
        // e_type of the ELF header: 3 is ET_DYN.
        assert_eq!(head.get(16..18), Some(&[3, 0][..]), "casemate-{daemon}");
    }
}
