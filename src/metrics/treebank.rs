//! Words as scores of captions are computed from them: tokens of the Penn Treebank in lower case, without punctuation.
//!
//! They are what Stanford's `PTBTokenizer` (CoreNLP 3.4.1) makes, which pycocoevalcap runs in Java. At each place of the text the longest
//! token wins, and of several as long the first of the rules. Words keep their hyphens (`t-shirt`) and slashes (`black/white`); `n't`, `'s`,
//! `'re` and the like are tokens of their own, and so are the halves of `cannot`; brackets have names (`-lrb-`); quotes are `` or '', by what
//! follows them. Of the lexer's rules those for emoticons, file names and telephone numbers are not here, nor the second dot that it adds
//! behind an abbreviation at the end of a sentence, which is left out of the words.

/// Tokens that pycocoevalcap leaves out. Names of brackets stay, since they are in lower case by then.
const PUNCTUATION: [&str; 13] = [
    "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";",
];

/// Words that keep their dot, with a capital or without.
const ABBREVIATIONS: &str = " jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri mr mrs ms drs dr prof profs \
     sen sens rep reps gov attys atty supt det rev col gen lt cmdr adm capt sgt cpl maj mt ft hon st messrs pres pvt pfc insp msgr ala \
     ariz calif colo conn fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va vt wis wisc wyo jr sr bros blvd rd ave \
     esq ph.d inc cos corp ltd co etc al seq vs v bhd asst assoc dept est cf univ tel ext bldg sq mfg intl natl adj adv alex wm jos invt elec \
     spc brig comdr ens mlle mme lieut ";
/// Those that need a capital.
const CAPITAL_ABBREVIATIONS: &str = " Miss Ark Del Ill La Mass Ore Pa Tex Wash ";

/// Words in two tokens: where the second one begins.
const HALVES: [(&str, usize); 7] = [
    ("cannot", 3),
    ("gonna", 3),
    ("gotta", 3),
    ("wanna", 3),
    ("lemme", 3),
    ("gimme", 3),
    ("more'n", 4),
];

/// The length of the token at the beginning of a text by one rule, 0 without one.
type Rule = fn(&[char]) -> usize;

const RULES: [Rule; 13] = [
    before_not,
    auxiliary,
    apostrophe_word,
    word,
    hyphenated,
    slashed,
    capitals,
    number,
    acronym,
    abbreviation,
    address,
    markup,
    punctuation,
];

/// The words of a caption, in lower case.
pub fn words(caption: &str) -> Vec<String> {
    let tokens = tokens(caption).into_iter();
    tokens
        .filter(|token| !PUNCTUATION.contains(&token.as_str()))
        .collect()
}

/// All tokens of a text, in lower case.
pub fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.replace("&amp;", "&").chars().collect();
    let mut tokens = Vec::new();
    let mut rest = &text[..];
    while let Some(&first) = rest.first() {
        if first.is_whitespace() {
            rest = &rest[1..];
            continue;
        }
        let mut length = 1;
        for rule in RULES {
            length = length.max(rule(rest));
        }
        let (token, after) = rest.split_at(length);
        let token: String = token.iter().collect();
        push(&mut tokens, &token, after);
        rest = after;
    }
    tokens
}

/// Adds what a token is written as.
fn push(tokens: &mut Vec<String>, token: &str, after: &[char]) {
    let lower = token.to_lowercase();
    if let Some(&(_, half)) = HALVES.iter().find(|(whole, _)| *whole == lower) {
        tokens.push(lower[..half].to_string());
        tokens.push(lower[half..].to_string());
        return;
    }
    let next = letter(after, 0);
    let written = match token {
        "(" => "-lrb-",
        ")" => "-rrb-",
        "[" => "-lsb-",
        "]" => "-rsb-",
        "{" => "-lcb-",
        "}" => "-rcb-",
        "\"" if next.is_ascii_alphanumeric() || next == '$' => "``",
        "\"" | "”" => "''",
        "“" => "``",
        "'" | "’" | "‘" if next.is_alphabetic() => "`",
        "’" => "'",
        "‘" => "`",
        "…" => "...",
        "£" => "#",
        "€" => "$",
        "½" => "1/2",
        "¼" => "1/4",
        "¾" => "3/4",
        dots if dots.len() > 2 && dots.chars().all(|c| c == '.') => "...",
        dashes if dashes != "-" && dashes.chars().all(is_dash) => "--",
        _ => {
            tokens.push(lower.replace('’', "'"));
            return;
        }
    };
    tokens.push(written.to_string());
}

fn letter(text: &[char], i: usize) -> char {
    text.get(i).copied().unwrap_or('\0')
}

fn run(text: &[char], belongs: impl Fn(char) -> bool) -> usize {
    text.iter().take_while(|&&c| belongs(c)).count()
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’')
}

fn is_dash(c: char) -> bool {
    matches!(c, '-' | '–' | '—')
}

