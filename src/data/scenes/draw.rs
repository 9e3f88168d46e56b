//! Draws scenes. Edges are antialiased: the coverage of a pixel grows with the distance of its centre inside the
//! edge, and is one half where the edge runs through the centre.

use super::{Background, Object, SIDE, Scene, Shape};
use crate::data::image::Rgb;
use crate::philox;

pub(super) fn draw(scene: &Scene) -> Rgb {
    let pixels = (0..SIDE * SIDE).flat_map(|i| pixel(scene, i % SIDE, i / SIDE));
    Rgb {
        width: SIDE,
        height: SIDE,
        pixels: pixels.collect(),
    }
}

fn pixel(scene: &Scene, x: usize, y: usize) -> [u8; 3] {
    let point = [x as f32 + 0.5, y as f32 + 0.5];
    let mut colour = behind(&scene.background, point);
    for object in &scene.objects {
        let coverage = (0.5 - distance(object, point)).clamp(0.0, 1.0);
        for (value, shade) in colour.iter_mut().zip(object.shade) {
            *value += coverage * (shade - *value);
        }
    }
    let noise = grain(&scene.background, y * SIDE + x);
    colour.map(|value| (value + noise).round().clamp(0.0, 255.0) as u8)
}

fn behind(background: &Background, [x, y]: [f32; 2]) -> [f32; 3] {
    let [right, down] = background.slope;
    let lighter = right * (x / SIDE as f32 - 0.5) + down * (y / SIDE as f32 - 0.5);
    background.shade.map(|shade| shade + lighter)
}

fn grain(background: &Background, pixel: usize) -> f32 {
    let uniform = philox::uniform(background.noise_seed, 0, pixel as u64);
    background.noise * (2.0 * uniform - 1.0)
}

/// The distance in pixels from a point to the edge of an object, negative inside the object. Beyond a corner it is
/// the distance to the line of the nearer edge, which is good enough for antialiasing.
fn distance(object: &Object, point: [f32; 2]) -> f32 {
    let [x, y] = [point[0] - object.centre[0], point[1] - object.centre[1]];
    let (sin, cos) = object.angle.sin_cos();
    let [x, y] = [cos * x + sin * y, cos * y - sin * x];
    let area = std::f32::consts::PI * object.radius * object.radius;
    match object.kind.shape {
        Shape::Circle => x.hypot(y) - object.radius,
        Shape::Square => x.abs().max(y.abs()) - area.sqrt() / 2.0,
        // Equilateral, with one corner at the top. Its area is 3√3 r², where r is the radius of the inscribed
        // circle.
        Shape::Triangle => {
            let inscribed = (area / 27f32.sqrt()).sqrt();
            y.max(0.75f32.sqrt() * x.abs() - 0.5 * y) - inscribed
        }
    }
}
