//! Parses operands: registers, numbers, addresses, vectors.

use super::super::Operand;
use super::super::lexer::Token;
use super::{Parser, Result};

impl Parser {
    pub(super) fn operand(&mut self) -> Result<Operand> {
        let operand = match self.next() {
            Token::Word(name) if self.take('|') => Operand::Pair(name, self.word()?),
            Token::Word(name) if *self.peek() == Token::Mark('+') => {
                self.next();
                Operand::Offset(name, self.integer()? as i64)
            }
            Token::Word(name) => Operand::Name(name),
            Token::Int(value) => Operand::Int(value),
            Token::Single(bits) => Operand::Single(bits),
            Token::Double(bits) => Operand::Double(bits),
            Token::Mark('!') => Operand::Not(self.word()?),
            Token::Mark('-') => match self.next() {
                Token::Int(value) => Operand::Int(value.wrapping_neg()),
                Token::Double(bits) => Operand::Double(bits ^ (1 << 63)),
                Token::Single(bits) => Operand::Single(bits ^ (1 << 31)),
                _ => {
                    self.at -= 1;
                    return self.unexpected("a number");
                }
            },
            Token::Mark('[') => self.address()?,
            Token::Mark('{') => Operand::Vector(self.list('}')?),
            Token::Mark('(') => Operand::Group(self.list(')')?),
            _ => {
                self.at -= 1;
                return self.unexpected("an operand");
            }
        };
        Ok(operand)
    }

    pub(super) fn list(&mut self, close: char) -> Result<Vec<Operand>> {
        let mut list = Vec::new();
        while !self.take(close) {
            list.push(self.operand()?);
            if !self.take(',') && *self.peek() != Token::Mark(close) {
                return self.unexpected(&format!("`,` or `{close}`"));
            }
        }
        Ok(list)
    }

    pub(super) fn address(&mut self) -> Result<Operand> {
        let base = match self.peek() {
            Token::Word(_) => Some(self.word()?),
            _ => None,
        };
        let offset = if base.is_none() || self.take('+') || *self.peek() == Token::Mark('-') {
            self.integer()? as i64
        } else {
            0
        };
        self.expect(']')?;
        Ok(Operand::Address(base, offset))
    }
}