/// Whether a text goes on with this, in any case, and then without a letter.
fn ends_with(text: &[char], ending: &str) -> bool {
    let length = ending.chars().count();
    let same = |(c, e): (&char, char)| c.to_ascii_lowercase() == e;
    text.len() >= length
        && text.iter().zip(ending.chars()).all(same)
        && !letter(text, length).is_alphabetic()
}

/// Letters before `n't`.
fn before_not(text: &[char]) -> usize {
    let letters = run(text, char::is_alphabetic);
    let negated = letters > 1
        && text[letters - 1].eq_ignore_ascii_case(&'n')
        && is_apostrophe(letter(text, letters))
        && ends_with(&text[letters + 1..], "t");
    // A token that is longer than what the other rules see of the word.
    if negated { letters - 1 } else { 0 }
}

/// `n't`, `'s`, `'m`, `'d`, `'re`, `'ve`, `'ll`, and the first part of `'tis` and `'twas`.
fn auxiliary(text: &[char]) -> usize {
    let first = letter(text, 0);
    if first.eq_ignore_ascii_case(&'n') && is_apostrophe(letter(text, 1)) {
        return if ends_with(&text[2..], "t") { 3 } else { 0 };
    }
    if !is_apostrophe(first) {
        return 0;
    }
    let rest = &text[1..];
    let found = ["s", "m", "d", "re", "ve", "ll"];
    match found.iter().find(|ending| ends_with(rest, ending)) {
        Some(ending) => 1 + ending.len(),
        None if ["tis", "twas"].iter().any(|word| ends_with(rest, word)) => 2,
        None => 0,
    }
}

