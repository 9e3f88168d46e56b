//! Values: read from the text of a flag, checked against what a setting takes.

use super::{Kind, Setting};
use crate::error::{Error, Result};
use toml::Value;

/// The largest number that 32 bits hold, in which devices compute, rounded down.
const LARGEST: &str = "3.4e38";

impl Setting {
    /// The value that the text of a flag, or of a default, stands for. Only its form is checked: see
    /// [`check`](Setting::check) for its range.
    ///
    /// # Errors
    /// What was expected, in words.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        // Names of files may begin or end with blanks.
        let text = match self.kind {
            Kind::Path { .. } => text,
            _ => text.trim(),
        };
        let parsed = match self.kind {
            Kind::Switch { .. } => text.parse().ok().map(Value::Boolean),
            Kind::Integer { .. } => text.parse().ok().map(Value::Integer),
            Kind::Number { .. } => text.parse().ok().map(Value::Float),
            Kind::Integers { .. } => {
                let numbers = text.split(',').map(|part| part.trim().parse().ok());
                let numbers: Option<Vec<i64>> = numbers.collect();
                numbers.map(Value::from)
            }
            Kind::Choice(words) => {
                let known = words.iter().any(|(word, _)| *word == text);
                known.then(|| text.into())
            }
            Kind::Text { allows, .. } => allows(text).then(|| text.into()),
            Kind::Path { .. } => (!text.is_empty()).then(|| text.into()),
        };
        parsed.ok_or_else(|| format!("expected {}", self.expected()))
    }

    /// Checks a value that was given; `None` if it stands for none. Where fractions are wanted, a whole number becomes
    /// one.
    ///
    /// # Errors
    /// With the key, what was found and what was expected.
    pub fn check(&self, value: &Value) -> Result<Option<Value>> {
        let value = match (self.kind, value) {
            (Kind::Number { .. }, &Value::Integer(whole)) => Value::Float(whole as f64),
            (_, value) => value.clone(),
        };
        if self.none_value().as_ref() == Some(&value) {
            return Ok(None);
        }
        if self.allows(&value) {
            return Ok(Some(value));
        }
        let message = format!("found {}, expected {}", shown(&value), self.expected());
        Err(Error::setting(self.key, message))
    }

    /// The value that stands for none.
    pub fn none_value(&self) -> Option<Value> {
        self.none.map(|text| match self.kind {
            Kind::Integer { .. } | Kind::Number { .. } => self.declared(text),
            _ => text.into(),
        })
    }

    /// The default, if there is one.
    ///
    /// # Panics
    /// When the declaration is wrong: its default does not have the form of a value.
    pub fn default_value(&self) -> Option<Value> {
        self.default.map(|text| self.declared(text))
    }

    /// The value of a text that stands in a declaration.
    pub(crate) fn declared(&self, text: &str) -> Value {
        match self.parse(text) {
            Ok(value) => value,
            Err(_) if self.none == Some(text) => text.into(),
            Err(message) => panic!("the declaration of {}: {text}: {message}", self.key),
        }
    }

    fn allows(&self, value: &Value) -> bool {
        let within = |least: u64, most: Option<u64>, number: i64| {
            u64::try_from(number).is_ok_and(|n| n >= least && most.is_none_or(|most| n <= most))
        };
        match (self.kind, value) {
            (Kind::Switch { .. }, Value::Boolean(_)) => true,
            (Kind::Integer { least, most }, &Value::Integer(number)) => within(least, most, number),
            (Kind::Number { least, below }, &Value::Float(number)) => {
                (number as f32).is_finite() && (least..below).contains(&number)
            }
            (Kind::Integers { least, most }, Value::Array(numbers)) => {
                let allowed = |v: &Value| {
                    v.as_integer()
                        .is_some_and(|number| within(least, most, number))
                };
                !numbers.is_empty() && numbers.iter().all(allowed)
            }
            (Kind::Choice(words), Value::String(text)) => {
                words.iter().any(|(word, _)| word == text)
            }
            (Kind::Text { allows, .. }, Value::String(text)) => allows(text),
            (Kind::Path { .. }, Value::String(text)) => !text.is_empty(),
            _ => false,
        }
    }

    /// What is expected, in words: "a whole number from 1 on, or 0 for none".
    pub fn expected(&self) -> String {
        let mut expected = match self.kind {
            Kind::Switch { .. } => "true or false".into(),
            Kind::Integer { least, most } => format!("a whole number {}", range(least, most)),
            Kind::Number { least, below } if below.is_finite() => {
                format!("a number from {least} on, below {below}")
            }
            Kind::Number { least, .. } => format!("a number from {least} to {LARGEST}"),
            Kind::Integers { least, most } => {
                format!("one or more whole numbers {}", range(least, most))
            }
            Kind::Choice(words) => any_of(words.iter().map(|&(word, _)| word)),
            Kind::Path { word: None } => "a path".into(),
            Kind::Path { word: Some(word) } => format!("a path or {word}"),
            Kind::Text { expected, .. } => expected.into(),
        };
        match self.none {
            Some("none") => expected += ", or none",
            Some(none) => expected += &format!(", or {none} for none"),
            None => {}
        }
        expected
    }
}

/// A value as it stands in a message: large and small numbers with an exponent.
fn shown(value: &Value) -> String {
    match value {
        Value::Float(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// Words as a list in a sentence: "a, b or c".
pub fn any_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => (*last).into(),
        None => "nothing".into(),
    }
}

fn range(least: u64, most: Option<u64>) -> String {
    most.map_or_else(
        || format!("from {least} on"),
        |most| format!("from {least} to {most}"),
    )
}
