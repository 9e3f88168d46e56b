//! Settings, each declared once.
//!
//! A [`Setting`] says everything about one setting: its key, what values it takes, its default, its help and the heading
//! that the help stands under, and whether it may change when a run is resumed. The typed configuration, `config.toml`,
//! the flags of the command line, the rules for resuming and the README's table are all made from these declarations.
//!
//! [`settings!`](crate::settings!) declares settings together with the struct that holds their values:
//!
//! ```
//! use showtell::settings::{integer, number, switch};
//!
//! showtell::settings! {
//!     /// The settings of a decoder.
//!     pub struct Settings {}
//!     "Decoder" {
//!         /// Size of the state
//!         ///
//!         /// Everything after the first paragraph is shown by --help only.
//!         state_size: usize = integer(1).default("128");
//!         /// Share of the state's elements that dropout sets to 0
//!         state_dropout: f64 = number(0.0, 1.0).default("0.5");
//!         /// Normalise the state
//!         normalise: bool = switch("Take the state as it is").default("false");
//!     }
//! }
//!
//! assert_eq!(Settings::SETTINGS[0].key, "state-size");
//! let given = "state-size = 8\nstate-dropout = 0\nnormalise = true".parse().unwrap();
//! assert_eq!(Settings::read(&given).unwrap().state_size, 8);
//! ```
//!
//! Inside the library a setting that may be without a value is an `Option`. Text that stands for "none", such as `0` for
//! no limit, exists only in files and flags: see [`Setting::or_none`].

mod table;
mod typed;
mod value;

pub use table::{read_file, unknown};
pub use toml::{Table, Value};
pub use typed::{Choice, Field, Typed, dashed, read, write};
pub use value::any_of;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in `config.toml`; with two dashes before it, its flag.
    pub key: &'static str,
    /// The lines of its help. The first paragraph has to be enough by itself.
    pub doc: &'static [&'static str],
    /// The heading under which its help stands.
    pub heading: &'static str,
    /// The values that it takes.
    pub kind: Kind,
    /// What stands for the value in help, such as `N` or `FILE`.
    pub value_name: &'static str,
    /// The default of every recipe that names no other, as a flag would give it.
    pub default: Option<&'static str>,
    /// The value that stands for none, as a flag would give it.
    pub none: Option<&'static str>,
    /// Whether it may change when a run is resumed.
    pub may_change: bool,
}

/// The values that a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// On or off: the flags `--key` and `--no-key`.
    Switch {
        /// Help of the flag `--no-key`.
        off: &'static str,
    },
    /// A whole number.
    Integer {
        /// The smallest one allowed.
        least: u64,
        /// The largest one allowed, if there is a limit.
        most: Option<u64>,
    },
    /// A number that is finite in 32 bits.
    Number {
        /// The smallest one allowed.
        least: f64,
        /// All numbers have to be smaller than this one; may be infinite.
        below: f64,
    },
    /// Whole numbers, at least one of them; on the command line with commas between them.
    Integers {
        /// The smallest one allowed.
        least: u64,
        /// The largest one allowed, if there is a limit.
        most: Option<u64>,
    },
    /// One of several words, each with its meaning.
    Choice(&'static [(&'static str, &'static str)]),
    /// A file or a folder.
    Path {
        /// A word that may stand in its place and does not mean a path.
        word: Option<&'static str>,
    },
    /// Other text.
    Text {
        /// What is expected, in words.
        expected: &'static str,
        /// Whether a text is allowed.
        allows: fn(&str) -> bool,
    },
}

const fn of_kind(kind: Kind, value_name: &'static str) -> Setting {
    Setting {
        key: "",
        doc: &[],
        heading: "",
        kind,
        value_name,
        default: None,
        none: None,
        may_change: false,
    }
}

/// A setting that is on or off; `off` is the help of the flag that turns it off.
pub const fn switch(off: &'static str) -> Setting {
    of_kind(Kind::Switch { off }, "")
}

/// A whole number from `least` on.
pub const fn integer(least: u64) -> Setting {
    of_kind(Kind::Integer { least, most: None }, "N")
}

/// A number from `least` on, smaller than `below`, which may be infinite: the number has to be finite in 32 bits all the same.
pub const fn number(least: f64, below: f64) -> Setting {
    of_kind(Kind::Number { least, below }, "X")
}

/// One or more whole numbers from `least` on.
pub const fn integers(least: u64) -> Setting {
    of_kind(Kind::Integers { least, most: None }, "N,…")
}

/// One of several words, each with its meaning. [`choices!`](crate::choices!) makes the list.
pub const fn choice(
    words: &'static [(&'static str, &'static str)],
    value_name: &'static str,
) -> Setting {
    of_kind(Kind::Choice(words), value_name)
}

/// A file or a folder.
pub const fn path(value_name: &'static str) -> Setting {
    of_kind(Kind::Path { word: None }, value_name)
}

/// Other text: what is expected in words, and whether a text is allowed.
pub const fn text(
    expected: &'static str,
    allows: fn(&str) -> bool,
    value_name: &'static str,
) -> Setting {
    of_kind(Kind::Text { expected, allows }, value_name)
}

impl Setting {
    /// The default, as a flag would give it. A setting without one is not set, unless a recipe sets it.
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// The largest number that is allowed, for one or more whole numbers.
    pub const fn most(mut self, number: u64) -> Self {
        match &mut self.kind {
            Kind::Integer { most, .. } | Kind::Integers { most, .. } => *most = Some(number),
            _ => panic!("only whole numbers have a largest one"),
        }
        self
    }

    /// Lets a value, as a flag would give it, mean that there is none, such as 0 for no limit.
    pub const fn or_none(mut self, text: &'static str) -> Self {
        self.none = Some(text);
        self
    }

    /// A word that may stand in the place of a path.
    pub const fn or_word(mut self, word: &'static str) -> Self {
        self.kind = Kind::Path { word: Some(word) };
        self
    }

    /// What stands for the value in help.
    pub const fn value_name(mut self, name: &'static str) -> Self {
        self.value_name = name;
        self
    }

    /// Lets the setting change when a run is resumed.
    pub const fn may_change(mut self) -> Self {
        self.may_change = true;
        self
    }

    /// The first paragraph of the help, in one line.
    pub fn help(&self) -> String {
        let lines = self.doc.iter().map(|line| line.trim());
        let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        lines.join(" ")
    }

    /// What the help says after its first paragraph: a line for each paragraph, if there is any.
    pub fn details(&self) -> Option<String> {
        let lines: Vec<&str> = self.doc.iter().map(|line| line.trim()).collect();
        let paragraphs = lines.split(|line| line.is_empty()).skip(1);
        let paragraphs: Vec<String> = paragraphs.map(|lines| lines.join(" ")).collect();
        (!paragraphs.is_empty()).then(|| paragraphs.join("\n\n"))
    }
}
