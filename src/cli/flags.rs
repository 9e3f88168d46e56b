//! Flags made from the declarations of settings, and settings spelled as flags in messages.

use super::{Usage, device, train, usage};
use crate::error::Error;
use crate::model::MODELS;
use crate::settings::{Kind, Setting, Table, Typed, Value};
use crate::train::config::{self, Config};
use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsStr;
use std::str::FromStr;

/// Why a path is refused that the settings of a run cannot hold.
const NOT_UTF8: &str = "it is not UTF-8, which config.toml has to be: rename it, or give a symbolic link of another name";

/// Columns of a line of help.
const WIDTH: usize = 88;

/// The flags of a setting: one, or two for a switch. `default` is added to the help.
pub fn flags(setting: &'static Setting, default: Option<String>) -> Vec<Arg> {
    let flag = described(
        Arg::new(setting.key).long(setting.key),
        setting,
        default.as_deref(),
    );
    match setting.kind {
        Kind::Switch { off } => {
            let negation = negation(setting);
            let on = flag.action(ArgAction::SetTrue).overrides_with(&negation);
            let about = match default.as_deref() {
                Some("false") => format!("{off} [default]"),
                _ => off.into(),
            };
            let no = Arg::new(&negation).long(&negation).help(about);
            let no = no.help_heading(setting.heading).action(ArgAction::SetTrue);
            vec![on, no.overrides_with(setting.key)]
        }
        Kind::Choice(words) => {
            let values = words
                .iter()
                .map(|&(word, meaning)| PossibleValue::new(word).help(meaning.trim()));
            let parser = WordParser(PossibleValuesParser::new(values));
            vec![flag.value_name(setting.value_name).value_parser(parser)]
        }
        Kind::Path { .. } => {
            let parser = OsStringValueParser::new().try_map(|text| match text.to_str() {
                Some(text) => setting.parse(text),
                None => Err(NOT_UTF8.into()),
            });
            vec![flag.value_name(setting.value_name).value_parser(parser)]
        }
        _ => {
            let parser = OsStringValueParser::new();
            let parser = parser.try_map(|text| setting.parse(&text.to_string_lossy()));
            vec![flag.value_name(setting.value_name).value_parser(parser)]
        }
    }
}

/// Takes one of several words. An error names the flag, even for a text that is not UTF-8, which clap's own parser does not
/// name.
#[derive(Clone)]
pub struct WordParser(pub PossibleValuesParser);

impl TypedValueParser for WordParser {
    type Value = Value;

    fn parse_ref(
        &self,
        command: &Command,
        flag: Option<&Arg>,
        text: &OsStr,
    ) -> Result<Value, clap::Error> {
        let text = text.to_string_lossy();
        let word = self.0.parse_ref(command, flag, OsStr::new(&*text))?;
        Ok(Value::String(word))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// A parser for a number that is no setting of a run, but takes the values that `setting` would.
pub fn number<T: Typed + Clone + Send + Sync + 'static>(
    setting: Setting,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |text| {
        let value = setting.parse(&text.to_string_lossy())?;
        let allowed = setting.check(&value).ok().flatten();
        let number = allowed.as_ref().and_then(T::from_value);
        number.ok_or_else(|| format!("expected {}", setting.expected()))
    })
}

/// A parser for a type that says itself what it expects.
pub fn named<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = Error> + Clone + Send + Sync + 'static,
{
    OsStringValueParser::new().try_map(|text| text.to_string_lossy().parse::<T>())
}

/// The flag that turns a switch off, without its dashes.
fn negation(setting: &Setting) -> String {
    format!("no-{}", setting.key)
}

/// A flag with its help, short and long.
fn described(flag: Arg, setting: &Setting, default: Option<&str>) -> Arg {
    let default = match (setting.kind, default) {
        (_, None) | (Kind::Switch { .. }, Some("false")) => String::new(),
        (Kind::Switch { .. }, Some(_)) => " [default]".into(),
        (_, Some(default)) => format!(" [default: {default}]"),
    };
    let short = setting.help() + &default;
    let long = match setting.details() {
        Some(details) => format!("{}\n\n{}", wrapped(&short), wrapped(&details)),
        None => wrapped(&short),
    };
    flag.help_heading(setting.heading)
        .help(short)
        .long_help(long)
}

