//! The code of a file of kernels: machine code for some architectures, and PTX, which the driver compiles for
//! any newer one.

use super::{code, driver, failure};
use crate::error::{Error, Result};
use cudarc::driver::{CudaContext, CudaModule};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A switch for the development of kernels: the word [`BUILT_IN`] loads PTX where there is machine code, too; any other value is
/// a folder, whose files `NAME.ptx` are loaded instead of the kernels that were built in.
const PTX: &str = "SHOWTELL_PTX";
const BUILT_IN: &str = "built-in";

/// A file of compiled kernels.
pub struct Image {
    /// The file's stem.
    name: &'static str,
    ptx: &'static [u8],
    /// Architecture (80 is compute capability 8.0) and machine code.
    cubins: &'static [(u32, &'static [u8])],
}

/// Modules that are loaded, by image and GPU. Devices of a process share them; the last one unloads.
type Loaded = HashMap<(usize, usize), Weak<CudaModule>>;

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

impl Image {
    /// Written by build.rs for every file of `kernels/`.
    pub const fn new(
        name: &'static str,
        ptx: &'static [u8],
        cubins: &'static [(u32, &'static [u8])],
    ) -> Self {
        Image { name, ptx, cubins }
    }

    /// The module on a GPU, loaded unless it is already.
    pub(super) fn load(&'static self, context: &Arc<CudaContext>) -> Result<Arc<CudaModule>> {
        let key = (std::ptr::from_ref(self) as usize, context.ordinal());
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_default();
        if let Some(module) = loaded.get(&key).and_then(Weak::upgrade) {
            return Ok(module);
        }
        let module = self.load_fresh(context)?;
        loaded.insert(key, Arc::downgrade(&module));
        Ok(module)
    }

    /// Machine code for this GPU if there is some, else PTX; PTX also where the driver takes no machine code, or where [`PTX`]
    /// wants it.
    fn load_fresh(&self, context: &Arc<CudaContext>) -> Result<Arc<CudaModule>> {
        let refuse = |e| failure(&format!("the kernels of {} cannot be loaded", self.name), e);
        let wanted = std::env::var_os(PTX).filter(|wanted| !wanted.is_empty());
        if let Some(folder) = wanted.as_ref().filter(|&wanted| wanted != BUILT_IN) {
            let path = Path::new(folder).join(self.name).with_extension("ptx");
            let text = std::fs::read(&path).map_err(Error::io(&path))?;
            return context.load_module(text_of(&text)).map_err(refuse);
        }
        let (major, minor) = context.compute_capability().map_err(refuse)?;
        let cubin = self.cubin_for((10 * major + minor) as u32);
        if let Some(cubin) = cubin
            && wanted.is_none()
            && driver::takes_machine_code()?
        {
            match context.load_module(Ptx::from_binary(cubin.to_vec())) {
                Err(error) if code(error) == "CUDA_ERROR_NO_BINARY_FOR_GPU" => {}
                loaded => return loaded.map_err(refuse),
            }
        }
        if self.ptx.is_empty() {
            let name = self.name;
            let message = format!(
                "the kernels of {name} were not compiled for compute capability {major}.{minor}"
            );
            return Err(Error::Device(message));
        }
        context.load_module(text_of(self.ptx)).map_err(refuse)
    }

    /// Code for an architecture runs on those of the same major number that are not older.
    fn cubin_for(&self, architecture: u32) -> Option<&'static [u8]> {
        let runs = |&&(arch, _): &&(u32, _)| arch / 10 == architecture / 10 && arch <= architecture;
        let best = self.cubins.iter().filter(runs).max_by_key(|(arch, _)| arch);
        best.map(|&(_, code)| code)
    }
}

/// PTX for the driver, which expects a zero behind it.
fn text_of(ptx: &[u8]) -> Ptx {
    Ptx::from_binary([ptx, &[0]].concat())
}
