//! The few protocol buffer messages of an event file, encoded by hand.

/// Wire types (`protobuf.dev/programming-guides/encoding`).
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// An encoded message.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// One value of a summary.
pub(super) struct Scalar<'a> {
    pub tag: &'a str,
    pub value: f32,
}

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(mut self, field: u64, wire: u64) -> Self {
        self.raw_varint(field << 3 | wire);
        self
    }

    fn varint(self, field: u64, value: u64) -> Self {
        let mut message = self.key(field, VARINT);
        message.raw_varint(value);
        message
    }

    fn double(self, field: u64, value: f64) -> Self {
        let mut message = self.key(field, FIXED64);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn float(self, field: u64, value: f32) -> Self {
        let mut message = self.key(field, FIXED32);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn part(self, field: u64, bytes: &[u8]) -> Self {
        let mut message = self.key(field, LENGTH);
        message.raw_varint(bytes.len() as u64);
        message.0.extend(bytes);
        message
    }

    /// `Event`: wall_time = 1, step = 2.
    fn event(wall_time: f64, step: u64) -> Self {
        Self::default().double(1, wall_time).varint(2, step)
    }
}

/// The first event of a file: `Event.file_version` = 3.
pub(super) fn file_version(wall_time: f64) -> Message {
    Message::event(wall_time, 0).part(3, b"brain.Event:2")
}

/// `Event.session_log` = 7 with `SessionLog.status` = 1 of START = 1: steps from this one on are written anew.
pub(super) fn session_start(wall_time: f64, step: u64) -> Message {
    let start = Message::default().varint(1, 1);
    Message::event(wall_time, step).part(7, start.bytes())
}

/// `Event.summary` = 5 with `Summary.value` = 1, each `tag` = 1 and `simple_value` = 2.
pub(super) fn scalars(wall_time: f64, step: u64, scalars: &[Scalar<'_>]) -> Message {
    let summary = scalars.iter().fold(Message::default(), |summary, scalar| {
        let value = Message::default()
            .part(1, scalar.tag.as_bytes())
            .float(2, scalar.value);
        summary.part(1, value.bytes())
    });
    Message::event(wall_time, step).part(5, summary.bytes())
}
