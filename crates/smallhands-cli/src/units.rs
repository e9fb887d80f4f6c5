//! Ages, dates and sizes as people write them.
use crate::show::date;
use std::time::Duration;

const DAY: u64 = 86_400;

/// `90s`, `5m`, `12h`, `30d`, `2w`.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not an age such as 90s, 5m, 12h, 30d or 2w");
    let split = text.len().saturating_sub(1);
    let (n, unit) = text.split_at_checked(split).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return Err(wrong()),
    };
    let n: u64 = n.parse().map_err(|_| wrong())?;
    let all = n.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(all))
}

/// `512`, `10k`, `500M`, `2G`, `1T`; a k is 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 10k, 500M or 2G");
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_suffix("IB").or(upper.strip_suffix('B'));
    let bare = bare.unwrap_or(&upper);
    let unit = bare.chars().last().and_then(|c| "KMGT".find(c));
    let (n, shift) = match unit {
        Some(i) => (&bare[..bare.len() - 1], 10 * (i + 1)),
        None => (bare, 0),
    };
    let n: u64 = n.parse().map_err(|_| wrong())?;
    n.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A moment: so long ago, or a day or time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Ago(Duration),
    /// The first millisecond, and the first one after it.
    At(u64, u64),
}

/// `30d`, `2026-11-23` or `2026-11-23T04:05`.
pub(crate) fn when(text: &str) -> Result<When, String> {
    if let Ok(d) = age(text) {
        return Ok(When::Ago(d));
    }
    let wrong = || {
        format!(
            "`{text}` is neither an age such as 12h or 30d nor a date such as 2026-11-23 or 2026-11-23T04:05"
        )
    };
    let (day, time) = match text.split_once('T') {
        Some((d, t)) => (d, Some(t)),
        None => (text, None),
    };
    let begin = day_of(day).ok_or_else(wrong)?;
    let Some(time) = time else {
        return Ok(When::At(begin, begin + DAY * 1000));
    };
    let (h, m) = time.split_once(':').ok_or_else(wrong)?;
    let (h, m): (u64, u64) = (
        h.parse().map_err(|_| wrong())?,
        m.parse().map_err(|_| wrong())?,
    );
    if h > 23 || m > 59 {
        return Err(wrong());
    }
    let at = begin + (h * 60 + m) * 60_000;
    Ok(When::At(at, at + 60_000))
}

/// Found by asking which day a number is: the other way round needs no second calendar.
fn day_of(text: &str) -> Option<u64> {
    let (mut low, mut high) = (0, 60_000);
    while low < high {
        let mid = u64::midpoint(low, high);
        match date(mid * DAY * 1000).0.as_str() < text {
            true => low = mid + 1,
            false => high = mid,
        }
    }
    let begin = low * DAY * 1000;
    (date(begin).0 == text).then_some(begin)
}

impl When {
    /// Whether a run of that time is not before it.
    pub(crate) fn from(self, now: u64, at: u64) -> bool {
        match self {
            Self::Ago(d) => at >= ago(now, d),
            Self::At(begin, _) => at >= begin,
        }
    }
    /// Whether a run of that time is not after it; a date is a whole day.
    pub(crate) fn until(self, now: u64, at: u64) -> bool {
        match self {
            Self::Ago(d) => at <= ago(now, d),
            Self::At(_, end) => at < end,
        }
    }
}

fn ago(now: u64, d: Duration) -> u64 {
    now.saturating_sub(u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// `3.4 MB`, for eyes.
pub(crate) fn bytes(n: u64) -> String {
    let mut rest = n as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if rest < 1024.0 {
            return match unit {
                "B" => format!("{n} B"),
                _ => format!("{rest:.1} {unit}"),
            };
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} TB")
}

/// `1 run`, `2 runs`.
pub(crate) fn count(n: usize, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * DAY)));
        assert_eq!(age("2w"), Ok(Duration::from_secs(14 * DAY)));
        for wrong in [
            "",
            "d",
            "3",
            "-1d",
            "3y",
            "é",
            "99999999999999999999d",
            "99999999999999999w",
        ] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        let sizes = [
            ("7", 7),
            ("10k", 10 << 10),
            ("2G", 2 << 30),
            ("3MiB", 3 << 20),
            ("5KB", 5 << 10),
        ];
        for (text, n) in sizes {
            assert_eq!(size(text), Ok(n));
        }
        for wrong in ["", "G", "-1", "1.5G", "9é", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            (bytes(900), bytes(3 << 20)),
            ("900 B".into(), "3.0 MB".into())
        );
    }

    #[test]
    fn dates() {
        let day = 951_782_400_000;
        assert_eq!(when("2000-02-29"), Ok(When::At(day, day + 86_400_000)));
        assert_eq!(
            when("2000-02-29T00:01"),
            Ok(When::At(day + 60_000, day + 120_000))
        );
        assert!(when("3d").unwrap().from(DAY * 1000 * 10, DAY * 1000 * 8));
        assert!(!when("3d").unwrap().until(DAY * 1000 * 10, DAY * 1000 * 8));
        for wrong in [
            "2001-02-29",
            "2000-2-9",
            "yesterday",
            "2000-02-29T25:00",
            "1969-01-01",
            "",
        ] {
            assert!(when(wrong).is_err(), "{wrong}");
        }
    }
}
