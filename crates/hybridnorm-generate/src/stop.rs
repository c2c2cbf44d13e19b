//! Stop strings: the text ends before the first of them, even where it is made of several tokens.

/// Holds back what may become a stop string.
#[derive(Debug)]
pub(super) struct Stops<'a> {
    strings: &'a [String],
    held: String,
}

impl<'a> Stops<'a> {
    pub(super) fn new(strings: &'a [String]) -> Self {
        Self {
            strings,
            held: String::new(),
        }
    }

    /// Adds `piece`. Gives what can be given out, and whether a stop string has ended the text.
    pub(super) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held += piece;
        let found = self.strings.iter().filter_map(|stop| self.held.find(stop));
        if let Some(end) = found.min() {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(end);
            return (text, true);
        }
        let safe = self.held.len() - self.undecided();
        let rest = self.held.split_off(safe);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is still held back, once no more text comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the text that a stop string may begin with.
    fn undecided(&self) -> usize {
        let longest = |stop: &String| {
            let mut starts = self.held.char_indices().map(|(start, _)| start);
            let start = starts.find(|start| stop.starts_with(&self.held[*start..]));
            start.map_or(0, |start| self.held.len() - start)
        };
        self.strings.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given out of `pieces`, one by one, and whether the text was stopped.
    fn given(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let strings: Vec<String> = stops.iter().map(|stop| (*stop).to_string()).collect();
        let mut stops = Stops::new(&strings);
        let mut given = Vec::new();
        for piece in pieces {
            let (text, stopped) = stops.push(piece);
            given.push(text);
            if stopped {
                return (given, true);
            }
        }
        given.push(stops.finish());
        (given, false)
    }

    #[test]
    fn a_text_ends_before_its_first_stop_string() {
        let (text, stopped) = given(&["END", "\n\n"], &["one\n", "\ntwo END"]);
        assert_eq!((text.concat().as_str(), stopped), ("one", true));
    }

    #[test]
    fn what_may_become_a_stop_string_waits() {
        let (text, stopped) = given(&["</s>"], &["a<", "/", "b <", "/s", ">c"]);
        assert_eq!(text, ["a", "", "</b ", "", ""]);
        assert!(stopped);
        let (text, stopped) = given(&["éé"], &["xé", "y", "é"]);
        assert_eq!(text, ["x", "éy", "", "é"]);
        assert!(!stopped);
    }

    #[test]
    fn without_stop_strings_nothing_waits() {
        assert_eq!(given(&[], &["a", "b"]).0, ["a", "b", ""]);
    }
}
