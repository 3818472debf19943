use std::{ffi::OsString, path::PathBuf, process::ExitCode, str::FromStr};

use casemate_capf::DeviceName;
use casemate_hsm_api::{KeyAlgorithm, KeyRole};
use casemate_keyring::NONCE_LIMIT;
use clap::{ArgGroup, Args, Parser, Subcommand, builder::TypedValueParser};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Operates a Casemate node.
#[derive(Debug, Parser)]
#[command(name = "casemate", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Settings file [default: /etc/casemate/casemate.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of a lab, whose etc/casemate.toml is the settings file
    #[arg(long, global = true, env = "CASEMATE_LAB", value_name = "FOLDER", hide_env_values = true)]
    pub(crate) lab: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What runs here: image, root hash, commit, FIPS module, kernel, programs, bill of materials
    Version,
    /// Make every identity's key in the token and its certificate; go on where an interrupted run stopped
    Provision,
    /// Phones and their certificate operations
    #[command(subcommand, arg_required_else_help = true)]
    Phone(PhoneCommand),
    /// What phones are given
    #[command(subcommand, arg_required_else_help = true)]
    Show(ShowCommand),
    /// The power-on self-test
    #[command(subcommand, arg_required_else_help = true)]
    Selftest(SelftestCommand),
    /// The token and its keys
    #[command(subcommand, arg_required_else_help = true)]
    Hsm(HsmCommand),
    /// The audit trail
    #[command(subcommand, arg_required_else_help = true)]
    Audit(AuditCommand),
    /// Identity certificates
    #[command(subcommand, arg_required_else_help = true)]
    Identity(IdentityCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PhoneCommand {
    /// Let a phone install a certificate
    Add(AddPhone),
    /// Every phone, its last operation, and its certificate
    List,
}

/// One of the two ways in which a phone proves that it may have a certificate.
#[derive(Args)]
#[command(group = ArgGroup::new("proof").args(["string", "null_string"]).required(true))]
pub(crate) struct AddPhone {
    /// Device name: SEP and the 12 hexadecimal digits of the MAC address
    #[arg(value_parser = device_name)]
    pub(crate) name: DeviceName,
    /// Authentication string that the phone's user types: 4 to 10 digits, for one certificate
    // Not parsed here: the text of a wrong one must not come back in an error.
    #[arg(long, value_name = "DIGITS")]
    pub(crate) string: Option<String>,
    /// Ask the phone for no proof; the operation expires (setting null-string-s of [capf], a day by default)
    #[arg(long)]
    pub(crate) null_string: bool,
    /// Key that the phone is to make
    #[arg(long, default_value = "rsa-2048", value_parser = key_parser())]
    pub(crate) key: KeyAlgorithm,
}

// By hand, for the string must not be printed.
impl std::fmt::Debug for AddPhone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddPhone").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ShowCommand {
    /// The initial trust list, and whether its signature verifies
    Itl,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SelftestCommand {
    /// Run the power-on self-test again (root)
    Run,
    /// Result of the last power-on self-test, and how far the cryptography is validated
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HsmCommand {
    /// Token, mechanisms, login, and every recorded key with whether the token has it
    List,
    /// Give a token another user PIN: the new one is asked for at a terminal, or read as one line from standard input
    ChangePin(ChangePin),
    /// Whether a PKCS#11 module can carry Casemate's keys: makes keys on its token, tries them, and removes them
    Check(CheckModule),
    /// A token's statement that a key was made in it and cannot leave it, for an auditor's casemate-verify
    Attest(Attest),
    /// What an auditor makes a challenge of, once for each TPM
    AttestationKey(FromToken),
    /// Have a token answer an auditor's challenge
    Answer(AnswerChallenge),
}

#[derive(Debug, Args)]
pub(crate) struct ChangePin {
    /// The token's name, as in `casemate hsm list`; may be left out where there is one
    #[arg(long, value_name = "NAME")]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes:\n  0  every answer was right, and the token can carry every role\n  1  it could not be checked: no \
    module, no such token, a refused PIN\n  2  wrong usage\n  3  every answer was right, and some role cannot live there\n  4  it \
    gave a wrong answer, crashed or hung"
)]
pub(crate) struct CheckModule {
    /// The module, a shared library
    #[arg(value_name = "MODULE.SO")]
    pub(crate) module: PathBuf,
    /// The token's label, where the module has several
    #[arg(long, value_name = "LABEL")]
    pub(crate) token: Option<String>,
    /// File with the token's user PIN, mode 0400, yours; otherwise the PIN is asked for at a terminal, or read as one line from standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// Try every algorithm that the token offers, and not only P-256 and those of the roles
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Attest {
    /// Whose key, as in `casemate identity list`
    pub(crate) role: KeyRole,
    /// The auditor's nonce; without it no auditor takes the statement
    #[arg(long, value_name = "HEX", default_value = "", hide_default_value = true)]
    pub(crate) nonce: Nonce,
    /// Write it to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// An auditor's nonce, written as hexadecimal digits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Nonce(pub(crate) Vec<u8>);

impl FromStr for Nonce {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = hex::decode(text).map_err(|error| format!("the nonce is no row of hexadecimal digits: {error}"))?;
        if bytes.len() > NONCE_LIMIT {
            return Err(format!("the nonce has {} bytes; at most {NONCE_LIMIT} are taken", bytes.len()));
        }
        Ok(Self(bytes))
    }
}

#[derive(Debug, Args)]
pub(crate) struct FromToken {
    /// The token's name, as in `casemate hsm list`
    #[arg(long, default_value = "tpm", value_name = "NAME")]
    pub(crate) token: String,
    /// Write it to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AnswerChallenge {
    /// The challenge that `casemate-verify challenge` wrote
    #[arg(value_name = "CHALLENGE.json")]
    pub(crate) challenge: PathBuf,
    #[command(flatten)]
    pub(crate) from: FromToken,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// The last events: time, service, message
    Tail(Tail),
    /// Every event, oldest first, as one JSON object a line; fails, with what is missing, if the trail is not whole
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Leave out what was recorded before: a date, or a moment as 2026-11-24T08:30:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Leave out what was recorded then and later
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
}

/// Microseconds since 1970.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(pub(crate) i128);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
        let moment = OffsetDateTime::parse(&whole, &Rfc3339)
            .map_err(|_| "it is no date (2026-11-24, in UTC) and no moment (2026-11-24T08:30:00Z)".to_owned())?;
        Ok(Self(moment.unix_timestamp_nanos() / 1000))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// How many
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    pub(crate) lines: usize,
    /// Go on with new ones until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Every identity certificate, with its key's fingerprint and where it is published
    List,
    /// Give an identity a new key and certificate in the token of its line in role-tokens.toml; shows first what that means
    Rekey(Rekey),
    /// Have ITLRecovery or CallManager sign the trust lists, of which phones know both from the published list
    ListSigner {
        /// Whose key
        role: KeyRole,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Rekey {
    /// Whose key, as in `casemate identity list`
    pub(crate) role: KeyRole,
    /// Show what it means and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) plan: bool,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A name that begins with `SEP` in any letters is meant for a phone: in small ones it would be another device's, which no phone
/// ever asks for.
fn device_name(text: &str) -> Result<DeviceName, String> {
    let capitals = text.to_ascii_uppercase();
    if capitals.starts_with("SEP") && capitals != text && capitals.parse::<DeviceName>().is_ok() {
        return Err(format!("write it in capitals: {capitals}"));
    }
    let meant = if capitals.starts_with("SEP") { &capitals } else { text };
    meant.parse::<DeviceName>().map_err(|error| error.to_string())
}

const KEYS: [(&str, KeyAlgorithm); 6] = [
    ("rsa-2048", KeyAlgorithm::Rsa2048),
    ("rsa-3072", KeyAlgorithm::Rsa3072),
    ("rsa-4096", KeyAlgorithm::Rsa4096),
    ("p-256", KeyAlgorithm::P256),
    ("p-384", KeyAlgorithm::P384),
    ("p-521", KeyAlgorithm::P521),
];

fn key_parser() -> impl TypedValueParser<Value = KeyAlgorithm> {
    clap::builder::PossibleValuesParser::new(KEYS.map(|(name, _)| name))
        .try_map(|name| KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key).ok_or("no such key"))
}

/// Prints why a command line was not taken (or the help that was asked for), without what may be an authentication string: a
/// forgotten `--string` leaves it among the arguments that the error names.
pub(crate) fn explain(error: &clap::Error, given: &[OsString]) -> ExitCode {
    let text = without_digits(&error.render().to_string(), given);
    if error.use_stderr() {
        eprint!("{text}");
        return ExitCode::from(2);
    }
    print!("{text}");
    ExitCode::SUCCESS
}

fn without_digits(text: &str, given: &[OsString]) -> String {
    let words = given.iter().filter_map(|word| word.to_str()).flat_map(|word| word.split('='));
    let secret = words.filter(|word| word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_digit()));
    secret.fold(text.to_owned(), |text, digits| text.replace(digits, "(digits)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    fn added(line: &str) -> AddPhone {
        match parse(line).unwrap().command {
            Command::Phone(PhoneCommand::Add(phone)) => phone,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_command_of_the_grammar_is_taken_with_json() {
        for line in [
            "version",
            "provision",
            "phone list",
            "show itl",
            "selftest run",
            "selftest status",
            "hsm list",
            "hsm change-pin",
            "hsm change-pin --token tpm",
            "hsm check /usr/lib/m.so",
            "hsm check /usr/lib/m.so --token lab --pin-file /p --all",
            "hsm attest CAPF",
            "hsm attest ITLRecovery --nonce 00ff --output statement.json",
            "hsm attestation-key --token tpm --output key.json",
            "hsm answer challenge.json --output answer.json",
            "audit tail",
            "audit tail -n 5 --follow",
            "audit export",
            "audit export --since 2026-11-24 --until 2026-11-24T08:30:00+01:00",
            "identity list",
            "identity rekey ITLRecovery",
            "identity list-signer ITLRecovery",
            "identity rekey CAPF --plan",
            "identity rekey CallManager-ECDSA --yes",
            "phone add SEP001122334455 --string 123456",
            "phone add SEP001122334455 --null-string --key p-521",
        ] {
            assert!(!parse(&format!("casemate {line}")).unwrap().json);
            assert!(parse(&format!("casemate {line} --json")).unwrap().json);
        }
    }

    #[test]
    fn a_moment_is_a_date_or_has_its_offset() {
        assert_eq!("1970-01-02".parse(), Ok(Moment(86_400_000_000)));
        assert_eq!("1970-01-02T01:00:00.5+01:00".parse(), Ok(Moment(86_400_500_000)));
        for wrong in ["", "yesterday", "1970-01-02T01:00:00", "1970-13-01"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_nonce_is_hexadecimal_and_no_longer_than_a_tpm_takes() {
        assert_eq!("00ff".parse(), Ok(Nonce(vec![0, 255])));
        assert_eq!("ab".repeat(64).parse(), Ok(Nonce(vec![0xab; 64])));
        for wrong in ["0", "xx", &"ab".repeat(65)] {
            assert!(wrong.parse::<Nonce>().is_err(), "{wrong}");
        }
        assert!(parse("casemate hsm attest capf").unwrap_err().to_string().contains("CallManager-ECDSA"));
    }

    #[test]
    fn a_phone_has_one_way_to_prove_itself_and_a_key() {
        let phone = added("casemate phone add SEP001122334455 --string 0123");
        assert_eq!(
            (phone.string.as_deref(), phone.null_string, phone.key),
            (Some("0123"), false, KeyAlgorithm::Rsa2048)
        );
        for (name, key) in KEYS {
            let line = format!("casemate phone add SEP001122334455 --null-string --key {name}");
            assert_eq!(added(&line).key, key);
        }
        let error = parse("casemate phone add SEP001122334455").unwrap_err().to_string();
        assert!(error.contains("<--string <DIGITS>|--null-string>"), "{error}");
        assert!(parse("casemate phone add SEP001122334455 --string 1234 --null-string").is_err());
    }

    #[test]
    fn a_wrong_name_or_key_says_what_would_be_right() {
        let text = |line: &str| parse(line).unwrap_err().to_string();
        let error = text("casemate phone add sep00112233445f --null-string");
        assert!(error.contains("write it in capitals: SEP00112233445F"), "{error}");
        let error = text("casemate phone add sep12 --null-string");
        assert!(error.contains("12 hexadecimal digits"), "{error}");
        let error = text("casemate phone add SEP001122334455 --null-string --key rsa-1024");
        assert!(error.contains("rsa-2048") && error.contains("p-521"), "{error}");
    }

    #[test]
    fn no_error_repeats_what_may_be_an_authentication_string() {
        for line in [
            "casemate phone add SEP001122334455 --null-string 98765",
            "casemate phone add 98765",
            "casemate phone add SEP001122334455 --null-string --key 98765",
            "casemate phone add SEP001122334455 --null-string=98765",
        ] {
            let given: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let error = parse(line).unwrap_err();
            let text = without_digits(&error.render().to_string(), &given);
            assert!(!text.contains("98765"), "{text}");
        }
        assert!(!format!("{:?}", added("casemate phone add SEP001122334455 --string 98765")).contains("98765"));
    }
}
