//! `showtell train`: trains a captioner.

use super::device::{self, DeviceArgs};
use super::progress::Progress;
use super::{flags, tell, usage};
use crate::data::flickr8k::{Flickr8k, Split};
use crate::error::Error;
use crate::files;
use crate::model::{Engine, MODELS};
use crate::settings::{Setting, Table, Value, path};
use crate::train::Observer;
use crate::train::checkpoint::Checkpoint;
use crate::train::config::{Config, EncoderWeights, MODEL};
use crate::train::initial::Initial;
use crate::train::memory_plan::Planner;
use crate::train::run::{RunDirectory, structure};
use crate::train::trainer::{self, Ended, Setup, Trainer};
use crate::words::count;
use anyhow::{Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::io::Write;
use std::path::PathBuf;

/// The heading of the flags that say which run it is.
const RUN: &str = "Run";

crate::settings! {
    /// Where the run's files are, which is no part of its configuration.
    struct Place {}
    "Run" {
        /// Folder for the run's files
        out: PathBuf = path("RUN");
    }
}

/// How a run is started, repeated with other settings, and resumed.
const USAGE: &str =
    "showtell train --model <NAME> --data <DIR> --encoder-weights <FILE> --out <RUN> [OPTIONS]
       showtell train --config <FILE> [OPTIONS]
       showtell train --resume --out <RUN> [OPTIONS]";

/// The setting that says where the run's files are.
pub const PLACE: &[Setting] = Place::SETTINGS;

/// The arguments of `showtell train`.
pub struct TrainArgs {
    resume: bool,
    config: Option<PathBuf>,
    /// The settings among the flags.
    flags: Table,
}

/// The settings of a run's configuration, those of all decoders.
fn configuration() -> Vec<&'static Setting> {
    let of_models = MODELS.iter().flat_map(|model| model.settings);
    Config::SETTINGS.iter().chain(of_models).collect()
}

/// The settings that are no part of a run's configuration: its folder and its device.
fn program() -> Vec<&'static Setting> {
    PLACE.iter().chain(device::SETTINGS).collect()
}

/// The default of a setting for help: one for all recipes, or one for each that has it.
fn default_of(setting: &Setting) -> Option<String> {
    let has = |own: &[Setting]| own.iter().any(|other| other.key == setting.key);
    let owner = MODELS.iter().find(|model| has(model.settings));
    let models = match owner {
        Some(model) => std::slice::from_ref(model),
        None => MODELS,
    };
    let defaults = models
        .iter()
        .filter_map(|model| Some((model.name, model.default_of(setting)?)));
    let defaults: Vec<(&str, &str)> = defaults.collect();
    let (_, first) = *defaults.first()?;
    if defaults.iter().all(|&(_, default)| default == first) && defaults.len() == models.len() {
        return Some(first.into());
    }
    let each = defaults
        .iter()
        .map(|(model, default)| format!("{default} for {model}"));
    Some(each.collect::<Vec<_>>().join(", "))
}

/// The flags that say which run it is, and where its settings come from.
fn run_flags() -> Vec<Arg> {
    let models = MODELS
        .iter()
        .map(|model| PossibleValue::new(model.name).help(model.help));
    let parser = flags::WordParser(PossibleValuesParser::new(models));
    let out = PLACE.iter().flat_map(|setting| flags::flags(setting, None));
    let mut run: Vec<Arg> = out
        .map(|out| out.required_unless_present("config"))
        .collect();
    run.extend([
        Arg::new("resume")
            .long("resume")
            .action(ArgAction::SetTrue)
            .help("Resume the run in the folder --out from its last checkpoint")
            .long_help(flags::wrapped(
                "Resume the run in the folder --out from its last checkpoint\n\nThe run keeps its settings. Flags can \
                 change only its length, how often it is saved, and where its data and the encoder are.",
            )),
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Take settings from this TOML file, such as the config.toml of another run")
            .long_help(flags::wrapped(
                "Take settings from this TOML file, such as the config.toml of another run\n\nThe keys are the names of \
                 the flags without their dashes: those of all settings below, and out, device, precision and threads. A \
                 flag has precedence over the file.",
            )),
        Arg::new(MODEL)
            .long(MODEL)
            .value_name("NAME")
            .value_parser(parser)
            .help("The kind of decoder; its published recipe gives every setting its default"),
    ]);
    run.into_iter().map(|flag| flag.help_heading(RUN)).collect()
}

