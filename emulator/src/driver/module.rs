//! Modules: loads PTX text, and gives access to its kernels and variables. Machine code is refused, so that the PTX
//! of a program runs.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::machine;

use super::context::{self, Context};
use super::function;
use super::handle::{Handle, Table, lock};
use super::options::Environment;
use super::result::Error;
use super::{Address, Answer, Status, call, capture, device, log, put};

/// A module in a context: its code, and its variables in device memory.
pub struct Loaded {
    pub context: Arc<Context>,
    pub module: Arc<machine::Module>,
    /// The address of each variable of the module.
    pub globals: Vec<Address>,
    pub text: String,
    /// The number of the module in this process, from 0.
    pub number: u64,
    functions: Mutex<BTreeMap<String, Handle>>,
}

static MODULES: Table<Loaded> = Table::new();

/// Why an image is refused: the code, and a message for people.
type Refusal = (Error, String);

/// Removes the modules of a destroyed context.
pub fn forget(context: &Arc<Context>) {
    function::forget(context);
    MODULES.retain(|module| !Arc::ptr_eq(&module.context, context));
}

/// The text of a PTX image.
///
/// # Safety
/// `image` is as `cuModuleLoadData` requires it. Its length is not given, so a text ends with a NUL.
unsafe fn text<'a>(image: *const c_void) -> Result<&'a str, Refusal> {
    const ELF: [u8; 4] = *b"\x7fELF";
    const FATBIN: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
    const FATBIN_WRAPPER: [u8; 4] = 0x4662_43B1_u32.to_le_bytes();
    // SAFETY: an image is a text that ends with a NUL, or binary with a header, which contains a NUL after its magic
    // number.
    let text = unsafe { CStr::from_ptr(image.cast()) };
    let bytes = text.to_bytes();
    match bytes.first_chunk::<4>() {
        Some(&(ELF | FATBIN | FATBIN_WRAPPER)) => Err((
            Error::NO_BINARY_FOR_GPU,
            "machine code cannot run in the emulator: compile to PTX, or include PTX".into(),
        )),
        _ => text.to_str().map_err(|_| {
            let message = "the image is neither text nor a known kind of binary";
            (Error::INVALID_IMAGE, message.into())
        }),
    }
}

/// The number after a directive, without its dot: 90 for `.version 9.0`.
fn directive(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(str::trim_start);
    let rest = lines.find_map(|line| line.strip_prefix(name))?;
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let number = rest.trim_start().trim_start_matches("sm_");
    let number = &number[..number.find(|c| !digits(c)).unwrap_or(number.len())];
    number.replace('.', "").parse().ok()
}

/// Ten times the version of the newest PTX that a driver reads (release notes of the PTX ISA).
fn newest_ptx(driver_version: i32) -> u32 {
    let (major, minor) = (
        driver_version as u32 / 1000,
        driver_version as u32 % 1000 / 10,
    );
    match (major, minor) {
        (11, _) => 70 + minor,
        (12, 0..=5) => 80 + minor,
        (12, _) => 79 + minor,
        _ => (major - 4) * 10 + minor,
    }
}

/// The checks of a driver before it compiles: that the text is PTX, and its versions.
fn check_header(environment: &Environment, text: &str) -> Result<(), Refusal> {
    let (Some(version), Some(target)) = (directive(text, ".version"), directive(text, ".target"))
    else {
        return Err((
            Error::INVALID_IMAGE,
            "the text is not PTX: it has no .version and .target".into(),
        ));
    };
    let newest = newest_ptx(environment.driver_version);
    if version > newest {
        return Err((
            Error::UNSUPPORTED_PTX_VERSION,
            format!(
                "PTX {}.{} is newer than {}.{}, the newest that this driver reads",
                version / 10,
                version % 10,
                newest / 10,
                newest % 10
            ),
        ));
    }
    let (major, minor) = environment.capability;
    if target > (major * 10 + minor) as u32 {
        return Err((
            Error::INVALID_PTX,
            format!("PTX for sm_{target} cannot run on compute capability {major}.{minor}"),
        ));
    }
    Ok(())
}

