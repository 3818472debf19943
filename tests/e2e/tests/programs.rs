//! What is in the shipped programs.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{fs, process::Command};

use casemate_harness::{DAEMONS, programs};

#[test]
fn each_program_holds_one_aws_lc_and_it_is_the_fips_one() {
    let names = DAEMONS.iter().map(|(daemon, _)| format!("casemate-{daemon}"));
    for name in
        names.chain(["postd", "verify", "hsm-check"].map(|name| format!("casemate-{name}"))).chain(["casemate".into()])
    {
        let output = Command::new("nm").arg(programs().join(&name)).output().expect("binutils comes with the compiler");
        let symbols = String::from_utf8_lossy(&output.stdout);
        assert!(symbols.contains("aws_lc_fips_0_13"), "{name} holds the FIPS module");
        let others = symbols.lines().filter(|line| line.contains(" T aws_lc_0_") || line.contains(" t aws_lc_0_"));
        assert_eq!(others.count(), 0, "{name} holds AWS-LC a second time, outside FIPS");
    }
}

/// The auditor's program runs where there is no TPM library, and speaks to no token: neither what it loads nor what is linked into
/// it is of one. keyd's own show that these are the names to look for.
#[test]
fn the_auditors_program_has_nothing_of_a_token_in_it() {
    let said = |tool: &str, flag: &str, name: &str| {
        let output = Command::new(tool).arg(flag).arg(programs().join(name)).output().unwrap();
        assert!(output.status.success(), "{tool} {name}");
        String::from_utf8(output.stdout).unwrap()
    };
    let signs = |name: &str| {
        let libraries = said("readelf", "--dynamic", name);
        let symbols = said("nm", "--demangle", name);
        [libraries.contains("libtss2"), symbols.contains("tss_esapi"), symbols.contains("cryptoki")]
    };
    assert_eq!(signs("casemate-keyd"), [true; 3]);
    assert_eq!(signs("casemate-verify"), [false; 3]);
}

#[test]
fn programs_are_position_independent() {
    for (daemon, _) in DAEMONS {
        let head = fs::read(programs().join(format!("casemate-{daemon}"))).unwrap();
        // e_type of the ELF header: 3 is ET_DYN.
        assert_eq!(head.get(16..18), Some(&[3, 0][..]), "casemate-{daemon}");
    }
}
