//! `showtell data check`: the errors in a data set.

use super::progress::Progress;
use crate::data::check::{self, Finding, Problem, Report, Severity};
use crate::train::{Observer, Stage};
use crate::words::{count, printable, told};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// The most lines that are printed for one kind of problem.
const MOST_OF_A_KIND: usize = 10;

/// Looks for errors in a data set and says where they are; fails if training would fail
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The data set: Flickr8k as distributed, or a table of captions with a folder of images
    dir: PathBuf,
    /// Skip decoding the images, which takes most of the time
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn check(args: CheckArgs) -> Result<ExitCode> {
    let mut progress = Progress::new();
    let mut begun = false;
    let report = check::check(&args.dir, !args.quick, |done, images| {
        if !begun {
            progress.begin(Stage::Images, images);
            begun = true;
        }
        progress.progress(done);
    });
    progress.end();
    super::print(args.json, &report, lines)?;
    Ok(if report.usable {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn lines(report: &Report) -> String {
    let mut lines = Vec::new();
    let same = |a: &Finding, b: &Finding| (a.severity, a.problem) == (b.severity, b.problem);
    for findings in report.findings.chunk_by(same) {
        lines.extend(told(findings, MOST_OF_A_KIND, line, |more| {
            let kind = kind(findings[0].problem);
            format!("  … and {more} more {kind}: --json lists all")
        }));
    }
    let found = |severity| {
        let findings = report.findings.iter();
        findings.filter(|f| f.severity == severity).count()
    };
    lines.push(format!(
        "{}, {}, {} decoded: {}, {}, {}",
        count(report.images, "image"),
        count(report.captions, "caption"),
        count(report.decoded, "image"),
        count(found(Severity::Error), "error"),
        count(found(Severity::Warning), "warning"),
        if report.usable {
            "usable"
        } else {
            "training would fail"
        }
    ));
    lines.join("\n") + "\n"
}

fn line(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let file = finding.file.display();
    let place = finding.line.map(|n| format!(" line {n}"));
    let (place, message) = (place.unwrap_or_default(), &finding.message);
    printable(&format!("{severity}: {file}{place}: {message}")).into_owned()
}

fn kind(problem: Problem) -> &'static str {
    match problem {
        Problem::MissingFile => "missing or unreadable files",
        Problem::MalformedLine => "malformed lines",
        Problem::NotUtf8 => "lines that are not UTF-8",
        Problem::ListedWithoutCaptions => "listed images without captions",
        Problem::ListedTwice => "images listed twice",
        Problem::ListsOverlap => "images in two lists",
        Problem::ListedWithoutFile => "listed images that do not exist",
        Problem::EmptySplit => "empty files",
        Problem::UndecodableImage => "images that cannot be decoded",
        Problem::CaptionsWithoutImage => "images that do not exist",
        Problem::ImageWithoutCaptions => "images without captions",
        Problem::DuplicateLine => "lines that occur twice",
        Problem::NumberOfCaptions => "images with an unusual number of captions",
        Problem::EmptyCaption => "empty captions",
        Problem::LongCaption => "long captions",
        Problem::CaptionColumns => "tables with several columns of captions",
        Problem::NoSpaces => "files of captions without spaces",
        Problem::OddSize => "images of odd sizes",
    }
}
