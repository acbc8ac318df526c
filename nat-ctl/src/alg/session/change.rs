//! The smallest replacement that turns one text into another.

/// A replacement within a line, as small as it can be.
pub(super) struct Change {
    /// Where it starts in the line.
    pub(super) at: usize,
    /// Bytes replaced.
    pub(super) old_len: usize,
    /// What is put there.
    pub(super) text: Vec<u8>,
}

impl Change {
    /// `text` in the place of `start..end`, without what both have in common at their ends; at
    /// least one byte stays on each side, because an edit may not be empty.
    pub(super) fn between(line: &[u8], start: usize, end: usize, text: Vec<u8>) -> Option<Change> {
        let old = line.get(start..end)?;
        if old == text || text.is_empty() {
            return None;
        }
        let most = old.len().min(text.len()).saturating_sub(1);
        let same = |(a, b): &(&u8, &u8)| a == b;
        let head = old.iter().zip(&text).take_while(same).count().min(most);
        let tail = old.iter().rev().zip(text.iter().rev()).take_while(same).count();
        let tail = tail.min(most - head);
        let text = text.get(head..text.len() - tail)?.to_vec();
        Some(Change { at: start + head, old_len: old.len() - head - tail, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_texts_have_in_common_stays() {
        let change = Change::between(b"PORT 10,0,1,2,4,5", 0, 17, b"PORT 203,0,113,1,4,5".to_vec());
        let Change { at, old_len, text } = change.expect("they differ");
        assert_eq!((at, old_len, text.as_slice()), (5, 8, &b"203,0,113,1"[..]));
        assert!(Change::between(b"227 x", 0, 5, b"227 x".to_vec()).is_none());
    }

    #[test]
    fn a_change_replaces_at_least_a_byte_by_a_byte() {
        for (old, new) in [("1", "11"), ("11", "1"), ("21", "1"), ("1", "12")] {
            let change = Change::between(old.as_bytes(), 0, old.len(), new.as_bytes().to_vec());
            let change = change.expect("they differ");
            assert!(change.old_len > 0 && !change.text.is_empty(), "{old} {new}");
            let mut made = old.as_bytes().to_vec();
            made.splice(change.at..change.at + change.old_len, change.text);
            assert_eq!(made, new.as_bytes());
        }
    }
}
