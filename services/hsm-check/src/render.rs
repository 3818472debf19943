use casemate_hsm_api::Backup;

use crate::{
    report::{Judged, Report, Role, Tried, VectorSet, Verdict},
    text::plain,
};

/// The report for a person. It ends with what it comes to.
pub(crate) fn text(report: &Report) -> String {
    let token = &report.token;
    let mut lines = vec![
        format!("module      {}", report.module),
        format!("library     {}", token.library),
        format!("token       {} (serial {})", token.label, token.serial),
        format!("made by     {}, {}", token.manufacturer, token.model.trim_end_matches('\0')),
        format!("firmware    {}", token.firmware),
        format!("mechanisms  {}", token.mechanisms.join(" ")),
    ];
    let mut part = |title: &str, content: Vec<String>| {
        if !content.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
            lines.extend(content.into_iter().map(|line| format!("  {line}")));
        }
    };
    part("keys, and how fast they sign in one session", report.algorithms.iter().map(key).collect());
    part("roles, by key-policy.toml and role-tokens.toml", report.roles.iter().map(role).collect());
    let cases = report.cases.iter().map(|case| {
        let result = case.failure.as_ref().map_or("ok".to_owned(), |failure| format!("FAILED: {failure}"));
        format!("{:>6} ms  {}: {result}", case.milliseconds, case.name)
    });
    part("conformance", cases.collect());
    part(
        "Wycheproof: before C_Verify, and before the FIPS module, which judges for Casemate",
        vectors(&report.vectors),
    );
    part("quirks", report.quirks.clone());
    let strange = report.strange.iter().map(|(label, count)| format!("{count} with the label {label:?}"));
    part("keys of other checks; remove them by hand unless another machine checks this token now", strange.collect());
    part("settings that this module needs in [keyd.pkcs11]", report.settings.clone());
    lines.extend([String::new(), sum(report)]);
    lines.iter().map(|line| plain(line) + "\n").collect()
}

fn key(tried: &Tried) -> String {
    let name = tried.algorithm.to_string();
    match (&tried.refused, tried.rate) {
        (Some(refused), _) => format!("{name:<8}  {}{refused}", if tried.is_wrong { "WRONG: " } else { "" }),
        (None, Some(rate)) if tried.unmeasurable.is_some() => format!("{name:<8}  {rate}, with a key of the token"),
        (None, Some(rate)) => format!("{name:<8}  {rate}"),
        (None, None) => format!("{name:<8}  not measured"),
    }
}

fn role(role: &Role) -> String {
    let backup = match role.backup {
        Backup::None => "",
        Backup::Wrapped => " with backup",
    };
    let result = if role.carried { "yes".to_owned() } else { format!("NO: {}", role.reasons.join("; ")) };
    let Role { role, algorithm, load, .. } = role;
    format!("{:<17}  {algorithm}{backup}, {load} signatures/s: {result}", role.name())
}

fn vectors(sets: &[VectorSet]) -> Vec<String> {
    let mut lines: Vec<_> = sets
        .iter()
        .map(|set| {
            let token = set.token.as_ref().map_or("- (DER is not for tokens)".to_owned(), |token| judged(token, set));
            format!("{:<30}  {token}; {}", set.set, judged(&set.casemate, set))
        })
        .collect();
    let token: usize = sets.iter().filter_map(|set| set.token.as_ref()).map(|token| token.tried).sum();
    let casemate: usize = sets.iter().map(|set| set.casemate.tried).sum();
    lines.push(format!("{:<30}  {token}; {casemate}", "vectors tried"));
    lines
}

fn judged(judged: &Judged, set: &VectorSet) -> String {
    let Judged { tried, wrongly_taken, wrongly_refused, untried } = judged;
    let mut text = format!("{tried} of {}", set.vectors);
    if !judged.is_right() {
        text += &format!(", WRONG: took {wrongly_taken:?}, refused {wrongly_refused:?}");
    }
    if let Some(untried) = untried {
        text += &format!(", {untried}");
    }
    text
}

fn sum(report: &Report) -> String {
    let missing: Vec<_> = report.roles.iter().filter(|role| !role.carried).map(|role| role.role.name()).collect();
    let roles = match (missing.len(), report.roles.len()) {
        (0, _) => "it can carry every role".to_owned(),
        (none, all) if none == all => "it can carry no role".to_owned(),
        _ => format!("it can carry every role but {}", missing.join(", ")),
    };
    let answers = match report.verdict {
        Verdict::Wrong => "NOT every answer was right",
        Verdict::CarriesAll | Verdict::CarriesSome => "every answer was right",
    };
    let left = match report.left {
        0 => "no key of the check is left on the token".to_owned(),
        left => format!("{left} OBJECTS of the check could not be removed from the token"),
    };
    format!("{answers}; {roles}; {left}")
}
