//! What a file of `kernels/` declares that Rust has to know. These forms are understood, at file scope or in a namespace:
//!
//! - `extern "C" __global__ void __launch_bounds__(THREADS) name(const float* x, float* y, Shape shape, int n) { ... }`
//! - `#define NAME(V, CUT) extern "C" ... name_##V##_##CUT(...) { ... }` and its uses `NAME(f32x4, large)`: a family of
//!   kernels, whose names differ by the arguments
//! - `struct Shape { int m, n; float mean[3]; };`, where a kernel takes it by value
//! - `constexpr int NAME = expression;`, and `float` of one number
//! - `__host__ __device__ constexpr int name(int a, int b) { return expression; }`
//! - `template <int A_, int B_> struct Cut { static constexpr int A = A_, SIZE = expression; };` and `using large = Cut<1, 2>;`
//!
//! `expression.rs` says what an expression may be. A `constexpr` at file scope in another form is an error. Everything else,
//! other templates included, does not matter to Rust and is skipped.

use super::tokens::{self, Macro, Token, closing, parts};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub struct File {
    pub path: PathBuf,
    /// The file's name without its ending; the name of its module.
    pub stem: String,
    /// Stems of the files that it includes.
    pub includes: Vec<String>,
    pub items: Vec<Item>,
}

pub enum Item {
    Constant(Constant),
    Function(Function),
    Template(Template),
    /// `using name = template<arguments>;`
    Alias(Alias),
    Struct(Struct),
    Kernel(Kernel),
}

pub struct Constant {
    pub name: Token,
    pub kind: String,
    pub value: Vec<Token>,
}

pub struct Function {
    pub name: Token,
    pub parameters: Vec<String>,
    pub value: Vec<Token>,
}

/// A struct of constants that are computed from its parameters.
pub struct Template {
    pub name: Token,
    pub parameters: Vec<String>,
    pub constants: Vec<Constant>,
}

pub struct Alias {
    pub name: Token,
    pub template: String,
    pub arguments: Vec<Vec<Token>>,
}

pub struct Struct {
    pub name: Token,
    pub body: Vec<Token>,
}

pub struct Kernel {
    pub name: Token,
    pub family: String,
    /// The parts of its name that distinguish it within its family.
    pub key: Vec<String>,
    pub threads: Vec<Token>,
    pub parameters: Vec<Vec<Token>>,
}