/// A text with lines of at most [`WIDTH`] columns.
pub fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            line += if line.is_empty() { "" } else { " " };
            line += word;
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// The settings that were given as flags.
pub fn given(matches: &ArgMatches, settings: &[&Setting]) -> Table {
    let mut table = Table::new();
    for setting in settings {
        let value = match setting.kind {
            Kind::Switch { .. } => {
                let (on, off) = (
                    matches.get_flag(setting.key),
                    matches.get_flag(&negation(setting)),
                );
                (on || off).then_some(Value::Boolean(on))
            }
            _ => matches.get_one::<Value>(setting.key).cloned(),
        };
        table.extend(value.map(|value| (setting.key.to_string(), value)));
    }
    table
}

/// Makes the paths in a table mean the same wherever a run is resumed.
///
/// # Errors
/// When the current folder is unknown, or is not UTF-8.
pub fn make_absolute(table: &mut Table, settings: &[&Setting]) -> anyhow::Result<()> {
    for setting in settings {
        let Kind::Path { word } = setting.kind else {
            continue;
        };
        if let Some(Value::String(path)) = table.get_mut(setting.key) {
            let is_word = [word, setting.none].contains(&Some(path));
            if !is_word && !path.is_empty() {
                let absolute = std::path::absolute(&*path)?;
                let Some(absolute) = absolute.to_str() else {
                    let message = format!("found {}: {NOT_UTF8}", absolute.display());
                    return Err(usage(Error::setting(setting.key, message)));
                };
                *path = absolute.to_string();
            }
        }
    }
    Ok(())
}

/// What an error says, with settings spelled as flags.
pub fn message(error: &anyhow::Error) -> String {
    let of_library = match error.downcast_ref() {
        Some(Usage(error)) => Some(error),
        None => error.downcast_ref(),
    };
    match of_library {
        Some(Error::Setting { key, message }) if is_flag(key) => {
            spelled(&format!("--{key}: {message}"))
        }
        _ => spelled(&format!("{error:#}")),
    }
}

/// Spells the settings between backticks as flags: `` `lr` `` as --lr, `` `batch-size = 8` `` as --batch-size 8, and
/// `` `fine-tune = false` `` as --no-fine-tune.
pub fn spelled(text: &str) -> String {
    let mut spelled = String::new();
    for (index, part) in text.split('`').enumerate() {
        let (key, value) = part.split_once(" = ").unwrap_or((part, "true"));
        let quoted = index % 2 == 1;
        match value.trim_matches('"') {
            _ if !quoted => spelled += part,
            _ if !is_flag(key) => spelled += &format!("`{part}`"),
            "true" => spelled += &format!("--{key}"),
            "false" => spelled += &format!("--no-{key}"),
            value => spelled += &format!("--{key} {value}"),
        }
    }
    spelled
}

/// The declaration of a setting that every run has.
///
/// # Panics
/// When the library declares no such setting.
pub fn declared(key: &str) -> &'static Setting {
    let found = Config::SETTINGS.iter().find(|setting| setting.key == key);
    found.expect("the setting is declared")
}

/// Whether a key is that of a setting that has a flag.
fn is_flag(key: &str) -> bool {
    let of_models = MODELS.iter().flat_map(|model| model.settings);
    let program = train::PLACE.iter().chain(device::SETTINGS);
    let mut all = Config::SETTINGS.iter().chain(of_models).chain(program);
    key == config::MODEL || all.any(|setting| setting.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_between_backticks_become_flags() {
        let text = "lower `lr` or set `clip-norm = 1`, `fine-tune = false`, `schedule = \"none\"`; not `this`";
        let expected =
            "lower --lr or set --clip-norm 1, --no-fine-tune, --schedule none; not `this`";
        assert_eq!(spelled(text), expected);
        let error = Error::setting("dropout", "found 2, expected less").into();
        assert_eq!(message(&error), "--dropout: found 2, expected less");
    }

    #[test]
    fn lines_of_help_are_not_too_long() {
        let text = wrapped(&"several words ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(wrapped("one\n\ntwo"), "one\n\ntwo");
    }
}
