use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use casemate_hsm_swtpm::{ResourceManager, Swtpm};

use crate::{LabError, Layout, program, token};

/// The roles' tokens as they are shipped; the lab changes what a site would.
const ROLE_TOKENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../services/keyd/role-tokens.toml");

/// The shipped file's line for every role that has none of its own.
const DEFAULT: &str = "default = \"pkcs11:token=casemate\"\n";

/// Begins the shipped file's table of loads.
const LOADS: &str = "[signatures-per-second]\n";

/// Where Debian puts tpm2-pkcs11's module.
const TPM2_PKCS11: &str = "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1";

/// Where the keys of a lab live.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tokens {
    /// All in SoftHSM.
    #[default]
    SoftHsm,
    /// All in kryoptic, which `.ci/kryoptic` builds.
    Kryoptic,
    /// All but ITLRecovery in tpm2-pkcs11 on an swtpm with a resource manager. It lets no key leave it, so ITLRecovery, which is
    /// backed up, is in SoftHSM.
    Tpm2Pkcs11,
    /// All in an swtpm, by hsm/tpm.
    Tpm,
    /// ITLRecovery in an swtpm, the rest in SoftHSM.
    Split,
}

/// No such choice of tokens.
#[derive(Debug, thiserror::Error)]
#[error("TOKENS={0} is none of softhsm, kryoptic, tpm2-pkcs11, tpm, split")]
pub struct UnknownTokens(String);

impl FromStr for Tokens {
    type Err = UnknownTokens;

    fn from_str(text: &str) -> Result<Self, UnknownTokens> {
        match text {
            "softhsm" => Ok(Self::SoftHsm),
            "kryoptic" => Ok(Self::Kryoptic),
            "tpm2-pkcs11" => Ok(Self::Tpm2Pkcs11),
            "tpm" => Ok(Self::Tpm),
            "split" => Ok(Self::Split),
            _ => Err(UnknownTokens(text.to_owned())),
        }
    }
}

impl Tokens {
    /// For the person before the lab.
    #[must_use]
    pub fn explain(self, layout: &Layout) -> String {
        let softhsm = format!("SoftHSM, whose keys lie in an encrypted file under {}", layout.token().display());
        match self {
            Self::SoftHsm => format!("the token is {softhsm}"),
            Self::Kryoptic => {
                format!("the token is kryoptic, whose keys lie encrypted under {}", layout.token().display())
            }
            Self::Tpm2Pkcs11 => format!(
                "ITLRecovery, which may be backed up, is in {softhsm}; the rest in tpm2-pkcs11 on swtpm, a program that plays a TPM"
            ),
            Self::Tpm => "the token is swtpm, a program that plays a TPM".to_owned(),
            Self::Split => format!("ITLRecovery is in swtpm, a program that plays a TPM; the rest in {softhsm}"),
        }
    }

    const fn has_softhsm(self) -> bool {
        matches!(self, Self::SoftHsm | Self::Split | Self::Tpm2Pkcs11)
    }

    const fn has_tpm(self) -> bool {
        matches!(self, Self::Tpm | Self::Split)
    }

    /// Looks for the programs that this choice needs, so that a machine without them says so before anything else fails.
    pub(crate) fn check_installed(self) -> Result<(), LabError> {
        let check = |name: &str| {
            let mut command = Command::new(name);
            command.arg("--version");
            program::finish(command).map(drop)
        };
        if self.has_softhsm() {
            check("softhsm2-util")?;
        }
        match self {
            Self::Kryoptic if !self.module().exists() => Err(LabError::Failed {
                program: self.module().display().to_string(),
                output: "it is not there; .ci/kryoptic builds it".into(),
            }),
            Self::Tpm2Pkcs11 if !self.module().exists() => Err(LabError::Failed {
                program: self.module().display().to_string(),
                output: "it is not there; .ci/install installs it (package libtpm2-pkcs11-1)".into(),
            }),
            Self::Tpm2Pkcs11 => ["swtpm", "dbus-daemon"].into_iter().try_for_each(check),
            Self::Tpm | Self::Split => check("swtpm"),
            Self::SoftHsm | Self::Kryoptic => Ok(()),
        }
    }

