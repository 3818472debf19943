use std::{
    collections::BTreeMap,
    env,
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
    time::Duration,
};

use casemate_qemu::{Entry, Guest, GuestError, GuestSettings, Phone};
use serde_json::Value;

use crate::{checkout, programs};

/// A machine under test: its disk, its TPM and its firmware's variables live on while it is off. Every method panics, with what the
/// guest said last, where something does not hold in time.
pub struct Machine {
    /// What it is made from; changes count from the next start.
    pub settings: GuestSettings,
    /// How long one wait may take.
    pub limit: Duration,
    guest: Option<Guest>,
}

impl Machine {
    /// A new machine with the image of `target/image/IMAGE` (`out` is what `make image` makes), off. Its files go to
    /// `target/image/guest-NAME`, and it has a loopback address of its own.
    ///
    /// # Panics
    /// The image was not built.
    #[must_use]
    pub fn new(image: &str, name: &str) -> Self {
        let checkout = checkout();
        let limit = env::var("LIMIT").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(600);
        let built = GuestSettings::of_image(&checkout, image, &format!("guest-{name}"));
        let mut settings = built.unwrap_or_else(|error| panic!("{error}"));
        settings.address = loopback(&(checkout, name));
        Self { settings, limit: Duration::from_secs(limit), guest: None }
    }

    /// Switches it on; a machine that was on before has the same disk, TPM and firmware variables.
    ///
    /// # Panics
    /// QEMU cannot be started.
    pub fn switch_on(&mut self) -> &mut Guest {
        assert!(self.guest.is_none(), "it is on already");
        let guest = Guest::start(self.settings.clone()).unwrap_or_else(|error| panic!("{error}"));
        self.settings.keep = true;
        self.guest.insert(guest)
    }

    /// The running guest.
    ///
    /// # Panics
    /// It is off.
    pub fn guest(&mut self) -> &mut Guest {
        self.guest.as_mut().expect("it is on")
    }

    /// Gives what `wait` gives.
    ///
    /// # Panics
    /// With what the guest said, if it gives an error.
    pub fn must<T>(&mut self, wait: impl FnOnce(&mut Guest, Duration) -> Result<T, GuestError>) -> T {
        let limit = self.limit;
        let guest = self.guest();
        wait(guest, limit).unwrap_or_else(|error| panic!("{error}\n{}", guest.troubles()))
    }

    /// Switches it on and waits for `casemate.target`.
    pub fn serve(&mut self) -> Entry {
        self.switch_on();
        let entry = self.must(|guest, limit| guest.wait_for_unit("casemate.target", limit));
        let (on_for, booted) = (self.guest().on_for(), entry.since_boot().unwrap_or_default());
        println!(
            "measured: power-on to casemate.target {:.1} s, its kernel's {:.1} s",
            on_for.as_secs_f64(),
            booted.as_secs_f64()
        );
        entry
    }

    /// Pulls the plug: what the guest did not write is lost.
    pub fn pull_plug(&mut self) {
        self.guest.take().expect("it is on").pull_plug();
    }

    /// What the operator's command prints.
    pub fn casemate(&mut self, arguments: &[&str]) -> String {
        self.must(|guest, limit| guest.console(limit)?.casemate(arguments, limit))
    }

    /// The same with `--json`.
    ///
    /// # Panics
    /// It is no JSON.
    pub fn json(&mut self, arguments: &[&str]) -> Value {
        let text = self.casemate(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("casemate {arguments:?}: {error}: {text:?}"))
    }

    /// Fingerprints of the keys on record, by role.
    pub fn keys(&mut self) -> BTreeMap<String, String> {
        let listed = self.json(&["identity", "list"]);
        let text = |identity: &Value, name: &str| identity[name].as_str().unwrap_or_default().to_owned();
        let identities = listed.as_array().cloned().unwrap_or_default();
        identities.iter().map(|identity| (text(identity, "role"), text(identity, "key-fingerprint"))).collect()
    }

    /// The phone `name` at this machine's ports, with what it kept.
    #[must_use]
    pub fn phone(&self, name: &str) -> Phone {
        Phone::new(&self.settings, &programs(), name)
    }

    /// Lets a new phone in and plays it until it has its certificate.
    pub fn enrol(&mut self, name: &str) -> Phone {
        let phone = self.phone(name);
        let told = self.must(|guest, limit| {
            phone.reset()?;
            phone.let_in(&mut guest.console(limit)?, limit)?;
            phone.enrol(limit)
        });
        for line in told.lines() {
            println!("      {line}");
        }
        phone
    }
}

/// An address in 127.0.0.0/8 that no other test's guest has, nor the same test's in another checkout.
fn loopback(of: &impl Hash) -> Ipv4Addr {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    let [a, b, c, ..] = hasher.finish().to_le_bytes();
    Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(1, 254))
}
