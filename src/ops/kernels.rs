//! The kernels of `kernels/*.cu`, a module for every file, a typed constant for every kernel; written by build.rs.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
