//! When a target is copied to, and how fast: the settings `bandwidth`, `window` and `window-zone`. Pure rules.
//!
//! They are the appliance's, not the store's: they are taken out of the settings before a store sees them.

use std::collections::BTreeMap;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::Error;

const BANDWIDTH: &str = "bandwidth";
const WINDOW: &str = "window";
const WINDOW_ZONE: &str = "window-zone";

/// Units of bandwidth, in bytes a second; bits as networks count them.
const UNITS: [(&str, u64); 10] = [
    ("B/s", 1),
    ("KiB/s", 1 << 10),
    ("MiB/s", 1 << 20),
    ("GiB/s", 1 << 30),
    ("KB/s", 1_000),
    ("MB/s", 1_000_000),
    ("GB/s", 1_000_000_000),
    ("kbit/s", 125),
    ("Mbit/s", 125_000),
    ("Gbit/s", 125_000_000),
];

/// How a target is copied to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pace {
    /// At most so much is sent.
    pub(crate) bytes_per_second: Option<u64>,
    window: Option<Window>,
}

/// A time of the day in which copying may begin; it may lie over midnight.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    opens: Time,
    closes: Time,
    zone: TimeZone,
}

impl Pace {
    /// Takes what is said of it out of a target's settings.
    pub(crate) fn take(settings: &mut BTreeMap<String, String>) -> Result<Self, Error> {
        let (window, zone) = (settings.remove(WINDOW), settings.remove(WINDOW_ZONE));
        let window = match (window, zone) {
            (Some(window), zone) => Some(Window::parse(&window, zone.as_deref())?),
            (None, Some(_)) => return Err(bad(WINDOW_ZONE, "is for a target with a `window`")),
            (None, None) => None,
        };
        Ok(Self { bytes_per_second: settings.remove(BANDWIDTH).as_deref().map(bandwidth).transpose()?, window })
    }

    /// When copying may begin next, in milliseconds since 1970; at once without an answer.
    pub(crate) fn opens_at(&self, now_ms: i64) -> Option<i64> {
        self.window.as_ref()?.opens_at(now_ms)
    }
}

impl Window {
    /// `22:00-06:00`, with the zone behind it, or on its own; else UTC.
    fn parse(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        let (times, own_zone) =
            text.trim().split_once(' ').map_or((text.trim(), None), |(times, zone)| (times, Some(zone)));
        let zone = match (own_zone, zone) {
            (Some(_), Some(_)) => return Err(bad(WINDOW_ZONE, "is said in `window` already")),
            (own, given) => own.or(given).unwrap_or("UTC").trim(),
        };
        let zone = TimeZone::get(zone).map_err(|_| {
            bad(
                if own_zone.is_some() { WINDOW } else { WINDOW_ZONE },
                "names a time zone that this machine does not know",
            )
        })?;
        let time = |text: &str| text.trim().parse::<Time>().ok().filter(|_| text.contains(':'));
        let times = times.split_once('-').and_then(|(opens, closes)| Some((time(opens)?, time(closes)?)));
        match times {
            Some((opens, closes)) if opens != closes => Ok(Self { opens, closes, zone }),
            _ => Err(bad(
                WINDOW,
                "is two different times of the day, as in `22:00-06:00` or `22:00-06:00 Europe/Helsinki`",
            )),
        }
    }

    fn opens_at(&self, now_ms: i64) -> Option<i64> {
        let now = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(self.zone.clone());
        let time = now.time();
        let is_open = match self.opens < self.closes {
            true => self.opens <= time && time < self.closes,
            false => self.opens <= time || time < self.closes,
        };
        if is_open {
            return None;
        }
        let date = if time < self.opens { now.date() } else { now.date().checked_add(1.day()).ok()? };
        // A time that the clocks skip that day opens when they have skipped it.
        let opens = date.to_datetime(self.opens).to_zoned(self.zone.clone()).ok()?;
        Some(opens.timestamp().as_millisecond())
    }
}

fn bandwidth(text: &str) -> Result<u64, Error> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<u64>().ok(), text[end..].trim());
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let rate = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    rate.filter(|rate| *rate >= 1 << 10)
        .ok_or_else(|| bad(BANDWIDTH, "is a rate of at least 1KiB/s, as in `20MiB/s` or `100Mbit/s`"))
}

