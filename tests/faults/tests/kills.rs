//! Every daemon killed at random moments: nothing that was acknowledged is lost.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use casemate_faults::Caller;
use casemate_harness::{DAEMONS, Lab, LabSettings};
use casemate_phone::capf::Outcome;
use serde_json::Value;

/// How often each daemon is killed.
const KILLS: u32 = 50;

/// Random enough to kill by (xorshift64, Marsaglia 2003); the seed is printed, so that a failure can be played again.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn json(lab: &Lab, arguments: &[&str]) -> Value {
    serde_json::from_str(&lab.casemate(arguments).unwrap()).unwrap()
}

/// Public fingerprints of the keys on record, by role.
fn keys(lab: &Lab) -> BTreeMap<String, String> {
    let listed = json(lab, &["hsm", "list", "--json"]);
    let keys = listed["keys"].as_array().unwrap();
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    keys.iter().map(|key| (text(key, "role"), text(key, "fingerprint"))).collect()
}

/// Says that the kills are over, also when the one who kills panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Kills `daemon` for certain: one that is down is waited for.
fn kill(lab: &Lab, daemon: &str) {
    lab.wait_for("a daemon to kill", Duration::from_secs(30), || lab.kill(daemon).unwrap()).unwrap();
}

/// Provisions a new node while keyd and certmgr are killed in turn, and returns how many of the kills came before it was done.
fn provision_under_kills(round: u32, moments: &mut Moments) -> u32 {
    let lab = Lab::prepare(LabSettings::for_test(&format!("kills-provision-{round}"))).unwrap();
    lab.postd(&[]).unwrap();
    // On a busy machine daemons start slowly and measure their token for longer, and those that are killed faster than that never
    // get anywhere: so the pauses grow.
    let starting = Instant::now();
    lab.start_daemons().unwrap();
    let pace = 250 + 3 * (starting.elapsed() / DAEMONS.len() as u32).as_millis() as u64;
    let done = AtomicBool::new(false);
    let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
    let kills = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !done.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(50 + moments.below(pace + 50 * u64::from(kills))));
                kill(&lab, if kills % 2 == 0 { "keyd" } else { "certmgr" });
                kills += 1;
            }
            kills
        });
        let over = Over(&done);
        let end = Instant::now() + Duration::from_secs(120);
        while acknowledged.len() < 7 && Instant::now() < end {
            // Fails whenever a daemon is killed under it, which is what an operator would see and try again.
            let _ = lab.casemate(&["provision"]);
            if let Ok(listed) = lab.casemate(&["identity", "list", "--json"]) {
                for identity in serde_json::from_str::<Value>(&listed).unwrap().as_array().unwrap() {
                    let text = |name: &str| identity[name].as_str().unwrap().to_owned();
                    let before = acknowledged.insert(text("role"), text("key-fingerprint"));
                    assert!(
                        before.is_none_or(|before| before == text("key-fingerprint")),
                        "{identity} was another key"
                    );
                }
            }
        }
        drop(over);
        killer.join().unwrap()
    });
    lab.wait_for("provisioning", Duration::from_secs(60), || lab.casemate(&["provision"]).is_ok()).unwrap();
    let first = keys(&lab);
    assert_eq!(first, acknowledged, "what was acknowledged is what stands");
    assert_eq!(first.len(), 7);
    // Nothing is on the token that is not on record: one of each, and no half.
    assert_eq!(lab.token_objects().unwrap(), (7, 7), "private and public keys on the token");
    lab.casemate(&["provision"]).unwrap();
    assert_eq!(keys(&lab), first, "provisioning again makes nothing");
    // What phones are given is whole, too.
    lab.wait_for_trust_list().unwrap();
    let list = json(&lab, &["show", "itl", "--json"]);
    assert_eq!((&list["signature-verifies"], list["records"].as_array().unwrap().len()), (&Value::Bool(true), 6));
    kills
}

