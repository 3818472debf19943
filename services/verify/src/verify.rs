use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use casemate_hsm_attest::{self as attest, Answer, AttestationKey, Enrolled, Expected, Outcome, Report};
use casemate_pki::CertificateFacts;
use rustls_pki_types::UnixTime;

use crate::{
    Out, VerifyError,
    arguments::{Challenge, Enrol, Statement},
    files,
    maker::Maker,
    text::{firmware, plain},
};

/// `casemate-verify challenge`.
pub(crate) fn challenge(given: &Challenge, out: Out<'_>) -> Result<(), VerifyError> {
    let key: AttestationKey = files::document(&given.key, "attestation key")?;
    let all = |paths: &[std::path::PathBuf]| -> Result<Vec<_>, VerifyError> {
        let read: Vec<_> = paths.iter().map(|path| files::certificates(path)).collect::<Result<_, _>>()?;
        Ok(read.concat())
    };
    let (makers, intermediates) = (all(&given.makers)?, all(&given.intermediates)?);
    let (challenge, expected) = attest::challenge(&key, &makers, &intermediates, UnixTime::now())?;
    files::write(&given.keep, &expected, "record of a challenge")?;
    files::write(&given.output, &challenge, "challenge")?;
    let Maker { issuer, tpm } = Maker::of(&key.endorsement_certificate);
    writeln!(out, "A maker that you named certified a TPM:")?;
    writeln!(out, "  certified by  {}\n  TPM           {}", plain(&issuer), plain(&tpm))?;
    writeln!(out, "Whether the attestation key is in that TPM shows its answer to {}", given.output.display())?;
    Ok(writeln!(out, "Keep {} to yourself: whoever has it can answer in its place", given.keep.display())?)
}

/// `casemate-verify enrol`.
pub(crate) fn enrol(given: &Enrol, out: Out<'_>) -> Result<(), VerifyError> {
    let expected: Expected = files::document(&given.expected, "record of a challenge")?;
    let answer: Answer = files::document(&given.answer, "answer")?;
    let enrolled = expected.enrol(&answer.secret)?;
    files::write(&given.output, &enrolled, "enrolled attestation key")?;
    Ok(writeln!(out, "The attestation key is in the TPM of the certificate; statements by it count from now on")?)
}

/// `casemate-verify nonce`.
pub(crate) fn nonce(out: Out<'_>) -> Result<(), VerifyError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| VerifyError::Random)?;
    Ok(writeln!(out, "{}", hex::encode(bytes))?)
}

/// `casemate-verify statement`: what is not proven is not shown.
pub(crate) fn statement(given: &Statement, out: Out<'_>) -> Result<(), VerifyError> {
    let enrolled: Enrolled = files::document(&given.enrolled, "enrolled attestation key")?;
    let report: Report = files::document(&given.statement, "statement")?;
    let certificate = files::certificates(&given.certificate)?;
    let [certificate] = certificate.as_slice() else {
        return Err(files::no_document(&given.certificate, "PEM file of one certificate", "there are several in it"));
    };
    let facts = CertificateFacts::parse(certificate)
        .map_err(|source| VerifyError::Certificate { path: given.certificate.clone(), source })?;
    let statement = match report.result {
        Outcome::Statement(statement) => statement,
        Outcome::Unproven(reason) => {
            return Err(VerifyError::Unproven { role: report.role.to_string(), reason: plain(&reason) });
        }
    };
    let proof = statement.prove(&enrolled, &given.nonce.0, &facts.spki_der)?;
    let Maker { issuer, tpm } = Maker::of(enrolled.endorsement_certificate());
    let fingerprint = |bytes: &[u8]| hex::encode(digest(&SHA256, bytes));
    let lines = [
        ("certificate", plain(&facts.subject)),
        ("", format!("SHA-256 {}", hex::encode(facts.sha256))),
        ("its key", format!("SHA-256 {}", fingerprint(&facts.spki_der))),
        ("made", "in this TPM, by the TPM itself".to_owned()),
        ("leaves it", "never, neither alone nor under another key".to_owned()),
        ("TPM", plain(&tpm)),
        ("certified by", plain(&issuer)),
        ("firmware", firmware(proof.firmware)),
        ("said", "after it was given your nonce".to_owned()),
    ];
    writeln!(out, "Proven by the TPM:")?;
    lines.iter().try_for_each(|(name, value)| writeln!(out, "  {name:<14}{value}"))?;
    writeln!(
        out,
        "What its machine was started with, quoted by the TPM (SHA-256); compare it with what you know to be good:"
    )?;
    let pcrs = proof.pcrs.iter();
    Ok(pcrs
        .map(|pcr| (pcr.index, hex::encode(pcr.sha256)))
        .try_for_each(|(index, value)| writeln!(out, "  {:<14}{value}", format!("PCR {index}")))?)
}