fn bad(name: &str, reason: &str) -> Error {
    Error::invalid("bad-setting", format!("the setting `{name}` {reason}"))
        .hint("A target takes `bandwidth=20MiB/s`, and `window=22:00-06:00` with `window-zone=Europe/Helsinki`.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(pairs: &[(&str, &str)]) -> Result<Pace, String> {
        let mut settings = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Pace::take(&mut settings).map_err(|error| error.message)
    }

    /// Whether copying may begin at this time, or when.
    fn opens(pace: &Pace, now: &str) -> Option<String> {
        let now: Timestamp = now.parse().unwrap();
        pace.opens_at(now.as_millisecond()).map(|ms| Timestamp::from_millisecond(ms).unwrap().to_string())
    }

    #[test]
    fn what_is_ours_is_taken_out() {
        let mut settings = BTreeMap::from(
            [("bandwidth", "2MiB/s"), ("window", "1:00-2:00"), ("lock", "governance")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        settings.insert("window".to_owned(), "01:00-02:00".to_owned());
        assert_eq!(Pace::take(&mut settings).unwrap().bytes_per_second, Some(2 << 20));
        assert_eq!(settings.keys().collect::<Vec<_>>(), ["lock"]);
    }

    #[test]
    fn rates_have_units() {
        for (text, rate) in
            [("1024B/s", 1024), ("20MiB/s", 20 << 20), ("100 Mbit/s", 12_500_000), ("3GB/s", 3_000_000_000)]
        {
            assert_eq!(pace(&[("bandwidth", text)]).unwrap().bytes_per_second, Some(rate), "{text}");
        }
        for bad in ["", "20", "MiB/s", "1B/s", "-5MiB/s", "20mb/s", "99999999999GiB/s"] {
            assert!(pace(&[("bandwidth", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_over_midnight_is_open_on_both_sides_of_it() {
        let pace = pace(&[("window", "22:00-06:00")]).unwrap();
        assert_eq!(opens(&pace, "2026-05-04T23:30:00Z"), None);
        assert_eq!(opens(&pace, "2026-05-04T05:59:59Z"), None);
        assert_eq!(opens(&pace, "2026-05-04T06:00:00Z").unwrap(), "2026-05-04T22:00:00Z");
        assert_eq!(opens(&pace, "2026-05-04T21:59:00Z").unwrap(), "2026-05-04T22:00:00Z");
    }

    #[test]
    fn a_window_within_a_day_opens_the_next_day_once_it_is_over() {
        let pace = pace(&[("window", "01:00-02:00")]).unwrap();
        assert_eq!(opens(&pace, "2026-05-04T00:00:00Z").unwrap(), "2026-05-04T01:00:00Z");
        assert_eq!(opens(&pace, "2026-05-04T02:00:00Z").unwrap(), "2026-05-05T01:00:00Z");
    }

    #[test]
    fn a_window_keeps_its_zone_s_clock_and_outlives_a_skipped_hour() {
        let helsinki = pace(&[("window", "03:30-05:00 Europe/Helsinki")]).unwrap();
        assert_eq!(helsinki, pace(&[("window", "03:30-05:00"), ("window-zone", "Europe/Helsinki")]).unwrap());
        assert_eq!(opens(&helsinki, "2026-01-10T00:00:00Z").unwrap(), "2026-01-10T01:30:00Z");
        assert_eq!(opens(&helsinki, "2026-07-10T00:00:00Z").unwrap(), "2026-07-10T00:30:00Z");
        // In the night of 29 March 2026 clocks there go from 3:00 to 4:00.
        assert_eq!(opens(&helsinki, "2026-03-29T00:00:00Z").unwrap(), "2026-03-29T01:30:00Z");
    }

    #[test]
    fn windows_that_say_nothing_or_too_much_are_refused() {
        for bad in ["", "22-06", "22:00", "22:00-22:00", "25:00-26:00", "22:00-06:00 Mars/Base"] {
            assert!(pace(&[("window", bad)]).is_err(), "{bad}");
        }
        assert!(pace(&[("window-zone", "UTC")]).is_err());
        assert!(pace(&[("window", "22:00-06:00 UTC"), ("window-zone", "UTC")]).is_err());
    }
}