    /// The PKCS#11 module.
    pub(crate) fn module(self) -> PathBuf {
        match self {
            Self::Kryoptic => program::target_folder().join("kryoptic/release/libkryoptic_pkcs11.so"),
            Self::Tpm2Pkcs11 => TPM2_PKCS11.into(),
            Self::SoftHsm | Self::Tpm | Self::Split => token::MODULE.into(),
        }
    }

    /// Every PKCS#11 token, by its module and the file of its user PIN.
    pub(crate) fn pkcs11(self, layout: &Layout) -> Vec<(PathBuf, PathBuf)> {
        let default = (self.module(), layout.pin());
        let softhsm = (self == Self::Tpm2Pkcs11).then(|| (token::MODULE.into(), self.softhsm_pin(layout)));
        [Some(default), softhsm].into_iter().flatten().collect()
    }

    /// The user PIN of SoftHSM: that of the default token, where it is not another.
    fn softhsm_pin(self, layout: &Layout) -> PathBuf {
        if matches!(self, Self::Tpm2Pkcs11) { layout.root.join("etc/softhsm-pin") } else { layout.pin() }
    }

    /// `role-tokens.toml` of the lab.
    fn role_tokens(self, layout: &Layout) -> Result<String, LabError> {
        let shipped = fs::read_to_string(ROLE_TOKENS).map_err(LabError::file(ROLE_TOKENS))?;
        let shipped = shipped.split_once(DEFAULT).and_then(|(head, rest)| Some((head, rest.split_once(LOADS)?)));
        let (head, (middle, loads)) = shipped.ok_or_else(|| LabError::Failed {
            program: ROLE_TOKENS.into(),
            output: "it is not as the lab knows it".into(),
        })?;
        let softhsm = format!("default = \"pkcs11:token={}\"\n", token::LABEL);
        let lines = match self {
            Self::SoftHsm | Self::Kryoptic => softhsm,
            Self::Tpm2Pkcs11 => {
                let (module, pin) = (token::MODULE, self.softhsm_pin(layout));
                let query = format!("module-path={module}&pin-source={}", encoded(&pin));
                format!("{softhsm}ITLRecovery = \"pkcs11:token={}?{query}\"\n", token::LABEL)
            }
            Self::Tpm => "default = \"tpm\"\n".to_owned(),
            Self::Split => format!("{softhsm}ITLRecovery = \"tpm\"\n"),
        };
        let loads = match self {
            // A TPM with every key in it is for one phone, and says so.
            Self::Tpm => each_of(loads, 1),
            // It makes no temporary keys, so nobody can measure it; and the one role that it has not asks for little.
            Self::Tpm2Pkcs11 => each_of(loads, 0),
            Self::SoftHsm | Self::Kryoptic | Self::Split => loads.to_owned(),
        };
        Ok([head, &lines, middle, LOADS, &loads].concat())
    }

    /// Lines for `[keyd]`.
    fn settings(self, layout: &Layout, tpm: Option<&Swtpm>) -> String {
        let root = layout.root.display();
        // Its keys may decrypt too, and it refuses to be told otherwise.
        let sign_only = if matches!(self, Self::Tpm2Pkcs11) { ", sign-only = false" } else { "" };
        let module = self.module();
        let pkcs11 =
            format!("pin-file = \"{root}/pins/pin\"\npkcs11 = {{ module = \"{}\"{sign_only} }}\n", module.display());
        let Some(tpm) = tpm.filter(|_| self.has_tpm()) else { return pkcs11 };
        format!(
            "{pkcs11}tpm = {{ address = {{ swtpm = {} }}, pin-file = \"{root}/pins/tpm-pin\", \
             wrapping-key = \"{root}/etc/wrapping-key\" }}\n",
            tpm.port()
        )
    }
}

