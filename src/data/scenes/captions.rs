//! The captions of a scene, and the objects that a caption names.
//!
//! Either of two objects may be named first; the relation is then the inverse one. Every form of caption is used
//! for every scene, so that a correct caption is among the references.

use super::{Colour, Kind, PARAPHRASES, Relation, Scene, Shape};
use std::fmt;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.colour, self.shape)
    }
}

/// A short description: "red circle above blue square".
impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.objects[..], self.relation) {
            ([first, second], Some(relation)) => {
                write!(f, "{} {relation} {}", first.kind, second.kind)
            }
            (objects, _) => objects
                .iter()
                .try_for_each(|object| write!(f, "{}", object.kind)),
        }
    }
}

/// The captions of a scene.
pub(super) fn describe(scene: &Scene) -> [String; PARAPHRASES] {
    match (&scene.objects[..], scene.relation) {
        ([a, b], Some(relation)) => describe_two(a.kind, relation, b.kind),
        (objects, _) => describe_one(objects[0].kind),
    }
}

fn describe_one(a: Kind) -> [String; PARAPHRASES] {
    [
        format!("a {a} ."),
        format!("there is a {a} ."),
        format!("a {a} on its own ."),
        format!("the picture shows a {a} ."),
        format!("a single {a} ."),
    ]
}

fn describe_two(a: Kind, relation: Relation, b: Kind) -> [String; PARAPHRASES] {
    let inverse = relation.inverse();
    [
        format!("a {a} {relation} a {b} ."),
        format!("a {b} {inverse} a {a} ."),
        format!("there is a {a} {relation} a {b} ."),
        format!("the {b} is {inverse} the {a} ."),
        format!("the {a} is {relation} the {b} ."),
    ]
}

/// The kinds of objects that a caption names: every shape that directly follows a colour.
pub fn named(caption: &str) -> Vec<Kind> {
    let words: Vec<&str> = caption.split_whitespace().collect();
    let pairs = words.windows(2);
    pairs.filter_map(|pair| kind(pair[0], pair[1])).collect()
}

fn kind(colour: &str, shape: &str) -> Option<Kind> {
    let colour = Colour::ALL.into_iter().find(|c| c.to_string() == colour)?;
    let shape = Shape::ALL.into_iter().find(|s| s.to_string() == shape)?;
    Some(Kind { colour, shape })
}
