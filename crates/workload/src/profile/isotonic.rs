/// The non-increasing sequence that is nearest to `values` by weighted squares: pool adjacent violators (Ayer et
/// al., "An empirical distribution function for sampling with incomplete information", 1955).
pub(super) fn non_increasing(values: &[(f64, f64)]) -> Vec<f64> {
    // Blocks of (mean, weight, length).
    let mut blocks: Vec<(f64, f64, usize)> = Vec::with_capacity(values.len());
    for &(value, weight) in values {
        let mut block = (value, weight.max(f64::MIN_POSITIVE), 1);
        while let Some(&(mean, weight, length)) = blocks.last()
            && mean < block.0
        {
            blocks.pop();
            let sum = weight + block.1;
            block = ((mean * weight + block.0 * block.1) / sum, sum, length + block.2);
        }
        blocks.push(block);
    }
    blocks.iter().flat_map(|&(mean, _, length)| std::iter::repeat_n(mean, length)).collect()
}

/// Where a non-increasing fit crosses `target`: the first abscissa at which it is below, by a straight line from
/// the one before. None if it never is; the first abscissa if it is from the start.
pub(super) fn crossing(xs: &[f64], fit: &[f64], target: f64) -> Option<f64> {
    let below = fit.iter().position(|&value| value < target)?;
    if below == 0 {
        return Some(xs[0]);
    }
    let (a, b) = (xs[below - 1], xs[below]);
    let (fa, fb) = (fit[below - 1], fit[below]);
    Some(a + (b - a) * (fa - target) / (fa - fb))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn violators_are_pooled_by_weight() {
        let fit = non_increasing(&[(5.0, 1.0), (2.0, 1.0), (4.0, 3.0), (1.0, 1.0)]);
        assert_eq!(fit, [5.0, 3.5, 3.5, 1.0]);
        assert_eq!(crossing(&[1.0, 2.0, 3.0, 4.0], &fit, 2.25), Some(3.5));
        assert_eq!(crossing(&[1.0, 2.0, 3.0, 4.0], &fit, 0.5), None);
        assert_eq!(crossing(&[1.0, 2.0, 3.0, 4.0], &fit, 9.0), Some(1.0));
    }

    proptest! {
        #[test]
        fn the_fit_is_monotone_and_keeps_the_mean(
            values in prop::collection::vec((0.0..1.0f64, 0.1..10.0f64), 1..40),
        ) {
            let fit = non_increasing(&values);
            prop_assert!(fit.windows(2).all(|pair| pair[0] >= pair[1]));
            let mean = |numbers: &mut dyn Iterator<Item = f64>| -> f64 {
                numbers.zip(&values).map(|(value, (_, weight))| value * weight).sum()
            };
            let before = mean(&mut values.iter().map(|(value, _)| *value));
            let after = mean(&mut fit.iter().copied());
            prop_assert!((before - after).abs() < 1e-9);
        }
    }
}
