//! The overlay's files agree with each other and with the programs.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use casemate_hsm_api::KeyRole;
use casemate_image::{checkout, lines, overlay, text, units};
use casemate_runtime::config::Config;

/// Programs that no unit starts, and why.
const WITHOUT_UNIT: [(&str, &str); 2] =
    [("casemate-hsm-check", "the child of `casemate hsm check`"), ("casemate-verify", "runs on the auditor's machine")];

fn settings() -> Config {
    Config::load(&overlay().join("etc/casemate/casemate.toml")).unwrap()
}

/// The programs of services/, by the folders that have a main.
fn programs() -> BTreeSet<String> {
    let folders = fs::read_dir(checkout().join("services")).unwrap().map(Result::unwrap);
    let with_main = folders.filter(|folder| folder.path().join("src/main.rs").exists());
    with_main
        .map(|folder| match folder.file_name().to_string_lossy().as_ref() {
            "console" => "casemate".to_owned(),
            name => format!("casemate-{name}"),
        })
        .collect()
}

/// `name uid` of every user and `name` of every group that sysusers.d makes.
fn made() -> (BTreeMap<String, u32>, BTreeMap<String, u32>) {
    let (mut users, mut groups) = (BTreeMap::new(), BTreeMap::new());
    let text = text("usr/lib/sysusers.d/casemate.conf").unwrap();
    for line in lines(&text) {
        let mut words = line.split_whitespace();
        let (kind, name, id) = (words.next().unwrap(), words.next().unwrap().to_owned(), words.next().unwrap());
        match kind {
            "u" => assert_eq!(users.insert(name, id.split_once(':').unwrap().0.parse().unwrap()), None),
            "g" => assert_eq!(groups.insert(name, id.parse().unwrap()), None),
            "m" => assert!(users.contains_key(&name), "{line}"),
            _ => panic!("{line}"),
        }
    }
    (users, groups)
}

#[test]
fn every_program_has_a_unit_and_every_unit_a_program() {
    let units = units().unwrap();
    let started: BTreeSet<String> = units
        .iter()
        .flat_map(casemate_image::Unit::commands)
        .filter_map(|command| command.split_whitespace().next()?.strip_prefix("/usr/lib/casemate/"))
        .map(str::to_owned)
        .collect();
    let without = WITHOUT_UNIT.map(|(program, _)| program.to_owned());
    let expected: BTreeSet<String> = programs().into_iter().filter(|program| !without.contains(program)).collect();
    assert_eq!(started, expected);
    // Each daemon's unit is called like its program and is started by the target.
    let target = units.iter().find(|unit| unit.name == "casemate.target").unwrap();
    for (daemon, _) in casemate_harness::DAEMONS {
        let unit = format!("casemate-{daemon}.service");
        assert!(target.named().any(|name| name == unit), "casemate.target does not start {unit}");
        let unit = units.iter().find(|found| found.name == unit).unwrap();
        assert_eq!(unit.values("Type").collect::<Vec<_>>(), ["notify"], "{daemon}");
        assert!(unit.values("WatchdogSec").next().is_some(), "{daemon} has no watchdog");
        for key in ["Requires", "After"] {
            let needs_post = unit.values(key).any(|names| names.split(' ').any(|name| name == "casemate-post.service"));
            assert!(needs_post, "{daemon} does not wait for the self-test ({key})");
        }
    }
}

#[test]
fn every_unit_that_is_named_is_there() {
    let own: BTreeSet<String> = units().unwrap().into_iter().map(|unit| unit.name).collect();
    for unit in units().unwrap() {
        for name in unit.named().filter(|name| name.starts_with("casemate")) {
            let template = name.split_once('@').map(|(template, _)| format!("{template}@.service"));
            assert!(own.contains(template.as_deref().unwrap_or(name)), "{} names {name}", unit.name);
        }
    }
}

#[test]
fn users_have_the_same_numbers_everywhere() {
    let (users, groups) = made();
    let config = settings();
    for (daemon, uid) in casemate_harness::DAEMONS {
        assert_eq!(config.uid_of(daemon).unwrap(), uid, "{daemon} in casemate.toml and in the lab");
        assert_eq!(users.get(&format!("casemate-{daemon}")), Some(&uid), "{daemon} in sysusers.d");
    }
    assert_eq!(users.get("admin"), Some(&config.uid_of("admin").unwrap()));
    assert_eq!(users.len(), casemate_harness::DAEMONS.len() + 1, "a user without a daemon");

    for unit in units().unwrap() {
        for user in unit.values("User") {
            assert!(users.contains_key(user), "{}: no user {user}", unit.name);
        }
        for group in unit.values("Group") {
            assert!(groups.contains_key(group), "{}: no group {group}", unit.name);
        }
    }
    let tmpfiles = text("usr/lib/tmpfiles.d/casemate.conf").unwrap();
    for line in lines(&tmpfiles) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(words[3] == "root" || users.contains_key(words[3]), "{line}");
        assert!(["root", "systemd-journal"].contains(&words[4]) || groups.contains_key(words[4]), "{line}");
    }
}

