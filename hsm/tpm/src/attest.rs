use casemate_hsm_api::{HsmError, KeyId, SignatureScheme};
use casemate_hsm_attest::{AttestationKey, Challenge, Pcr, QUOTED_PCRS, Quote, Statement};
use tss_esapi::{
    Context, Error, Result as Answer, WrapperErrorKind,
    abstraction::ek,
    attributes::SessionAttributesBuilder,
    constants::SessionType,
    handles::{AuthHandle, KeyHandle, SessionHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        Attest, AttestInfo, Data, Digest, EncryptedSecret, IdObject, Nonce, PcrSelectionList, PcrSelectionListBuilder,
        PcrSlot, Public, Signature, SignatureScheme as TpmScheme, SymmetricDefinition,
    },
    traits::Marshall,
};
use zeroize::Zeroizing;

use crate::{
    connection::{Connection, Secret},
    endorsement::{self, ENDORSEMENT},
    keys::Keys,
    signature::outward,
    template::{NAME_HASH, attestation_primary},
};

/// The attestation key and the TPM's endorsement certificate, with the certificates that its maker left beside it.
pub(crate) fn attestation_key(tpm: &mut Connection) -> Result<AttestationKey, HsmError> {
    let endorsement_certificate = endorsement::certificate(tpm)?;
    let intermediates = endorsement::intermediates(tpm)?;
    let public = with_attestation_key(tpm, "the attestation key", |_, _, public| public.marshall())?;
    Ok(AttestationKey { endorsement_certificate, intermediates, public })
}

/// Opens a challenge: `TPM2_ActivateCredential`. The TPM gives the secret only if the challenge is for a key that it holds.
pub(crate) fn activate(tpm: &mut Connection, challenge: &Challenge) -> Result<Zeroizing<Vec<u8>>, HsmError> {
    let bad = |tpm: &Connection, error| tpm.failed("the challenge", error);
    let credential = IdObject::try_from(challenge.credential.as_slice()).map_err(|error| bad(tpm, error))?;
    let secret = EncryptedSecret::try_from(challenge.secret.as_slice()).map_err(|error| bad(tpm, error))?;
    let opened = with_attestation_key(tpm, "TPM2_ActivateCredential", |context, key, _| {
        let endorsement = ek::create_ek_object_2(context, ENDORSEMENT, None)?;
        let opened = endorsed(context, |context, policy| {
            context.execute_with_sessions((Some(AuthSession::Password), Some(policy), None), |context| {
                context.activate_credential(key, endorsement, credential.clone(), secret.clone())
            })
        });
        context.flush_context(endorsement.into())?;
        Ok(Zeroizing::new(opened?.value().to_vec()))
    });
    match opened {
        // libtpms says TPM_RC_FAILURE when the secret does not decrypt. Only a TPM that fails in the next command as well is
        // broken: a stranger's challenge must not be the end of it.
        Err(HsmError::WrongAnswer { token, .. }) => {
            tpm.present()?;
            let detail = "the challenge is for another TPM".to_owned();
            Err(HsmError::Device { token, operation: "TPM2_ActivateCredential".to_owned(), detail })
        }
        // TPM_RC_INTEGRITY: it is for the endorsement key of this TPM, and not for the name of its attestation key.
        Err(HsmError::Device { token, operation, detail }) if detail.contains("Integrity") => {
            let detail = format!("the challenge is for another attestation key: {detail}");
            Err(HsmError::Device { token, operation, detail })
        }
        other => other,
    }
}

/// Values that `TPM2_PCR_Read` gives at once (`TPML_DIGEST`, TPM 2.0 part 2, 10.9.6).
const PCRS_AT_ONCE: usize = 8;

/// How often registers are read and quoted anew when something is measured in between.
const QUOTES: usize = 3;

/// Has the TPM say what it knows of a key and of its machine's start, with the auditor's nonce of at most 64 bytes: `TPM2_Certify` and
/// `TPM2_Quote`.
pub(crate) fn certify(keys: &mut Keys<'_>, id: KeyId, nonce: &[u8]) -> Result<Statement, HsmError> {
    let by = attestation_key(keys.tpm)?;
    let public = keys.area(id)?;
    let nonce = Data::try_from(nonce).map_err(|error| keys.tpm.failed("the nonce", error))?;
    keys.tpm.clear();
    let key = keys.key(id)?;
    let tpm = &mut *keys.tpm;
    let (attester, _) = make_attestation_key(tpm)?;
    let said = tpm.ask(Secret::Neither, |context, _| {
        let (own, ..) = context.sessions();
        context.execute_with_sessions((own, Some(AuthSession::Password), None), |context| {
            context.certify(key.handle.into(), attester, nonce.clone(), TpmScheme::Null)
        })
    });
    let quote = said.is_ok().then(|| quote(tpm, attester, &nonce));
    tpm.unload(attester);
    let (said, signature) = said.map_err(|error| tpm.failed("TPM2_Certify", error))?;
    let wrong =
        || HsmError::WrongAnswer { token: tpm.serial().to_owned(), operation: format!("TPM2_Certify of key {id}") };
    let certify = said.marshall().map_err(|error| tpm.failed("TPMS_ATTEST", error))?;
    let signature = der(&signature).ok_or_else(wrong)?;
    let quote = quote.ok_or_else(wrong)??;
    Ok(Statement { public, certify, signature, quote, by })
}

