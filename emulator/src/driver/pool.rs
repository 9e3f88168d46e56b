//! Memory pools. Their attributes are stored. All pools allocate from the memory of the device, and return freed
//! memory to it at once.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Mutex;

use super::handle::{Handle, Table, lock};
use super::options::Environment;
use super::result::Error;
use super::{Address, Answer, Status, call, context, device, memory, put};

struct Pool {
    /// Reuse over events, opportunistic reuse, reuse by dependencies, and the bytes kept at a synchronisation.
    settings: Mutex<BTreeMap<c_uint, u64>>,
}

static POOLS: Table<Pool> = Table::new();
/// For each device, its default pool and the pool that is set.
static DEVICES: Mutex<BTreeMap<c_int, (Handle, Handle)>> = Mutex::new(BTreeMap::new());

const RELEASE_THRESHOLD: c_uint = 4;

fn create() -> Handle {
    let settings = BTreeMap::from([(1, 1), (2, 1), (3, 1), (RELEASE_THRESHOLD, 0)]);
    POOLS.insert(Pool {
        settings: Mutex::new(settings),
    })
}

/// The default pool of a device and the pool that is set.
fn of_device(environment: &Environment, device: c_int) -> Answer<(Handle, Handle)> {
    device::check(environment, device)?;
    let mut devices = lock(&DEVICES);
    Ok(*devices.entry(device).or_insert_with(|| {
        let default = create();
        (default, default)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut Handle, device: c_int) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    call(|environment| unsafe { put(pool, of_device(environment, device)?.0) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetMemPool(pool: *mut Handle, device: c_int) -> Status {
    // SAFETY: null or writable, as the driver API requires.
    call(|environment| unsafe { put(pool, of_device(environment, device)?.1) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceSetMemPool(device: c_int, pool: Handle) -> Status {
    call(|environment| {
        POOLS.get(pool).map_err(|_| Error::INVALID_VALUE)?;
        let (default, _) = of_device(environment, device)?;
        lock(&DEVICES).insert(device, (default, pool));
        Ok(())
    })
}

/// The head of CUmemPoolProps.
#[repr(C)]
pub struct PoolProperties {
    allocation: c_int,
    handles: c_int,
    location: c_int,
    id: c_int,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolCreate(
    pool: *mut Handle,
    properties: *const PoolProperties,
) -> Status {
    call(|environment| {
        if pool.is_null() || properties.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: not null; the caller gives a whole CUmemPoolProps.
        let asked = unsafe { properties.read() };
        device::check(environment, asked.id)?;
        // Pinned memory of a device, not shared with other processes.
        if (asked.allocation, asked.location) != (1, 1) {
            return Err(Error::INVALID_VALUE);
        }
        if asked.handles != 0 {
            return Err(Error::NOT_SUPPORTED);
        }
        // SAFETY: not null, and writable, as the driver API requires.
        unsafe { put(pool, create()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolDestroy(pool: Handle) -> Status {
    call(|_| {
        let mut devices = lock(&DEVICES);
        if devices.values().any(|(default, _)| *default == pool) {
            return Err(Error::INVALID_VALUE);
        }
        POOLS.remove(pool).map_err(|_| Error::INVALID_VALUE)?;
        for (default, set) in devices.values_mut() {
            if *set == pool {
                *set = *default;
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolTrimTo(pool: Handle, _bytes: usize) -> Status {
    call(|_| {
        let found = POOLS.get(pool).map_err(|_| Error::INVALID_VALUE);
        found.map(|_| ())
    })
}

/// Whether the attribute is a C int; the others are 64-bit numbers.
fn is_int(attribute: c_uint) -> bool {
    attribute < RELEASE_THRESHOLD
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolGetAttribute(
    pool: Handle,
    attribute: c_uint,
    value: *mut c_void,
) -> Status {
    call(|_| {
        let pool = POOLS.get(pool).map_err(|_| Error::INVALID_VALUE)?;
        let setting = lock(&pool.settings).get(&attribute).copied();
        let found = match (setting, attribute) {
            (Some(setting), _) => setting,
            // The memory that is reserved and that is used, now and at most.
            (None, 5..=8) => context::current()?.heap.used(),
            _ => return Err(Error::INVALID_VALUE),
        };
        // SAFETY: null or writable, as the driver API requires; the attribute tells the type.
        unsafe {
            if is_int(attribute) {
                put(value.cast(), found as c_int)
            } else {
                put(value.cast(), found)
            }
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(
    pool: Handle,
    attribute: c_uint,
    value: *mut c_void,
) -> Status {
    call(|_| {
        let pool = POOLS.get(pool).map_err(|_| Error::INVALID_VALUE)?;
        if value.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: not null; the attribute tells the type.
        let given = unsafe {
            if is_int(attribute) {
                u64::from(value.cast::<c_uint>().read_unaligned() != 0)
            } else {
                value.cast::<u64>().read_unaligned()
            }
        };
        let mut settings = lock(&pool.settings);
        match attribute {
            1..=RELEASE_THRESHOLD => settings.insert(attribute, given),
            // The maxima can only be reset.
            6 | 8 if given == 0 => None,
            _ => return Err(Error::INVALID_VALUE),
        };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: *mut Address,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Status {
    call(|_| {
        POOLS.get(pool).map_err(|_| Error::INVALID_VALUE)?;
        memory::allocate_async(address, bytes, stream)
    })
}
