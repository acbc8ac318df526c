//! Where a value stands on a drawing: axes, their marks, and labels that keep off one another.

/// An axis that grows by factors, from its first to its last mark.
#[derive(Clone, Debug)]
pub struct Logarithmic {
    first: f64,
    last: f64,
    from: f64,
    to: f64,
}

impl Logarithmic {
    /// Values `first` to `last`, all of them above 0, at the places `from` to `to`.
    #[must_use]
    pub fn new([first, last]: [f64; 2], [from, to]: [f64; 2]) -> Self {
        Self { first: first.ln(), last: last.ln(), from, to }
    }

    /// Where a value stands.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let width = self.last - self.first;
        let share = if width > 0.0 { (value.ln() - self.first) / width } else { 0.5 };
        self.from + share * (self.to - self.from)
    }
}

/// An axis that begins at 0 and ends at a round number.
#[derive(Clone, Debug)]
pub struct Linear {
    step: f64,
    steps: u32,
    from: f64,
    to: f64,
}

impl Linear {
    /// With room for values up to `largest`, at the places `from` (0) to `to`.
    #[must_use]
    pub fn new(largest: f64, [from, to]: [f64; 2]) -> Self {
        let step = round_step(largest);
        // `round_step` leaves at most ten of them.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let steps = (largest / step).ceil().clamp(1.0, 10.0) as u32;
        Self { step, steps, from, to }
    }

    /// The values that are marked, 0 first.
    pub fn marks(&self) -> impl Iterator<Item = f64> {
        (0..=self.steps).map(|number| f64::from(number) * self.step)
    }

    /// Where a value stands.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let share = value / (f64::from(self.steps) * self.step);
        self.from + share * (self.to - self.from)
    }
}

/// A step of 1, 2 or 5 times a power of ten that leaves three to seven marks above 0.
fn round_step(largest: f64) -> f64 {
    if !(largest.is_finite() && largest > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf((largest / 6.0).log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors.into_iter().find(|factor| largest / (factor * power) <= 6.0);
    factor.unwrap_or(10.0) * power
}

/// Moves places apart until neighbours have a distance of `gap`, in their order, and as little as
/// this takes: a group that is too narrow opens around its own middle.
#[must_use]
pub fn spread(places: &[f64], gap: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));

    let mut groups: Vec<Group> = Vec::new();
    for &index in &order {
        let mut group = Group { middle: places[index], members: vec![index] };
        while let Some(before) = groups.pop() {
            if before.end(gap) + gap <= group.start(gap) {
                groups.push(before);
                break;
            }
            group = before.joined(group);
        }
        groups.push(group);
    }

    let mut moved = places.to_vec();
    for group in groups {
        let mut place = group.start(gap);
        for index in group.members {
            moved[index] = place;
            place += gap;
        }
    }
    moved
}

/// Labels side by side around a common middle.
struct Group {
    middle: f64,
    members: Vec<usize>,
}

impl Group {
    /// From the middle to either end. There are few labels.
    #[expect(clippy::cast_precision_loss)]
    fn reach(&self, gap: f64) -> f64 {
        (self.members.len() as f64 - 1.0) / 2.0 * gap
    }

    fn start(&self, gap: f64) -> f64 {
        self.middle - self.reach(gap)
    }

    fn end(&self, gap: f64) -> f64 {
        self.middle + self.reach(gap)
    }

    #[expect(clippy::cast_precision_loss)]
    fn joined(mut self, other: Self) -> Self {
        let [own, others] = [self.members.len() as f64, other.members.len() as f64];
        self.middle = (self.middle * own + other.middle * others) / (own + others);
        self.members.extend(other.members);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn equal_factors_are_equal_distances() {
        let axis = Logarithmic::new([1.0, 1e6], [100.0, 700.0]);
        let places = [1.0, 1e3, 1e6].map(|value| axis.place(value));
        assert!(close(places[0], 100.0) && close(places[1], 400.0) && close(places[2], 700.0));
    }

    #[test]
    fn an_axis_ends_at_a_round_number_above_everything() {
        for (largest, last) in [(2632.0, 3000.0), (281.0, 300.0), (0.9, 1.0), (17.0, 20.0)] {
            let axis = Linear::new(largest, [400.0, 0.0]);
            let marks: Vec<f64> = axis.marks().collect();
            assert!((4..=8).contains(&marks.len()), "{marks:?}");
            assert!(close(marks[marks.len() - 1], last), "{marks:?}");
            assert!(close(axis.place(last), 0.0) && close(axis.place(0.0), 400.0));
        }
        assert_eq!(Linear::new(0.0, [1.0, 0.0]).marks().count(), 2);
    }

    #[test]
    fn labels_keep_their_order_and_their_distance_and_move_no_further_than_needed() {
        assert_eq!(spread(&[10.0, 50.0], 16.0), [10.0, 50.0]);
        assert_eq!(spread(&[52.0, 48.0], 16.0), [58.0, 42.0]);
        let moved = spread(&[10.0, 11.0, 12.0, 40.0, 90.0], 16.0);
        for pair in moved.windows(2) {
            assert!(pair[1] - pair[0] >= 16.0 - 1e-9, "{moved:?}");
        }
        assert!(close(moved[4], 90.0));
    }
}
