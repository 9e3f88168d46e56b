//! Tokens to a syntax tree, by recursive descent.

mod operand;
mod variable;

use super::lexer::{Spot, Token, tokens};
use super::{Function, Instruction, Source, Space, Statement, SyntaxError, Variable};

type Result<T> = std::result::Result<T, SyntaxError>;

/// Parses the text of a module.
pub fn parse(text: &str) -> Result<Source> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
    };
    let mut source = Source::default();
    while *parser.peek() != Token::End {
        parser.item(&mut source)?;
    }
    Ok(source)
}

struct Parser {
    tokens: Vec<Spot>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].line
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].token.clone();
        if token != Token::End {
            self.at += 1;
        }
        token
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(SyntaxError {
            line: self.line(),
            message: message.into(),
        })
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T> {
        self.fail(format!(
            "expected {wanted}, found {}",
            describe(self.peek())
        ))
    }

    fn take(&mut self, mark: char) -> bool {
        let found = *self.peek() == Token::Mark(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char) -> Result<()> {
        if self.take(mark) {
            Ok(())
        } else {
            self.unexpected(&format!("`{mark}`"))
        }
    }

    fn word(&mut self) -> Result<String> {
        match self.peek() {
            Token::Word(word) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(found) if found == word);
        self.at += usize::from(found);
        found
    }

    fn integer(&mut self) -> Result<u64> {
        let negative = self.take('-');
        match self.next() {
            Token::Int(value) => Ok(if negative {
                value.wrapping_neg()
            } else {
                value
            }),
            _ => {
                self.at -= 1;
                self.unexpected("an integer")
            }
        }
    }

    fn integers(&mut self) -> Result<Vec<u64>> {
        let mut list = vec![self.integer()?];
        while self.take(',') {
            list.push(self.integer()?);
        }
        Ok(list)
    }

    /// One item of module scope.
    fn item(&mut self, source: &mut Source) -> Result<()> {
        let line = self.line();
        let word = self.word()?;
        match word.as_str() {
            ".version" => drop(self.next()),
            ".target" => {
                self.word()?;
                while self.take(',') {
                    self.word()?;
                }
            }
            ".address_size" => {
                if self.integer()? != 64 {
                    return self.fail("only 64-bit addresses are supported");
                }
            }
            ".file" => self.file(source)?,
            ".section" => self.section()?,
            ".pragma" => self.skip_statement(),
            ".visible" | ".extern" | ".weak" | ".common" | ".noreturn" => {}
            ".entry" | ".func" => source.functions.push(self.function(word == ".entry")?),
            ".global" | ".const" | ".shared" => source
                .variables
                .extend(self.variables(space(&word).unwrap_or(Space::Global))?),
            _ => {
                let message = format!("`{word}` is not known at module scope");
                return Err(SyntaxError { line, message });
            }
        }
        Ok(())
    }

    /// `.file 1 "name" [, timestamp, size]`.
    fn file(&mut self, source: &mut Source) -> Result<()> {
        let number = self.integer()? as u32;
        if let Token::Text(name) = self.next() {
            source.files.insert(number, name);
        }
        while self.take(',') {
            self.integer()?;
        }
        Ok(())
    }

    /// Debug sections are skipped.
    fn section(&mut self) -> Result<()> {
        self.next();
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                Token::End => return self.fail("a section has no end"),
                _ => {}
            }
        }
        Ok(())
    }

    fn skip_statement(&mut self) {
        while !matches!(self.next(), Token::Mark(';') | Token::End) {}
    }

    fn function(&mut self, entry: bool) -> Result<Function> {
        while matches!(self.peek(), Token::Word(word) if word == ".noreturn" || word == ".attribute")
        {
            self.next();
        }
        let returns = if *self.peek() == Token::Mark('(') {
            self.params()?
        } else {
            Vec::new()
        };
        let line = self.line();
        let name = self.word()?;
        let params = if *self.peek() == Token::Mark('(') {
            self.params()?
        } else {
            Vec::new()
        };
        let mut max_threads = None;
        loop {
            match self.peek().clone() {
                Token::Word(word) => {
                    self.next();
                    match word.as_str() {
                        ".maxntid" | ".reqntid" => {
                            let product = self.integers()?.iter().product::<u64>();
                            max_threads = Some(product.min(1024) as u32);
                        }
                        ".minnctapersm" | ".maxnctapersm" | ".maxnreg" => drop(self.integer()?),
                        ".noreturn" => {}
                        ".pragma" => self.skip_statement(),
                        _ => return self.fail(format!("`{word}` is not known before a body")),
                    }
                }
                Token::Mark(';') => {
                    self.next();
                    let body = None;
                    return Ok(Function {
                        name,
                        line,
                        entry,
                        returns,
                        params,
                        max_threads,
                        body,
                    });
                }
                _ => break,
            }
        }
        let body = Some(self.body()?);
        Ok(Function {
            name,
            line,
            entry,
            returns,
            params,
            max_threads,
            body,
        })
    }

    /// `(.param .align 8 .b8 name[16], ...)`.
    fn params(&mut self) -> Result<Vec<Variable>> {
        self.expect('(')?;
        let mut params = Vec::new();
        while !self.take(')') {
            let word = self.word()?;
            if word != ".param" && word != ".reg" {
                return self.fail(format!("expected `.param`, found `{word}`"));
            }
            params.push(self.variable(Space::Param)?);
            self.take(',');
        }
        Ok(params)
    }

    fn body(&mut self) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        let mut depth = 0;
        loop {
            match self.peek().clone() {
                Token::Mark('{') => {
                    self.next();
                    depth += 1;
                    statements.push(Statement::Open);
                }
                Token::Mark('}') => {
                    self.next();
                    depth -= 1;
                    statements.push(Statement::Close);
                    if depth == 0 {
                        return Ok(statements);
                    }
                }
                Token::Mark(';') => drop(self.next()),
                Token::End => return self.fail("a function has no end"),
                Token::Word(word) if word.starts_with('.') => {
                    self.next();
                    self.directive(&word, &mut statements)?;
                }
                Token::Word(word) if self.tokens[self.at + 1].token == Token::Mark(':') => {
                    self.at += 2;
                    statements.push(Statement::Label(word));
                }
                _ => statements.push(Statement::Instruction(self.instruction()?)),
            }
        }
    }

    fn directive(&mut self, word: &str, out: &mut Vec<Statement>) -> Result<()> {
        match word {
            ".reg" => self.registers(out)?,
            ".loc" => self.location(out)?,
            ".pragma" | ".calltargets" | ".callprototype" => self.skip_statement(),
            ".branchtargets" => {
                let mut labels = vec![self.word()?];
                while self.take(',') {
                    labels.push(self.word()?);
                }
                self.expect(';')?;
                out.push(Statement::Targets(labels));
            }
            _ => match space(word) {
                Some(space) => {
                    out.extend(self.variables(space)?.into_iter().map(Statement::Variable))
                }
                None => return self.fail(format!("`{word}` is not known in a body")),
            },
        }
        Ok(())
    }

    fn registers(&mut self, out: &mut Vec<Statement>) -> Result<()> {
        let line = self.line();
        let kind = self.word()?.trim_start_matches('.').to_string();
        if matches!(kind.as_str(), "v2" | "v4") {
            return self.fail("vector registers are not supported");
        }
        loop {
            let name = self.word()?;
            let count = if self.take('<') {
                let count = self.integer()? as u32;
                self.expect('>')?;
                Some(count)
            } else {
                None
            };
            out.push(Statement::Registers {
                kind: kind.clone(),
                name,
                count,
                line,
            });
            if !self.take(',') {
                break;
            }
        }
        self.expect(';')
    }

    /// `.loc 1 47 44, function_name $L__info_string0, inlined_at 1 40 3`.
    fn location(&mut self, out: &mut Vec<Statement>) -> Result<()> {
        let file = self.integer()? as u32;
        let line = self.integer()? as u32;
        self.integer()?;
        out.push(Statement::Location { file, line });
        while self.take(',') {
            self.word()?;
            while matches!(self.peek(), Token::Int(_)) || self.after_function_name() {
                self.next();
            }
            if self.take('+') {
                self.integer()?;
            }
        }
        Ok(())
    }

    /// Whether this is the label after `function_name`.
    fn after_function_name(&self) -> bool {
        let before = &self.tokens[self.at - 1].token;
        matches!(before, Token::Word(word) if word == "function_name")
    }

    fn instruction(&mut self) -> Result<Instruction> {
        let line = self.line();
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let opcode = self.word()?;
        let mut operands = Vec::new();
        while *self.peek() != Token::Mark(';') {
            operands.push(self.operand()?);
            if !self.take(',') {
                break;
            }
        }
        self.expect(';')?;
        Ok(Instruction {
            line,
            guard,
            opcode,
            operands,
        })
    }
}

fn space(word: &str) -> Option<Space> {
    Some(match word {
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        ".local" => Space::Local,
        ".param" => Space::Param,
        _ => return None,
    })
}

fn describe(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("`{word}`"),
        Token::Int(value) => format!("`{value}`"),
        Token::Single(_) | Token::Double(_) => "a number".into(),
        Token::Text(_) => "a string".into(),
        Token::Mark(mark) => format!("`{mark}`"),
        Token::End => "the end of the text".into(),
    }
}
