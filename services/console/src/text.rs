use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// `text` with control characters spelled out: names and reasons come from the network and go to a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = if c.is_control() { c.escape_default().collect::<String>() } else { c.to_string() };
            escaped.chars().collect::<Vec<_>>()
        })
        .collect()
}

/// Seconds since 1970 as RFC 3339 in UTC; `-` for none.
pub(crate) fn date(seconds: Option<i64>) -> String {
    let date = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2J\nb é"), "a\\u{1b}[2J\\nb é");
    }

    #[test]
    fn dates_are_utc() {
        assert_eq!(date(Some(0)), "1970-01-01T00:00:00Z");
        assert_eq!(date(None), "-");
    }
}