/// Compiles the text and puts its variables into device memory.
fn compile(context: Arc<Context>, text: &str) -> Result<Loaded, Refusal> {
    static LOADED: AtomicU64 = AtomicU64::new(0);
    check_header(context.environment, text)?;
    let module = machine::Module::load(text).map_err(|e| (Error::INVALID_PTX, e.to_string()))?;
    for kernel in module.kernels() {
        if kernel.static_shared > device::SHARED {
            let (name, bytes) = (&kernel.name, kernel.static_shared);
            return Err((
                Error::INVALID_PTX,
                format!(
                    "kernel {name} declares {bytes} bytes of shared memory, but the maximum is {}",
                    device::SHARED
                ),
            ));
        }
    }
    let mut globals = Vec::new();
    for variable in module.globals() {
        let memory = |_| {
            (
                Error::OUT_OF_MEMORY,
                "no device memory is left for the variables of the module".into(),
            )
        };
        let address = context.heap.allocate(variable.size.max(1));
        let address = address.ok_or(()).map_err(memory)?;
        let written = context.heap.write(address, &variable.init);
        written.map_err(|fault| (Error::UNKNOWN, fault.to_string()))?;
        globals.push(address);
    }
    Ok(Loaded {
        context,
        module: Arc::new(module),
        globals,
        text: text.into(),
        number: LOADED.fetch_add(1, Ordering::Relaxed),
        functions: Mutex::new(BTreeMap::new()),
    })
}

