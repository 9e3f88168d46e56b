//! Enums whose values have a word each.

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
