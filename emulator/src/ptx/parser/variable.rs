//! Parses variables and their initial values.

use super::super::lexer::Token;
use super::super::{Space, Variable, type_bytes};
use super::{Parser, Result, space};

impl Parser {
    /// Variables after their space: `.align 4 .b8 a[4] = {1}, b;`.
    pub(super) fn variables(&mut self, space: Space) -> Result<Vec<Variable>> {
        let first = self.variable(space)?;
        if *self.peek() == Token::Mark(',') {
            return self.fail(
                "a declaration of several variables is not supported: declare each on its own",
            );
        }
        self.expect(';')?;
        Ok(vec![first])
    }

    pub(super) fn variable(&mut self, space: Space) -> Result<Variable> {
        let line = self.line();
        let (mut align, mut vector) = (None, 1);
        let width = loop {
            let word = self.word()?;
            match word.trim_start_matches('.') {
                "align" => align = Some(self.integer()?),
                "v2" => vector = 2,
                "v4" => vector = 4,
                "managed" | "attribute" => {}
                name => match type_bytes(name) {
                    Some(bytes) => break bytes,
                    None => return self.fail(format!("`{word}` is not a type")),
                },
            }
        };
        if self.take_word(".ptr") {
            self.pointee()?;
        }
        let name = self.word()?;
        let mut size = Some(width * vector);
        while self.take('[') {
            if self.take(']') {
                size = None;
            } else {
                let count = self.integer()?;
                self.expect(']')?;
                size = size.map(|size| size * count);
            }
        }
        let mut init = Vec::new();
        if self.take('=') {
            self.initialiser(width as usize, &mut init)?;
            size = size.or(Some(init.len() as u64));
        }
        let align = align.unwrap_or(width * vector);
        Ok(Variable {
            name,
            space,
            align,
            size,
            init,
            line,
        })
    }

    /// `.ptr .global .align 16`: describes what the parameter points to, not the parameter itself.
    fn pointee(&mut self) -> Result<()> {
        loop {
            match self.peek() {
                Token::Word(word) if space(word).is_some() => drop(self.next()),
                Token::Word(word) if word == ".align" => {
                    self.next();
                    self.integer()?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn initialiser(&mut self, width: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.take('{') {
            while !self.take('}') {
                self.initialiser(width, out)?;
                self.take(',');
            }
            return Ok(());
        }
        let negative = self.take('-');
        let bits = match self.next() {
            Token::Int(value) if negative => value.wrapping_neg(),
            Token::Int(value) => value,
            Token::Single(bits) => u64::from(bits ^ (u32::from(negative) << 31)),
            Token::Double(bits) if width == 4 => {
                let value = f64::from_bits(bits) as f32;
                u64::from(if negative { -value } else { value }.to_bits())
            }
            Token::Double(bits) => bits ^ (u64::from(negative) << 63),
            _ => {
                self.at -= 1;
                return self
                    .unexpected("a number (an address as an initial value is not supported)");
            }
        };
        out.extend_from_slice(&bits.to_le_bytes()[..width.min(8)]);
        Ok(())
    }
}
