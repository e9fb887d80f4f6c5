use serde::{Deserialize, Serialize};

/// What tokens cost, in pico-dollars (10^-12) each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// A token read.
    pub input: u64,
    /// A token written.
    pub output: u64,
}

impl Price {
    /// What runs on the user's own machine.
    pub const FREE: Self = Self {
        input: 0,
        output: 0,
    };

    /// Micro-dollars, rounded up once for the call.
    pub fn micro_usd(self, input_tokens: u64, output_tokens: u64) -> u64 {
        let pico = u128::from(self.input) * u128::from(input_tokens)
            + u128::from(self.output) * u128::from(output_tokens);
        u64::try_from(pico.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// List prices of a few models, as of November 2026 (source: the price file of the `litellm`
    /// package 1.109.1, MIT). Anything else is unknown, never free.
    pub fn of(model: &str) -> Option<Self> {
        let (input, output) = match model {
            "gpt-4o-mini" => (150_000, 600_000),
            "claude-sonnet-4-5" => (3_000_000, 15_000_000),
            "gemini-2.5-flash" => (300_000, 2_500_000),
            _ => return None,
        };
        Some(Self { input, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_round_up_once_and_unknown_is_not_free() {
        let p = Price::of("gpt-4o-mini").unwrap();
        assert_eq!(p.micro_usd(1_000_000, 1_000_000), 750_000);
        assert_eq!(p.micro_usd(1, 0), 1);
        assert_eq!(Price::FREE.micro_usd(9, 9), 0);
        assert_eq!(Price::of("gpt-99"), None);
    }
}
