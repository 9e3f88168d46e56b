//! Memory through the driver API: allocation, copies, fills, pinned memory, pools, and the calls that are refused.

mod driver_support;

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUresult as Code};
use driver_support::{alone, context};

/// An allocation by `cuMemAlloc`.
fn allocate(bytes: usize) -> u64 {
    let mut address = 0;
    // SAFETY: `address` is writable.
    assert_eq!(
        unsafe { sys::cuMemAlloc_v2(&mut address, bytes) },
        Code::CUDA_SUCCESS
    );
    address
}

#[test]
fn copies_and_fills_move_bytes() {
    let _context = context();
    let (a, b) = (allocate(64), allocate(64));
    assert_eq!(a % 256, 0, "alignment that the driver promises");
    let from: Vec<u8> = (0..64).collect();
    let mut to = vec![0u8; 64];
    // SAFETY: all ranges are inside the allocations and the vectors.
    unsafe {
        assert_eq!(
            sys::cuMemcpyHtoD_v2(a, from.as_ptr().cast(), 64),
            Code::CUDA_SUCCESS
        );
        assert_eq!(sys::cuMemsetD8_v2(b, 0xAB, 64), Code::CUDA_SUCCESS);
        assert_eq!(
            sys::cuMemsetD32_v2(b + 8, 0x0102_0304, 2),
            Code::CUDA_SUCCESS
        );
        assert_eq!(sys::cuMemsetD16_v2(b + 16, 0x0506, 2), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemcpyDtoD_v2(b + 32, a + 5, 16), Code::CUDA_SUCCESS);
        assert_eq!(
            sys::cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), b, 64),
            Code::CUDA_SUCCESS
        );
    }
    let mut expected = vec![0xAB_u8; 64];
    expected[8..16].copy_from_slice(&[4, 3, 2, 1, 4, 3, 2, 1]);
    expected[16..20].copy_from_slice(&[6, 5, 6, 5]);
    expected[32..48].copy_from_slice(&from[5..21]);
    assert_eq!(to, expected);

    // The addresses of a plain copy decide its kind.
    let mut back = vec![0u8; 16];
    let host = back.as_mut_ptr() as u64;
    // SAFETY: as above.
    unsafe {
        assert_eq!(sys::cuMemcpy(a, b + 8, 8), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemcpy(host, a, 16), Code::CUDA_SUCCESS);
        assert_eq!(
            sys::cuMemcpyAsync(b, host, 16, null_mut()),
            Code::CUDA_SUCCESS
        );
        assert_eq!(
            sys::cuMemcpyDtoH_v2(to.as_mut_ptr().cast(), b, 16),
            Code::CUDA_SUCCESS
        );
    }
    assert_eq!(back, [&expected[8..16], &from[8..16]].concat());
    assert_eq!(to[..16], back);
    // SAFETY: allocated above.
    unsafe {
        assert_eq!(sys::cuMemFree_v2(a), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFree_v2(b), Code::CUDA_SUCCESS);
    }
}

#[test]
fn wrong_addresses_are_errors() {
    let _context = context();
    let address = allocate(100);
    let mut host = [0u8; 128];
    let to = host.as_mut_ptr().cast::<c_void>();
    let wrong = Code::CUDA_ERROR_INVALID_VALUE;
    // SAFETY: host ranges are inside `host` or null; the driver checks device ranges.
    unsafe {
        assert_eq!(
            sys::cuMemcpyDtoH_v2(to, address, 101),
            wrong,
            "beyond the end"
        );
        assert_eq!(
            sys::cuMemcpyDtoH_v2(to, address - 1, 1),
            wrong,
            "before the start"
        );
        assert_eq!(
            sys::cuMemcpyHtoD_v2(address, null_mut(), 1),
            wrong,
            "null host"
        );
        assert_eq!(sys::cuMemcpyHtoD_v2(0, to, 1), wrong, "null device");
        assert_eq!(
            sys::cuMemcpyDtoD_v2(address, to as u64, 1),
            wrong,
            "a host address"
        );
        assert_eq!(sys::cuMemsetD8_v2(address + 99, 0, 2), wrong);
        assert_eq!(sys::cuMemsetD32_v2(address + 1, 0, 1), wrong, "misaligned");
        assert_eq!(
            sys::cuMemsetD32_v2(address, 0, usize::MAX / 2),
            wrong,
            "overflow"
        );
        assert_eq!(
            sys::cuMemcpy(to as u64, to as u64, 1),
            wrong,
            "host to host"
        );
        assert_eq!(
            sys::cuMemcpyDtoH_v2(to, address, 100),
            Code::CUDA_SUCCESS,
            "still works"
        );
        assert_eq!(
            sys::cuMemcpyHtoD_v2(address, null_mut(), 0),
            Code::CUDA_SUCCESS,
            "nothing"
        );
    }
}

