//! Text that is safe to show, and how wide it is.

use std::fmt::Write;

/// With what would move a cursor, reverse a line or hide made visible.
pub(super) fn clean(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        if is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Controls, and the format characters that reorder text or have no shape.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Columns of a text on a terminal; never too few. A table of blocks, because the crate that knows
/// each character would be one more that every embedder builds.
pub(super) fn width(s: &str) -> usize {
    s.chars().map(columns).sum()
}

fn columns(c: char) -> usize {
    match c as u32 {
        0x20..0x300 => 1,
        0x300..0x370 | 0x483..0x48a | 0x591..0x5be | 0x64b..0x660 => 0,
        0x1ab0..0x1ace | 0x1dc0..0x1e00 | 0x20d0..0x20f1 | 0xfe20..0xfe30 => 0,
        0x1100..0x1160 | 0x17a4 | 0x2e80..0x303f | 0x3041..0xa4d0 | 0xa960..0xa97d => 2,
        0xac00..0xd7a4 | 0xf900..0xfb00 | 0xfe10..0xfe20 | 0xfe30..0xfe70 => 2,
        0xff01..0xff61 | 0xffe0..0xffe7 | 0x16fe0..0x19200 | 0x1aff0..0x1b300 => 2,
        0x1d300..0x1d380 | 0x1f000..0x1fb00 | 0x20000..0x40000 => 2,
        // Emoji among older symbols.
        0x231a..0x231c | 0x2329..0x232b | 0x23e9..0x23f4 | 0x25fd..0x25ff => 2,
        0x2614..0x2616 | 0x2630..0x2638 | 0x2648..0x2654 | 0x267f | 0x268a..0x2694 => 2,
        0x26a1 | 0x26aa..0x26ac | 0x26bd..0x26bf | 0x26c4..0x26cf | 0x26d4 => 2,
        0x26ea..0x26fe | 0x2705..0x270c | 0x2728 | 0x274c..0x2758 | 0x2795..0x2798 => 2,
        0x27b0..0x27c0 | 0x2b1b..0x2b1d | 0x2b50..0x2b56 => 2,
        0x17d8 => 3,
        _ => 1,
    }
}

/// At most so many columns, an ellipsis for what is cut.
pub(super) fn cut(s: &str, most: usize) -> String {
    // Marks without a width of their own could pile up without end.
    if width(s) <= most && s.chars().count() <= 4 * most {
        return s.into();
    }
    let (mut out, mut left) = (String::new(), most.saturating_sub(1));
    for c in s.chars().take(4 * most) {
        let Some(rest) = left.checked_sub(columns(c)) else {
            break;
        };
        left = rest;
        out.push(c);
    }
    if most > 0 {
        out.push('…');
    }
    out
}

/// A duration for people: `1.2 s`, `3 m 04 s`, `2 h 05 m`, `1 d 03 h`.
pub(super) fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{} s", ms % 1000 / 100),
        60..3600 => format!("{} m {:02} s", s / 60, s % 60),
        3600..86400 => format!("{} h {:02} m", s / 3600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86400, s / 3600 % 24),
    }
}

/// The first of some names, and how many more there are.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let (mut out, mut n) = (String::new(), 0_usize);
    for name in names {
        n += 1;
        if n <= 3 {
            out.push_str(if n > 1 { ", " } else { "" });
            out.push_str(&cut(&clean(name), 24));
        }
    }
    if n > 3 {
        // Writing to a string cannot fail.
        let _ = write!(out, " and {} more", n - 3);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthChar;

    #[test]
    fn no_character_is_wider_than_we_think() {
        let (mut same, mut all) = (0, 0);
        for c in ('\0'..=char::MAX).filter(|c| !is_hidden(*c)) {
            let Some(known) = c.width() else {
                panic!("{c:?} has no width and is shown");
            };
            assert!(known <= columns(c), "U+{:04X} has {known}", c as u32);
            all += 1;
            same += u32::from(known == columns(c));
        }
        assert!(same * 100 > all * 99, "{same} of {all}");
    }

    #[test]
    fn cuts_by_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("ab", 0), "");
        assert_eq!(cut(&"\u{301}".repeat(99), 2).chars().count(), 9);
        assert_eq!(clean("a\n\u{1b}[2J\u{202e}é"), "a\\n\\u{1b}[2J\\u{202e}é");
    }

    #[test]
    fn durations_are_for_people() {
        let of = [0, 1_299, 59_999, 60_000, 184_000, 7_500_000, 97_200_000].map(duration);
        let people = [
            "0.0 s", "1.2 s", "59.9 s", "1 m 00 s", "3 m 04 s", "2 h 05 m", "1 d 03 h",
        ];
        assert_eq!(of, people);
        assert_eq!(list(["a", "b", "c"]), "a, b, c");
        assert_eq!(list(["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
