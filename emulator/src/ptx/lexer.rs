//! Splits PTX text into tokens.

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

/// A token and its line.
#[derive(Debug, Clone)]
pub struct Spot {
    pub token: Token,
    pub line: u32,
}

/// Splits PTX text into tokens, without comments.
pub fn tokens(text: &str) -> Result<Vec<Spot>, SyntaxError> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut out = Vec::new();
    while let Some(&byte) = bytes.get(at) {
        if let Some(end) = blank(text, at, line)? {
            line += text[at..end].matches('\n').count() as u32;
            at = end;
            continue;
        }
        let (token, end) = match byte {
            b'"' => {
                let end = until(bytes, at + 1, |byte| byte == b'"');
                (Token::Text(text[at + 1..end].to_string()), end + 1)
            }
            b'0'..=b'9' => {
                let end = number_end(bytes, at);
                let token = number(&text[at..end]).ok_or_else(|| SyntaxError {
                    line,
                    message: format!("`{}` is not a number", &text[at..end]),
                })?;
                (token, end)
            }
            _ if is_word(byte) => {
                let end = word_end(bytes, at);
                (Token::Word(text[at..end].to_string()), end)
            }
            _ if byte.is_ascii() => (Token::Mark(byte as char), at + 1),
            _ => {
                let message = "the character is not ASCII".into();
                return Err(SyntaxError { line, message });
            }
        };
        out.push(Spot { token, line });
        at = end;
    }
    out.push(Spot {
        token: Token::End,
        line,
    });
    Ok(out)
}

/// The end of the white space or comment at `at`; `None` if there is neither.
fn blank(text: &str, at: usize, line: u32) -> Result<Option<usize>, SyntaxError> {
    let bytes = text.as_bytes();
    Ok(match (bytes[at], bytes.get(at + 1)) {
        (b'/', Some(b'/')) => Some(until(bytes, at, |byte| byte == b'\n')),
        (b'/', Some(b'*')) => {
            let end = text[at + 2..].find("*/").ok_or(SyntaxError {
                line,
                message: "the comment has no end".into(),
            })?;
            Some(at + 2 + end + 2)
        }
        (byte, _) if byte.is_ascii_whitespace() => Some(at + 1),
        _ => None,
    })
}

/// The end of a number; it may have an exponent with a sign.
fn number_end(bytes: &[u8], start: usize) -> usize {
    let end = until(bytes, start, |byte| {
        !(byte.is_ascii_alphanumeric() || byte == b'.')
    });
    let signed = matches!(bytes.get(end), Some(b'+' | b'-'));
    let exponent = matches!(bytes[end - 1], b'e' | b'E');
    if signed && exponent && !bytes[start..].starts_with(b"0x") {
        until(bytes, end + 1, |byte| !byte.is_ascii_digit())
    } else {
        end
    }
}

/// The first position from `from` on at which `stop` holds, or the end.
fn until(bytes: &[u8], from: usize, stop: impl Fn(u8) -> bool) -> usize {
    bytes[from..]
        .iter()
        .position(|&byte| stop(byte))
        .map_or(bytes.len(), |n| from + n)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// The end of a word. `::` belongs to a word (`.L2::128B`); a single `:` ends a label.
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
