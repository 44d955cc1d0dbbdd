//! Whole numbers as JSON writes them: 6 and 6.0 are the same one.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

/// The first whole number that a floating one does not tell from the next.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = u64;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number, not negative")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
                Ok(number)
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
                if (0.0..EXACT_MAX).contains(&number) && number.fract() == 0.0 {
                    return Ok(number as u64);
                }
                Err(E::invalid_value(Unexpected::Float(number), &self))
            }
        }
        from.deserialize_any(Visitor).map(Self)
    }
}

/// A whole number, if there is one.
pub(super) fn whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let Some(Whole(number)) = Option::deserialize(from)? else { return Ok(None) };
    let fits = T::try_from(number).map(Some);
    fits.map_err(|_| D::Error::custom(format!("{number} is too large")))
}

/// A whole number, or `null`, which is a value too.
pub(super) fn whole_or_null<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    whole(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Option<u32>> {
        whole(&mut serde_json::Deserializer::from_str(text)).ok()
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, number) in [("6", Some(6)), ("6.0", Some(6)), ("60e-1", Some(6)), ("null", None)]
        {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for text in ["-1", "6.5", "1e300", "4294967296", "\"6\"", "[]", "18446744073709551616"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
