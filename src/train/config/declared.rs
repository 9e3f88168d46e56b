//! The settings that every run has, each with its default, range and help.

use crate::model::Model;
use crate::settings::{Table, Typed, Value, choice, integer, integers, number, path, switch};
use std::path::PathBuf;

crate::choices! {
    /// What turns gradients into changes of the weights.
    pub enum OptimiserKind {
        /// Stochastic gradient descent with momentum
        Sgd = "sgd",
        /// Adam
        Adam = "adam",
    }
}

crate::choices! {
    /// How the learning rate changes during a run.
    pub enum Schedule {
        /// Lower it after an epoch whose score is not the best so far
        Plateau = "plateau",
        /// Let it fall in equal steps, to a tenth at --max-steps
        Linear = "linear",
        /// Keep it
        None = "none",
    }
}

crate::choices! {
    /// The score that says which epoch is the best.
    pub enum Monitor {
        /// The loss on the validation images; lower is better
        Loss = "loss",
        /// BLEU-4 of the captions of the validation images; higher is better
        Bleu4 = "bleu4",
    }
}

crate::choices! {
    /// The statistics that the encoder's batch-norm uses in training.
    pub enum EncoderBatchNorm {
        /// The running statistics that came with the encoder
        Running = "running",
        /// Those of the batch, which also move the running ones; the published runs did so
        Batch = "batch",
    }
}

crate::choices! {
    /// The number format of features in a cache.
    pub enum FeatureType {
        /// 32 bits per number
        F32 = "f32",
        /// 16 bits per number, rounded to 8 significant bits
        Bf16 = "bf16",
    }
}

/// The most images, captions and steps that a setting counts. Random numbers depend on the step as a number of 32 bits; more
/// images or captions than that nobody has.
const MOST_COUNTED: u64 = u32::MAX as u64;

/// The word for an encoder without trained weights.
const RANDOM: &str = "random";

/// Where the encoder's weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncoderWeights {
    /// Drawn at random.
    Random,
    /// Read from a file with torchvision's names.
    File(PathBuf),
}

impl Typed for EncoderWeights {
    fn from_value(value: &Value) -> Option<Self> {
        Some(match value.as_str()? {
            RANDOM => EncoderWeights::Random,
            file => EncoderWeights::File(file.into()),
        })
    }

    fn to_value(&self) -> Value {
        match self {
            EncoderWeights::Random => RANDOM.into(),
            EncoderWeights::File(file) => file.to_value(),
        }
    }
}

