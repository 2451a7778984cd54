//! The one text of all those that say the same: what a digest is of.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memchr2;
use serde_json::Value;

use super::tree::json;

/// The deepest value that is read, as with [`Value`]: each depth takes some of the stack.
const DEEPEST: usize = 127;

/// Members in the order of their names, the last of a name only, no white space, no needless escapes: what [`Value`] prints. `json` is the
/// text of one value, all of which has been checked before.
///
/// # Errors
/// When it cannot be read as a [`Value`].
pub(super) fn canonical(json: &str) -> Result<String, serde_json::Error> {
    let out = String::with_capacity(json.len());
    let mut writer = Writer { json, at: 0, copied: 0, out, members: Vec::new(), depth: 0 };
    match writer.value().and_then(|()| writer.copy(writer.at)) {
        Some(()) => Ok(writer.out),
        None => serde_json::from_str(json).map(|value: Value| value.to_string()),
    }
}

/// Goes past a text once, and copies what stands in it as it is to be, as much at a time as it can. Its functions give `None` for what is
/// beyond it: too deep a value, or text that nobody can read.
struct Writer<'a> {
    json: &'a str,
    /// Where the text is read.
    at: usize,
    /// What stands before is in `out`.
    copied: usize,
    out: String,
    /// Of each object that is open: the names of its members, and where they begin in what is written.
    members: Vec<(Cow<'a, str>, usize)>,
    depth: usize,
}

impl<'a> Writer<'a> {
    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' => self.inside(Self::object),
            b'[' => self.inside(Self::list),
            b'"' => self.string().map(drop),
            _ => self.word(),
        }
    }

    /// The first byte of the next value, or the bracket after the last one; what stands before it is gone past.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.json.as_bytes().get(self.at)? {
                b',' | b':' => self.at += 1,
                b' ' | b'\n' | b'\r' | b'\t' => self.replace(self.at, self.at + 1, "")?,
                other => return Some(*other),
            }
        }
    }

    /// Copies what is not copied yet, up to `end`.
    fn copy(&mut self, end: usize) -> Option<()> {
        self.out.push_str(self.json.get(self.copied..end)?);
        self.copied = end;
        Some(())
    }

    /// Writes `with` in place of the text from `begin` to `end`, and goes on there.
    fn replace(&mut self, begin: usize, end: usize, with: &str) -> Option<()> {
        self.copy(begin)?;
        self.out.push_str(with);
        (self.at, self.copied) = (end, end);
        Some(())
    }

    /// A list or an object.
    fn inside(&mut self, parts: fn(&mut Self) -> Option<()>) -> Option<()> {
        self.depth = Some(self.depth + 1).filter(|depth| *depth <= DEEPEST)?;
        self.at += 1;
        parts(self)?;
        self.at += 1;
        self.depth -= 1;
        Some(())
    }

    fn list(&mut self) -> Option<()> {
        while self.peek()? != b']' {
            self.value()?;
        }
        Some(())
    }

    fn object(&mut self) -> Option<()> {
        let first = self.members.len();
        let mut in_order = true;
        while self.peek()? != b'}' {
            let begin = self.out.len() + (self.at - self.copied);
            let key = self.string()?;
            in_order &= self.members.get(first..).and_then(<[_]>::last).is_none_or(|(before, _)| *before < key);
            self.members.push((key, begin));
            self.value()?;
        }
        if !in_order {
            self.copy(self.at)?;
            self.sort(first)?;
        }
        self.members.truncate(first);
        Some(())
    }

    /// Puts the members since `first` in order; they reach to the end of what is written.
    fn sort(&mut self, first: usize) -> Option<()> {
        let members = self.members.get(first..)?;
        let (_, begin) = members.first()?;
        let ends = members.iter().skip(1).map(|(_, next)| *next).chain([self.out.len()]);
        let text = |from, to| Some(self.out.get(from..to)?.trim_end_matches(','));
        // Of one name the last wins.
        let pieces: BTreeMap<&str, &str> =
            members.iter().zip(ends).filter_map(|((key, at), end)| Some((key.as_ref(), text(*at, end)?))).collect();
        let mut sorted = String::with_capacity(self.out.len() - begin);
        for piece in pieces.values() {
            sorted.extend([if sorted.is_empty() { "" } else { "," }, piece]);
        }
        self.out.truncate(*begin);
        self.out.push_str(&sorted);
        Some(())
    }

    /// A string, and what it says.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let begin = self.at;
        let (mut end, mut is_plain) = (begin + 1, true);
        loop {
            let rest = self.json.as_bytes().get(end..)?;
            let found = memchr2(b'"', b'\\', rest)?;
            end += found + 1;
            if rest.get(found) == Some(&b'"') {
                break;
            }
            is_plain = false;
            end += 1; // what is escaped; of `\u` the digits are no quotes
        }
        if is_plain {
            self.at = end;
            return self.json.get(begin + 1..end - 1).map(Cow::Borrowed);
        }
        let text: String = serde_json::from_str(self.json.get(begin..end)?).ok()?;
        self.replace(begin, end, &json(&text))?;
        Some(Cow::Owned(text))
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Option<()> {
        let rest = self.json.get(self.at..)?;
        let is_of_it = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.' | b'E');
        let word = rest.get(..rest.as_bytes().iter().position(|byte| !is_of_it(byte)).unwrap_or(rest.len()))?;
        let end = self.at + word.len();
        // Few enough digits for any number.
        let is_plain = (1..16).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain || matches!(word, "true" | "false" | "null") {
            self.at = end;
            return Some(());
        }
        self.replace(self.at, end, &serde_json::from_str::<Value>(word).ok()?.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_text_is_what_a_value_prints() {
        let texts = [
            r#"{"b":1,"a":{"z":[],"y":{}},"b":2}"#,
            r#" [ 1 , -0 , 1.0, 1e3, 18446744073709551615, 18446744073709551616, -9223372036854775808, true, null, {} ] "#,
            r#"{"\u0061":"\ud83d\ude00\n\u007f\/","":"\"\\","a":1}"#,
            r#"{"c":{"b":{"a":1,"A":{"x":1,"w":2}},"a":[{"d":1,"c":[{"f":1,"e":2}]}]},"a":"","b":"]},"}"#,
            "\"\"",
            "999999999999999",
            "1234567890123456",
        ];
        for text in texts {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(canonical(text).unwrap(), value.to_string());
        }
    }

    #[test]
    fn what_no_value_can_hold_has_no_canonical_text() {
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for text in [r#"["\ud800"]"#, r#"{"\ud800":1}"#, "[1e999]", &deep(10_000), &deep(DEEPEST + 1)] {
            assert!(canonical(text).is_err(), "{text}");
        }
        assert_eq!(canonical(&deep(DEEPEST)).unwrap(), deep(DEEPEST));
    }

    /// Nothing of the kind comes here; a mistake may cost an answer, not the process.
    #[test]
    fn what_is_no_json_ends_too() {
        for text in
            ["", "[", "{", "[}", "{]", "[1}", "{\"a\"}", "{\"a\":}", "\"", "\"\\", "]", "[[[", "#", "[#", "[\"\\u00e9", "\"ä"]
        {
            let _ = canonical(text);
        }
    }
}
