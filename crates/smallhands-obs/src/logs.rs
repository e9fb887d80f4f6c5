use crate::{Redacting, SecretRedactor};
use tracing_subscriber::{
    EnvFilter, fmt,
    fmt::{MakeWriter, format::FmtSpan},
    layer::SubscriberExt,
};

/// A subscriber that writes each event as one JSON line, with its spans, secrets redacted; the end
/// of a span (`run`, `task`, `chat`, `tool`) is an event with the time that it took.
///
/// `filter` is in the syntax of `tracing-subscriber`, `info,smallhands=debug`; what cannot be read
/// of it falls back to `info`. For binaries: a library never installs a subscriber.
pub fn json_logs<W>(
    to: W,
    redactor: SecretRedactor,
    filter: &str,
) -> impl tracing_subscriber::util::SubscriberInitExt + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = fmt::layer()
        .json()
        .with_span_list(true)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(Masked { to, redactor });
    tracing_subscriber::registry().with(filter).with(layer)
}

struct Masked<W> {
    to: W,
    redactor: SecretRedactor,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Masked<W> {
    type Writer = Redacting<W::Writer>;
    fn make_writer(&'a self) -> Self::Writer {
        Redacting::new(self.to.make_writer(), self.redactor.clone())
    }
}
