//! Devices: their number, names and attributes. The attributes are those of an A100 unless the environment changes
//! them.

use std::ffi::{c_char, c_int, c_uint};

use super::options::{self, Environment};
use super::result::Error;
use super::{Answer, Status, call, counters, entry, put};

/// CUuuid.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Uuid([u8; 16]);

pub const NAME: &str = "Emulated NVIDIA A100";
pub const REGISTERS: i32 = 65536;
pub const WARP: i32 = 32;
pub const MAX_THREADS: u32 = 1024;
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
pub const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// Shared memory that a block may have without a request for more, in bytes.
pub const SHARED: u32 = 48 << 10;
/// Shared memory per block that the system reserves, in bytes.
pub const RESERVED_SHARED: u32 = 1 << 10;

/// The largest numbers of threads and blocks that are resident on a multiprocessor (CUDA C++ Programming Guide,
/// technical specifications per compute capability).
pub fn residency(capability: (i32, i32)) -> (i32, i32) {
    match capability {
        (7, 5) => (1024, 16),
        (8, 6 | 7) => (1536, 16),
        (8, 9) => (1536, 24),
        (12, _) => (1536, 24),
        _ => (2048, 32),
    }
}

/// The value of an attribute; `None` if the driver does not know the attribute.
fn attribute(environment: &Environment, number: c_int) -> Option<i32> {
    let options = &environment.options;
    let (threads, blocks) = residency(environment.capability);
    let optin = options.max_dynamic_shared;
    Some(match number {
        1 => MAX_THREADS as i32,
        2..=4 => MAX_BLOCK[number as usize - 2] as i32,
        5..=7 => MAX_GRID[number as usize - 5] as i32,
        8 => SHARED as i32,
        9 => 65536,           // constant memory
        10 => WARP,           // warp size
        11 => i32::MAX,       // pitch
        12 | 82 => REGISTERS, // of a block, of a multiprocessor
        13 => 1_410_000,      // clock, kHz
        14 | 30 => 512,       // alignment of textures and surfaces
        15 => 1,              // copies overlap kernels
        16 => options.sm_count as i32,
        31 => 1,         // concurrent kernels
        32 => 1,         // ECC
        34 => 4,         // PCI device
        36 => 1_215_000, // memory clock, kHz
        37 => 5120,      // bus width, bits
        38 => 40 << 20,  // L2
        39 => threads,   // of a multiprocessor
        40 => 3,         // copy engines
        41 => 1,         // one address space
        51 => 32,        // texture pitch alignment
        75 => environment.capability.0,
        76 => environment.capability.1,
        78..=80 => 1, // stream priorities, L1 for global and local memory
        81 => (optin + RESERVED_SHARED) as i32,
        87 => 2, // single to double precision rate
        90 => 1, // preemption
        95 => 1, // cooperative launch
        97 => optin as i32,
        106 => blocks, // of a multiprocessor
        111 => RESERVED_SHARED as i32,
        115 => 1, // memory pools
        126 => 1, // memory sync domains
        // Not supported: sizes of textures, mapped and managed memory, peers, handles for other processes, clusters,
        // tensor maps and others.
        17..=150 => 0,
        _ => return None,
    })
}

/// An error if there is no such device.
pub fn check(environment: &Environment, device: c_int) -> Answer {
    if (0..environment.devices).contains(&device) {
        Ok(())
    } else {
        Err(Error::INVALID_DEVICE)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: c_uint) -> Status {
    entry(|| {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        counters::at_exit(options::initialise()?);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    entry(|| unsafe { put(version, options::driver_version()?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    call(|environment| unsafe { put(count, environment.devices) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Status {
    call(|environment| {
        check(environment, ordinal)?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(device, ordinal) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    number: c_int,
    device: c_int,
) -> Status {
    call(|environment| {
        check(environment, device)?;
        let found = attribute(environment, number).ok_or(Error::INVALID_VALUE)?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(value, found) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, device: c_int) -> Status {
    call(|environment| {
        check(environment, device)?;
        if name.is_null() || bytes <= 0 {
            return Err(Error::INVALID_VALUE);
        }
        let kept = &NAME.as_bytes()[..NAME.len().min(bytes as usize - 1)];
        // SAFETY: the caller gives room for `bytes` bytes; the text and its NUL take no more.
        unsafe {
            std::ptr::copy_nonoverlapping(kept.as_ptr(), name.cast(), kept.len());
            name.add(kept.len()).write(0);
        }
        Ok(())
    })
}

fn put_uuid(uuid: *mut Uuid, device: c_int) -> Status {
    call(|environment| {
        check(environment, device)?;
        let mut bytes = *b"cuda-emulator\0\0\0";
        bytes[15] = device as u8;
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(uuid, Uuid(bytes)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut Uuid, device: c_int) -> Status {
    put_uuid(uuid, device)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut Uuid, device: c_int) -> Status {
    put_uuid(uuid, device)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> Status {
    call(|environment| {
        check(environment, device)?;
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(bytes, environment.memory as usize) }
    })
}
