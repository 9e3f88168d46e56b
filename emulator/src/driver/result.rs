//! CUresult: the error codes of the driver, with their names and texts.

use std::ffi::{CStr, c_char};

use super::{Answer, Status, entry, put};

/// A driver error code other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub u32);

macro_rules! results {
    ($($name:ident = $code:literal $text:literal,)*) => {
        impl Error {
            $(pub const $name: Error = Error($code);)*
        }

        /// The name and the description of a code; `None` for a number that is not a code.
        fn describe(status: Status) -> Option<(&'static CStr, &'static CStr)> {
            const fn c_str(text: &'static str) -> &'static CStr {
                match CStr::from_bytes_with_nul(text.as_bytes()) {
                    Ok(text) => text,
                    Err(_) => panic!("text without its final NUL"),
                }
            }
            match status {
                0 => Some((c"CUDA_SUCCESS", c"no error")),
                $($code => Some(const {
                    (
                        c_str(concat!("CUDA_ERROR_", stringify!($name), "\0")),
                        c_str(concat!($text, "\0")),
                    )
                }),)*
                _ => None,
            }
        }
    };
}

results! {
    INVALID_VALUE = 1 "invalid argument",
    OUT_OF_MEMORY = 2 "out of memory",
    NOT_INITIALIZED = 3 "initialization error",
    INVALID_DEVICE = 101 "invalid device ordinal",
    INVALID_IMAGE = 200 "device kernel image is invalid",
    INVALID_CONTEXT = 201 "invalid device context",
    NO_BINARY_FOR_GPU = 209 "no kernel image is available for execution on the device",
    UNSUPPORTED_LIMIT = 215 "limit is not supported on this architecture",
    INVALID_PTX = 218 "a PTX JIT compilation failed",
    UNSUPPORTED_PTX_VERSION = 222 "the provided PTX was compiled with an unsupported toolchain.",
    FILE_NOT_FOUND = 301 "file not found",
    INVALID_HANDLE = 400 "invalid resource handle",
    ILLEGAL_STATE = 401 "the operation cannot be performed in the present state",
    NOT_FOUND = 500 "named symbol not found",
    ILLEGAL_ADDRESS = 700 "an illegal memory access was encountered",
    LAUNCH_OUT_OF_RESOURCES = 701 "too many resources requested for launch",
    LAUNCH_TIMEOUT = 702 "the launch timed out and was terminated",
    CONTEXT_IS_DESTROYED = 709 "context is destroyed",
    ILLEGAL_INSTRUCTION = 715 "an illegal instruction was encountered",
    MISALIGNED_ADDRESS = 716 "misaligned address",
    LAUNCH_FAILED = 719 "unspecified launch failure",
    COOPERATIVE_LAUNCH_TOO_LARGE = 720 "too many blocks in cooperative launch",
    NOT_SUPPORTED = 801 "operation not supported",
    STREAM_CAPTURE_UNSUPPORTED = 900 "operation not permitted when stream is capturing",
    STREAM_CAPTURE_INVALIDATED = 901 "operation failed due to a previous error during capture",
    STREAM_CAPTURE_MERGE = 902 "operation would result in a merge of separate capture sequences",
    STREAM_CAPTURE_UNMATCHED = 903 "capture was not initiated in this stream",
    STREAM_CAPTURE_UNJOINED = 904 "capturing stream has unjoined work",
    STREAM_CAPTURE_ISOLATION = 905 "dependency created on uncaptured work in another stream",
    STREAM_CAPTURE_IMPLICIT = 906 "operation would make the legacy stream depend on a capturing blocking stream",
    CAPTURED_EVENT = 907 "operation not permitted on an event last recorded in a capturing stream",
    STREAM_CAPTURE_WRONG_THREAD = 908 "attempt to terminate a thread-local capture sequence from another thread",
    UNKNOWN = 999 "unknown error",
}

type Pick = fn((&'static CStr, &'static CStr)) -> &'static CStr;

/// Writes one of the texts of a code to `text`, or null if the number is not a code.
fn put_text(status: Status, pick: Pick, text: *mut *const c_char) -> Answer {
    let found = describe(status).map(pick);
    // SAFETY: the caller of the entry point gives a null or writable `text`.
    unsafe { put(text, found.map_or(std::ptr::null(), CStr::as_ptr))? };
    found.map(|_| ()).ok_or(Error::INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: Status, name: *mut *const c_char) -> Status {
    entry(|| put_text(error, |(name, _)| name, name))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: Status, text: *mut *const c_char) -> Status {
    entry(|| put_text(error, |(_, text)| text, text))
}
