//! What every drill begins and ends with.

use std::{
    cell::Cell,
    fs,
    time::{Duration, Instant},
};

use casemate_faults::{Bus, Caller, Faulty};
use casemate_harness::{DAEMONS, Lab, LabSettings, Tokens};
use casemate_phone::{PhoneError, capf::Outcome};
use serde_json::Value;

/// How long a change may take to be seen, and the service to be back after a short absence.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// The longest wait between two looks for a token that was away for long is five seconds; the rest is the login and the test of
/// each key on a machine that does much else.
pub(crate) const AT_LAST: Duration = Duration::from_secs(15);

/// Role, fingerprint and identifier of a key on record.
pub(crate) type Key = [String; 3];

/// A provisioned lab before a drill, and what must stand after it.
pub(crate) struct Stage<'a> {
    pub(crate) lab: &'a Lab,
    name: &'a str,
    keys: Vec<Key>,
    objects: (usize, usize),
    daemons: Vec<(&'static str, Option<i32>, u32)>,
    /// Halves that provisioning removed before, of keys whose making was interrupted.
    halves: usize,
    /// Phones that came so far.
    phones: Cell<u32>,
}

/// A lab with a module between keyd and the token, provisioned.
pub(crate) fn with_faulty(name: &str, tokens: Tokens, drill: impl FnOnce(&Stage<'_>, &Faulty<'_>)) {
    let lab = prepared(name, tokens);
    let faulty = Faulty::before_the_token_of(&lab).unwrap();
    start(&lab);
    drill(&Stage::of(&lab, name), &faulty);
}

/// A lab with a wire between keyd and the TPM, to which others come as well, provisioned.
pub(crate) fn with_bus(name: &str, drill: impl FnOnce(&Stage<'_>, &Bus)) {
    let lab = prepared(name, Tokens::Tpm);
    let bus = Bus::before_the_tpm_of(&lab).unwrap();
    start(&lab);
    drill(&Stage::of(&lab, name), &bus);
}

/// A lab of which nothing runs yet. Its roles state no load, for what else runs on this machine meanwhile makes every token slow.
pub(crate) fn prepared(name: &str, tokens: Tokens) -> Lab {
    let lab = prepared_with_loads(name, tokens);
    let text = fs::read_to_string(lab.role_tokens()).unwrap();
    let (head, loads) = text.split_once("[signatures-per-second]\n").unwrap();
    let line = |line: &str| line.split_once(" = ").map_or(line.to_owned(), |(role, _)| format!("{role} = 1"));
    let loads: Vec<_> = loads.lines().map(line).collect();
    fs::write(lab.role_tokens(), format!("{head}[signatures-per-second]\n{}\n", loads.join("\n"))).unwrap();
    lab
}

/// The same with the loads that are shipped.
pub(crate) fn prepared_with_loads(name: &str, tokens: Tokens) -> Lab {
    Lab::prepare(LabSettings { tokens, ..LabSettings::for_test(name) }).unwrap()
}

/// Starts the daemons and provisions.
pub(crate) fn start(lab: &Lab) {
    lab.postd(&[]).unwrap();
    lab.start_daemons().unwrap();
    lab.casemate(&["provision"]).unwrap();
    lab.wait_for_trust_list().unwrap();
}

/// Keys that an outside program counts: private and public halves on a PKCS#11 token, and both files of a TPM's.
pub(crate) fn objects(lab: &Lab) -> (usize, usize) {
    let folder = lab.layout.state().join("keyd/tpm");
    if !folder.exists() {
        return lab.token_objects().unwrap();
    }
    let names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let count = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    (count(".private"), count(".public"))
}

pub(crate) fn listed(lab: &Lab) -> Value {
    serde_json::from_str(&lab.casemate(&["hsm", "list", "--json"]).unwrap()).unwrap()
}

/// How the broker stands, as the operator reads it.
pub(crate) fn state(lab: &Lab) -> String {
    match &listed(lab)["state"] {
        Value::String(state) => state.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn keys(lab: &Lab) -> Vec<Key> {
    let listed = listed(lab);
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    let fields = |key: &Value| ["role", "fingerprint", "key-id"].map(|name| text(key, name));
    listed["keys"].as_array().unwrap().iter().map(fields).collect()
}

pub(crate) fn count(lab: &Lab, event: &str) -> usize {
    lab.audited(event).unwrap().len()
}

fn daemons(lab: &Lab) -> Vec<(&'static str, Option<i32>, u32)> {
    DAEMONS.map(|(daemon, _)| (daemon, lab.pid(daemon).map(i32::from), lab.starts(daemon))).to_vec()
}

impl<'a> Stage<'a> {
    /// As the lab stands now.
    pub(crate) fn of(lab: &'a Lab, name: &'a str) -> Self {
        let (keys, objects, daemons) = (keys(lab), objects(lab), daemons(lab));
        let stage =
            Self { lab, name, keys, objects, daemons, halves: count(lab, "KeyHalfRemoved"), phones: Cell::new(0) };
        assert_eq!((stage.keys.len(), stage.objects), (7, (7, 7)));
        stage.enrols().unwrap();
        stage
    }

    /// A phone that was never here, known to capf.
    pub(crate) fn phone(&self) -> Caller {
        self.phones.set(self.phones.get() + 1);
        let name = format!("SEP{:012X}", self.phones.get());
        self.lab.casemate(&["phone", "add", &name, "--null-string", "--key", "p-256"]).unwrap();
        Caller::new(self.lab, &name, None).unwrap()
    }

    /// A new phone enrols.
    pub(crate) fn enrols(&self) -> Result<(), PhoneError> {
        match self.phone().enrol()? {
            Outcome::Installed(_) => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until `phone` enrols, and prints how long that took from now on: the time to serve again.
    pub(crate) fn serves_again(&self, phone: &Caller, limit: Duration) {
        let begin = Instant::now();
        let enrols = || matches!(phone.enrol(), Ok(Outcome::Installed(_)));
        self.lab.wait_for("service by itself", limit, enrols).unwrap();
        println!("{}: served again after {:.2} s", self.name, begin.elapsed().as_secs_f64());
        assert_eq!(state(self.lab), "serving");
    }

    /// The daemons but keyd are the same processes, and keyd was started `restarts` more times.
    pub(crate) fn only_keyd_restarted(&self, restarts: u32) {
        for (before, now) in self.daemons.iter().zip(daemons(self.lab)) {
            if before.0 == "keyd" {
                assert_eq!(now.2, before.2 + restarts, "starts of keyd");
                assert_eq!(now.1 == before.1, restarts == 0, "the process of keyd");
            } else {
                assert_eq!(*before, now);
            }
        }
    }

    /// Every key is the one of before, on record and on the token, and provisioning finds nothing to do.
    pub(crate) fn nothing_was_lost(&self) {
        assert_eq!((keys(self.lab), objects(self.lab)), (self.keys.clone(), self.objects));
        let listed = listed(self.lab);
        assert!(listed["keys"].as_array().unwrap().iter().all(|key| key["on-token"] == true), "{listed}");
        self.lab.casemate(&["provision"]).unwrap();
        assert_eq!(keys(self.lab), self.keys);
        assert_eq!(count(self.lab, "KeyGenerated") + count(self.lab, "KeyAdopted"), 7);
        assert_eq!((count(self.lab, "KeyMissing"), count(self.lab, "KeyHalfRemoved")), (0, self.halves));
    }
}