crate::settings! {
    /// All settings of a run.
    pub struct Config {
        /// The kind of decoder.
        model: Model,
        /// The settings that only this decoder has, by key; its folder reads them.
        own: Table,
    }

    "Data" {
        /// The data set: a folder in the layout of Flickr8k
        data: Option<PathBuf> = path("DIR").may_change();
        /// Side of the square that images are resized to, in pixels
        image_size: usize = integer(1).most(16384).default("256").value_name("PIXELS");
        /// Train on the first N images of the training list only; 0 for all
        limit_images: Option<usize> = integer(1).most(MOST_COUNTED).or_none("0").default("0");
        /// Use the first N captions of every training image only; 0 for all
        captions_per_image: Option<usize> = integer(1).most(MOST_COUNTED).or_none("0").default("0");
        /// Change training images at random: flip them, rotate them, turn them gray
        ///
        /// The encoder then has to run for every image in every epoch, because the image is never the same.
        augment: bool = switch("Show training images as they are, the same in every epoch").default("true");
        /// Draw a new order of the samples for every epoch
        shuffle: bool = switch("Keep the samples in the order of the training list").default("true");
        /// Leave out images that cannot be read, with a warning
        skip_bad_images: bool = switch("Stop with an error at an image that cannot be read").default("false");
    }

    "Encoder" {
        /// Weights of the encoder: a file from torchvision, or the word random
        ///
        /// A safetensors or PyTorch file with torchvision's names. The word random draws the weights; the encoder then
        /// knows nothing about images, which is enough to try things out.
        encoder_weights: Option<EncoderWeights> = path("FILE").or_word(RANDOM).may_change();
        /// Bottleneck blocks in each stage of the ResNet
        ///
        /// 3,4,6,3 is ResNet-50 and 3,4,23,3 is ResNet-101.
        encoder_blocks: Vec<usize> = integers(1).most(1000);
        /// Channels that the first convolution of the ResNet gives
        ///
        /// The first stage ends with four times as many channels, and every later one with twice as many as the stage
        /// before.
        encoder_width: usize = integer(1).most(4096).default("64");
        /// Side of the square filters of the first convolution, in pixels
        encoder_stem: usize = integer(1).most(255).default("7").value_name("PIXELS");
        /// The statistics with which batch-norm normalises in training
        encoder_batch_norm: EncoderBatchNorm =
            choice(EncoderBatchNorm::WORDS, "STATISTICS").default("running");
        /// Train the encoder too, from the stage --fine-tune-from on
        fine_tune: bool = switch("Leave the encoder as it is").default("false");
        /// The first stage of the encoder that --fine-tune trains
        ///
        /// Stages count from 1; 0 trains everything, the first convolution too.
        fine_tune_from: usize = integer(0).most(1000).default("2").value_name("STAGE");
        /// Keep the encoder's outputs in this folder, for this run and later ones; none for no folder
        ///
        /// Turns augmentation off, because only the outputs for unchanged images can be kept.
        feature_cache: Option<PathBuf> = path("DIR").or_none("none").default("none");
        /// The number format of the outputs in --feature-cache
        feature_type: FeatureType = choice(FeatureType::WORDS, "TYPE").default("f32");
    }

    "Optimisation" {
        /// What turns gradients into changes of the weights
        optimizer: OptimiserKind = choice(OptimiserKind::WORDS, "NAME");
        /// Learning rate of the decoder
        lr: f64 = number(0.0, f64::INFINITY).value_name("RATE");
        /// Learning rate of an encoder that is trained with --fine-tune
        encoder_lr: f64 = number(0.0, f64::INFINITY).default("1e-4").value_name("RATE");
        /// Momentum of SGD: the share of the last change that the next one keeps
        momentum: f64 = number(0.0, f64::INFINITY).default("0.9");
        /// Adam: the share that the mean of the gradients keeps at every step
        beta1: f64 = number(0.0, 1.0).default("0.9");
        /// Adam: the share that the mean of the squared gradients keeps at every step
        beta2: f64 = number(0.0, 1.0).default("0.999");
        /// Adam: added to the divisor, so that it is never 0
        epsilon: f64 = number(0.0, f64::INFINITY).default("1e-8");
        /// Weight decay of the decoder
        ///
        /// This many times the weights are added to their gradients.
        weight_decay: f64 = number(0.0, f64::INFINITY);
        /// Weight decay of an encoder that is trained with --fine-tune
        encoder_weight_decay: f64 = number(0.0, f64::INFINITY).default("0");
        /// Scale all gradients down together if their norm is larger than X; 0 for no limit
        ///
        /// Cannot be used together with --clip-value.
        clip_norm: Option<f64> = number(0.0, f64::INFINITY).or_none("0").default("0");
        /// Limit every element of the gradients to the range from -X to X; 0 for no limit
        ///
        /// Cannot be used together with --clip-norm.
        clip_value: Option<f64> = number(0.0, f64::INFINITY).or_none("0").default("0");
    }

    "Learning rate schedule" {
        /// How the learning rate changes during the run
        schedule: Schedule = choice(Schedule::WORDS, "NAME").default("plateau");
        /// What the learning rate is multiplied by when --schedule plateau lowers it
        schedule_factor: f64 = number(0.0, f64::INFINITY);
        /// The first epoch after which --schedule plateau may lower the learning rate
        schedule_from: usize = integer(0).most(1_000_000).value_name("EPOCH");
    }

    "Length, validation and checkpoints" {
        /// Samples per step; a sample is one caption with its image
        batch_size: usize = integer(1).most(65536);
        /// Train for N epochs: passes over all samples
        epochs: usize = integer(0).most(1_000_000).may_change();
        /// Stop after N steps, even inside an epoch; 0 for no limit
        ///
        /// With --schedule linear, which ends at this step, it cannot change when a run is resumed.
        max_steps: Option<usize> = integer(1).most(MOST_COUNTED).or_none("0").default("0").may_change();
        /// Save a checkpoint after every N steps; 0 for only at the end of every epoch
        ///
        /// Another one is saved at the end of an epoch, if the epoch is validated or N steps have passed since the last.
        checkpoint_every: Option<usize> = integer(1).most(MOST_COUNTED).or_none("0").default("500").may_change();
        /// Measure loss and BLEU on the validation images after every epoch
        validate: bool = switch("Do not validate; the last checkpoint counts as the best one").default("true");
        /// The score that says which epoch is the best
        ///
        /// Without validation it is the training loss.
        monitor: Monitor = choice(Monitor::WORDS, "SCORE").default("loss");
        /// Store a frozen encoder in every checkpoint
        ///
        /// Checkpoints are then larger, and complete without the encoder's file.
        standalone: bool =
            switch("Store only the name and the hash of a frozen encoder's file in checkpoints").default("false");
        /// Seed of everything random: initial weights, order, augmentation, dropout
        ///
        /// The same seed gives the same weights, bit for bit, on any number of threads.
        seed: u64 = integer(0).most(i64::MAX as u64).default("8");
    }

    "Decoder" {
        /// Start from the weights in this file instead of random ones
        ///
        /// A checkpoint of another run, or weights from PyTorch under the same names. The file may hold any part of the
        /// parameters and buffers; the others start as they would without it.
        init: Option<PathBuf> = path("FILE");
        /// Size of the embeddings of words (E)
        embed: usize = integer(1).most(65536);
        /// Size of the decoder's state (H)
        hidden: usize = integer(1).most(65536);
    }
}
