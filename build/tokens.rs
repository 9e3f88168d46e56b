//! CUDA C++ as words: a source without its comments and directives, and the macros that make kernels.

use std::collections::BTreeMap;

/// A word, number, string or sign, and the line that it is on.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// `#define NAME(parameters) body`, where the body holds a kernel.
pub struct Macro {
    pub parameters: Vec<String>,
    pub body: Vec<Token>,
}

/// A source without comments and directives.
#[derive(Default)]
pub struct Tokens {
    pub tokens: Vec<Token>,
    /// Names of the files of `#include "..."`.
    pub includes: Vec<String>,
    pub macros: BTreeMap<String, Macro>,
}

/// Signs of two characters; all others are read one by one.
const PAIRS: [&str; 10] = ["::", "##", "<<", ">>", "==", "!=", "<=", ">=", "&&", "||"];

pub fn read(text: &str) -> Tokens {
    let text = without_comments(text);
    let mut found = Tokens::default();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if !line.trim_start().starts_with('#') {
            split(line, at + 1, &mut found.tokens);
            continue;
        }
        let mut directive = Vec::new();
        let mut line = Some((at, line));
        while let Some((at, text)) = line {
            split(text.trim_end_matches('\\'), at + 1, &mut directive);
            line = if text.ends_with('\\') {
                lines.next()
            } else {
                None
            };
        }
        found.directive(&directive);
    }
    found
}

impl Tokens {
    fn directive(&mut self, tokens: &[Token]) {
        let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        match words[..] {
            ["#", "include", file, ..] if file.starts_with('"') => {
                self.includes.push(file.trim_matches('"').into());
            }
            ["#", "define", name, "(", ..] if words.contains(&"__global__") => {
                let Some(end) = words.iter().position(|&word| word == ")") else {
                    return;
                };
                let parameters = words[4..end].iter().filter(|&&word| word != ",");
                let read = Macro {
                    parameters: parameters.map(ToString::to_string).collect(),
                    body: tokens[end + 1..].to_vec(),
                };
                self.macros.insert(name.into(), read);
            }
            _ => {}
        }
    }
}

impl Macro {
    /// The body with these arguments in place of the parameters, and what `##` joins as one word. All of it is on the line
    /// of the use.
    pub fn expand(&self, arguments: &[String], line: usize) -> Vec<Token> {
        let mut out: Vec<Token> = Vec::new();
        let mut join = false;
        for token in &self.body {
            if token.text == "##" {
                join = true;
                continue;
            }
            let parameter = self.parameters.iter().position(|p| *p == token.text);
            let text = parameter.map_or(token.text.clone(), |i| arguments[i].clone());
            match out.last_mut().filter(|_| join) {
                Some(last) => last.text += &text,
                None => out.push(Token { text, line }),
            }
            join = false;
        }
        out
    }

    /// What the names of all its kernels begin with, and those arguments that the names are made of, in their order.
    pub fn family(&self, arguments: &[String]) -> Option<(String, Vec<String>)> {
        let at = |text: &str| self.body.iter().position(|token| token.text == text);
        let start = closing(&self.body, at("__launch_bounds__")? + 1)? + 1;
        let name = self.body[start..].iter().map(|token| &token.text);
        let name: Vec<_> = name.take_while(|text| *text != "(").collect();
        let argument = |text: &&String| {
            let at = self.parameters.iter().position(|p| p == *text)?;
            Some(arguments[at].clone())
        };
        let key = name.iter().filter_map(argument).collect();
        Some((name.first()?.trim_end_matches('_').into(), key))
    }
}

/// Where the bracket that opens at `open` closes.
pub fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "{" | "[" => depth += 1,
            ")" | "}" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The parts between commas that are in no bracket. Nothing has no parts.
pub fn parts(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "{" | "[" => depth += 1,
            ")" | "}" | "]" => depth -= 1,
            "," if depth == 0 => {
                out.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < tokens.len() {
        out.push(&tokens[start..]);
    }
    out
}

/// The text with every comment replaced by a space, on as many lines as before.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/*").into_iter().chain(rest.find("//")).min() {
        out.push_str(&rest[..at]);
        out.push(' ');
        let end = if rest[at..].starts_with("//") {
            rest[at..].find('\n')
        } else {
            rest[at..].find("*/").map(|end| end + 2)
        };
        let comment = end.map_or(&rest[at..], |end| &rest[at..at + end]);
        out.extend(comment.chars().filter(|&c| c == '\n'));
        rest = &rest[at + comment.len()..];
    }
    out + rest
}

fn split(line: &str, number: usize, out: &mut Vec<Token>) {
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |end| end + 2)
        } else if first.is_ascii_digit() {
            number_length(rest)
        } else if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if PAIRS.iter().any(|pair| rest.starts_with(pair)) {
            2
        } else {
            first.len_utf8()
        };
        let text = rest[..length].into();
        out.push(Token { text, line: number });
        rest = rest[length..].trim_start();
    }
}

/// Also of `1e-5f`.
fn number_length(text: &str) -> usize {
    let mut before = ' ';
    let end = text.find(|c: char| {
        let exponent = matches!(before, 'e' | 'E') && matches!(c, '+' | '-');
        let inside = c.is_alphanumeric() || c == '.' || (exponent && !text.starts_with("0x"));
        before = c;
        !inside
    });
    end.unwrap_or(text.len())
}