#[test]
fn each_section_of_the_settings_is_one_that_its_daemon_takes() {
    let config = settings();
    config.section::<casemate_keyd::Settings>("keyd").unwrap();
    config.section::<casemate_certmgr::CertmgrSettings>("certmgr").unwrap();
    config.section::<casemate_capf::CapfSettings>("capf").unwrap();
    config.section::<casemate_ctlprovider::CtlproviderSettings>("ctlprovider").unwrap();
    config.section::<casemate_tftp::settings::Settings>("tftp").unwrap();
    config.section::<casemate_tvs::settings::Settings>("tvs").unwrap();
    config.section::<casemate_postd::PostdSettings>("postd").unwrap();
    assert_eq!(config.mode.to_string(), "fips");
    for path in [&config.paths.run, &config.paths.state, &config.paths.bin, &config.paths.etc] {
        assert!(path.starts_with("/run/casemate") || path.ends_with("casemate"), "{}", path.display());
    }
}

/// The ports that the rules let in: `udp dport 69`, `tcp dport 6970`, each with a limit of its own and one for each address.
fn let_in(rules: &str) -> BTreeSet<String> {
    let input = rules.split("chain input {").nth(1).unwrap().split("\n\t}").next().unwrap();
    let listeners = lines(input).filter(|line| line.contains(" dport ") && !line.contains(" sport "));
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in listeners {
        let mut words = line.split(' ');
        let port = [words.next().unwrap(), words.nth(1).unwrap()].join(" ");
        found.entry(port).or_default().push(line);
    }
    for (port, rules) in &found {
        assert_eq!(rules.len(), 2, "{port}: {rules:?}");
        assert!(rules[0].ends_with("jump within"), "{port} has no limit for each address: {rules:?}");
        assert!(rules[1].contains(" limit rate ") && rules[1].ends_with(" accept"), "{port}: {rules:?}");
    }
    found.into_keys().collect()
}

#[test]
fn the_firewall_lets_in_the_ports_of_the_settings_and_no_other() {
    let config = settings();
    let tftp: casemate_tftp::settings::Settings = config.section("tftp").unwrap();
    let capf: casemate_capf::CapfSettings = config.section("capf").unwrap();
    let tvs: casemate_tvs::settings::Settings = config.section("tvs").unwrap();
    let expected: BTreeSet<String> = [
        format!("udp {}", tftp.tftp_port),
        format!("tcp {}", tftp.http_port),
        format!("tcp {}", tftp.https_port),
        format!("tcp {}", capf.port),
        format!("tcp {}", tvs.port),
    ]
    .into();
    let rules = text("etc/nftables.conf").unwrap();
    assert_eq!(let_in(&rules), expected);
    let policies = rules.lines().filter(|line| line.contains("policy "));
    let policies: Vec<&str> =
        policies.filter_map(|line| line.rsplit_once("policy ")).map(|(_, policy)| policy).collect();
    assert_eq!(policies, ["drop"; 3], "input, forward and output");
    // What phones are told is where we listen.
    let told: casemate_ctlprovider::CtlproviderSettings = config.section("ctlprovider").unwrap();
    assert_eq!((told.capf_port, told.tvs_port), (capf.port, tvs.port));
}

#[test]
fn nft_takes_the_rules() {
    let rules = overlay().join("etc/nftables.conf");
    let mut command = Command::new("unshare");
    // In a network of its own, in which nothing is changed either.
    command.args(["--map-root-user", "--net", "nft", "--check", "--file"]).arg(rules);
    let output = command.output().expect("unshare of util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said} (nft is in package nftables, .ci/install)");
}

#[test]
fn key_policy_and_tokens_are_those_of_keyd() {
    for name in ["key-policy.toml", "role-tokens.toml"] {
        let shipped = fs::read_to_string(checkout().join("services/keyd").join(name)).unwrap();
        assert_eq!(text(&format!("etc/casemate/{name}")).unwrap(), shipped, "{name}: copy it again");
    }
    let tokens = text("etc/casemate/role-tokens.toml").unwrap();
    let token = format!("default = \"pkcs11:token={}\"", casemate_setup::LABEL);
    assert!(lines(&tokens).any(|line| line == token), "setup makes another token than keyd looks for");
    let softhsm = text("etc/casemate/softhsm2.conf").unwrap();
    let places = casemate_setup::Places::of(&settings().paths);
    let folder = format!("directories.tokendir = {}", places.tokens.display());
    assert!(lines(&softhsm).any(|line| line == folder), "setup looks for the token elsewhere");
    // The sealed PIN that setup leaves is the one that keyd loads.
    let units = units().unwrap();
    let unit = |name: &str| units.iter().find(|unit| unit.name == name).unwrap();
    let credential = format!("pin:{}", places.credential.display());
    assert_eq!(unit("casemate-keyd.service").values("LoadCredentialEncrypted").collect::<Vec<_>>(), [credential]);
    let setup = unit("casemate-setup.service");
    assert!(setup.values("ExecStart").any(|command| command.ends_with(places.unfinished.to_str().unwrap())));
    let condition = format!("!{}", places.credential.display());
    assert_eq!(setup.values("ConditionPathExists").collect::<Vec<_>>(), [condition]);
}

