/// The Wilson score interval (Wilson 1927) of a rate, at 95 %.
pub fn wilson(successes: u64, trials: u64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (n, z) = (trials as f64, 1.959_963_984_540_054_f64);
    let p = successes as f64 / n;
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    ((centre - spread) / scale, (centre + spread) / scale)
}

/// The middle value; of two, their mean.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let m = v.len() / 2;
    match v.len() {
        0 => None,
        n if n % 2 == 1 => Some(v[m]),
        _ => Some(f64::midpoint(v[m - 1], v[m])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_as_published() {
        let (a, b) = wilson(8, 20);
        assert!(
            (a - 0.219).abs() < 0.001 && (b - 0.613).abs() < 0.001,
            "{a} {b}"
        );
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert_eq!(
            (median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0]), median(&[])),
            (Some(2.0), Some(2.5), None)
        );
    }
}
