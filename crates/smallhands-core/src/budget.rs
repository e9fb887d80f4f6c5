use serde::{Deserialize, Serialize};
use std::fmt;

/// What something used, or may use at most. Integers only, so that sums are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Millionths of a US dollar. `None` is "unknown", which is never zero and poisons sums.
    pub micro_usd: Option<u64>,
    /// Tokens read by models, cached ones included.
    pub input_tokens: u64,
    /// Tokens written by models, reasoning included.
    pub output_tokens: u64,
    /// Calls of models or paid tools.
    pub calls: u64,
    /// Milliseconds of wall time.
    pub millis: u64,
}

impl Default for Usage {
    /// Nothing, at no cost.
    fn default() -> Self {
        Self {
            micro_usd: Some(0),
            input_tokens: 0,
            output_tokens: 0,
            calls: 0,
            millis: 0,
        }
    }
}

impl Usage {
    /// Input and output tokens together.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// The sum; an unknown price stays unknown.
    #[must_use]
    pub fn plus(self, o: Self) -> Self {
        Self {
            micro_usd: self
                .micro_usd
                .zip(o.micro_usd)
                .map(|(a, b)| a.saturating_add(b)),
            input_tokens: self.input_tokens.saturating_add(o.input_tokens),
            output_tokens: self.output_tokens.saturating_add(o.output_tokens),
            calls: self.calls.saturating_add(o.calls),
            millis: self.millis.saturating_add(o.millis),
        }
    }

    /// Whether `part` fits into what `self` allows, dimension by dimension.
    pub fn covers(&self, part: &Self) -> bool {
        let money = match (self.micro_usd, part.micro_usd) {
            (Some(a), Some(b)) => b <= a,
            (None, _) => true,
            (Some(_), None) => false,
        };
        money
            && part.tokens() <= self.tokens()
            && part.calls <= self.calls
            && part.millis <= self.millis
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls, {} tokens in, {} out, ",
            self.calls, self.input_tokens, self.output_tokens
        )?;
        match self.micro_usd {
            Some(m) => write!(f, "${}.{:06}", m / 1_000_000, m % 1_000_000),
            None => f.write_str("cost unknown"),
        }
    }
}

/// A cap for each dimension; `None` is no cap. A money cap refuses unknown prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Millionths of a US dollar.
    pub micro_usd: Option<u64>,
    /// Tokens in and out together.
    pub tokens: Option<u64>,
    /// Calls of models or paid tools.
    pub calls: Option<u64>,
    /// Milliseconds of wall time spent in calls.
    pub millis: Option<u64>,
}

/// Which dimension of a [`Budget`] does not allow something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{dimension}: {asked} would be over the cap of {cap}")]
pub struct Exceeded {
    /// `micro_usd`, `tokens`, `calls` or `millis`.
    pub dimension: &'static str,
    /// The total that was asked for, or "an unknown price".
    pub asked: String,
    /// The cap in force.
    pub cap: u64,
}

impl Budget {
    /// Checks a total (spent, held and newly asked) against every cap.
    ///
    /// # Errors
    /// The first dimension that the total is over.
    pub fn allows(&self, total: &Usage) -> Result<(), Exceeded> {
        if let (Some(cap), None) = (self.micro_usd, total.micro_usd) {
            return Err(Exceeded {
                dimension: "micro_usd",
                asked: "an unknown price".into(),
                cap,
            });
        }
        let dims = [
            ("micro_usd", self.micro_usd, total.micro_usd.unwrap_or(0)),
            ("tokens", self.tokens, total.tokens()),
            ("calls", self.calls, total.calls),
            ("millis", self.millis, total.millis),
        ];
        for (dimension, cap, asked) in dims {
            if let Some(cap) = cap
                && asked > cap
            {
                return Err(Exceeded {
                    dimension,
                    asked: asked.to_string(),
                    cap,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_price_is_never_zero() {
        let unknown = Usage {
            micro_usd: None,
            ..Usage::default()
        };
        assert_eq!(Usage::default().plus(unknown).micro_usd, None);
        let cap = Budget {
            micro_usd: Some(1_000),
            ..Budget::default()
        };
        assert_eq!(cap.allows(&unknown).unwrap_err().dimension, "micro_usd");
        assert_eq!(Budget::default().allows(&unknown), Ok(()));
    }

    #[test]
    fn a_cap_holds_at_its_edge() {
        let cap = Budget {
            tokens: Some(10),
            ..Budget::default()
        };
        let used = |i, o| Usage {
            input_tokens: i,
            output_tokens: o,
            ..Usage::default()
        };
        assert!(cap.allows(&used(4, 6)).is_ok());
        assert_eq!(cap.allows(&used(5, 6)).unwrap_err().asked, "11");
    }
}
