//! Small f64 cases as PyTorch computed them: `tests/goldens/<name>.safetensors`.

use safetensors::SafeTensors;
use showtell::Shape;
use showtell::tensor::{Context, Tensor};

pub struct Golden {
    name: String,
    bytes: Vec<u8>,
}

impl Golden {
    pub fn open(name: &str) -> Self {
        let path = format!("tests/goldens/{name}.safetensors");
        let bytes = std::fs::read(super::data::root().join(path)).unwrap();
        let name = name.to_string();
        Golden { name, bytes }
    }

    fn values(&self, tensor: &str) -> (Shape, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(tensor).unwrap();
        assert_eq!(view.dtype(), safetensors::Dtype::F64, "{tensor}");
        let numbers = view.data().chunks_exact(8);
        let values = numbers.map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()));
        (Shape::new(view.shape()), values.collect())
    }

    pub fn tensor(&self, ctx: &Context, tensor: &str) -> Tensor {
        let (shape, values) = self.values(tensor);
        Tensor::from_slice(ctx.device(), shape, &values).unwrap()
    }

    /// Equal up to rounding: some hundred operations in a row on sums of some hundred terms give 64 ε √256,
    /// relative to the largest element.
    pub fn check(&self, tensor: &str, got: &Tensor) {
        let (shape, expected) = self.values(tensor);
        assert_eq!(got.shape(), shape, "{}: {tensor}", self.name);
        let largest = expected.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
        let bound = 64.0 * f64::EPSILON * 16.0 * largest;
        for (i, (got, expected)) in got
            .to_vec::<f64>()
            .unwrap()
            .iter()
            .zip(&expected)
            .enumerate()
        {
            let close = (got - expected).abs() <= bound;
            assert!(
                close,
                "{}: {tensor}[{i}] is {got}, PyTorch has {expected}",
                self.name
            );
        }
    }
}