#[test]
fn provisioning_killed_anywhere_ends_with_one_of_each() {
    let mut moments = Moments::new();
    let (mut kills, mut round) = (0, 0);
    while kills < 2 * KILLS {
        kills += provision_under_kills(round, &mut moments);
        round += 1;
    }
    println!("{kills} kills of keyd and certmgr while {round} nodes were provisioned");
}

/// How long adding a phone and its enrolment take here and now, when nobody disturbs them.
fn enrolment_time(lab: &Lab) -> Duration {
    let start = Instant::now();
    for device in ["SEP00000000A001", "SEP00000000A002", "SEP00000000A003"] {
        lab.casemate(&["phone", "add", device, "--string", "4711", "--key", "p-256"]).unwrap();
        Caller::new(lab, device, Some("4711")).unwrap().enrol().unwrap();
    }
    start.elapsed() / 3
}

#[test]
fn each_daemon_killed_fifty_times_during_enrolment_loses_nothing_acknowledged() {
    let lab = Lab::start(LabSettings::for_test("kills-enrolment")).unwrap();
    let before = keys(&lab);
    let mut moments = Moments::new();
    let span = 3 * enrolment_time(&lab).as_millis() as u64;
    let (done, mut added, mut delivered) = (AtomicBool::new(false), Vec::new(), BTreeMap::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&done);
            let mut order: Vec<_> = (0..KILLS).flat_map(|_| DAEMONS.map(|(daemon, _)| daemon)).collect();
            while !order.is_empty() {
                let daemon = order.swap_remove(moments.below(order.len() as u64) as usize);
                kill(&lab, daemon);
                thread::sleep(Duration::from_millis(moments.below(span)));
            }
        });
        let mut number = 0;
        while !done.load(Ordering::Acquire) {
            number += 1;
            let device = format!("SEP{number:012X}");
            if lab.casemate(&["phone", "add", &device, "--string", "4711", "--key", "p-256"]).is_err() {
                continue;
            }
            added.push(device.clone());
            let caller = Caller::new(&lab, &device, Some("4711")).unwrap();
            for _ in 0..5 {
                if let Ok(Outcome::Installed(lsc)) = caller.enrol() {
                    delivered.insert(device.clone(), lsc.serial);
                    break;
                }
            }
        }
    });
    assert!(added.len() > 10 && delivered.len() > 5, "{} added, {} delivered", added.len(), delivered.len());
    lab.wait_for("every daemon", Duration::from_secs(30), || lab.casemate(&["phone", "list"]).is_ok()).unwrap();
    let listed = json(&lab, &["phone", "list", "--json"]);
    let listed: BTreeMap<&str, &Value> =
        listed.as_array().unwrap().iter().map(|phone| (phone["name"].as_str().unwrap(), phone)).collect();
    for device in &added {
        assert!(listed.contains_key(device.as_str()), "{device} was acknowledged and is gone");
    }
    for (device, serial) in &delivered {
        assert_eq!(listed[device.as_str()]["serial"].as_str(), Some(serial.as_str()), "{device}");
    }
    lab.wait_for("the key broker", Duration::from_secs(30), || lab.casemate(&["hsm", "list"]).is_ok()).unwrap();
    assert_eq!(keys(&lab), before);
    // The trail tells each of them: an event that a kill kept from it comes after the restart.
    for (event, devices) in [
        ("DeviceAdded", added.iter().collect::<BTreeSet<_>>()),
        ("CertificateIssued", delivered.keys().collect()),
        ("CertificateDelivered", delivered.keys().collect()),
    ] {
        let told: BTreeSet<_> = lab.audited(event).unwrap().iter().map(|e| e["CASEMATE_DEVICE"].to_string()).collect();
        let untold: Vec<_> = devices.iter().filter(|device| !told.contains(&format!("\"{device}\""))).collect();
        assert!(untold.is_empty(), "{event}: {untold:?}");
    }
    // And it works: those that were interrupted enrol now.
    for device in added.iter().filter(|device| !delivered.contains_key(*device)) {
        let caller = Caller::new(&lab, device, Some("4711")).unwrap();
        lab.wait_for("an interrupted phone to enrol", Duration::from_secs(20), || caller.enrol().is_ok()).unwrap();
    }
}