impl Args for TrainArgs {
    fn augment_args(command: Command) -> Command {
        let flag = |setting: &'static Setting| {
            let flags = flags::flags(setting, default_of(setting));
            let needed = |flag: Arg| flag.required_unless_present_any(["resume", "config"]);
            let required = setting.key == "data";
            flags
                .into_iter()
                .map(move |flag| if required { needed(flag) } else { flag })
        };
        let command = command
            .args(run_flags())
            .args(configuration().into_iter().flat_map(flag));
        DeviceArgs::augment_args(command).override_usage(USAGE)
    }

    fn augment_args_for_update(command: Command) -> Command {
        TrainArgs::augment_args(command)
    }
}

impl FromArgMatches for TrainArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = flags::given(matches, &[configuration(), program()].concat());
        let model = matches.get_one::<Value>(MODEL).cloned();
        flags.extend(model.map(|model| (MODEL.to_string(), model)));
        Ok(TrainArgs {
            resume: matches.get_flag("resume"),
            config: matches.get_one("config").cloned(),
            flags,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = TrainArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A signal, such as that of Ctrl-C, ended training.
#[derive(Debug, thiserror::Error)]
#[error("stopped{kept}; to continue: showtell train --resume --out {}", run.display())]
pub struct Interrupted {
    /// What is kept, if it is not a checkpoint of everything until now.
    kept: String,
    run: PathBuf,
    /// None when something else asked training to stop.
    pub signal: Option<i32>,
}

/// The settings of a command: flags and file together.
struct Given {
    /// The part that belongs to the run's configuration.
    settings: Table,
    out: PathBuf,
    device: DeviceArgs,
}

impl TrainArgs {
    /// The settings that were given: those of the file, with those of the flags put in their place.
    fn given(&self) -> Result<Given> {
        let mut settings = match &self.config {
            Some(path) => Config::read_settings(MODELS, path, &program())?,
            None => Table::new(),
        };
        settings.extend(self.flags.clone());
        flags::make_absolute(&mut settings, &configuration())?;
        let mut of_program = Table::new();
        for setting in program() {
            of_program.extend(settings.remove_entry(setting.key));
        }
        Ok(Given {
            settings,
            out: Place::read(&of_program).map_err(usage)?.out,
            device: DeviceArgs::of(&of_program).map_err(usage)?,
        })
    }

    /// Warns of flags that have no effect with this model.
    fn warn_of_other_decoders(&self, config: &Config) {
        for model in MODELS.iter().filter(|&&model| model != config.model) {
            let own = model.settings.iter();
            let is_other = |setting: &&Setting| !config.own.contains_key(setting.key);
            for setting in own
                .filter(is_other)
                .filter(|s| self.flags.contains_key(s.key))
            {
                let (key, given) = (setting.key, config.model.name);
                tell(format_args!(
                    "showtell: warning: --{key} is a setting of {}, and has no effect on {given}",
                    model.name
                ));
            }
        }
    }
}

pub fn train(args: TrainArgs) -> Result<()> {
    let given = args.given()?;
    if args.resume {
        return resume(&args, given);
    }
    let augment_given = given.settings.contains_key("augment");
    let config = Config::from_settings(given.settings.clone()).map_err(usage)?;
    args.warn_of_other_decoders(&config);
    if config.feature_cache.is_some() && !augment_given {
        tell(format_args!(
            "augmentation is off: --feature-cache keeps the features of images as they are"
        ));
    }
    run(&given, config, None)
}

fn resume(args: &TrainArgs, given: Given) -> Result<()> {
    let mut directory = RunDirectory::open(&given.out)?;
    directory.lock()?;
    files::remove_leftovers(directory.path())?;
    let started = directory.read_config()?;
    let config = started.resumed(given.settings.clone()).map_err(usage)?;
    args.warn_of_other_decoders(&config);
    let mut checkpoint = directory.open_last()?;
    if let Some(checkpoint) = &mut checkpoint {
        match &config.encoder_weights {
            Some(EncoderWeights::File(path)) if given.settings.contains_key("encoder-weights") => {
                checkpoint.set_encoder_file(path).map_err(usage)?;
            }
            _ => checkpoint.look_where_settings_say(&config),
        }
        let position = &checkpoint.position;
        if directory.is_finished(&config, position)? {
            let epochs = count(position.epoch, "epoch");
            let steps = count(position.step as usize, "step");
            tell(format_args!(
                "this run is finished: {epochs}, {steps}; a larger --epochs or --max-steps continues it"
            ));
            directory.write_config(&config)?;
            writeln!(std::io::stdout(), "{}", given.out.display())?;
            return Ok(());
        }
    }
    run(&given, config, Some((directory, checkpoint)))
}

/// Trains to the end. A run that exists already continues from its checkpoint, if it has one.
fn run(
    given: &Given,
    config: Config,
    existing: Option<(RunDirectory, Option<Checkpoint>)>,
) -> Result<()> {
    let device = given.device.open()?;
    let mut progress = Progress::new();
    let Some(data) = &config.data else {
        let message = "is not given; expected the folder of a data set";
        return Err(usage(Error::setting("data", message)));
    };
    let dataset = Flickr8k::open(data)?;
    for warning in dataset.warnings() {
        progress.warn(&warning);
    }
    dataset.require_training(match (config.skip_bad_images, config.validate) {
        (true, _) => &[],
        (false, false) => &[Split::Train],
        (false, true) => &[Split::Train, Split::Dev],
    })?;
    let vocabulary = match &existing {
        Some((directory, Some(checkpoint))) => directory.read_vocabulary(checkpoint)?,
        _ => trainer::vocabulary(config.model, &dataset),
    };
    let planner = Planner {
        device: &device,
        dataset: &dataset,
        vocabulary: &vocabulary,
    };
    let plan = planner.plan(&config).map_err(usage)?;
    tell(format_args!("{plan}"));
    if let Some(shortage) = planner.shortage(&config, &plan)? {
        bail!("{shortage}");
    }
    let engine = Engine::new(&device, &structure(&config, vocabulary.len()), vocabulary)?;
    let (trained, words) = (engine.params.trained_count(), engine.vocabulary.len());
    tell(format_args!(
        "{trained} trainable parameters, vocabulary {words}"
    ));
    let kept = kept_while_encoding(existing.as_ref());
    progress.stop_on_signal()?;
    let trainer = trainer(given, config, engine, &dataset, existing, &mut progress);
    let ended = trainer.and_then(|mut trainer| Ok(trainer.train(&mut progress)?));
    let kept = match ended {
        Err(error) if matches!(error.downcast_ref(), Some(Error::Stopped(_))) => kept,
        Ok(Ended::Interrupted) => String::new(),
        Ok(Ended::Finished) => {
            writeln!(std::io::stdout(), "{}", given.out.display())?;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let (run, signal) = (given.out.clone(), progress.signal());
    Err(Interrupted { kept, run, signal }.into())
}

/// What there is of a run that is stopped while it encodes images.
fn kept_while_encoding(existing: Option<&(RunDirectory, Option<Checkpoint>)>) -> String {
    let kept = match existing {
        Some((_, Some(checkpoint))) => {
            format!(
                "the checkpoint of step {} is kept",
                checkpoint.position.step
            )
        }
        _ => "only the run's settings are kept".into(),
    };
    format!(" while images were encoded: {kept}")
}

/// A trainer at the run's checkpoint, or at its beginning where there is none.
fn trainer<'a>(
    given: &Given,
    config: Config,
    engine: Engine,
    dataset: &'a Flickr8k,
    existing: Option<(RunDirectory, Option<Checkpoint>)>,
    progress: &mut Progress,
) -> Result<Trainer<'a>> {
    let setup = |config: Config, run: RunDirectory| Setup {
        config,
        dataset,
        run,
        loader_threads: given.device.loader_threads(),
    };
    let directory = match existing {
        Some((run, Some(checkpoint))) => {
            warn_if_unlocked(&run, progress);
            let resumed = Trainer::resume(setup(config, run), engine, &checkpoint, progress);
            return Ok(resumed?);
        }
        Some((run, None)) => Some(run),
        None => None,
    };
    // Weights that cannot be read leave no folder behind.
    let initial = Initial::load(&engine, &config, progress).map_err(usage)?;
    let run = match directory {
        Some(run) => run,
        None => RunDirectory::create(&given.out)?,
    };
    warn_if_unlocked(&run, progress);
    Trainer::start(setup(config, run), engine, initial, progress).map_err(usage)
}

fn warn_if_unlocked(run: &RunDirectory, progress: &mut Progress) {
    if !run.is_locked() {
        let path = run.path().display();
        progress.warn(&format!(
            "{path}: this file system has no locks: take care that no other process trains this run"
        ));
    }
}
