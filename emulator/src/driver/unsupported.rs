//! Functions that cudarc can call but that the emulator does not support. Each of them logs that and fails.

use std::ffi::{c_int, c_uint, c_void};

use super::handle::Handle;
use super::result::Error;
use super::{Address, Status, call, log};

fn refuse(name: &str) -> Status {
    call(|_| {
        log::line(format_args!("{name} is not supported"));
        Err(Error::NOT_SUPPORTED)
    })
}

macro_rules! unsupported {
    ($($name:ident($($type:ty),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($(_: $type),*) -> Status {
            refuse(stringify!($name))
        }
    )* };
}

/// CUmemLocation.
#[repr(C)]
pub struct Location {
    kind: c_int,
    id: c_int,
}

// Other contexts than the primary one; managed memory; memory of other interfaces; clusters.
unsupported! {
    cuCtxCreate_v4(*mut Handle, *mut c_void, c_uint, c_int);
    cuCtxDestroy_v2(Handle);
    cuMemAllocManaged(*mut Address, usize, c_uint);
    cuMemAdvise_v2(Address, usize, c_uint, Location);
    cuMemPrefetchAsync_v2(Address, usize, Location, c_uint, Handle);
    cuStreamAttachMemAsync(Handle, Address, usize, c_uint);
    cuImportExternalMemory(*mut Handle, *const c_void);
    cuExternalMemoryGetMappedBuffer(*mut Address, Handle, *const c_void);
    cuDestroyExternalMemory(Handle);
    cuOccupancyMaxActiveClusters(*mut c_int, Handle, *const c_void);
    cuOccupancyMaxPotentialClusterSize(*mut c_int, Handle, *const c_void);
}