/// Words with an apostrophe inside or at an end: `o'clock`, `O'Brien`, `ma'am`, `'em`, `'n'`, `'90s`, `ol'`.
fn apostrophe_word(text: &[char]) -> usize {
    let (first, letters) = (letter(text, 0), run(text, char::is_alphabetic));
    if is_apostrophe(first) {
        let rest = &text[1..];
        if letter(rest, 0) == 'n' && !letter(rest, 1).is_alphabetic() {
            return 2 + usize::from(is_apostrophe(letter(rest, 1)));
        }
        if ('2'..='9').contains(&letter(rest, 0))
            && letter(rest, 1) == '0'
            && letter(rest, 2) == 's'
        {
            return 4;
        }
        let found = ["em", "till", "til", "cause"];
        let found = found.iter().find(|word| ends_with(rest, word));
        return found.map_or(0, |word| 1 + word.len());
    }
    if letters == 0 || !is_apostrophe(letter(text, letters)) {
        return 0;
    }
    let behind = &text[letters + 1..];
    let more = run(behind, char::is_alphabetic);
    let inside = match letters {
        1 if matches!(first, 'A'..='H' | 'J'..='X' | 'Z' | 'n') => more >= 3,
        1 => matches!(first, 'd' | 'o' | 'l') && more > 0,
        _ => {
            let last = text[letters - 1].to_ascii_lowercase();
            let next = letter(behind, 0);
            matches!(last, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
                && matches!(next, 'a' | 'e' | 'i' | 'o' | 'u' | 'A'..='Z')
        }
    };
    if inside {
        return letters + 1 + more;
    }
    let lower = |i: usize| text[i].to_ascii_lowercase();
    let kept = match letters {
        1 => matches!(lower(0), 'l' | 'd' | 'j') || lower(0) == 'y' && ends_with(behind, "all"),
        2 => lower(0) == 'o' && lower(1) == 'l',
        _ => false,
    };
    if kept { letters + 1 } else { 0 }
}

/// Letters and digits, and more of them behind a `.`, `!` or `?`. What comes before `n't` is shorter than that.
fn word(text: &[char]) -> usize {
    if before_not(text) > 0 {
        return 0;
    }
    let mut length = run(text, char::is_alphanumeric);
    if !letter(text, 0).is_alphabetic() {
        // A number and a unit are two words where the number has a point.
        return length;
    }
    while length > 0
        && matches!(letter(text, length), '.' | '!' | '?')
        && letter(text, length + 1).is_alphabetic()
    {
        length += 1 + run(&text[length + 1..], char::is_alphanumeric);
    }
    length
}

/// Words that hyphens or `_` join, of which the first may have dots and commas inside.
fn hyphenated(text: &[char]) -> usize {
    if !plain(letter(text, 0)) {
        return 0;
    }
    let first = run(text, |c| plain(c) || matches!(c, '.' | ','));
    let parts = hyphenated_parts(&text[first..], plain, usize::MAX);
    if parts > 0 { first + parts } else { 0 }
}

/// At most so many times a hyphen and a word.
fn hyphenated_parts(text: &[char], belongs: fn(char) -> bool, most: usize) -> usize {
    let mut length = 0;
    for _ in 0..most {
        let part = match letter(text, length) {
            '-' | '_' => run(&text[length + 1..], belongs),
            _ => 0,
        };
        if part == 0 {
            break;
        }
        length += 1 + part;
    }
    length
}

/// Two or three words with a slash between them, each with up to two hyphens.
fn slashed(text: &[char]) -> usize {
    let one = |text: &[char]| match run(text, plain) {
        0 => 0,
        word => word + hyphenated_parts(&text[word..], |c| c.is_ascii_alphabetic(), 2),
    };
    let (mut length, mut words) = (one(text), 1);
    while length > 0 && words < 3 && letter(text, length) == '/' {
        match one(&text[length + 1..]) {
            0 => break,
            more => length += 1 + more,
        }
        words += 1;
    }
    if words > 1 { length } else { 0 }
}

/// Capitals with `&` or `+` between them: `AT&T`.
fn capitals(text: &[char]) -> usize {
    let mut length = run(text, |c| c.is_ascii_uppercase());
    let first = length;
    while length > 0 && matches!(letter(text, length), '&' | '+') {
        match run(&text[length + 1..], |c| c.is_ascii_uppercase()) {
            0 => break,
            more => length += 1 + more,
        }
    }
    if length > first { length } else { 0 }
}

/// Digits with points, commas, colons or, as in dates, slashes inside, and perhaps a sign.
fn number(text: &[char]) -> usize {
    let sign = usize::from(matches!(letter(text, 0), '+' | '-'));
    let mut length = sign + run(&text[sign..], |c| c.is_ascii_digit());
    if length == sign && letter(text, sign) != '.' {
        return 0;
    }
    while matches!(letter(text, length), '.' | ',' | ':' | '/') {
        match run(&text[length + 1..], |c| c.is_ascii_digit()) {
            0 => break,
            more => length += 1 + more,
        }
    }
    if length > sign { length } else { 0 }
}

/// Letters with a dot behind each: `U.S.`, `p.m.`, and a single one.
fn acronym(text: &[char]) -> usize {
    let mut length = 0;
    while letter(text, length).is_ascii_alphabetic() && letter(text, length + 1) == '.' {
        length += 2;
    }
    let goes_on = letter(text, length).is_alphanumeric();
    match (length, goes_on) {
        // The last letter of `t.v` has no dot.
        (2.., true) if !letter(text, length + 1).is_alphanumeric() => length + 1,
        (2, true) => 0,
        _ => length,
    }
}

/// A word that keeps its dot.
fn abbreviation(text: &[char]) -> usize {
    let letters = match ends_with(text, "ph.d") {
        true => 4,
        false => run(text, |c| c.is_ascii_alphabetic()),
    };
    if letter(text, letters) != '.' {
        return 0;
    }
    let word: String = text[..letters].iter().collect();
    let lower = word.to_lowercase();
    let before_number = lower == "no" && {
        let blanks = run(&text[letters + 1..], |c| c == ' ');
        letter(&text[letters + 1 + blanks..], 0).is_ascii_digit()
    };
    let kept = before_number
        || ABBREVIATIONS.contains(&format!(" {lower} "))
        || CAPITAL_ABBREVIATIONS.contains(&format!(" {word} "));
    if kept { letters + 1 } else { 0 }
}

/// An address or a tag is not looked for further than this, so that a long text takes no longer for each of its places.
const FARTHEST: usize = 512;

/// Addresses of pages and of mail, names with `@`, and words with `#`.
fn address(text: &[char]) -> usize {
    if matches!(letter(text, 0), '@' | '#') && letter(text, 1).is_ascii_alphabetic() {
        return 1 + run(&text[1..], |c| plain(c) || c == '_');
    }
    let near = &text[..text.len().min(FARTHEST)];
    let whole = &near[..run(near, |c| !c.is_whitespace())];
    let behind = |&&c: &&char| matches!(c, '.' | ',' | '!' | '?' | ')' | '"' | '\'' | ';' | ':');
    let token = &whole[..whole.len() - whole.iter().rev().take_while(behind).count()];
    let begins = |start: &str| {
        let same = |(&c, s): (&char, char)| c.eq_ignore_ascii_case(&s);
        token.len() > start.len() && token.iter().zip(start.chars()).all(same)
    };
    if ["http://", "https://", "www."]
        .iter()
        .any(|start| begins(start))
    {
        return token.len();
    }
    match token.iter().position(|&c| c == '@') {
        Some(at @ 1..) if token[at..].contains(&'.') => token.len(),
        _ => 0,
    }
}

/// A tag of HTML.
fn markup(text: &[char]) -> usize {
    let slash = usize::from(letter(text, 1) == '/');
    if letter(text, 0) != '<' || !letter(text, 1 + slash).is_ascii_alphabetic() {
        return 0;
    }
    let near = &text[..text.len().min(FARTHEST)];
    let inside = run(near, |c| c != '>' && c != '\n');
    if inside < near.len() { inside + 1 } else { 0 }
}

/// Dots, dashes, and questions and exclamations in a row, and quotes of two signs.
fn punctuation(text: &[char]) -> usize {
    match letter(text, 0) {
        '.' => match run(&text[..text.len().min(5)], |c| c == '.') {
            dots @ 3.. => dots,
            _ => 1,
        },
        '?' | '!' => run(text, |c| matches!(c, '?' | '!')),
        c if is_dash(c) => run(text, is_dash),
        c @ ('\'' | '`') if letter(text, 1) == c => 2,
        _ => 1,
    }
}