/// PCR 7 alone opens in every image that db signed; a signed PCR 11 alone opens with Secure Boot off.
#[test]
fn what_is_sealed_is_sealed_to_pcr_7_and_to_a_pcr_11_that_our_key_signed() {
    const BOTH: [&str; 3] =
        ["--tpm2-pcrs=7", "--tpm2-public-key=/run/systemd/tpm2-pcr-public-key.pem", "--tpm2-public-key-pcrs=11"];
    let units = units().unwrap();
    let sealing =
        units.iter().flat_map(casemate_image::Unit::commands).filter(|line| line.contains("systemd-creds encrypt"));
    let mut sealing: Vec<String> = sealing.map(str::to_owned).collect();
    assert!(!sealing.is_empty());
    for line in &sealing {
        assert!(line.contains("--with-key=tpm2-with-public-key "), "{line}");
    }
    let repart = text("etc/systemd/system/systemd-repart.service.d/50-casemate.conf").unwrap();
    let made: Vec<&str> = lines(&repart).filter(|line| line.starts_with("ExecStart=/")).collect();
    assert_eq!(made.len(), 1, "{repart}");
    sealing.extend(made.iter().map(|line| (*line).to_owned()));
    for line in sealing {
        for word in BOTH {
            assert!(line.split(' ').any(|found| found == word), "{word} is not in {line}");
        }
    }
    let crypttab = text("etc/crypttab").unwrap();
    let options = lines(&crypttab).next().unwrap().split_whitespace().nth(3).unwrap();
    for option in ["tpm2-device=auto", "tpm2-signature=/run/systemd/tpm2-pcr-signature.json"] {
        assert!(options.split(',').any(|found| found == option), "{option} is not in crypttab");
    }
}

#[test]
fn provisioning_goes_on_until_every_identity_is_published() {
    let public = settings().paths.public_of("certmgr");
    let expected: BTreeSet<String> = KeyRole::ALL
        .iter()
        .map(|role| format!("|!{}", public.join(format!("{}.pem", role.name())).display()))
        .collect();
    let units = units().unwrap();
    let provision = units.iter().find(|unit| unit.name == "casemate-provision.service").unwrap();
    assert_eq!(provision.values("ConditionPathExists").map(str::to_owned).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn the_message_catalog_is_that_of_the_registry() {
    assert_eq!(
        text("usr/lib/systemd/catalog/casemate.catalog").unwrap(),
        casemate_audit::catalog(),
        "write it again: cargo run -p casemate-audit --example catalog"
    );
}

#[test]
fn what_would_open_a_shell_is_masked() {
    for unit in
        ["getty@.service", "serial-getty@.service", "emergency.service", "rescue.service", "debug-shell.service"]
    {
        let link = fs::read_link(overlay().join("etc/systemd/system").join(unit)).unwrap();
        assert_eq!(link.to_str(), Some("/dev/null"), "{unit}");
    }
    let users = text("usr/lib/sysusers.d/casemate.conf").unwrap();
    let shells: Vec<&str> = lines(&users)
        .filter(|line| line.starts_with("u "))
        .filter_map(|line| line.rsplit_once("\" ")?.1.split(' ').nth(1))
        .collect();
    assert_eq!(shells, ["/usr/lib/casemate/casemate"], "the operator alone has one, and it is the command line");
}

/// mkosi presets every unit, and a unit that is disabled loses its links in /etc: those that count are the vendor's.
#[test]
fn the_machine_starts_into_our_target_with_the_firewall_by_links_that_no_preset_removes() {
    let system = overlay().join("usr/lib/systemd/system");
    for (link, to) in [
        ("default.target", "casemate.target"),
        ("sysinit.target.wants/nftables.service", "../nftables.service"),
        ("local-fs.target.wants/tmp.mount", "../tmp.mount"),
    ] {
        assert_eq!(fs::read_link(system.join(link)).unwrap().to_str(), Some(to), "{link}");
    }
    let links = fs::read_dir(overlay().join("etc/systemd/system")).unwrap().map(|entry| entry.unwrap().path());
    let others: Vec<_> =
        links.filter(|path| fs::read_link(path).is_ok_and(|to| to.to_str() != Some("/dev/null"))).collect();
    assert!(others.is_empty(), "{others:?}");
}
