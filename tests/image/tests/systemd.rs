//! systemd's own judgement of the units, without a running systemd.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{collections::BTreeMap, fs};

use casemate_image::{Root, checkout, text, units};

/// What no unit may exceed (issue "The image", Hardening).
const MOST: f64 = 1.5;

fn complaints(root: &Root) -> String {
    let names: Vec<String> = units().unwrap().iter().map(|unit| instance(&unit.name)).collect();
    let mut arguments = vec!["verify", "--man=no", "--recursive-errors=no"];
    let files: Vec<String> = names.iter().map(|name| root.unit(name).display().to_string()).collect();
    arguments.extend(files.iter().map(String::as_str));
    // Instances have no file; systemd finds the template by the instance's name.
    let output = root.analyze(&arguments).unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { said } else { format!("{}: {said}", output.status) }
}

/// A template is looked at as one of its instances.
fn instance(name: &str) -> String {
    name.replace("@.", "@tty1.")
}

/// The exposure of every service, as `systemd-analyze security` sums it up.
fn exposures(root: &Root) -> BTreeMap<String, f64> {
    let services = units().unwrap().into_iter().map(|unit| instance(&unit.name));
    let services = services.filter(|name| name.ends_with(".service"));
    services.map(|name| (name.clone(), exposure(root, &name))).collect()
}

fn exposure(root: &Root, name: &str) -> f64 {
    let output = root.analyze(&["security", "--offline=true", name]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = said.lines().rev().find(|line| line.contains("Overall exposure level"));
    let level = last.and_then(|line| line.rsplit_once(": ")?.1.split_whitespace().next()?.parse().ok());
    level.unwrap_or_else(|| panic!("{name}: {said}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn systemd_finds_nothing_wrong_with_a_unit_and_would_say_it() {
    let root = Root::new().unwrap();
    assert_eq!(complaints(&root), "");
    let file = root.unit("casemate-tvs.service");
    let whole = fs::read_to_string(&file).unwrap();
    for (from, to, complaint) in [
        ("WatchdogSec=", "WatchDogSeconds=", "WatchDogSeconds"),
        ("User=casemate-tvs", "User=casemate tvs", "casemate tvs"),
        ("ExecStart=/usr/lib/casemate/casemate-tvs", "ExecStart=/usr/lib/casemate/casemate-tsv", "casemate-tsv"),
    ] {
        fs::write(&file, whole.replace(from, to)).unwrap();
        let said = complaints(&root);
        assert!(said.contains(complaint), "{said:?}");
    }
}

#[test]
fn each_exposure_is_the_recorded_one_and_none_is_over_the_limit() {
    let recorded = fs::read_to_string(checkout().join("image/exposure.golden")).unwrap();
    let found = exposures(&Root::new().unwrap());
    assert!(found.values().all(|level| *level <= MOST), "over {MOST}: {found:?}");
    let found: String = found.iter().map(|(name, level)| format!("{name} {level:.1}\n")).collect();
    let recorded: String = casemate_image::lines(&recorded).map(|line| format!("{line}\n")).collect();
    assert_eq!(found, recorded, "look at the change, and write it into image/exposure.golden");
}

#[test]
fn the_exposure_tells_a_unit_that_lost_its_network_namespace() {
    let root = Root::new().unwrap();
    let before = exposure(&root, "casemate-keyd.service");
    let file = root.unit("casemate-keyd.service");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replace("PrivateNetwork=yes\n", "")).unwrap();
    assert!(exposure(&root, "casemate-keyd.service") > before);
}

#[test]
fn the_drop_in_for_all_leaves_every_service_with_a_filter_of_system_calls() {
    let hardening = text("usr/lib/systemd/system/casemate-.service.d/50-hardening.conf").unwrap();
    for setting in ["NoNewPrivileges=yes", "ProtectSystem=strict", "SystemCallFilter=@system-service", "UMask=0077"] {
        assert!(casemate_image::lines(&hardening).any(|line| line == setting), "{setting}");
    }
    for unit in units().unwrap().iter().filter(|unit| unit.name.ends_with(".service")) {
        assert!(unit.name.starts_with("casemate-"), "{} is not reached by the drop-in", unit.name);
        for taken_back in ["ProtectSystem", "NoNewPrivileges", "SystemCallFilter", "MemoryDenyWriteExecute"] {
            assert_eq!(unit.values(taken_back).count(), 0, "{}: {taken_back}", unit.name);
        }
    }
}