/// A path in a PKCS#11 URI (RFC 7512): everything percent-encoded that may have to be.
fn encoded(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes.map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The same lines with this load each.
fn each_of(loads: &str, load: u32) -> String {
    let line = |line: &str| line.split_once(" = ").map_or(line.to_owned(), |(role, _)| format!("{role} = {load}"));
    loads.lines().map(|text| line(text) + "\n").collect()
}

/// What stands behind the tokens of a lab, and ends with it.
pub(crate) struct Hardware {
    // Dropped first, for it is connected to the TPM.
    manager: Option<Mutex<ResourceManager>>,
    tpm: Option<Mutex<Swtpm>>,
    /// Lines for `[keyd]`.
    pub(crate) settings: String,
}

impl Hardware {
    /// Does something to the TPM's plug.
    pub(crate) fn tpm(&self, work: impl FnOnce(&mut Swtpm) -> std::io::Result<()>) -> Result<(), LabError> {
        let failed = |output: &str| LabError::Failed { program: "swtpm".into(), output: output.to_owned() };
        let tpm = self.tpm.as_ref().ok_or_else(|| failed("this lab has none"))?;
        let mut tpm = tpm.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut tpm).map_err(|error| failed(&error.to_string()))
    }

    /// Does something to the program that stands before the TPM.
    pub(crate) fn manager<T>(
        &self,
        work: impl FnOnce(&mut ResourceManager, &Swtpm) -> std::io::Result<T>,
    ) -> Result<T, LabError> {
        let failed = |output: &str| LabError::Failed { program: "tpm2-abrmd".into(), output: output.to_owned() };
        let (Some(manager), Some(tpm)) = (&self.manager, &self.tpm) else { return Err(failed("this lab has none")) };
        let mut manager = manager.lock().unwrap_or_else(PoisonError::into_inner);
        let tpm = tpm.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut manager, &tpm).map_err(|error| failed(&error.to_string()))
    }
}

/// Makes the tokens, which belong to keyd, with PINs of their own in files that keyd alone can read, and writes where each role's
/// key is to live.
pub(crate) fn make(layout: &Layout, tokens: Tokens) -> Result<Hardware, LabError> {
    let path = layout.root.join("etc/role-tokens.toml");
    fs::write(&path, tokens.role_tokens(layout)?).map_err(LabError::file(path))?;
    if tokens.has_tpm() {
        let maker = layout.tpm_maker();
        Swtpm::certify(&layout.root.join("swtpm"), &maker).map_err(LabError::file(maker))?;
    }
    let needs_tpm = tokens.has_tpm() || tokens == Tokens::Tpm2Pkcs11;
    let tpm = needs_tpm.then(|| start(&layout.root.join("swtpm"))).transpose()?;
    if tokens.has_tpm() {
        token::write_pin(layout, &layout.tpm_pin(), &token::digits()?)?;
        make_wrapping_key(layout)?;
    }
    let manager = match &tpm {
        Some(tpm) if tokens == Tokens::Tpm2Pkcs11 => Some(manage(layout, tpm)?),
        _ => None,
    };
    if tokens.has_softhsm() {
        token::init(layout, &tokens.softhsm_pin(layout))?;
    }
    match tokens {
        Tokens::Kryoptic => {
            let conf = layout.root.join("etc/kryoptic.conf");
            let base = layout.token().join("token.sql");
            let text = format!("[[slots]]\nslot = 1\ndbtype = 'sqlite'\ndbargs = '{}'\n", base.display());
            fs::write(&conf, text).map_err(LabError::file(conf))?;
            init_by_pkcs11_tool(layout, &tokens.module())?;
        }
        Tokens::Tpm2Pkcs11 => init_by_pkcs11_tool(layout, &tokens.module())?,
        Tokens::SoftHsm | Tokens::Tpm | Tokens::Split => {}
    }
    let settings = tokens.settings(layout, tpm.as_ref());
    Ok(Hardware { manager: manager.map(Mutex::new), tpm: tpm.map(Mutex::new), settings })
}

fn start(state: &Path) -> Result<Swtpm, LabError> {
    Swtpm::start(state).map_err(LabError::file(state))
}

