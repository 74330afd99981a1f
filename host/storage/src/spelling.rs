//! Finds the known name that somebody most likely meant.

/// The known name nearest to `name`, if one is near enough to be a slip of the keyboard.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|known| (distance(name, known), *known))
        .min()
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, known)| known)
}

/// "is unknown", with the near name or all names.
pub(crate) fn unknown(name: &str, known: &[&str]) -> String {
    match (nearest(name, known), known) {
        (Some(near), _) => format!("is unknown here; did you mean `{near}`?"),
        (None, []) => "is unknown here; there are none".to_owned(),
        (None, known) => format!("is unknown here; known are `{}`", known.join("`, `")),
    }
}

/// Edit distance: how many characters must be put in, taken out or replaced.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["endpoint", "region", "style", "checksum"];
        assert_eq!(nearest("endpont", &known), Some("endpoint"));
        assert_eq!(nearest("regoin", &known), Some("region"));
        assert_eq!(nearest("password", &known), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
