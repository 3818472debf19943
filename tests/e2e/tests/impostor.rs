//! A daemon that was taken over takes another's socket name while that one is down: nobody speaks to it.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    process::{Child, Command},
    time::Duration,
};

use casemate_harness::{Lab, LabSettings, Owner};

/// Ends the impostor with the test.
struct Impostor(Child);

impl Drop for Impostor {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait().map(drop)).unwrap();
    }
}

/// Listens at the name of `victim`'s socket under the uid of `daemon`.
fn impersonate(lab: &Lab, daemon: &str, victim: &'static str) -> Impostor {
    let socket = lab.layout.run().join(format!("{victim}.sock"));
    lab.stop_daemon(victim).unwrap();
    fs::remove_file(&socket).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--clear-groups", "--regid=64000", &format!("--reuid={}", Owner::Each.uid(daemon)), "--"]);
    command.arg(lab.reachable_copy("casemate-probe").unwrap()).arg("--listen").arg(&socket);
    let impostor = Impostor(command.spawn().unwrap());
    lab.wait_for("the impostor to listen", Duration::from_secs(5), || socket.exists()).unwrap();
    impostor
}

#[test]
fn nobody_asks_an_impostor() {
    let lab = Lab::start(LabSettings::for_test("impostor")).unwrap();
    if let Owner::One(why) = lab.layout.owner {
        println!("NOT PROVEN here, for {why}: with one uid for all, nobody can be told from an impostor");
        return;
    }
    let _keyd = impersonate(&lab, "tftp", "keyd");
    let error = lab.casemate(&["hsm", "list"]).unwrap_err().to_string();
    assert!(error.contains("impostor"), "{error}");
    let error = lab.casemate(&["provision"]).unwrap_err().to_string();
    assert!(error.contains("impostor"), "{error}");
    let _capf = impersonate(&lab, "tvs", "capf");
    let error = lab.casemate(&["phone", "add", "SEP001122334455", "--string", "4711"]).unwrap_err().to_string();
    assert!(error.contains("impostor"), "{error}");
}