#[test]
fn frees_are_checked() {
    let _context = context();
    let address = allocate(16);
    let mut other = 0;
    let wrong = Code::CUDA_ERROR_INVALID_VALUE;
    // SAFETY: the driver checks addresses.
    unsafe {
        assert_eq!(
            sys::cuMemFree_v2(address + 8),
            wrong,
            "inside an allocation"
        );
        assert_eq!(sys::cuMemFree_v2(address), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFree_v2(address), wrong, "twice");
        assert_eq!(sys::cuMemFree_v2(0), Code::CUDA_SUCCESS, "null");
        assert_eq!(sys::cuMemAlloc_v2(&mut other, 0), wrong, "no bytes");
        assert_eq!(
            sys::cuMemAlloc_v2(null_mut(), 16),
            wrong,
            "nowhere to put it"
        );
    }
}

#[test]
fn pinned_memory_is_host_memory() {
    let _context = context();
    let mut host = null_mut();
    let wrong = Code::CUDA_ERROR_INVALID_VALUE;
    // SAFETY: `host` is writable, and then points to 1024 bytes until they are freed.
    unsafe {
        assert_eq!(sys::cuMemHostAlloc(&mut host, 1024, 0), Code::CUDA_SUCCESS);
        host.cast::<u8>().write_bytes(7, 1024);
        let address = allocate(1024);
        assert_eq!(
            sys::cuMemcpyHtoD_v2(address, host, 1024),
            Code::CUDA_SUCCESS
        );
        assert_eq!(sys::cuMemFreeHost(host), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFreeHost(host), wrong, "twice");
        assert_eq!(sys::cuMemFreeHost(null_mut()), wrong);
        assert_eq!(sys::cuMemHostAlloc(&mut host, 0, 0), wrong);
        assert_eq!(
            sys::cuMemHostAlloc(&mut host, 1, 1 << 20),
            wrong,
            "unknown flag"
        );
    }
}

#[test]
fn memory_ends_where_it_is_told() {
    if !alone(
        "memory_ends_where_it_is_told",
        &[("CUDA_EMULATOR_MEMORY", "1M")],
    ) {
        return;
    }
    let context = context();
    assert_eq!(context.total_mem().unwrap(), 1 << 20);
    let stream = context.default_stream();
    let half = stream.alloc_zeros::<u8>(512 << 10).unwrap();
    let (free, total) = context.mem_get_info().unwrap();
    assert_eq!(total, 1 << 20);
    assert_eq!(free, 512 << 10);
    let error = stream.alloc_zeros::<u8>(600 << 10).unwrap_err();
    assert_eq!(error.0, Code::CUDA_ERROR_OUT_OF_MEMORY);
    drop(half);
    stream.alloc_zeros::<u8>(600 << 10).unwrap();
}

#[test]
fn pools_keep_their_settings() {
    let context = context();
    let mut pool = null_mut();
    let mut threshold = u64::MAX;
    let wrong = Code::CUDA_ERROR_INVALID_VALUE;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let value = (&raw mut threshold).cast::<c_void>();
    // SAFETY: all results are writable, and the threshold is a 64-bit number.
    unsafe {
        let device = context.cu_device();
        assert_eq!(
            sys::cuDeviceGetDefaultMemPool(&mut pool, device),
            Code::CUDA_SUCCESS
        );
        assert_eq!(
            sys::cuMemPoolSetAttribute(pool, attribute, value),
            Code::CUDA_SUCCESS
        );
        threshold = 0;
        assert_eq!(
            sys::cuMemPoolGetAttribute(pool, attribute, value),
            Code::CUDA_SUCCESS
        );
        assert_eq!(threshold, u64::MAX);
        let mut address = 0;
        let stream = null_mut();
        let from_pool = sys::cuMemAllocFromPoolAsync(&mut address, 64, pool, stream);
        assert_eq!(from_pool, Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFreeAsync(address, stream), Code::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFreeAsync(address, stream), wrong, "twice");
        assert_eq!(sys::cuMemPoolDestroy(pool), wrong, "the default pool stays");
        assert_eq!(sys::cuMemPoolTrimTo(null_mut(), 0), wrong);
    }
}
