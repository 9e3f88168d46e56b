//! PTX text to tokens.

use super::SyntaxError;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name, an opcode with its dotted suffixes, or a directive.
    Word(String),
    Int(u64),
    /// Bits of an `0f` literal.
    Single(u32),
    /// Bits of an `0d` or a decimal literal.
    Double(u64),
    Text(String),
    Mark(char),
    End,
}

/// A token and the line it stands on.
#[derive(Debug, Clone)]
pub struct Spot {
    pub token: Token,
    pub line: u32,
}

/// Splits PTX text into tokens; comments are dropped.
pub fn tokens(text: &str) -> Result<Vec<Spot>, SyntaxError> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut out = Vec::new();
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        let token = match byte {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = until(bytes, at, |byte| byte == b'\n');
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end = text[at + 2..].find("*/").ok_or(SyntaxError {
                    line,
                    message: "a comment has no end".into(),
                })?;
                let next = at + 2 + end + 2;
                line += text[at..next].matches('\n').count() as u32;
                at = next;
                continue;
            }
            b'"' => {
                at = until(bytes, at + 1, |byte| byte == b'"') + 1;
                Token::Text(text[start + 1..(at - 1).min(text.len())].to_string())
            }
            b'0'..=b'9' => {
                at = until(bytes, at, |byte| {
                    !(byte.is_ascii_alphanumeric() || byte == b'.')
                });
                if matches!(bytes.get(at), Some(b'+' | b'-'))
                    && matches!(bytes[at - 1], b'e' | b'E')
                    && !text[start..at].starts_with("0x")
                {
                    at = until(bytes, at + 1, |byte| !byte.is_ascii_digit());
                }
                number(&text[start..at]).ok_or_else(|| SyntaxError {
                    line,
                    message: format!("`{}` is not a number", &text[start..at]),
                })?
            }
            _ if is_word(byte) => {
                at = word_end(bytes, at);
                Token::Word(text[start..at].to_string())
            }
            _ if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ if byte.is_ascii() => {
                at += 1;
                Token::Mark(byte as char)
            }
            _ => {
                let message = "a character that is not ASCII".into();
                return Err(SyntaxError { line, message });
            }
        };
        out.push(Spot { token, line });
    }
    out.push(Spot {
        token: Token::End,
        line,
    });
    Ok(out)
}

fn until(bytes: &[u8], from: usize, stop: impl Fn(u8) -> bool) -> usize {
    bytes[from..]
        .iter()
        .position(|&byte| stop(byte))
        .map_or(bytes.len(), |n| from + n)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// The end of a word; `::` belongs to it (`.L2::128B`), a single `:` ends a label.
fn word_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at = until(bytes, at, |byte| !is_word(byte));
        match bytes.get(at..at + 3) {
            Some([b':', b':', next]) if is_word(*next) => at += 2,
            _ => return at,
        }
    }
}

fn number(text: &str) -> Option<Token> {
    let prefix = text.get(..2).map(str::to_ascii_lowercase);
    match prefix.as_deref() {
        Some("0f") if text.len() == 10 => {
            return u32::from_str_radix(&text[2..], 16).ok().map(Token::Single);
        }
        Some("0d") if text.len() == 18 => {
            return u64::from_str_radix(&text[2..], 16).ok().map(Token::Double);
        }
        _ => {}
    }
    let digits = text.trim_end_matches(['U', 'u']);
    let integer = match prefix.as_deref() {
        Some("0x") => u64::from_str_radix(&digits[2..], 16).ok(),
        Some("0b") => u64::from_str_radix(&digits[2..], 2).ok(),
        _ if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8).ok(),
        _ => digits.parse().ok(),
    };
    integer.map(Token::Int).or_else(|| {
        let value: f64 = text.parse().ok()?;
        Some(Token::Double(value.to_bits()))
    })
}
