//! A decoder of a program's own, written against the public interface (`own_decoder/window.rs`): it trains, resumes to the
//! same bits, captions and searches with a beam, as those of the library do.

use crate::support;
#[path = "own_decoder/window.rs"]
mod window;

use showtell::data::flickr8k::{Flickr8k, Split};
use showtell::data::image;
use showtell::data::vocabulary::{EOS, PAD, SOS, Vocabulary};
use showtell::decode::{self, Search};
use showtell::device::Precision;
use showtell::model::{Captions, Decoder, Engine, MODELS, Sizes};
use showtell::nn::params::{Declarations, Params};
use showtell::train::config::{Config, EncoderWeights};
use showtell::train::initial::Initial;
use showtell::train::log::{self, EpochRecord, StepRecord};
use showtell::train::run::{RunDirectory, structure};
use showtell::train::trainer::{self, Ended, Setup, Trainer};
use showtell::train::{Observer, Stage};
use showtell::{Context, DType, Device, Tensor};
use std::path::Path;
use support::left::{assert_same, left};
use support::typed::to_f64;
use support::{Numbers, check_gradient, cpu, cuda_with, noise, pictures, zeros};
use window::{Settings, WINDOW, Window};

/// A decoder with random parameters and features (B, D) of images for it.
struct Toy {
    ctx: Context,
    params: Params,
    decoder: Window,
    features: Tensor,
}

impl Toy {
    /// On the CPU in f64.
    fn new(window: usize, batch: usize, seed: u64) -> Self {
        Toy::on(cpu(), DType::F64, window, batch, seed)
    }

    fn on(ctx: Context, dtype: DType, window: usize, batch: usize, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let settings = Settings {
            window,
            window_dropout: 0.3,
        };
        let sizes = Sizes {
            features: 5,
            map: [1, 1],
            embed: 4,
            hidden: 3,
            vocabulary: 6,
        };
        let mut declare = Declarations::default();
        let decoder = Window::new(&settings, sizes, &mut declare);
        let params = declare.build(ctx.device(), dtype).unwrap();
        let mut values = |len: usize| -> Vec<f32> {
            let values = numbers.vec(len).into_iter();
            values.map(|value| value as f32).collect()
        };
        for id in params.ids() {
            params.import(id, &values(params.value(id).len())).unwrap();
        }
        let mut features = zeros(&ctx, [batch, 5], params.operands());
        features.copy_from_f32(&values(5 * batch)).unwrap();
        Toy {
            ctx,
            params,
            decoder,
            features,
        }
    }

    /// Loss and gradient of the features of a training step on captions (T, B).
    fn train(&self, tokens: &[u32]) -> (f64, Tensor) {
        let (ctx, features) = (&self.ctx, &self.features);
        let mut d_features = zeros(ctx, features.shape(), self.params.dtype());
        let batch = features.rows();
        let loss = {
            let captions = Captions::upload(ctx, tokens.len() / batch, batch, tokens).unwrap();
            let (noise, wanted) = (Some(noise(ctx, 7, 3)), Some(&mut d_features));
            let (decoder, params) = (&self.decoder, &self.params);
            let losses = decoder.train(ctx, params, features, &captions, noise, wanted);
            to_f64(&losses.unwrap().loss)[0]
        };
        ctx.reset().unwrap();
        (loss, d_features)
    }

    /// log p of a sentence with `<sos>` and `<eos>` about one image, by the pass that training takes.
    fn log_probability(&self, image: usize, sentence: &[u32]) -> f64 {
        let ctx = &self.ctx;
        let row = self.features.narrow(image, 1).unwrap();
        let loss = {
            let captions = Captions::upload(ctx, sentence.len(), 1, sentence).unwrap();
            let losses = self.decoder.loss(ctx, &self.params, &row, &captions);
            losses.unwrap().loss.to_vec::<f64>().unwrap()[0]
        };
        ctx.reset().unwrap();
        -loss * (sentence.len() - 1) as f64
    }
}

