//! Names of tensors in the safetensors files that OLMo's own tools write (`encode_key` in `olmo/safetensors_util.py`): the base64 of a pickled
//! `((name,), False)`. It is read as what it must be, opcode by opcode; nothing is run.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;

/// The name that `stored` is the code of; `None` where it is a name as it stands.
pub(crate) fn decoded(stored: &str) -> Option<String> {
    let pickle = URL_SAFE.decode(stored).ok()?;
    let mut reader = Reader(&pickle);
    let Op::Text(name) = reader.op()? else {
        return None;
    };
    for wanted in [Op::TupleOf1, Op::False, Op::TupleOf2, Op::Stop] {
        if reader.op()? != wanted {
            return None;
        }
    }
    reader.0.is_empty().then_some(name)
}

/// What a pickle is made of, as far as such a name needs it (Python's `pickletools`).
#[derive(PartialEq)]
enum Op {
    Text(String),
    TupleOf1,
    TupleOf2,
    False,
    Stop,
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, bytes: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self, bytes: usize) -> Option<Op> {
        String::from_utf8(self.take(bytes)?.to_vec())
            .ok()
            .map(Op::Text)
    }

    /// The next one that says something: versions, frames and memory for later are passed over.
    fn op(&mut self) -> Option<Op> {
        loop {
            let [code] = *self.take(1)? else {
                return None;
            };
            let passed_over = match code {
                b'\x80' | b'q' => 1, // PROTO, BINPUT
                b'r' => 4,           // LONG_BINPUT
                b'\x95' => 8,        // FRAME
                b'\x94' => 0,        // MEMOIZE
                b'\x8c' => {
                    let [length] = *self.take(1)? else {
                        return None;
                    };
                    return self.text(length.into()); // SHORT_BINUNICODE
                }
                b'X' => {
                    let length = self.take(4)?.try_into().ok()?;
                    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
                    return self.text(length); // BINUNICODE
                }
                b'\x85' => return Some(Op::TupleOf1),
                b'\x86' => return Some(Op::TupleOf2),
                b'\x89' => return Some(Op::False),
                b'.' => return Some(Op::Stop),
                _ => return None,
            };
            self.take(passed_over)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.12 makes of `(("transformer.blocks.0.att_proj.weight",), False)`, by the protocol of the pickle.
    #[test]
    fn codes_of_every_protocol_are_read() {
        for code in [
            "gAJYJAAAAHRyYW5zZm9ybWVyLmJsb2Nrcy4wLmF0dF9wcm9qLndlaWdodHEAhXEBiYZxAi4=",
            "gANYJAAAAHRyYW5zZm9ybWVyLmJsb2Nrcy4wLmF0dF9wcm9qLndlaWdodHEAhXEBiYZxAi4=",
            "gASVLQAAAAAAAACMJHRyYW5zZm9ybWVyLmJsb2Nrcy4wLmF0dF9wcm9qLndlaWdodJSFlImGlC4=",
            "gAWVLQAAAAAAAACMJHRyYW5zZm9ybWVyLmJsb2Nrcy4wLmF0dF9wcm9qLndlaWdodJSFlImGlC4=",
        ] {
            let name = decoded(code);
            assert_eq!(
                name.as_deref(),
                Some("transformer.blocks.0.att_proj.weight")
            );
        }
    }

    /// A name as it stands, a tensor inside another dictionary, a value that is no tensor, a code that was cut off or goes on, a call.
    #[test]
    fn nothing_else_is_a_code() {
        for stored in [
            "transformer.wte.weight",
            "weight",
            "",
            "gASVGAAAAAAAAACMBXN0YXRllIwHZXhwX2F2Z5SGlImGlC4=",
            "gASVDQAAAAAAAACMBHN0ZXCUhZSIhpQu",
            "gASVLQAAAAAAAACMJHRyYW5zZm9ybWVyLmJsb2Nrcy4wLmF0dF9wcm9q",
            "gASVCwAAAAAAAACMAmFilIWUiYaULi4=",
            "Y29zCnN5c3RlbQooUydpZCcKdFIu",
        ] {
            assert_eq!(decoded(stored), None, "{stored}");
        }
    }
}
