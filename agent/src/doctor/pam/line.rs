//! Lines and words of a PAM file, cut as libpam cuts them.
//!
//! Invariants: any bytes give an end; no word holds more bytes than the file.

/// A line with its continuations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Number of the line on which it begins, from 1.
    pub number: usize,
    /// Its bytes, comment and backslashes taken out.
    pub text: Vec<u8>,
}

/// All lines of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// In order.
    pub lines: Vec<Line>,
    /// Number of a last line that ends with a backslash: libpam refuses the whole file then.
    pub cut_off: Option<usize>,
    /// Numbers of lines too long for libpam before 1.6, which cuts them in two.
    pub long: Vec<usize>,
}

/// libpam's buffer before 1.6, less the final zero.
const OLD_LIMIT: usize = 1023;

const fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

/// Cuts a file into lines.
#[must_use]
pub fn lines(bytes: &[u8]) -> Lines {
    let mut found = Lines::default();
    // The line that is being put together, once a part of it has been read.
    let mut begun: Option<Line> = None;
    for (number, part) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        // C strings: what follows a zero byte is lost.
        let part = part.split(|byte| *byte == 0).next().unwrap_or_default();
        // Comments and blank lines do not end a line that goes on.
        let Some(first) = part.iter().find(|byte| !blank(**byte)).filter(|byte| **byte != b'#') else {
            continue;
        };
        debug_assert!(!blank(*first));
        let line = begun.get_or_insert(Line { number, text: Vec::new() });
        if let Some(end) = part.iter().position(|byte| *byte == b'#') {
            line.text.extend(part.iter().take(end));
        } else {
            let kept = part.iter().rposition(|byte| !blank(*byte));
            let kept = kept.filter(|last| part.get(*last) == Some(&b'\\'));
            if let Some(last) = kept {
                line.text.extend(part.iter().take(last));
                line.text.push(b' ');
                continue;
            }
            line.text.extend(part);
        }
        if let Some(line) = begun.take() {
            if line.text.len() > OLD_LIMIT {
                found.long.push(line.number);
            }
            found.lines.push(line);
        }
    }
    found.cut_off = begun.map(|line| line.number);
    found
}

/// The words of a line: parted by blanks, `[…]` is one word without its brackets, `\]` in it is a bracket.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    /// Of this line.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl Iterator for Words<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let start = self.rest.iter().position(|byte| !blank(*byte))?;
        let text = self.rest.get(start..)?;
        let Some(inner) = text.strip_prefix(b"[") else {
            let end = text.iter().position(|byte| blank(*byte)).unwrap_or(text.len());
            self.rest = text.get(end..).unwrap_or_default();
            return Some(text.iter().take(end).copied().collect());
        };
        let mut word = Vec::new();
        let mut bytes = inner.iter().copied().enumerate().peekable();
        self.rest = &[];
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b']' => {
                    self.rest = inner.get(at + 1..).unwrap_or_default();
                    break;
                }
                b'\\' if bytes.next_if(|(_, next)| *next == b']').is_some() => word.push(b']'),
                _ => word.push(byte),
            }
        }
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, Words, lines};

    fn texts(text: &str) -> Vec<(usize, String)> {
        let found = lines(text.as_bytes()).lines;
        found.into_iter().map(|line| (line.number, String::from_utf8(line.text).unwrap())).collect()
    }

    fn words(text: &str) -> Vec<String> {
        Words::new(text.as_bytes()).map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn comments_and_continuations() {
        assert_eq!(texts("# a\n\n  x y # z\n"), [(3, "  x y ".to_owned())]);
        assert_eq!(texts("x \\\n  y\nz"), [(1, "x    y\n".to_owned()), (3, "z".to_owned())]);
        assert_eq!(texts("x \\  \n# no end\n\ny\n"), [(1, "x  y\n".to_owned())], "comments in between");
        assert_eq!(texts("x # y \\\nz\n"), [(1, "x ".to_owned()), (2, "z\n".to_owned())]);
        assert_eq!(texts("x\0y\nz"), [(1, "x".to_owned()), (2, "z".to_owned())]);
        assert_eq!(lines(b"x \\\n").cut_off, Some(1));
        assert_eq!(lines(b"# x \\\n"), Lines::default());
        assert_eq!(lines("x".repeat(1024).as_bytes()).long, [1]);
    }

    #[test]
    fn brackets_are_one_word() {
        assert_eq!(
            words("auth [success=1 default=ignore]\tpam_unix.so  nullok\n"),
            ["auth", "success=1 default=ignore", "pam_unix.so", "nullok"]
        );
        assert_eq!(words("[a\\]b]c []"), ["a]b", "c", ""]);
        assert_eq!(words("[never closed"), ["never closed"]);
        assert_eq!(words(" \t\n"), [""; 0]);
    }
}
