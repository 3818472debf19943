use std::{fs, path::Path};

use crate::{DAEMONS, LabError, LabSettings, Layout, Owner, Ports};

/// The key policy as it is shipped: the lab uses no other.
const KEY_POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../services/keyd/key-policy.toml");

/// Writes the lab's settings file: paths, users, ports, and `keyd`'s lines on its tokens. Everything else is the shipped default.
pub(crate) fn write(layout: &Layout, settings: &LabSettings, keyd: &str) -> Result<(), LabError> {
    let to = layout.root.join("etc/key-policy.toml");
    fs::copy(Path::new(KEY_POLICY), &to).map_err(LabError::file(KEY_POLICY))?;
    let text = sections(layout, settings, keyd);
    fs::write(layout.config(), text).map_err(LabError::file(layout.config()))
}

fn sections(layout: &Layout, settings: &LabSettings, keyd: &str) -> String {
    let root = layout.root.display();
    let mut users: String =
        DAEMONS.iter().map(|(daemon, _)| format!("{daemon} = {}\n", layout.owner.uid(daemon))).collect();
    if let Owner::One(_) = layout.owner {
        // Operators are root and this user.
        users.push_str(&format!("admin = {}\n", layout.owner.uid("admin")));
    }
    let own = [
        ("keyd", keyd.trim_end().to_owned()),
        ("capf", format!("port = {}", Ports::CAPF)),
        ("tvs", format!("port = {}", Ports::TVS)),
        ("tftp", format!("tftp-port = {}\nhttp-port = {}\nhttps-port = {}", Ports::TFTP, Ports::HTTP, Ports::HTTPS)),
        ("ctlprovider", format!("capf-port = {}\ntvs-port = {}", Ports::CAPF, Ports::TVS)),
    ];
    let sections: String = own
        .iter()
        .map(|(name, lines)| {
            let extra: String = settings
                .extra
                .iter()
                .filter(|(section, _)| section == name)
                .map(|(_, lines)| format!("{lines}\n"))
                .collect();
            format!("\n[{name}]\n{lines}\n{extra}")
        })
        .collect();
    let journald = if settings.journald { String::new() } else { format!("journal-socket = \"{root}/no-journald\"\n") };
    format!(
        "# The lab's settings: paths, users and ports. The rest is the shipped default.\n\
         [paths]\nrun = \"{root}/run\"\nstate = \"{root}/state\"\nbin = \"{root}/bin\"\netc = \"{root}/etc\"\n\n\
         [security]\nmode = \"{}\"\n\n\
         [audit]\nfile = \"{root}/journal.jsonl\"\n{journald}\n\
         [node]\nhost = \"casemate-lab\"\naddress = \"{}\"\n\n\
         [users]\n{users}{sections}",
        settings.mode, settings.address,
    )
}
