//! A bound on a figure, and the figure.

use std::fmt;

use serde_json::{Value, json};

/// On which side of a bound a figure must lie.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// Something that must hold.
pub struct Goal {
    /// What is measured.
    pub title: &'static str,
    /// What it must keep to.
    pub bound: Bound,
    /// The unit of both, with a space before it where one belongs there.
    pub unit: &'static str,
    /// None where what it takes was not measured.
    pub figure: Option<f64>,
}

impl Goal {
    /// Whether it was measured and holds.
    pub fn is_met(&self) -> bool {
        self.figure.is_some_and(|figure| match self.bound {
            Bound::AtMost(most) => figure <= most,
            Bound::AtLeast(least) => figure >= least,
        })
    }

    /// As an object.
    pub fn json(&self) -> Value {
        let (key, bound) = match self.bound {
            Bound::AtMost(most) => ("atMost", most),
            Bound::AtLeast(least) => ("atLeast", least),
        };
        json!({ "goal": self.title, key: bound, "unit": self.unit.trim(), "figure": self.figure, "met": self.is_met() })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, bound, unit, figure } = self;
        let bound = match bound {
            Bound::AtMost(most) => format!("at most {most}{unit}"),
            Bound::AtLeast(least) => format!("at least {least}{unit}"),
        };
        match figure {
            Some(figure) if self.is_met() => write!(formatter, "met           {title}: {figure:.2}{unit}, {bound}"),
            Some(figure) => write!(formatter, "MISSED        {title}: {figure:.2}{unit}, {bound}"),
            None => write!(formatter, "NOT MEASURED  {title}: {bound}"),
        }
    }
}
