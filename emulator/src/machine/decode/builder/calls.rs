//! Calls of device functions, which their bodies replace.

use super::super::super::op::{Control, Op};
use super::super::Result;
use super::super::names::{Name, Scope};
use super::{Builder, Frame};
use crate::ptx::{Function, Operand};

impl Builder<'_> {
    /// `call (results), function, (arguments)`: the function's body replaces the call.
    pub(super) fn call(&mut self, operands: &[Operand]) -> Result<()> {
        let (mut results, mut arguments, mut callee) = (&[][..], &[][..], None);
        for operand in operands {
            match operand {
                Operand::Group(list) if callee.is_none() => results = list,
                Operand::Group(list) => arguments = list,
                Operand::Name(name) if callee.is_none() => callee = Some(name.as_str()),
                // A prototype, which only calls through pointers need.
                _ => {}
            }
        }
        match callee {
            None => self.fail("the call names no function"),
            Some("__assertfail") => {
                self.emit(Op::Control(Control::Trap), vec![], vec![]);
                Ok(())
            }
            Some("vprintf") => Ok(()),
            Some(callee) => self.inline(callee, results, arguments),
        }
    }

    /// Puts the body of a device function in the place of its call.
    fn inline(&mut self, callee: &str, results: &[Operand], arguments: &[Operand]) -> Result<()> {
        let source = self.source;
        let mut functions = source.functions.iter();
        let Some(function) = functions.find(|f| f.body.is_some() && f.name == callee) else {
            return self.fail(format!("call of `{callee}`: not a function of this module"));
        };
        self.depth += 1;
        if self.depth > 32 {
            return self.fail(format!("call of `{callee}`: recursion is not supported"));
        }
        let scope = self.bind(function, results, arguments)?;
        let end = self.new_label();
        if let Some((reg, negated)) = self.guard.take() {
            let skip = self.emit(Op::Control(Control::Branch), vec![], vec![]);
            skip.guard = Some((reg, !negated));
            skip.labels = vec![end];
        }
        let inner = Frame {
            scopes: vec![scope],
            end: Some(end),
            ..Frame::default()
        };
        let outer = std::mem::replace(&mut self.frame, inner);
        let (line, location) = (self.line, self.location);
        self.body(function)?;
        (self.line, self.location) = (line, location);
        self.frame = outer;
        self.place(end);
        self.depth -= 1;
        Ok(())
    }

    /// The scope of a called function: its parameters and results are variables of the caller.
    fn bind(
        &mut self,
        function: &Function,
        results: &[Operand],
        arguments: &[Operand],
    ) -> Result<Scope> {
        let mut scope = Scope::default();
        let formal = function
            .returns
            .iter()
            .zip(results)
            .chain(function.params.iter().zip(arguments));
        for (variable, operand) in formal {
            let Operand::Name(name) = operand else {
                return self.fail("arguments of calls must be `.param` variables");
            };
            match self.name(name) {
                Some(found @ Name::Variable(..)) => {
                    scope.names.insert(variable.name.clone(), found)
                }
                _ => return self.fail(format!("`{name}` is not a `.param` variable")),
            };
        }
        Ok(scope)
    }
}
