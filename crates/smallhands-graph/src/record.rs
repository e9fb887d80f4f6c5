use crate::Event;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smallhands_core::Timestamp;
use std::{borrow::Cow, fmt, sync::Arc};

/// What a store keeps. It never understands an event, so that a journal outlives every event type.
#[derive(Clone)]
pub struct Record {
    /// Which event.
    pub kind: Cow<'static, str>,
    /// Version of that kind's body.
    pub version: u16,
    /// When, by the clock of the engine that wrote it.
    pub at: Timestamp,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Text(Box<str>),
    /// Encoded by whoever writes it, which is not the thread that made it.
    Event(Arc<Event>),
}

impl Record {
    /// A record with this JSON text as its body.
    pub fn new(
        kind: impl Into<Cow<'static, str>>,
        version: u16,
        at: Timestamp,
        body: impl Into<Box<str>>,
    ) -> Self {
        Self {
            kind: kind.into(),
            version,
            at,
            body: Body::Text(body.into()),
        }
    }

    /// The record of an event.
    pub fn of(event: Arc<Event>, at: Timestamp) -> Self {
        Self {
            kind: event.kind().into(),
            version: Event::VERSION,
            at,
            body: Body::Event(event),
        }
    }

    /// About how many bytes its body has, without encoding it.
    #[cfg(feature = "sqlite")]
    pub(crate) fn weight(&self) -> usize {
        match &self.body {
            Body::Text(t) => t.len(),
            Body::Event(e) => crate::weight::event(e),
        }
    }

    /// The event's fields as JSON text.
    pub fn body(&self) -> Cow<'_, str> {
        match &self.body {
            Body::Text(t) => Cow::Borrowed(t),
            Body::Event(e) => {
                let mut text = Vec::new();
                e.encode(&mut text);
                Cow::Owned(String::from_utf8(text).unwrap_or_default())
            }
        }
    }

    /// The same, behind what `out` holds: many bodies in one allocation.
    #[cfg(feature = "sqlite")]
    pub(crate) fn body_into(&self, out: &mut Vec<u8>) {
        match &self.body {
            Body::Text(t) => out.extend_from_slice(t.as_bytes()),
            Body::Event(e) => e.encode(out),
        }
    }
}

impl PartialEq for Record {
    fn eq(&self, o: &Self) -> bool {
        (&self.kind, self.version, self.at, self.body()) == (&o.kind, o.version, o.at, o.body())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} {}", self.kind, self.version, self.body())
    }
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    kind: Cow<'a, str>,
    version: u16,
    at: Timestamp,
    body: Cow<'a, RawValue>,
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let body = RawValue::from_string(self.body().into_owned());
        Wire {
            kind: Cow::Borrowed(&self.kind),
            version: self.version,
            at: self.at,
            body: Cow::Owned(body.map_err(serde::ser::Error::custom)?),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let w = Wire::deserialize(d)?;
        let body = w.body.into_owned();
        Ok(Self::new(
            w.kind.into_owned(),
            w.version,
            w.at,
            Box::<str>::from(body),
        ))
    }
}