/// What the machine was started with, quoted by the attestation key. Registers that are quoted may change at any moment; then they are
/// read again.
fn quote(tpm: &mut Connection, attester: KeyHandle, nonce: &Data) -> Result<Quote, HsmError> {
    let selection = selection(&QUOTED_PCRS).map_err(|error| tpm.failed("the selection of PCRs", error))?;
    for _ in 0..QUOTES {
        let pcrs = read_pcrs(tpm)?;
        let (said, signature) = tpm
            .ask(Secret::Neither, |context, _| {
                context.execute_with_session(Some(AuthSession::Password), |context| {
                    context.quote(attester, nonce.clone(), TpmScheme::Null, selection.clone())
                })
            })
            .map_err(|error| tpm.failed("TPM2_Quote", error))?;
        if digest_of(&said) == Some(Quote::digest(&pcrs)) {
            let quoted = said.marshall().map_err(|error| tpm.failed("TPMS_ATTEST", error))?;
            let wrong = || HsmError::WrongAnswer { token: tpm.serial().to_owned(), operation: "TPM2_Quote".to_owned() };
            return Ok(Quote { pcrs, quoted, signature: der(&signature).ok_or_else(wrong)? });
        }
    }
    let detail = format!("the PCRs changed in each of {QUOTES} tries, or are not what it read");
    Err(HsmError::Device { token: tpm.serial().to_owned(), operation: "TPM2_Quote".to_owned(), detail })
}

fn digest_of(said: &Attest) -> Option<Vec<u8>> {
    match said.attested() {
        AttestInfo::Quote { info } => Some(info.pcr_digest().value().to_vec()),
        _ => None,
    }
}

fn read_pcrs(tpm: &mut Connection) -> Result<Vec<Pcr>, HsmError> {
    let mut pcrs = Vec::new();
    for part in QUOTED_PCRS.chunks(PCRS_AT_ONCE) {
        let (_, _, values) = selection(part)
            .and_then(|selection| tpm.ask_openly(|context| context.pcr_read(selection.clone())))
            .map_err(|error| tpm.failed("TPM2_PCR_Read", error))?;
        let values: Vec<Option<[u8; 32]>> = values.value().iter().map(|value| value.value().try_into().ok()).collect();
        if values.len() != part.len() {
            let detail = "it has no SHA-256 bank of PCRs, or not all of them".to_owned();
            return Err(HsmError::Unproven { token: tpm.serial().to_owned(), detail });
        }
        for (index, sha256) in part.iter().zip(values) {
            let wrong =
                || HsmError::WrongAnswer { token: tpm.serial().to_owned(), operation: "TPM2_PCR_Read".to_owned() };
            pcrs.push(Pcr { index: *index, sha256: sha256.ok_or_else(wrong)? });
        }
    }
    Ok(pcrs)
}

/// Registers of the SHA-256 bank.
fn selection(indices: &[u8]) -> Answer<PcrSelectionList> {
    let slots = indices.iter().map(|index| PcrSlot::try_from(1_u32 << index)).collect::<Result<Vec<_>, _>>()?;
    PcrSelectionListBuilder::new().with_selection(HashingAlgorithm::Sha256, &slots).build()
}

fn der(signature: &Signature) -> Option<Vec<u8>> {
    let scheme = SignatureScheme::EcdsaP256Sha256;
    outward(casemate_hsm_api::KeyAlgorithm::P256, scheme, signature)
}

/// Runs `work` with the attestation key and nothing else loaded beside the storage key: there is room for one more object.
fn with_attestation_key<T>(
    tpm: &mut Connection,
    operation: &str,
    work: impl FnOnce(&mut Context, KeyHandle, &Public) -> Answer<T>,
) -> Result<T, HsmError> {
    tpm.clear();
    let (key, public) = make_attestation_key(tpm)?;
    let done = tpm.once(|context| work(context, key, &public));
    tpm.unload(key);
    done.map_err(|error| tpm.failed(operation, error))
}

/// The attestation key: a primary of the endorsement hierarchy from a fixed template, so that it is the same at each making for as
/// long as the endorsement key is, and the TPM tells its firmware undisguised in what the key signs.
fn make_attestation_key(tpm: &mut Connection) -> Result<(KeyHandle, Public), HsmError> {
    let template = attestation_primary().map_err(|error| tpm.failed("the attestation key's template", error))?;
    let made = tpm
        .ask(Secret::Neither, |context, _| {
            context.create_primary(Hierarchy::Endorsement, template.clone(), None, None, None, None)
        })
        .map_err(|error| tpm.failed("TPM2_CreatePrimary", error))?;
    Ok((made.key_handle, made.out_public))
}

/// Runs `work` with a session that satisfies the endorsement key's policy: the endorsement hierarchy's authorization, which is
/// empty unless the TPM's owner set one.
fn endorsed<T>(context: &mut Context, work: impl FnOnce(&mut Context, AuthSession) -> Answer<T>) -> Answer<T> {
    let cipher = SymmetricDefinition::AES_128_CFB;
    let session = context
        .execute_without_session(|context| {
            context.start_auth_session(None, None, None, SessionType::Policy, cipher, NAME_HASH)
        })?
        .ok_or(Error::WrapperError(WrapperErrorKind::WrongValueFromTpm))?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).build();
    let done = context
        .tr_sess_set_attributes(session, attributes, mask)
        .and_then(|()| PolicySession::try_from(session))
        .and_then(|policy| {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                let (nonce, hash, reference) = (Nonce::default(), Digest::default(), Nonce::default());
                context.policy_secret(policy, AuthHandle::Endorsement, nonce, hash, reference, None)
            })
        })
        .and_then(|_| work(context, session));
    context.flush_context(SessionHandle::from(session).into())?;
    done
}