#[test]
fn its_gradients_are_those_of_finite_differences() {
    for (window, steps) in [(1, 4), (3, 6), (4, 3)] {
        let toy = Toy::new(window, 2, window as u64);
        let mut tokens: Vec<u32> = (0..2 * steps).map(|i| 4 + (i as u32 * 7) % 2).collect();
        tokens[..2].fill(SOS);
        // The second caption is shorter.
        tokens[2 * steps - 1] = PAD;
        let (_, d_features) = toy.train(&tokens);
        let gradients: Vec<Tensor> = toy
            .params
            .ids()
            .map(|id| {
                let gradient = toy.params.gradient(id);
                let values = gradient.to_vec::<f64>().unwrap();
                Tensor::from_slice(toy.ctx.device(), gradient.shape(), &values).unwrap()
            })
            .collect();
        let loss = || toy.train(&tokens).0;
        check_gradient("features", &toy.features, &d_features, loss);
        for (id, gradient) in toy.params.ids().zip(&gradients) {
            let name = toy.params.name(id);
            check_gradient(name, toy.params.value(id), gradient, loss);
        }
    }
}

/// A training step on the CUDA device against the CPU in f64, relative to the norm. With u the rounding of what products read (in f32, of
/// their sums), which is that of what backward reads, too: a dozen roundings in all, √12 u, and four times that, as tensors of three
/// numbers scatter.
#[test]
fn the_cuda_device_trains_it_as_the_cpu() {
    let tokens: Vec<u32> = (0..30)
        .map(|i| if i < 5 { SOS } else { 4 + i % 2 })
        .collect();
    let outcome = |toy: &Toy| {
        let (loss, d_features) = toy.train(&tokens);
        let of = |id| {
            (
                toy.params.name(id).to_string(),
                to_f64(&toy.params.gradient(id)),
            )
        };
        let named = [("loss", vec![loss]), ("features", to_f64(&d_features))];
        let named = named.map(|(name, values)| (name.to_string(), values));
        named
            .into_iter()
            .chain(toy.params.ids().map(of))
            .collect::<Vec<_>>()
    };
    let expected = outcome(&Toy::new(3, 5, 17));
    for (precision, unit) in [
        (Precision::F32, 2f64.powi(-23)),
        (Precision::Tf32, 2f64.powi(-11)),
        (Precision::Bf16, 2f64.powi(-8)),
    ] {
        let Some(ctx) = cuda_with(precision) else {
            return;
        };
        let got = outcome(&Toy::on(ctx, DType::F32, 3, 5, 17));
        for ((name, got), (_, expected)) in got.iter().zip(&expected) {
            let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let difference: Vec<f64> = got.iter().zip(expected).map(|(g, e)| g - e).collect();
            let (off, norm) = (norm(&difference), norm(expected));
            assert!(
                off <= 14.0 * unit * norm,
                "{precision}: {name} is off by {off} of {norm}"
            );
        }
    }
}

/// A beam so wide that it drops nothing finds the most probable of all sentences.
#[test]
fn a_beam_of_everything_finds_the_best_sentence() {
    const LIMIT: usize = 3;
    const IMAGES: usize = 2;
    let toy = Toy::new(2, IMAGES, 11);
    let words: Vec<u32> = (0..6).filter(|&word| word != EOS).collect();
    let mut sentences: Vec<Vec<u32>> = vec![Vec::new()];
    let mut beginnings = sentences.clone();
    for _ in 1..LIMIT {
        let longer = beginnings.iter().flat_map(|beginning| {
            let next = words.iter();
            next.map(move |&word| [&beginning[..], &[word]].concat())
        });
        beginnings = longer.collect();
        sentences.extend(beginnings.clone());
    }
    let search = Search::new(200, 0.0).unwrap();
    let (ctx, params) = (&toy.ctx, &toy.params);
    let found = decode::beam(ctx, params, &toy.decoder, &toy.features, search, LIMIT + 1).unwrap();
    toy.ctx.reset().unwrap();
    for (image, found) in found.iter().enumerate() {
        let log_p = |sentence: &Vec<u32>| {
            toy.log_probability(image, &[&[SOS], &sentence[..], &[EOS]].concat())
        };
        let best = sentences
            .iter()
            .max_by(|a, b| log_p(a).total_cmp(&log_p(b)))
            .unwrap();
        assert_eq!(&found.tokens, best, "image {image}");
    }
}

/// An observer that wants to stop after this many steps.
struct StopAfter(Option<u64>, bool);

impl Observer for StopAfter {
    fn begin(&mut self, _: Stage, _: usize) {}
    fn progress(&mut self, _: usize) {}
    fn end(&mut self) {}
    fn step(&mut self, record: &StepRecord, _: usize) {
        self.1 = self.0 == Some(record.step);
    }
    fn epoch(&mut self, _: &EpochRecord) {}
    fn warn(&mut self, message: &str) {
        panic!("{message}");
    }
    fn wants_to_stop(&self) -> bool {
        self.1
    }
}