/// All sources of the folder, in the order of their names.
pub fn read_all(folder: &Path) -> Result<Vec<File>, String> {
    let refuse = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(refuse)? {
        paths.push(entry.map_err(refuse)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "cu" || e == "cuh"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

pub fn read(path: &Path) -> Result<File, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let source = tokens::read(&text);
    let mut reader = Reader {
        path,
        macros: &source.macros,
        items: Vec::new(),
    };
    reader.read(&source.tokens, None)?;
    let includes = source.includes.iter();
    Ok(File {
        path: path.into(),
        stem: stem(path),
        items: reader.items,
        includes: includes.map(|name| stem(Path::new(name))).collect(),
    })
}

/// The headers beside `path` that it includes, and those that they include.
pub fn headers(path: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut left = vec![path.to_path_buf()];
    while let Some(path) = left.pop() {
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        for name in tokens::read(&text).includes {
            let header = path.with_file_name(name);
            if !found.contains(&header) {
                found.push(header.clone());
                left.push(header);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into()
}

/// The name of a family and the key of one of its kernels, where a macro makes them.
type Family = (String, Vec<String>);

struct Reader<'a> {
    path: &'a Path,
    macros: &'a BTreeMap<String, Macro>,
    items: Vec<Item>,
}

impl Reader<'_> {
    fn refuse<T>(&self, at: &Token, message: &str) -> Result<T, String> {
        Err(format!("{}:{}: {message}", self.path.display(), at.line))
    }

    fn read(&mut self, tokens: &[Token], family: Option<&Family>) -> Result<(), String> {
        let mut rest = tokens;
        while let Some(first) = rest.first() {
            let words: Vec<&str> = rest.iter().take(4).map(|t| t.text.as_str()).collect();
            let length = match words[..] {
                ["namespace", _, "{", ..] => 3,
                ["}", ..] => 1,
                [name, "(", ..] if self.macros.contains_key(name) => self.invocation(rest)?,
                _ => {
                    let length = declaration(rest);
                    match words[..] {
                        ["extern", "\"C\"", "__global__", ..] => {
                            self.kernel(&rest[..length], family)?;
                        }
                        ["struct", _, "{", ..] => self.record(&rest[..length]),
                        ["template", ..] => self.template(&rest[..length]),
                        ["using", _, "=", ..] => self.alias(&rest[..length]),
                        ["constexpr", ..] => self.constants(&rest[1..length])?,
                        ["__host__", "__device__", "constexpr", ..] => {
                            self.function(&rest[3..length])?;
                        }
                        _ => {}
                    }
                    length
                }
            };
            if length == 0 {
                return self.refuse(first, "a bracket is not closed");
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    /// `NAME(arguments)` of a macro that makes a kernel. Gives its length.
    fn invocation(&mut self, tokens: &[Token]) -> Result<usize, String> {
        let (name, made) = (&tokens[0], &self.macros[&tokens[0].text]);
        let Some(end) = closing(tokens, 1) else {
            return Ok(0);
        };
        let joined = |part: &&[Token]| part.iter().map(|t| t.text.as_str()).collect::<String>();
        let arguments: Vec<String> = parts(&tokens[2..end]).iter().map(joined).collect();
        let family = made.family(&arguments);
        let (Some(family), true) = (family, arguments.len() == made.parameters.len()) else {
            return self.refuse(name, &format!("not understood: the macro {}", name.text));
        };
        self.read(&made.expand(&arguments, name.line), Some(&family))?;
        Ok(end + 1)
    }

    fn kernel(&mut self, tokens: &[Token], family: Option<&Family>) -> Result<(), String> {
        let text = |at: usize| tokens.get(at).map_or("", |t| t.text.as_str());
        let shown: Vec<&str> = tokens.iter().take(12).map(|t| t.text.as_str()).collect();
        let shown = shown.join(" ");
        if text(3) != "void" {
            return self.refuse(&tokens[0], &format!("not understood: {shown}"));
        }
        if text(4) != "__launch_bounds__" {
            let message = format!("not understood: {shown}: its __launch_bounds__ are missing");
            return self.refuse(&tokens[0], &message);
        }
        let bounds = closing(tokens, 5);
        let end = bounds.and_then(|end| closing(tokens, end + 2));
        let (Some(bounds), Some(end)) = (bounds, end) else {
            return self.refuse(&tokens[0], &format!("not understood: {shown}"));
        };
        let name = &tokens[bounds + 1];
        // A kernel that no macro makes is a family of its own, with its name up to the type.
        let alone = || {
            let family = name.text.rsplit_once('_').map_or(&*name.text, |(f, _)| f);
            (family.to_string(), Vec::new())
        };
        let (family, key) = family.cloned().unwrap_or_else(alone);
        let threads = parts(&tokens[6..bounds]).first().copied();
        let parameters = parts(&tokens[bounds + 3..end]);
        self.items.push(Item::Kernel(Kernel {
            name: name.clone(),
            family,
            key,
            threads: threads.unwrap_or_default().into(),
            parameters: parameters.iter().map(|p| p.to_vec()).collect(),
        }));
        Ok(())
    }

    fn record(&mut self, tokens: &[Token]) {
        let end = closing(tokens, 2).unwrap_or(2);
        self.items.push(Item::Struct(Struct {
            name: tokens[1].clone(),
            body: tokens[3..end].into(),
        }));
    }

    /// `template <int A_, int B_> struct Name { static constexpr int ...; };`; others are skipped.
    fn template(&mut self, tokens: &[Token]) {
        let Some(end) = tokens.iter().position(|token| token.text == ">") else {
            return;
        };
        let parameters = parts(&tokens[2..end]).into_iter().map(|p| match p {
            [kind, name] if kind.text == "int" => Some(name.text.clone()),
            _ => None,
        });
        let parameters: Option<Vec<String>> = parameters.collect();
        let [struct_, name, open, ..] = &tokens[end + 1..] else {
            return;
        };
        let (Some(parameters), "struct", "{") = (parameters, &*struct_.text, &*open.text) else {
            return;
        };
        let close = closing(tokens, end + 3).unwrap_or(end + 3);
        let statements = tokens[end + 4..close].split(|token| token.text == ";");
        let statements: Vec<_> = statements.filter(|s| !s.is_empty()).collect();
        let mut constants = Vec::new();
        for statement in statements {
            match statement {
                [a, b, rest @ ..] if a.text == "static" && b.text == "constexpr" => {
                    let Some(read) = constants_of(rest) else {
                        return;
                    };
                    constants.extend(read);
                }
                _ => return,
            }
        }
        self.items.push(Item::Template(Template {
            name: name.clone(),
            parameters,
            constants,
        }));
    }

    fn alias(&mut self, tokens: &[Token]) {
        let (Some(open), Some(close)) = (
            tokens.iter().position(|token| token.text == "<"),
            tokens.iter().rposition(|token| token.text == ">"),
        ) else {
            return;
        };
        let arguments = parts(&tokens[open + 1..close]);
        self.items.push(Item::Alias(Alias {
            name: tokens[1].clone(),
            template: tokens[open - 1].text.clone(),
            arguments: arguments.iter().map(|part| part.to_vec()).collect(),
        }));
    }

    /// Behind `constexpr`: one constant or more of a type.
    fn constants(&mut self, tokens: &[Token]) -> Result<(), String> {
        let end = tokens.iter().position(|token| token.text == ";");
        match constants_of(&tokens[..end.unwrap_or(tokens.len())]) {
            Some(read) => self.items.extend(read.into_iter().map(Item::Constant)),
            None => {
                let name = tokens.get(1).unwrap_or(&tokens[0]);
                return self.refuse(name, &format!("not understood: constexpr {}", name.text));
            }
        }
        Ok(())
    }

    /// Behind `constexpr`: `int name(int a, int b) { return expression; }`.
    fn function(&mut self, tokens: &[Token]) -> Result<(), String> {
        let read = || {
            let [kind, name, open, ..] = tokens else {
                return None;
            };
            let end = closing(tokens, 2).filter(|_| kind.text == "int" && open.text == "(")?;
            let parameters = parts(&tokens[3..end]).into_iter().map(|p| match p {
                [kind, name] if kind.text == "int" => Some(name.text.clone()),
                _ => None,
            });
            let [open, back, value @ .., semicolon, _] = &tokens[end + 1..] else {
                return None;
            };
            let words = [open, back, semicolon].map(|token| token.text.as_str());
            (words == ["{", "return", ";"]).then_some(())?;
            Some(Function {
                name: name.clone(),
                parameters: parameters.collect::<Option<_>>()?,
                value: value.into(),
            })
        };
        match read() {
            Some(function) => self.items.push(Item::Function(function)),
            None => {
                let name = tokens.get(1).unwrap_or(&tokens[0]);
                return self.refuse(name, &format!("not understood: constexpr {}", name.text));
            }
        }
        Ok(())
    }
}

/// `int A = expression, B = expression`, also of `float`.
fn constants_of(tokens: &[Token]) -> Option<Vec<Constant>> {
    let (kind, rest) = tokens.split_first()?;
    let known = ["int", "float"].contains(&kind.text.as_str());
    let constants = parts(rest).into_iter().map(|part| match part {
        [name, equals, value @ ..] if equals.text == "=" && known => Some(Constant {
            name: name.clone(),
            kind: kind.text.clone(),
            value: value.into(),
        }),
        _ => None,
    });
    constants.collect()
}

/// The length of a declaration: up to its semicolon or the end of its body. 0 where a bracket is not closed.
fn declaration(tokens: &[Token]) -> usize {
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "(" | "[" => match closing(tokens, at) {
                Some(end) => at = end,
                None => return 0,
            },
            "{" => {
                let Some(end) = closing(tokens, at) else {
                    return 0;
                };
                let semicolon = tokens.get(end + 1).is_some_and(|token| token.text == ";");
                return end + 1 + usize::from(semicolon);
            }
            _ => {}
        }
        at += 1;
    }
    tokens.len()
}
