//! The end of an output stream, in bounded memory.

use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::{MAX_TAIL, Tail};

/// Keeps the last so many bytes of all that is pushed, [`MAX_TAIL`] unless less is asked for. It holds at most twice that, so that bytes are moved
/// once per so many pushed.
pub(super) struct Keep {
    most: usize,
    bytes: Vec<u8>,
    seen: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self::last(MAX_TAIL)
    }
}

impl Keep {
    pub(super) fn last(most: usize) -> Self {
        Self { most, bytes: Vec::new(), seen: 0 }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.seen += chunk.len() as u64;
        let chunk = last(chunk, self.most);
        if self.bytes.len() + chunk.len() > 2 * self.most {
            let keep = self.most - chunk.len();
            self.bytes.drain(..self.bytes.len().saturating_sub(keep));
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// The tail, from the first whole character on.
    pub(super) fn tail(&self) -> Tail {
        let mut kept = last(&self.bytes, self.most);
        let cut = kept.len() as u64 != self.seen;
        if cut {
            let broken = kept.iter().take(3).take_while(|b| **b & 0xC0 == 0x80).count();
            kept = kept.get(broken..).unwrap_or_default();
        }
        Tail { text: String::from_utf8_lossy(kept).into_owned(), dropped: self.seen - kept.len() as u64 }
    }
}

fn last(bytes: &[u8], n: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(n)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_bytes_and_counts_the_others() {
        let mut keep = Keep::default();
        for chunk in [1000, MAX_TAIL, 7, 3 * MAX_TAIL, MAX_TAIL - 1, MAX_TAIL] {
            keep.push(&alloc::vec![b'a'; chunk]);
            assert!(keep.bytes.len() <= 2 * MAX_TAIL);
        }
        keep.push(b"end");
        let tail = keep.tail();
        assert_eq!(tail.text.len(), MAX_TAIL);
        assert!(tail.text.ends_with("aend"));
        assert_eq!(tail.dropped, (1000 + MAX_TAIL + 7 + 3 * MAX_TAIL + MAX_TAIL - 1 + 3) as u64);
    }

    #[test]
    fn a_character_cut_in_two_is_dropped_and_a_broken_one_is_marked() {
        let mut keep = Keep::default();
        keep.push("ä".as_bytes());
        keep.push(&alloc::vec![b'x'; MAX_TAIL - 1]);
        let tail = keep.tail();
        assert_eq!((tail.text.len(), tail.dropped), (MAX_TAIL - 1, 2));
        let mut keep = Keep::default();
        keep.push(b"\xFFa");
        assert_eq!(keep.tail(), Tail { text: "\u{FFFD}a".into(), dropped: 0 });
    }
}
