//! From values to Rust types and back, and the macros that declare settings and words to choose from.

use super::Setting;
use crate::error::{Error, Result};
use std::path::PathBuf;
use toml::{Table, Value};

/// A Rust type for the value of a setting.
pub trait Typed: Sized {
    /// From a value that its setting takes; `None` if this type cannot hold it.
    fn from_value(value: &Value) -> Option<Self>;
    /// The value as it is written in a file.
    fn to_value(&self) -> Value;
}

/// A field of a struct of settings: a value, or an `Option` of one where a setting may be without.
pub trait Field: Sized {
    /// From the value of a setting; `None` if a value is needed and is missing.
    fn from_setting(value: Option<&Value>) -> Option<Self>;
    /// The value, if there is one.
    fn to_setting(&self) -> Option<Value>;
}

impl<T: Typed> Field for T {
    fn from_setting(value: Option<&Value>) -> Option<Self> {
        T::from_value(value?)
    }

    fn to_setting(&self) -> Option<Value> {
        Some(self.to_value())
    }
}

impl<T: Typed> Field for Option<T> {
    fn from_setting(value: Option<&Value>) -> Option<Self> {
        match value {
            Some(value) => T::from_value(value).map(Some),
            None => Some(None),
        }
    }

    fn to_setting(&self) -> Option<Value> {
        self.as_ref().map(T::to_value)
    }
}

impl Typed for bool {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn to_value(&self) -> Value {
        (*self).into()
    }
}

macro_rules! whole_numbers {
    ($($Number:ty),*) => {
        $(impl Typed for $Number {
            fn from_value(value: &Value) -> Option<Self> {
                value.as_integer()?.try_into().ok()
            }

            fn to_value(&self) -> Value {
                (*self as i64).into()
            }
        })*
    };
}
whole_numbers!(usize, u64);

impl Typed for f64 {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_float()
    }

    fn to_value(&self) -> Value {
        (*self).into()
    }
}

impl Typed for Vec<usize> {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(usize::from_value).collect()
    }

    fn to_value(&self) -> Value {
        self.iter().map(usize::to_value).collect::<Vec<_>>().into()
    }
}

impl Typed for PathBuf {
    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(PathBuf::from)
    }

    fn to_value(&self) -> Value {
        self.to_string_lossy().into_owned().into()
    }
}

/// A type whose values are words to choose from: what [`choices!`](crate::choices!) declares.
pub trait Choice: Copy + 'static {
    /// Every value with its word.
    const ALL: &'static [(Self, &'static str)];
}

impl<T: Choice + PartialEq> Typed for T {
    fn from_value(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let found = T::ALL.iter().find(|(_, word)| *word == text);
        found.map(|&(choice, _)| choice)
    }

    fn to_value(&self) -> Value {
        let found = T::ALL.iter().find(|(choice, _)| choice == self);
        found.map_or("", |&(_, word)| word).into()
    }
}

fn find(settings: &'static [Setting], key: &str) -> &'static Setting {
    let found = settings.iter().find(|setting| setting.key == key);
    found.expect("a field of `settings!` has its declaration")
}

/// Reads a field out of a table that has all settings with their defaults; what `settings!` calls.
///
/// # Errors
/// When the value is not one that its setting takes.
pub fn read<T: Field>(settings: &'static [Setting], key: &str, table: &Table) -> Result<T> {
    let setting = find(settings, key);
    let value = match table.get(key) {
        Some(value) => setting.check(value)?,
        None => None,
    };
    T::from_setting(value.as_ref()).ok_or_else(|| {
        let found = value.map_or("nothing".into(), |value| value.to_string());
        Error::setting(
            key,
            format!("found {found}, expected {}", setting.expected()),
        )
    })
}

/// Puts a field into a table, with the text for none where there is no value; what `settings!` calls.
pub fn write<T: Field>(settings: &'static [Setting], key: &str, field: &T, table: &mut Table) {
    let value = field.to_setting();
    if let Some(value) = value.or_else(|| find(settings, key).none_value()) {
        table.insert(key.into(), value);
    }
}

/// The name of a field with dashes for underscores: the key of its setting.
pub const fn dashed<const N: usize>(name: &str) -> [u8; N] {
    let name = name.as_bytes();
    let mut key = [0; N];
    let mut i = 0;
    while i < N {
        key[i] = if name[i] == b'_' { b'-' } else { name[i] };
        i += 1;
    }
    key
}

/// Declares settings under their headings, and the struct that holds their values: see [`settings`](crate::settings).
///
/// The doc comment of a field is the help of its setting, the field's name with dashes its key. Braces behind the struct's
/// name hold fields that are not settings; `read` takes them first. The struct gets
///
/// - `SETTINGS`, the declarations in order;
/// - `read(…, &table)`, which takes the fields' values from a table that has all of them;
/// - `write(&self, &mut table)`, which puts them into one.
#[macro_export]
macro_rules! settings {
    (
        $(#[$about:meta])*
        $visible:vis struct $Name:ident { $($(#[$plain_doc:meta])* $plain:ident: $Plain:ty),* $(,)? }
        $($heading:literal {
            $($(#[doc = $doc:literal])+ $field:ident: $Type:ty = $setting:expr;)*
        })*
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        $visible struct $Name {
            $($(#[$plain_doc])* pub $plain: $Plain,)*
            $($($(#[doc = $doc])+ pub $field: $Type,)*)*
        }

        impl $Name {
            /// The declarations, in the order of the help.
            pub const SETTINGS: &'static [$crate::settings::Setting] = &[$($(
                $crate::settings::Setting {
                    key: $crate::settings!(@key $field),
                    doc: &[$($doc),+],
                    heading: $heading,
                    ..$setting
                },
            )*)*];

            /// The values of a table that has every setting without an `Option`.
            ///
            /// # Errors
            /// With the key, when a value is missing or is not one that its setting takes.
            $visible fn read($($plain: $Plain,)* table: &$crate::settings::Table) -> $crate::Result<Self> {
                Ok($Name {
                    $($($field: $crate::settings::read(Self::SETTINGS, $crate::settings!(@key $field), table)?,)*)*
                    $($plain,)*
                })
            }

            /// Puts every value into a table.
            #[allow(dead_code)] // settings of a command are only read
            $visible fn write(&self, table: &mut $crate::settings::Table) {
                $($($crate::settings::write(
                    Self::SETTINGS, $crate::settings!(@key $field), &self.$field, table,
                );)*)*
            }
        }
    };
    (@key $field:ident) => {{
        const NAME: &str = stringify!($field);
        const KEY: [u8; NAME.len()] = $crate::settings::dashed(NAME);
        match ::std::str::from_utf8(&KEY) {
            Ok(key) => key,
            Err(_) => unreachable!(),
        }
    }};
}

/// Declares an enum whose values are words to choose from; their doc comments are their help.
#[macro_export]
macro_rules! choices {
    (
        $(#[$about:meta])*
        $visible:vis enum $Name:ident {
            $(#[doc = $doc:literal] $Value:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visible enum $Name {
            $(#[doc = $doc] $Value,)+
        }

        impl $Name {
            /// The words, each with its meaning.
            pub const WORDS: &'static [(&'static str, &'static str)] = &[$(($word, $doc)),+];
        }

        impl $crate::settings::Choice for $Name {
            const ALL: &'static [(Self, &'static str)] = &[$(($Name::$Value, $word)),+];
        }
    };
}