/// A resource manager for keyd's processes, and the variables by which they find it.
fn manage(layout: &Layout, tpm: &Swtpm) -> Result<ResourceManager, LabError> {
    let path = token::variables_file(layout);
    let failed = |error: std::io::Error| LabError::Failed {
        program: "tpm2-abrmd on a message bus of its own".into(),
        output: error.to_string(),
    };
    let manager = ResourceManager::start(tpm).map_err(failed)?;
    let variables = manager.variables("TPM2_PKCS11_TCTI").map(|(name, value)| format!("{name}={value}\n")).concat();
    fs::write(&path, variables + "TPM2_PKCS11_BACKEND=esysdb\n").map_err(LabError::file(path))?;
    Ok(manager)
}

/// `backup: wrapped` needs a wrapping key that is trusted: here the storage key of another TPM, which is gone afterwards.
fn make_wrapping_key(layout: &Layout) -> Result<(), LabError> {
    let state = layout.root.join("swtpm-of-the-backup");
    let other = start(&state)?;
    let (context, public) = (state.join("key.ctx"), layout.root.join("etc/wrapping-key"));
    let tool = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(name);
        command.args(["-Q", "-T", &other.tcti(), "-c"]).arg(&context).args(arguments);
        program::finish(command).map(drop)
    };
    tool("tpm2_createprimary", &["-C", "o", "-G", "ecc"])?;
    tool("tpm2_readpublic", &["-o", &public.display().to_string()])?;
    layout.own(&public, 0o444, None)
}

/// Makes a token through its module, with the commands of PKCS#11.
fn init_by_pkcs11_tool(layout: &Layout, module: &Path) -> Result<(), LabError> {
    let (user, officer) = (token::digits()?, token::digits()?);
    let module = module.display().to_string();
    let tool = |arguments: &[&str]| {
        let all = [&["--module", &module], arguments].concat();
        program::finish(token::beside_keyd(layout, "pkcs11-tool", &all)).map(drop)
    };
    tool(&["--init-token", "--slot-index", "0", "--label", token::LABEL, "--so-pin", &officer])?;
    let as_officer = ["--token-label", token::LABEL, "--login", "--login-type", "so", "--so-pin", &officer];
    tool(&[&as_officer[..], &["--init-pin", "--pin", &user]].concat())?;
    token::write_pin(layout, &layout.pin(), &user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Owner;

    #[test]
    fn each_choice_is_named_and_another_is_refused() {
        for (text, tokens) in [
            ("softhsm", Tokens::SoftHsm),
            ("kryoptic", Tokens::Kryoptic),
            ("tpm2-pkcs11", Tokens::Tpm2Pkcs11),
            ("tpm", Tokens::Tpm),
            ("split", Tokens::Split),
        ] {
            assert_eq!(text.parse::<Tokens>().unwrap(), tokens);
        }
        assert!("SoftHSM".parse::<Tokens>().unwrap_err().to_string().contains("TOKENS=SoftHSM"));
    }

    #[test]
    fn the_shipped_file_is_changed_in_its_tokens_and_for_a_tpm_in_its_loads() {
        let shipped = fs::read_to_string(ROLE_TOKENS).unwrap();
        let layout = Layout { root: "/a lab".into(), owner: Owner::One("a test") };
        let of = |tokens: Tokens| tokens.role_tokens(&layout).unwrap();
        assert_eq!(of(Tokens::SoftHsm), shipped.replace("\"pkcs11:token=casemate\"", "\"pkcs11:token=casemate-lab\""));
        assert!(of(Tokens::Split).contains("\ndefault = \"pkcs11:token=casemate-lab\"\nITLRecovery = \"tpm\"\n"));
        assert!(of(Tokens::Split).contains("\nTVS = 20\n"));
        assert!(of(Tokens::Tpm).contains("\ndefault = \"tpm\"\n") && of(Tokens::Tpm).contains("\nTVS = 1\n"));
        let elsewhere = "ITLRecovery = \"pkcs11:token=casemate-lab?module-path=/usr/lib/softhsm/libsofthsm2.so&\
                         pin-source=/a%20lab/etc/softhsm-pin\"\n";
        let tpm2_pkcs11 = of(Tokens::Tpm2Pkcs11);
        assert!(tpm2_pkcs11.contains(elsewhere) && tpm2_pkcs11.contains("\nTVS = 0\n"), "{tpm2_pkcs11}");
    }
}
