//! The learning curves of a run: losses over steps, and BLEU over steps.

use super::picture::{Canvas, Drawn, draw_on, text};
use crate::error::{Error, Result};
use crate::train::log::{EpochRecord, StepRecord, ValidationRecord};
use image::RgbImage;
use plotters::prelude::*;
use std::ops::Range;

/// Width and height of a panel, in pixels.
const PANEL: [u32; 2] = [760, 560];
const LETTERS: f64 = 18.0;
const TITLE: f64 = 24.0;

const TRAINING: RGBColor = RGBColor(31, 119, 180);
const VALIDATION: RGBColor = RGBColor(214, 39, 40);
/// BLEU-1 … BLEU-4: the longer the n-grams, the darker.
const BLEU: [RGBColor; 4] = [
    RGBColor(161, 217, 155),
    RGBColor(116, 196, 118),
    RGBColor(49, 163, 84),
    RGBColor(0, 90, 50),
];

/// A point of a curve: step and value.
type Point = (f64, f64);

/// Draws the training loss over steps, raw and smoothed, and the validation loss. If there was a validation, a
/// second panel shows BLEU in percent.
///
/// # Errors
/// When there is no step with a finite loss.
pub fn learning_curves(steps: &[StepRecord], epochs: &[EpochRecord]) -> Result<RgbImage> {
    let losses = steps
        .iter()
        .map(|record| (record.step as f64, f64::from(record.loss)));
    let losses: Vec<Point> = losses.filter(|point| point.1.is_finite()).collect();
    let [Some(first), Some(last)] = [losses.first(), losses.last()] else {
        return Err(Error::operation(
            "learning curves",
            "no step has a finite loss",
        ));
    };
    // An axis needs an extent, and a single step has none.
    let across = first.0..last.0.max(first.0 + 1.0);
    let validated = |value: &dyn Fn(&ValidationRecord) -> f64| -> Vec<Point> {
        let points = epochs
            .iter()
            .filter_map(|epoch| Some((epoch.step as f64, value(epoch.validation.as_ref()?))));
        points.filter(|point| point.1.is_finite()).collect()
    };
    let validation = validated(&|record| record.validation_loss);
    let bleu = [0, 1, 2, 3].map(|n| validated(&|record| 100.0 * record.bleu[n]));
    let [width, height] = PANEL;
    let panels = if bleu[0].is_empty() { 1 } else { 2 };
    let mut picture = RgbImage::from_pixel(panels * width, height, image::Rgb([255; 3]));
    draw_on(&mut picture, |canvas| {
        let panels = canvas.split_evenly((1, panels as usize));
        draw_losses(&panels[0], across.clone(), &losses, &validation)?;
        match panels.get(1) {
            Some(panel) => draw_bleu(panel, across, &bleu),
            None => Ok(()),
        }
    })?;
    Ok(picture)
}

fn draw_losses(
    panel: &Canvas,
    across: Range<f64>,
    losses: &[Point],
    validation: &[Point],
) -> Drawn {
    let smooth = smoothed(losses);
    let up = extent(losses, &[&smooth, validation]);
    let mut chart = chart(panel, ["Loss", "loss"], across, up)?;
    let raw = TRAINING.mix(0.25);
    chart.draw_series(LineSeries::new(losses.iter().copied(), raw))?;
    line(&mut chart, &smooth, TRAINING, "training, smoothed")?;
    if !validation.is_empty() {
        dots(&mut chart, validation, VALIDATION)?;
        line(&mut chart, validation, VALIDATION, "validation")?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn draw_bleu(panel: &Canvas, across: Range<f64>, bleu: &[Vec<Point>; 4]) -> Drawn {
    let highest = bleu[0].iter().fold(10.0, |a: f64, point| a.max(point.1));
    let up = 0.0..(1.05 * highest).min(100.0);
    let mut chart = chart(panel, ["BLEU on validation images", "percent"], across, up)?;
    for (n, (points, colour)) in bleu.iter().zip(BLEU).enumerate() {
        dots(&mut chart, points, colour)?;
        line(&mut chart, points, colour, &format!("BLEU-{}", n + 1))?;
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

type Axis = plotters::coord::types::RangedCoordf64;
type Chart<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<Axis, Axis>>;

/// An empty chart: its title, the axes with their names, and a light grid.
fn chart<'a, 'b>(
    panel: &Canvas<'b>,
    [title, up_name]: [&str; 2],
    across: Range<f64>,
    up: Range<f64>,
) -> std::result::Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(panel)
        .caption(title, text(TITLE))
        .margin(16)
        .margin_right(36)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d(across, up)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("step")
        .y_desc(up_name)
        .x_labels(6)
        .y_labels(8)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(text(LETTERS))
        .axis_desc_style(text(LETTERS))
        .draw()?;
    Ok(chart)
}

fn dots(chart: &mut Chart, points: &[Point], colour: RGBColor) -> Drawn {
    let dots = points.iter().map(|&at| Circle::new(at, 4, colour.filled()));
    chart.draw_series(dots)?;
    Ok(())
}

/// A line, and its label for the legend.
fn line(chart: &mut Chart, points: &[Point], colour: RGBColor, label: &str) -> Drawn {
    let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
    let line = chart.draw_series(line)?.label(label);
    line.legend(move |at| key(at, colour));
    Ok(())
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> Drawn {
    chart
        .configure_series_labels()
        .position(position)
        .label_font(text(LETTERS))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// A line for the legend.
fn key((x, y): (i32, i32), colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2))
}

/// Means over a window around each point: a hundredth of the curve on each side, and less at its ends.
fn smoothed(points: &[Point]) -> Vec<Point> {
    let reach = points.len() / 100;
    let mean = |(at, point): (usize, &Point)| {
        let reach = reach.min(at).min(points.len() - 1 - at);
        let window = &points[at - reach..=at + reach];
        let sum: f64 = window.iter().map(|point| point.1).sum();
        (point.0, sum / window.len() as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// The range of values to show: that of the curves `whole`, and that of `raw` without its highest and lowest
/// hundredth, with a margin.
fn extent(raw: &[Point], whole: &[&[Point]]) -> Range<f64> {
    let mut values: Vec<f64> = raw.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let margin = values.len() / 100;
    let mut low = values[margin];
    let mut high = values[values.len() - 1 - margin];
    for point in whole.iter().copied().flatten() {
        (low, high) = (low.min(point.1), high.max(point.1));
    }
    let room = (0.05 * (high - low)).max(1e-6);
    low - room..high + room
}
