//! The words of messages: enums whose values have a word each, numbers of things, and texts that a terminal only shows.

use std::borrow::Cow;

/// Declares an enum and, for each of its values, the word that shows it. All values are in `ALL`.
macro_rules! words {
    (
        $(#[$about:meta])*
        pub enum $Name:ident {
            $($(#[$doc:meta])* $Value:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $($(#[$doc])* $Value,)+
        }

        impl $Name {
            /// Every value.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$Value),+];

            /// The value as text.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$Value => $word,)+
                }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

/// A number of things: `1 image`, `2 images`. The plural of `thing` ends in s.
pub(crate) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// At most `most` of some things in words, and how many more there are. One more is told, too, instead of a line that says so.
pub(crate) fn told<T>(
    all: &[T],
    most: usize,
    tell: impl Fn(&T) -> String,
    rest: impl FnOnce(usize) -> String,
) -> Vec<String> {
    let told = if all.len() == most + 1 {
        all.len()
    } else {
        most
    };
    let mut lines: Vec<String> = all.iter().take(told).map(tell).collect();
    if all.len() > told {
        lines.push(rest(all.len() - told));
    }
    lines
}

/// The text with control characters written as in a program, `\n` or `\u{1b}`: names of files and captions may hold some, and a
/// terminal would obey them.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for sign in text.chars() {
        match sign.is_control() {
            true => shown.extend(sign.escape_default()),
            false => shown.push(sign),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!(
            [0, 1, 2].map(|n| count(n, "image")),
            ["0 images", "1 image", "2 images"]
        );
    }

    #[test]
    fn a_line_about_the_rest_stands_for_at_least_two() {
        let lines =
            |things: usize| told(&vec![0; things], 2, i32::to_string, |n| format!("{n} more"));
        assert_eq!([lines(0).len(), lines(1).len(), lines(2).len()], [0, 1, 2]);
        assert_eq!(lines(3), ["0", "0", "0"]);
        assert_eq!(lines(4), ["0", "0", "2 more"]);
    }

    #[test]
    fn a_terminal_is_given_nothing_to_obey() {
        let text = "a\u{1b}[31m\r\nb\u{9b}1m\t\u{7f}.jpg";
        assert_eq!(
            printable(text),
            "a\\u{1b}[31m\\r\\nb\\u{9b}1m\\t\\u{7f}.jpg"
        );
        assert_eq!(printable("caf\u{e9} \\n"), "caf\u{e9} \\n");
    }
}
