use aws_lc_rs::rand;
use casemate_hsm_api::{HsmError, Pin};
use casemate_hsm_pin::{NextPin, Refusals, Verdict, WrittenPin};
use tss_esapi::{
    structures::{Private, Public, SensitiveData},
    traits::{Marshall, UnMarshall},
};
use zeroize::Zeroizing;

use crate::{
    TpmError, TpmSettings, capability,
    connection::{Connection, Secret},
    error::{is_bad_blob, is_refusal},
    folder::{Folder, TokenRecord, damaged},
    pin::{auth, auth_value, without_trailing_zero},
    template,
};

/// Makes the sealed object: 32 random bytes that the PIN opens, and that authorize every key of the token.
pub(crate) fn make_token(connection: &mut Connection, label: &str, pin: &Pin) -> Result<TokenRecord, TpmError> {
    let mut content = random(connection)?;
    without_trailing_zero(&mut content);
    seal(connection, label, pin, &content)
}

fn random(connection: &Connection) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let mut bytes = Zeroizing::new(vec![0; 32]);
    rand::fill(&mut bytes).map_err(|_| HsmError::Device {
        token: connection.serial().to_owned(),
        operation: "the random generator of the FIPS module".to_owned(),
        detail: "it gave nothing".to_owned(),
    })?;
    Ok(bytes)
}

fn seal(connection: &mut Connection, label: &str, pin: &Pin, content: &[u8]) -> Result<TokenRecord, TpmError> {
    let salt = random(connection)?.to_vec();
    let template = template::sealed().map_err(|error| connection.failed("the sealed object's template", error))?;
    let content =
        SensitiveData::try_from(content).map_err(|error| connection.failed("the sealed object's content", error))?;
    let value = auth_value(pin, &salt);
    let made = connection
        .ask(Secret::Command, |context, primary| {
            let (auth, content) = (Some(value.clone()), Some(content.clone()));
            context.create(primary, template.clone(), auth, content, None, None)
        })
        .map_err(|error| connection.failed("TPM2_Create", error))?;
    let public = made.out_public.marshall().map_err(|error| connection.failed("TPM2B_PUBLIC", error))?;
    Ok(TokenRecord {
        label: label.to_owned(),
        serial: connection.serial().to_owned(),
        salt,
        public,
        private: made.out_private.value().to_vec(),
    })
}

/// Logs in, once, if the PIN may be tried at all: the TPM's own warnings and our memory of refused PINs come first, then the
/// mark on disk, and only then the TPM sees the PIN.
pub(crate) fn login(
    connection: &mut Connection,
    folder: &Folder,
    record: &TokenRecord,
    pin: &WrittenPin,
    settings: &TpmSettings,
) -> Result<(), TpmError> {
    if record.serial != connection.serial() {
        let (made_by, found) = (record.serial.clone(), connection.serial().to_owned());
        return Err(TpmError::OtherTpm { folder: folder.path().to_owned(), made_by, found });
    }
    let token = record.serial.clone();
    let lockout = capability::lockout(connection)?;
    if lockout.locked {
        return Err(HsmError::PinLocked { token, unlock: lockout.unlock() }.into());
    }
    let refusals = Refusals::of_tpm(&settings.state, &token);
    // The TPM's counter tells nothing of our last login: others count there too, and a good login does not reset it.
    let unresolved = match refusals.verdict(pin, false, settings.unresolved_logins)? {
        Verdict::Refused => return Err(HsmError::PinRefusedBefore { token }.into()),
        Verdict::Unresolved(logins) => return Err(HsmError::PinUnresolved { token, logins }.into()),
        Verdict::Try(unresolved) => unresolved,
    };
    if lockout.counted.saturating_add(1) >= lockout.most {
        return Err(HsmError::PinLastTry { token, unlock: lockout.unlock() }.into());
    }
    let mark = refusals.mark(pin, unresolved)?;
    match unseal(connection, folder, record, &pin.pin) {
        Ok(content) => {
            connection.key_auth = Some(auth(content.value()));
            Ok(mark.clear()?)
        }
        Err(error) => {
            match &error {
                // The PIN was looked at and refused.
                TpmError::Hsm(HsmError::PinIncorrect { .. }) => mark.refused()?,
                // It was not looked at.
                TpmError::Hsm(HsmError::PinLocked { .. }) | TpmError::Damaged { .. } => mark.clear()?,
                // Nobody knows. The mark stays and counts.
                _ => {}
            }
            Err(error)
        }
    }
}

/// Has the TPM seal the same content under another PIN. Who kept the old record can still open it with the old PIN: a TPM does
/// not remember what it made.
///
/// The token has the new PIN from the moment in which the new record takes the old one's place. Before that both the record and the
/// PIN are on disk beside the old ones, and [`settle`] tells by the record which PIN is the token's, without trying any.
pub(crate) fn change_pin(
    connection: &mut Connection,
    folder: &Folder,
    record: &TokenRecord,
    pin: &Pin,
    files: &NextPin,
) -> Result<TokenRecord, TpmError> {
    settle(folder, files)?;
    files.ready()?;
    let Some(key_auth) = connection.key_auth.clone() else {
        let detail = "nobody is logged in".to_owned();
        return Err(HsmError::TokenAbsent { token: record.serial.clone(), detail }.into());
    };
    // The content is known from the login, so the old PIN is not needed again.
    let made = seal(connection, &record.label, pin, key_auth.value())?;
    folder.stage_token(&made)?;
    if let Err(error) = files.stage(pin).map_err(TpmError::from).and_then(|()| folder.commit_token()) {
        settle(folder, files)?;
        return Err(error);
    }
    Ok(made)
}

/// Ends a change of the PIN that was interrupted: a record that is still beside the token's was not in its place yet.
pub(crate) fn settle(folder: &Folder, files: &NextPin) -> Result<(), TpmError> {
    if folder.has_staged() {
        // The PIN first: without the record it would be taken for the token's.
        files.discard()?;
        folder.drop_staged()?;
    } else if files.is_there() {
        files.adopt()?;
    }
    Ok(())
}

fn unseal(
    connection: &mut Connection,
    folder: &Folder,
    record: &TokenRecord,
    pin: &Pin,
) -> Result<SensitiveData, TpmError> {
    let path = folder.path().join("token");
    let bad = |_| damaged(&path, "it holds no TPM object");
    let public = Public::unmarshall(&record.public).map_err(bad)?;
    let private = Private::try_from(record.private.as_slice()).map_err(bad)?;
    let handle = connection.load(&public, &private, auth_value(pin, &record.salt)).map_err(|error| {
        if is_bad_blob(error) {
            damaged(&path, "the TPM does not take it for its own")
        } else {
            connection.failed("TPM2_Load", error).into()
        }
    })?;
    let content = connection.ask(Secret::Response, |context, _| context.unseal(handle.into()));
    connection.unload(handle);
    content.map_err(|error| {
        let token = record.serial.clone();
        if is_refusal(error) { HsmError::PinIncorrect { token } } else { connection.failed("TPM2_Unseal", error) }
            .into()
    })
}
