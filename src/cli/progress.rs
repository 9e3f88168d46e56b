//! Progress on stderr: a bar on a terminal; otherwise a plain line every few seconds.

use super::signals::Stop;
use super::tell;
use crate::train::log::{EpochRecord, StepRecord};
use crate::train::{Observer, Stage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// The longest time until a signal is answered on stderr.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    stage: Option<Stage>,
    parts: usize,
    done: usize,
    /// How many samples this stage has trained on.
    samples: usize,
    started: Instant,
    last_line: Instant,
    /// The signal that asks training to stop.
    stop: Stop,
}

impl Progress {
    pub fn new() -> Self {
        Progress {
            bar: ProgressBar::hidden(),
            terminal: std::io::stderr().is_terminal(),
            stage: None,
            parts: 0,
            done: 0,
            samples: 0,
            started: Instant::now(),
            last_line: Instant::now(),
            stop: Stop::default(),
        }
    }

    /// From now on Ctrl-C and the like ask training to stop. The second time they end the process at once.
    pub fn stop_on_signal(&self) -> anyhow::Result<()> {
        self.stop.listen()?;
        let stop = self.stop.clone();
        // A handler may not print, and a step may take long: so another thread says at once that the signal has come.
        std::thread::spawn(move || {
            while stop.signal().is_none() {
                std::thread::sleep(SIGNAL_INTERVAL);
            }
            tell(format_args!(
                "showtell: stopping, and saving what was trained; Ctrl-C now stops at once"
            ));
        });
        Ok(())
    }

    /// The signal that asked training to stop.
    pub fn signal(&self) -> Option<i32> {
        self.stop.signal()
    }

    fn name(&self) -> String {
        match self.stage {
            None => String::new(),
            Some(Stage::Images) => "decoding images".into(),
            Some(Stage::Features) => "encoding training images".into(),
            Some(Stage::Epoch(epoch)) => format!("epoch {epoch}"),
            Some(Stage::ValidationFeatures) => "encoding images".into(),
            Some(Stage::Validation) => "losses".into(),
            Some(Stage::Captions) => "captions".into(),
        }
    }

    /// Shows how far the stage has come, followed by a note.
    fn show(&mut self, note: String) {
        if self.terminal {
            self.bar.set_position(self.done as u64);
            self.bar.set_message(note);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let (done, parts) = (self.done, self.parts);
            tell(format_args!("{}: {done}/{parts} {note}", self.name()));
        }
    }
}

impl Observer for Progress {
    fn begin(&mut self, stage: Stage, parts: usize) {
        (self.stage, self.parts) = (Some(stage), parts);
        (self.done, self.samples, self.started) = (0, 0, Instant::now());
        if self.terminal {
            let template = "{prefix:>25} {bar:30} {pos}/{len} {msg} {eta} left";
            let style = ProgressStyle::with_template(template);
            self.bar = ProgressBar::new(parts as u64);
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar
                .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar.set_prefix(self.name());
        }
    }

    fn progress(&mut self, done: usize) {
        self.done = done;
        self.show(String::new());
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
        self.stage = None;
    }

    fn step(&mut self, record: &StepRecord, samples: usize) {
        self.done += 1;
        self.samples += samples;
        let rate = self.samples as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        self.show(format!("loss {:.3}, {rate:.1} images/s", record.loss));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let EpochRecord {
            epoch,
            train_loss,
            seconds,
            ..
        } = record;
        let mut line = format!("epoch {epoch}: training loss {train_loss:.4}");
        if let Some(v) = &record.validation {
            let [b1, b2, b3, b4] = v.bleu.map(|b| 100.0 * b);
            line += &format!(
                ", validation loss {:.4}, BLEU {b1:.1} {b2:.1} {b3:.1} {b4:.1}",
                v.validation_loss
            );
        }
        tell(format_args!("{line}, {seconds:.1} s"));
    }

    fn wants_to_stop(&self) -> bool {
        self.stop.signal().is_some()
    }

    fn warn(&mut self, message: &str) {
        self.bar
            .suspend(|| tell(format_args!("showtell: warning: {message}")));
    }

    fn note(&mut self, message: &str) {
        self.bar.suspend(|| tell(format_args!("{message}")));
    }
}