fn config() -> Config {
    let config = Config {
        encoder_weights: Some(EncoderWeights::Random),
        encoder_width: 8,
        encoder_stem: 3,
        image_size: 40,
        augment: false,
        standalone: true,
        ..Config::recipe(WINDOW)
    };
    config.with("window", 4).unwrap()
}

/// Starts a run, or goes on with the one that is there, as the program does.
fn go_on(dataset: &Flickr8k, out: &Path, stop: Option<u64>) -> Ended {
    let models = [MODELS, &[WINDOW]].concat();
    let existing = RunDirectory::open(out).map(|run| run.with_models(&models));
    let (config, vocabulary) = match &existing {
        Ok(run) => (
            run.read_config().unwrap(),
            Vocabulary::load(run.vocabulary()).unwrap(),
        ),
        Err(_) => (config(), trainer::vocabulary(WINDOW, dataset)),
    };
    let structure = structure(&config, vocabulary.len());
    let engine = Engine::new(&Device::cpu(), &structure, vocabulary).unwrap();
    let setup = |run| Setup {
        config: config.clone(),
        dataset,
        run,
        loader_threads: 2,
    };
    let mut observer = StopAfter(stop, false);
    let trainer = match existing {
        Ok(run) => {
            let checkpoint = run.open_last().unwrap().unwrap();
            Trainer::resume(setup(run), engine, &checkpoint, &mut observer)
        }
        Err(_) => {
            let initial = Initial::load(&engine, &config, &mut observer).unwrap();
            let run = RunDirectory::create(out).unwrap();
            Trainer::start(setup(run), engine, initial, &mut observer)
        }
    };
    trainer.unwrap().train(&mut observer).unwrap()
}

/// The captions of the training images by a run's best checkpoint.
fn captions(dataset: &Flickr8k, run: &RunDirectory, search: Search) -> Vec<String> {
    let engine = run.engine(&Device::cpu()).unwrap();
    let paths = dataset.image_paths().unwrap();
    let images = dataset.split(Split::Train).iter();
    let pixels: Vec<u8> = images
        .flat_map(|&i| image::load(&paths[i], 40).unwrap().pixels)
        .collect();
    let sentences = search.caption(&engine, &pixels).unwrap();
    assert!(sentences.iter().all(|s| s.attention.is_empty()));
    let said = sentences.iter();
    said.map(|s| engine.vocabulary.decode(&s.tokens)).collect()
}

#[test]
fn it_trains_resumes_and_captions() {
    let data = pictures::temporary();
    let dataset = Flickr8k::open(data.path()).unwrap();
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(go_on(&dataset, whole.path(), None), Ended::Finished);
    for stop in [3, 50] {
        assert_eq!(
            go_on(&dataset, parts.path(), Some(stop)),
            Ended::Interrupted
        );
    }
    assert_eq!(go_on(&dataset, parts.path(), None), Ended::Finished);
    assert_same(&left(parts.path()), &left(whole.path()), "resumed twice");

    let unknown = RunDirectory::open(whole.path()).unwrap().read_config();
    let message = unknown.unwrap_err().to_string();
    assert!(message.contains("window"), "{message}");
    let run = RunDirectory::open(whole.path()).unwrap();
    let run = run.with_models(&[WINDOW]);
    let stored = run.read_config().unwrap();
    assert_eq!(Settings::read(&stored.own).unwrap().window, 4);
    assert_eq!(stored, config());

    let epochs: Vec<EpochRecord> = log::read(run.epochs()).unwrap();
    let uniform = (Vocabulary::load(run.vocabulary()).unwrap().len() as f64).ln();
    let loss = epochs.last().unwrap().train_loss;
    assert!(loss < uniform / 3.0, "{loss}, ln V is {uniform}");

    let greedy = captions(&dataset, &run, Search::GREEDY);
    assert!(greedy.iter().all(|caption| !caption.is_empty()));
    let one = captions(&dataset, &run, Search::new(1, 0.0).unwrap());
    assert_eq!(greedy, one);
    let beam = captions(&dataset, &run, Search::new(3, 0.0).unwrap());
    assert!(beam.iter().all(|caption| !caption.is_empty()));
}