/// Loads an image. If it is refused, the reason is logged and given to `report`.
///
/// # Safety
/// The same as for [`text`].
unsafe fn load(module: *mut Handle, image: *const c_void, report: impl FnOnce(&str)) -> Answer {
    let context = context::current()?;
    capture::forbid(&context)?;
    if module.is_null() || image.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: the caller promises it.
    let text = unsafe { text(image) };
    match text.and_then(|text| compile(context, text)) {
        Ok(loaded) => {
            report("");
            // SAFETY: not null, and writable, as the driver API requires.
            unsafe { put(module, MODULES.insert(loaded)) }
        }
        Err((error, message)) => {
            log::line(format_args!("module: {message}"));
            report(&message);
            Err(error)
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> Status {
    // SAFETY: the caller gives an image as the driver wants it.
    call(|_| unsafe { load(module, image, |_| {}) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadFatBinary(
    module: *mut Handle,
    image: *const c_void,
) -> Status {
    // SAFETY: the caller gives an image as the driver wants it.
    call(|_| unsafe { load(module, image, |_| {}) })
}

const INFO_LOG_BYTES: c_int = 4;
const ERROR_LOG: c_int = 5;
const ERROR_LOG_BYTES: c_int = 6;

/// Writes the message and a NUL into the log buffer that the options name, cut to the size of the buffer, and replaces
/// the size by the number of bytes written.
///
/// # Safety
/// `options` and `values` are null or hold `count` entries, and a log buffer is as long as its size says.
unsafe fn fill_log(message: &str, options: *const c_int, values: *mut *mut c_void, count: usize) {
    if options.is_null() || values.is_null() {
        return;
    }
    // SAFETY: both hold `count` entries, as the caller promises.
    let (options, values) = unsafe {
        (
            std::slice::from_raw_parts(options, count),
            std::slice::from_raw_parts_mut(values, count),
        )
    };
    let find = |option| options.iter().position(|&given| given == option);
    if let Some(size) = find(INFO_LOG_BYTES) {
        values[size] = std::ptr::null_mut();
    }
    let (Some(buffer), Some(size)) = (find(ERROR_LOG), find(ERROR_LOG_BYTES)) else {
        return;
    };
    let room = values[size] as usize & c_uint::MAX as usize;
    let mut filled = 0;
    if room > 0 && !values[buffer].is_null() && !message.is_empty() {
        let kept = message.len().min(room - 1);
        // SAFETY: `kept` bytes and a NUL are no more than the buffer has room for.
        unsafe {
            let buffer = values[buffer].cast::<u8>();
            buffer.copy_from_nonoverlapping(message.as_ptr(), kept);
            buffer.add(kept).write(0);
        }
        filled = kept + 1;
    }
    values[size] = std::ptr::without_provenance_mut(filled);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_void,
    count: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
) -> Status {
    call(|_| {
        // SAFETY: the caller gives `count` options and values, and log buffers of the sizes it says.
        let report = |message: &str| unsafe { fill_log(message, options, values, count as usize) };
        // SAFETY: the caller gives an image as the driver wants it.
        unsafe { load(module, image, report) }
    })
}

/// A C text. A null pointer, and a text that is not UTF-8, are errors.
///
/// # Safety
/// `text` is null or ends with a NUL.
unsafe fn name<'a>(text: *const c_char) -> Answer<&'a str> {
    if text.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null, and ends with a NUL.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Error::NOT_FOUND)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoad(module: *mut Handle, path: *const c_char) -> Status {
    call(|_| {
        // SAFETY: null or a text, as the driver API requires.
        let path = unsafe { name(path)? };
        let mut image = std::fs::read(path).map_err(|_| Error::FILE_NOT_FOUND)?;
        image.push(0);
        // SAFETY: the image ends with a NUL.
        unsafe { load(module, image.as_ptr().cast(), |_| {}) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: Handle) -> Status {
    call(|_| {
        let loaded = MODULES.get(module)?;
        capture::forbid(&loaded.context)?;
        MODULES.remove(module)?;
        for handle in lock(&loaded.functions).values() {
            function::remove(*handle)?;
        }
        let _busy = lock(&loaded.context.busy);
        for address in &loaded.globals {
            loaded.context.heap.free(*address);
        }
        loaded.context.check()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut Handle,
    module: Handle,
    text: *const c_char,
) -> Status {
    call(|_| {
        let loaded = MODULES.get(module)?;
        loaded.context.check()?;
        // SAFETY: null or a text, as the driver API requires.
        let name = unsafe { name(text)? };
        if loaded.module.kernel(name).is_none() {
            return Err(Error::NOT_FOUND);
        }
        let mut functions = lock(&loaded.functions);
        let handle = *functions
            .entry(name.into())
            .or_insert_with(|| function::insert(loaded.clone(), name));
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(function, handle) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut Address,
    bytes: *mut usize,
    module: Handle,
    text: *const c_char,
) -> Status {
    call(|_| {
        let loaded = MODULES.get(module)?;
        loaded.context.check()?;
        // SAFETY: null or a text, as the driver API requires.
        let name = unsafe { name(text)? };
        let mut variables = loaded.module.globals().iter().zip(&loaded.globals);
        let found = variables.find(|(variable, _)| variable.name == name);
        let (variable, base) = found.ok_or(Error::NOT_FOUND)?;
        // SAFETY: null, which leaves the result out, or writable, as the driver API requires.
        unsafe {
            if !address.is_null() {
                put(address, *base)?;
            }
            if !bytes.is_null() {
                put(bytes, variable.size as usize)?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_found_behind_comments() {
        let text = "//\n// .version 1.0 in a comment\n.version 9.0\n.target sm_90a, debug\n";
        assert_eq!(directive(text, ".version"), Some(90));
        assert_eq!(directive(text, ".target"), Some(90));
        assert_eq!(directive("garbage", ".version"), None);
        assert_eq!(directive(".version", ".version"), None);
    }

    #[test]
    fn drivers_read_ptx_of_their_release() {
        for (driver, ptx) in [
            (11080, 78),
            (12000, 80),
            (12040, 84),
            (12060, 85),
            (12080, 87),
            (12090, 88),
            (13000, 90),
            (13010, 91),
        ] {
            assert_eq!(newest_ptx(driver), ptx, "{driver}");
        }
    }
}
