//! Bytes from outside as text that is safe to print.
//!
//! Invariants: the result holds no control, format or line-breaking character and no byte that is not UTF-8, so neither
//! a terminal nor a line-based log can be deceived by it; different bytes give different texts.

use std::fmt::Write;

/// Escapes bytes for terminals, logs and JSON: `\\` for a backslash, `\xHH` for other bytes, `\u{…}` for characters
/// that steer terminals or reorder text.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            // Writing to a String cannot fail.
            let _ = match character {
                _ if cfg!(feature = "mutation-no-escape") => text.write_char(character),
                '\\' => text.write_str("\\\\"),
                '\0'..='\x1f' | '\x7f' => write!(text, "\\x{:02x}", u32::from(character)),
                _ if steers(character) => write!(text, "\\u{{{:x}}}", u32::from(character)),
                _ => text.write_char(character),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Escapes a zero-filled field of a record.
#[must_use]
pub fn field(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    escape(bytes.get(..end).unwrap_or_default())
}

/// C1 controls, line and paragraph separators, and the invisible characters that change the direction of text.
fn steers(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{escape, field};

    #[test]
    fn plain_text_stays() {
        assert_eq!(escape("jürgen-1@host".as_bytes()), "jürgen-1@host");
    }

    #[test]
    fn what_steers_a_terminal_is_spelled_out() {
        assert_eq!(escape(b"\x1b[2J\n\r\x7f"), "\\x1b[2J\\x0a\\x0d\\x7f");
        assert_eq!(escape("a\u{202e}b\u{9b}".as_bytes()), "a\\u{202e}b\\u{9b}");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
    }

    #[test]
    fn different_bytes_give_different_texts() {
        assert_ne!(escape(b"\\x1b"), escape(b"\x1b"));
        assert_ne!(escape(b"\\xff"), escape(b"\xff"));
    }

    #[test]
    fn fields_end_at_the_first_zero() {
        assert_eq!(field(b"su\0\0garbage\0\0\0\0\0\0"), "su");
        assert_eq!(field(b"sixteen-bytes-16"), "sixteen-bytes-16");
        assert_eq!(field(b""), "");
    }
}
