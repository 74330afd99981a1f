//! What may happen to a request on its way to an S3 service, and to the answer on its way back.

use super::message::Message;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not passed on; this answer comes.
    Answer(Said),
    /// It is passed on, and this answer comes in the place of the right one.
    Exchange(Said),
    /// It is not passed on, and the connection ends.
    Drop,
    /// It is passed on and done, and the connection ends without an answer.
    LoseAnswer,
    /// Half of it is passed on, and both connections end.
    CutRequest,
    /// Half of the answer comes, and the connection ends.
    CutAnswer,
    /// Half of the answer's body comes as if it were all.
    ShortenAnswer,
    /// It is not passed on, and nothing comes, until [`super::Wire::clear`].
    Stall,
    /// It is passed on and done, half of the answer comes, and then nothing, until [`super::Wire::clear`].
    StallAnswer,
    /// One bit of its body is another.
    FlipRequest,
    /// One bit of the answer's body is another.
    FlipAnswer,
    /// The answer says that the object is longer by one byte than it is.
    Lengthen,
    /// Each object of a listing comes twice, and the page says that more follows behind it.
    Repeat,
    /// The service at this port answers: an older state of the store, an empty one, another one altogether.
    Elsewhere(u16),
}

/// An answer that no service gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The status.
    pub status: u16,
    /// One more header.
    pub header: Option<(String, String)>,
    /// The body.
    pub body: String,
}

impl Said {
    /// An error as S3 says it.
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a fault</Message></Error>");
        Self::text(status, &body)
    }

    /// Whatever text.
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, header: None, body: body.to_owned() }
    }

    /// With a header.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Self {
        Self { header: Some((name.to_owned(), value.to_owned())), ..self }
    }

    /// As the answer to a request of this method: one to HEAD has no body.
    pub(super) fn to(&self, method: &str) -> Message {
        let header = self.header.as_ref().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<_> = header.into_iter().collect();
        match method {
            "HEAD" => Message::answer(self.status, &headers, b""),
            _ => Message::answer(self.status, &headers, self.body.as_bytes()).reframed(),
        }
    }
}

/// One bit in the middle of a body, if it has one.
pub(super) fn flip(message: &mut Message) {
    let middle = message.body.len() / 2;
    if let Some(byte) = message.body.get_mut(middle) {
        *byte ^= 1;
    }
}

/// Half of an answer's body, as if it were all.
pub(super) fn shorten(mut message: Message) -> Message {
    if message.body.is_empty() {
        return message;
    }
    message.body.truncate(message.body.len() / 2);
    message.reframed()
}

/// The bytes of a message up to the middle of its body, or of its head where it has none.
pub(super) fn half(message: &Message) -> Vec<u8> {
    let head = message.head();
    match message.body.len() {
        0 => head[..head.len() / 2].to_vec(),
        length => [&head, &message.body[..length / 2]].concat(),
    }
}

/// One byte more than there is, in the answer to HEAD.
pub(super) fn lengthen(mut message: Message) -> Message {
    if let Some(length) = message.header("content-length").and_then(|length| length.parse::<u64>().ok()) {
        message.set("content-length", &(length + 1).to_string());
    }
    message
}

/// Each object of a listing twice, and the word that this page is not the last one: the next begins as this one does.
pub(super) fn repeat(mut message: Message) -> Message {
    let page = String::from_utf8_lossy(&message.body).into_owned();
    let mut parts = page.split("<Contents>");
    let mut repeated = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (object, rest) = part.split_once("</Contents>").unwrap_or((part, ""));
        for _ in 0..2 {
            repeated += &format!("<Contents>{object}</Contents>");
        }
        repeated += rest;
    }
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>";
    message.body = repeated.replace("<IsTruncated>false</IsTruncated>", more).into_bytes();
    message.reframed()
}
