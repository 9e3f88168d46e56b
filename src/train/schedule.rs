//! The learning rate during a run: lowered at the end of an epoch that did not improve, or falling with every step.

use super::config::{Config, Schedule};
use serde::{Deserialize, Serialize};

/// Share of the rate that is left at the end of a linear schedule.
const LINEAR_END: f64 = 0.1;

/// The state of the schedule, which is part of every checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// Learning rates of the decoder and of the encoder; those of the first step for a linear schedule.
    pub lr: [f64; 2],
    /// The best score so far, where lower is better; `None` before the end of the first epoch.
    pub best: Option<f64>,
}

/// What the end of an epoch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The epoch is the best so far.
    pub improved: bool,
    /// The rate was lowered, and the optimiser's state has to be reset.
    pub lowered: bool,
}

impl ScheduleState {
    /// Before the first step.
    pub fn new(config: &Config) -> Self {
        ScheduleState {
            lr: [config.lr, config.encoder_lr],
            best: None,
        }
    }

    /// The rates of the step that follows `taken` steps.
    pub fn rates(&self, config: &Config, taken: u64) -> [f64; 2] {
        let left = match config.schedule {
            Schedule::Plateau | Schedule::None => 1.0,
            Schedule::Linear => {
                let steps = config.max_steps.unwrap_or(usize::MAX);
                1.0 - (1.0 - LINEAR_END) * (taken as f64 / steps as f64).min(1.0)
            }
        };
        self.lr.map(|lr| lr * left)
    }

    /// Whether a score, where lower is better, is the best so far.
    pub fn is_best(&self, score: f64) -> bool {
        self.best.is_none_or(|best| score < best)
    }

    /// Ends epoch number `epoch`, from 1, whose monitored score (lower is better) is `score`.
    pub fn end_epoch(&mut self, config: &Config, epoch: usize, score: f64) -> Verdict {
        let improved = self.is_best(score);
        if improved {
            self.best = Some(score);
        }
        let lowered =
            !improved && config.schedule == Schedule::Plateau && epoch >= config.schedule_from;
        if lowered {
            for lr in &mut self.lr {
                *lr *= config.schedule_factor;
            }
        }
        Verdict { improved, lowered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attend::ATTEND;
    use crate::model::show_tell::SHOW_TELL;

    #[test]
    fn show_tell_lowers_at_every_epoch_that_is_not_strictly_better() {
        let config = Config::recipe(SHOW_TELL);
        let mut state = ScheduleState::new(&config);
        let lowered =
            |s: &mut ScheduleState, epoch, score| s.end_epoch(&config, epoch, score).lowered;
        assert!(!lowered(&mut state, 1, 3.0));
        assert!(lowered(&mut state, 2, 3.0), "equal is not better");
        assert!(!lowered(&mut state, 3, 2.9));
        assert!(lowered(&mut state, 4, f64::NAN));
        assert!((state.lr[0] - 0.9 * 0.2 * 0.2).abs() < 1e-15);
        assert_eq!(state.best, Some(2.9));
    }

    #[test]
    fn linear_falls_in_equal_steps_to_a_tenth() {
        let config = Config {
            schedule: Schedule::Linear,
            max_steps: Some(90),
            ..Config::recipe(ATTEND)
        };
        let mut state = ScheduleState::new(&config);
        let decoder = |s: &ScheduleState, taken| s.rates(&config, taken)[0] / 4e-4;
        assert!((decoder(&state, 0) - 1.0).abs() < 1e-15);
        assert!((decoder(&state, 1) - 0.99).abs() < 1e-15);
        assert!((decoder(&state, 45) - 0.55).abs() < 1e-15);
        assert!((decoder(&state, 90) - 0.1).abs() < 1e-15);
        assert!((state.rates(&config, 45)[1] - 0.55e-4).abs() < 1e-18);
        state.end_epoch(&config, 11, 3.0);
        assert!(!state.end_epoch(&config, 12, 3.0).lowered);
    }

    #[test]
    fn attend_lowers_from_the_eleventh_epoch_on() {
        let config = Config::recipe(ATTEND);
        let mut state = ScheduleState::new(&config);
        for epoch in 1..=10 {
            assert!(!state.end_epoch(&config, epoch, 3.0).lowered);
        }
        let verdict = state.end_epoch(&config, 11, 3.0);
        assert!(verdict.lowered && !verdict.improved);
        assert!((state.lr[0] - 4e-4 * 0.8).abs() < 1e-18);
        assert!((state.lr[1] - 1e-4 * 0.8).abs() < 1e-18);
    }
}
